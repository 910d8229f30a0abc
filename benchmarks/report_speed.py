"""Measure a report of many records: seconds and the largest memory of the process.

.venv/bin/python benchmarks/report_speed.py --out FOLDER [--records 10000]

Makes synthetic records in FOLDER (once) and reports them in a process of its own. Each record has
three structures with 110 slices per lung, as CTs with slices of 3 mm have, and every prompt of
its simulated user: 10,000 of them are some 300 MB of files. There are no masks and no previews,
for reading those depends on the images and not on the number of records.
"""

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from napari_lungfm._core.environment import available_cores
from napari_lungfm.benchmark.records import (
    Cost,
    InteractionResult,
    Record,
    SliceScore,
    StructureResult,
    UnitKey,
)
from napari_lungfm.benchmark.store import RunFolder
from napari_lungfm.evaluation.prompt_protocols import NO_PROMPTS, parse_protocol

#: Cohort → number of test cases, as in the paper.
COHORTS = {"lung1": 58, "task06": 12}
PROTOCOLS = (
    "box-every-slice", "point-every-slice", "box-one", "point-one", "box-every-3", "box-every-5",
    "box-every-10", "box-one+corrections-5", "box-one+jitter-2", "box-one+jitter-5",
    "box-one+jitter-10",
)  # fmt: skip
PROMPTABLE = (
    "prompt-ellipse", "prompt-box", "classical", "lungfm-s", "medsam", "medsam2-ma",
    "medsam2-zhu", "sam-vit-b", "sam2.1-tiny", "sam2.1-small", "sam2.1-large", "medicosam",
)  # fmt: skip
AUTOMATIC = ("unet", "deeplabv3", "nnunet-2d", "nnunet-3d-lowres", "nnunet-3d-fullres", "lungmask")
SLICES = {"left lung": 110, "right lung": 110, "tumour": 14}
MARK = "0123456789abcdef0123456789abcdef"


def units(most: int) -> Iterator[UnitKey]:
    """Yield units as a plan has them, at most so many."""
    methods = [(m, NO_PROMPTS) for m in AUTOMATIC]
    methods += [(m, p) for m in PROMPTABLE for p in PROTOCOLS]
    # Seeds are added until there are enough units.
    count = 0
    for seed in range(1_000):
        for cohort, n in COHORTS.items():
            for case in range(n):
                for model, protocol in methods:
                    if count == most:
                        return
                    count += 1
                    yield UnitKey(
                        cohort=cohort,
                        case=f"{cohort}-{case:03d}",
                        model=model,
                        protocol=protocol,
                        seed=seed,
                    )


def make_record(key: UnitKey, rng: np.random.Generator) -> Record:
    """Return a finished unit with scores drawn by chance."""
    skill = 0.6 + 0.02 * (sum(map(ord, key.model)) % 15)
    structures = tuple(_structure(name, n, key, skill, rng) for name, n in SLICES.items())
    return Record(
        key=key,
        fingerprint=MARK,
        status="ok",
        structures=structures,
        case_hash="h",
        case_shape=(134, 512, 512),
        case_spacing_mm=(3.0, 0.98, 0.98),
        case_attributes={"pleural_contact": int(key.case[-1]) % 2 == 0, "tumour_kind": "solid"},
        mask_file=None,
        cost=Cost(
            seconds=float(rng.gamma(3.0)),
            peak_rss_mb=900.0,
            n_prompts=sum(len(s.prompts) for s in structures),
            parameters=10_000_000,
        ),
        versions=dict.fromkeys(("python", "numpy", "scipy", "torch", "monai"), "1.2.3"),
        hardware={"cpu": "a processor", "cores": "2"},
        finished="2026-01-01T00:00:00+00:00",
    )


def _structure(
    name: str, n: int, key: UnitKey, skill: float, rng: np.random.Generator
) -> StructureResult:
    dice = float(np.clip(rng.normal(skill, 0.08), 0.0, 1.0))
    prompts: tuple[dict[str, object], ...] = ()
    looks = ()
    if key.protocol != NO_PROMPTS:
        every = "every-slice" in key.protocol
        prompts = tuple(
            {"kind": "box", "z": z, "box": [100 + z, 120, 180, 200 + z]}
            for z in (range(n) if every else [n // 2])
        )
        looks = tuple(
            InteractionResult(n_prompts=1 + i, dice=min(1.0, dice + 0.02 * i), seconds=0.4)
            for i in range(1 + parse_protocol(key.protocol).corrections)
        )
    iou = dice / (2 - dice)
    scores = np.clip(rng.normal(dice, 0.05, n), 0.0, 1.0)
    volume = float(rng.lognormal(2.5, 1.2)) if name == "tumour" else 2500.0
    return StructureResult(
        structure=name,
        dice=dice,
        iou=iou,
        hd95_mm=float(rng.gamma(4.0)),
        nsd_1mm=dice,
        nsd_2mm=min(1.0, dice * 1.05),
        volume_ml=volume * 1.1,
        reference_volume_ml=volume,
        volume_difference_ml=volume * 0.1,
        slice_dice_mean=float(scores.mean()),
        slice_iou_mean=float((scores / (2 - scores)).mean()),
        n_reference_slices=n,
        slices_beyond_low=0,
        slices_beyond_high=1,
        volume_beyond_ml=0.2,
        slices=tuple(
            SliceScore(z=10 + z, dice=float(d), iou=float(d / (2 - d)))
            for z, d in enumerate(scores)
        ),
        prompts=prompts,
        interactions=looks,
    )


def make_run(root: Path, most: int) -> RunFolder:
    """Write the records of a run, if they are not there."""
    run = RunFolder.create(root)
    keys = list(units(most))
    if run.plan_file.is_file() and len(run.read_plan()) == most:
        return run
    rng = np.random.default_rng(0)
    cohorts = "".join(f"- kind: files\n  name: {name}\n" for name in COHORTS)
    for key in keys:
        text = make_record(key, rng).model_dump_json(indent=1)
        run.record_file(key, MARK).write_text(text, encoding="utf-8")
    run.write_plan(f"name: synthetic\ncohorts:\n{cohorts}", [(key, MARK) for key in keys])
    return run


def measure(root: Path) -> dict[str, float]:
    """Report a run in this process; return seconds and peak memory."""
    from napari_lungfm.benchmark.report import write_report  # counted: a user waits for it too  # noqa: PLC0415

    started = time.perf_counter()
    steps = []

    def tell(line: str) -> None:
        steps.append((line, time.perf_counter() - started))

    files = write_report(RunFolder.open(root), processes=available_cores(), progress=tell)
    seconds = time.perf_counter() - started
    for child in multiprocessing.active_children():
        child.join()  # counted once it has ended
    for line, at in steps:
        print(f"{at:7.2f} s  {line}", file=sys.stderr)
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(time.process_time(), 2),  # of this process alone
        "peak_rss_mb": round(_peak(resource.RUSAGE_SELF), 1),
        "second_process_mb": round(_peak(resource.RUSAGE_CHILDREN), 1),
        "page_mb": round(files.html.stat().st_size / 2**20, 2),
    }


def _peak(whose: int) -> float:
    return resource.getrusage(whose).ru_maxrss / 1024


def main() -> None:
    """Make the records and measure in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--measure", action="store_true", help="measure in this process")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.out)))
        return
    make_run(arguments.out, arguments.records)
    command = [sys.executable, __file__, "--out", str(arguments.out), "--measure"]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result = json.loads(done.stdout) | {
        "records": arguments.records,
        "seconds_with_start": round(time.perf_counter() - started, 2),
        "load_average": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
