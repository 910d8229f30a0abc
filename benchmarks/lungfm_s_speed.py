"""How fast LungFM-S is on this machine, through an annotation session.

A ball of 40 slices in a chest-like volume of 512 × 512 × 64 voxels: the first mask after a box,
the propagation through all slices, and a propagation anew after a correcting click. The prompt-only
ellipsoid does the same work in the same run, to show what the session itself takes.

.venv/bin/python benchmarks/lungfm_s_speed.py --json benchmarks/results/lungfm_s/speed.json
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from napari_lungfm._core.environment import hardware, package_versions
from napari_lungfm._core.files import write_json
from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.inference import AnnotationSession
from napari_lungfm.models.prompts import Box, Click
from napari_lungfm.models.registry import create_model

SHAPE, SPACING, CENTRE, RADIUS_MM = (64, 512, 512), (2.0, 0.8, 0.8), (32, 250, 300), 40.0


def scene() -> tuple[Volume, np.ndarray]:
    grids = np.ogrid[tuple(slice(n) for n in SHAPE)]
    square = sum(((g - c) * s) ** 2 for g, c, s in zip(grids, CENTRE, SPACING, strict=True))
    ball = square < RADIUS_MM**2
    noise = np.random.default_rng(0).normal(0, 20, SHAPE)
    hu = (np.where(ball, 40.0, -820.0) + noise).astype(np.int16)
    return Volume(hu, VolumeGeometry(SHAPE, SPACING)), ball


def once(name: str, volume: Volume, ball: np.ndarray) -> dict[str, float]:
    z, y, x = CENTRE
    session = AnnotationSession(volume, create_model(name))
    label = session.add_object().label
    times = {}
    for step, prompt in (("box", Box.around(ball[z], z)), ("click", Click(z + 5, y, x + 45))):
        started = time.perf_counter()
        session.add_prompts(label, [prompt])
        prompted = time.perf_counter()
        found = sum(1 for _ in session.propagate(label))
        times[f"first mask after the {step}"] = prompted - started
        times[f"propagation after the {step}"] = time.perf_counter() - prompted
        times[f"slices after the {step}"] = found
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    volume, ball = scene()
    medians = {}
    for name in ("lungfm-s", "prompt-ellipse"):
        once(name, volume, ball)  # warm
        runs = [once(name, volume, ball) for _ in range(given.repeats)]
        medians[name] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    facts = {
        "seconds, median": medians,
        "repeats": given.repeats,
        "threads": torch.get_num_threads(),
        "hardware": hardware(),
        "versions": package_versions(),
    }
    print(medians)
    if given.json:
        write_json(given.json, facts)


if __name__ == "__main__":
    main()
