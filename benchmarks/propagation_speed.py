"""How fast a session with SAM 2 is, against the publishers' ``SAM2VideoPredictor``.

Ours is an `AnnotationSession` as a user has it, with its default cache of features; both run the
same random weights on the same slices in the same process, so that ratios mean something on any
machine. Ours is measured with both ways of computing attention, ``stock`` and ``fast``.

- **correction**: after a first propagation, a click on a tracked slice and propagation over all
  slices again; ours takes every image feature from the cache;
- **second prompt**: another prompt on a slice that was prompted before, with another slice looked
  at in between, against the first prompt on it;
- **memory**: one box, propagation, and some corrections, each with a propagation over the whole
  volume; the peak of resident memory less what was resident before the volume was made (network
  and libraries loaded). Each in a process of its own, ours at two sizes of the cache.

Times are medians over the repeats; all of them are in the JSON.

    python benchmarks/propagation_speed.py                 # many minutes on two cores
    python benchmarks/propagation_speed.py --slices 40 --repeats 5 --memory-slices 300 --json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from napari_lungfm._core.imports import require
from napari_lungfm._core.measure import Meter
from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.inference import AnnotationSession, CacheBudget
from napari_lungfm.models.foundation.runtime import pick_device
from napari_lungfm.models.foundation.sam2_build import build_sam2, published_config
from napari_lungfm.models.foundation.sam2_engine import prepare_images
from napari_lungfm.models.foundation.sam2_video import Sam2Model
from napari_lungfm.models.foundation.slices import SliceSource
from napari_lungfm.models.foundation.zoom import Crop
from napari_lungfm.models.prompts import Box, Click, Prompt
from napari_lungfm.preprocessing.windowing import Window

WINDOW = Window(-600, 1500)
STOCK = "sam2.sam2_video_predictor.SAM2VideoPredictor"
BOX = (200, 200, 260, 270)  # y0 x0 y1 x1
ATTENTIONS: tuple[Literal["stock", "fast"], ...] = ("stock", "fast")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--config", default="sam2.1_hiera_t", help="configuration of sam2")
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--slices", type=int, default=40, help="slices to propagate over")
    parser.add_argument("--repeats", type=int, default=3, help="how often all is timed")
    parser.add_argument("--memory-slices", type=int, default=60, help="0 skips peak memory")
    parser.add_argument("--corrections", type=int, default=3, help="of the measurement of memory")
    parser.add_argument(
        "--cache-mb", type=int, nargs=2, default=(64, 1024), help="caches in memory, in MiB"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)  # "official", or a cache in MiB
    return parser.parse_args()


def make_network(options: argparse.Namespace, target: str | None = None) -> Any:
    """Build a network on seeded weights that always sees an object, so that none ends early."""
    config = published_config(options.config, image_size=options.image_size)
    if target is not None:
        config |= {"_target_": target, "add_all_frames_to_correct_as_cond": True}
    torch.manual_seed(0)
    network: Any = build_sam2(config)
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(10.0)
        # The mask tokens' last bias alone decides about a constant part of the logits.
        for head in network.sam_mask_decoder.output_hypernetworks_mlps:
            head.layers[-1].bias.add_(0.05)
    return network.to(pick_device(options.device))


def make_volume(slices: int) -> Volume:
    random = np.random.default_rng(0)
    array = random.integers(-1000, 300, (slices, 512, 512), dtype=np.int16)
    return Volume(array, VolumeGeometry(array.shape, (1.0, 0.7, 0.7)))


class LazyImages:
    """The volume as the frames of a video: what the official predictor needs of one."""

    def __init__(self, volume: Volume, size: int) -> None:
        self._source, self._size = SliceSource(volume.array, WINDOW), size

    def __len__(self) -> int:
        return self._source.depth

    def __getitem__(self, z: int) -> torch.Tensor:
        return prepare_images([self._source.grey(z, Crop.whole((512, 512)))], self._size)[0]


class StoredImages(LazyImages):
    """All frames as floats in memory, as the official loaders keep them."""

    def __init__(self, volume: Volume, size: int) -> None:
        super().__init__(volume, size)
        lazy = super().__getitem__
        self._frames = torch.stack([lazy(z) for z in range(len(self))])

    def __getitem__(self, z: int) -> torch.Tensor:
        return self._frames[z]


class Official:
    def __init__(self, options: argparse.Namespace):
        self._net, self._size = make_network(options, STOCK), options.image_size
        module: Any = require("sam2.sam2_video_predictor", purpose="this benchmark")
        module.tqdm = lambda items, **_: items
        self._module = module

    def open(self, volume: Volume, images: type[LazyImages]) -> None:
        frames = images(volume, self._size)
        self._module.load_video_frames = lambda **_: (frames, 512, 512)
        self._state = self._net.init_state(video_path="unused")

    def box(self, z: int) -> None:
        y0, x0, y1, x1 = BOX
        self._net.add_new_points_or_box(self._state, z, 1, box=[x0, y0, x1 - 1, y1 - 1])

    def click(self, z: int) -> None:
        self._net.add_new_points_or_box(self._state, z, 1, points=[[230, 230]], labels=[0])

    def walk(self, start: int) -> int:
        states = (
            self._net.propagate_in_video(self._state, start, reverse=r) for r in (False, True)
        )
        return sum(1 for stream in states for _ in stream) - 1


class Ours:
    """A session as a user has it: prompts and propagation, log and states and all."""

    def __init__(self, options: argparse.Namespace, attention: Literal["stock", "fast"]):
        self._model = Sam2Model(
            "benchmark",
            make_network(options),
            weight_hash="random",
            window=WINDOW,
            device=options.device,
            attention=attention,
            patience=10**6,  # random weights know no ends
        )
        self._model.warm_up()

    def open(self, volume: Volume, cache: CacheBudget | None = None) -> None:
        self.session = AnnotationSession(volume, self._model, cache=cache or CacheBudget())
        self.session.add_object(1)
        self._counter: Any = self.session._engine.runner._tracker

    @property
    def encoded(self) -> int:
        return int(self._counter._tracker.encoded)

    def prompt(self, prompt: Prompt) -> int:
        return self.session.add_prompt(1, prompt).prompt_ids[0]

    def box(self, z: int) -> None:
        self.prompt(Box(z, *BOX))

    def click(self, z: int) -> None:
        self.prompt(Click(z, 230, 230, positive=False))

    def walk(self, start: int) -> int:
        del start  # ours goes both ways from every prompted slice
        for _ in self.session.propagate(1):
            pass
        return len(self.session.get(1).masks)


class Clock:
    """Collects wall and processor seconds by name."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    def time(self, name: str, work: Callable[[], Any]) -> None:
        start, cpu = time.perf_counter(), time.process_time()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.wall[name] = time.perf_counter() - start
        self.cpu[name] = time.process_time() - cpu

    def ratios(self, slow: str, fast: str) -> dict[str, float]:
        """Processor time does not mind other programs; with several threads it counts waiting."""
        return {
            "wall": self.wall[slow] / self.wall[fast],
            "cpu": self.cpu[slow] / self.cpu[fast],
        }


def correct(engine: Official | Ours, depth: int) -> None:
    engine.click(depth - depth // 4)
    reached = engine.walk(depth // 2)
    if reached != depth:
        msg = f"propagation reached {reached} of {depth} slices; the comparison means nothing"
        raise RuntimeError(msg)


def time_ours(clock: Clock, name: str, ours: Ours, volume: Volume) -> int:
    """Return how many slices the correction encoded again."""
    depth = volume.shape[0]
    middle = depth // 2
    ours.open(volume)
    with ours.session:
        clock.time(f"{name}_first_prompt", lambda: ours.box(middle))
        beside = ours.prompt(Box(middle + 1, *BOX))
        clock.time(f"{name}_second_prompt", lambda: ours.click(middle))
        for number in (beside, beside + 1):
            ours.session.remove_prompt(1, number)
        clock.time(f"{name}_first_walk", lambda: ours.walk(middle))
        before = ours.encoded
        clock.time(f"{name}_correction", lambda: correct(ours, depth))
        return ours.encoded - before


def time_official(clock: Clock, options: argparse.Namespace, volume: Volume) -> None:
    middle = options.slices // 2
    official = Official(options)
    official.open(volume, LazyImages)
    official.box(middle)
    clock.time("official_first_walk", lambda: official.walk(middle))
    clock.time("official_correction", lambda: correct(official, options.slices))


def measure_once(options: argparse.Namespace, volume: Volume) -> dict[str, float]:
    clock = Clock()
    result: dict[str, float] = {}
    time_official(clock, options, volume)
    for name in ATTENTIONS:
        ours = Ours(options, name)
        result[f"{name}_encoded_again"] = time_ours(clock, name, ours, volume)
        for kind, slow, fast in (
            ("correction", "official_correction", f"{name}_correction"),
            ("prompt", f"{name}_first_prompt", f"{name}_second_prompt"),
        ):
            for measure, ratio in clock.ratios(slow, fast).items():
                result[f"{name}_{kind}_ratio_{measure}"] = ratio
    return {f"{name}_s": value for name, value in clock.wall.items()} | result


def measure_speed(options: argparse.Namespace) -> dict[str, Any]:
    volume = make_volume(options.slices)
    runs = [measure_once(options, volume) for _ in range(options.repeats)]
    medians: dict[str, Any] = {
        name: statistics.median(run[name] for run in runs) for name in runs[0]
    }
    return medians | {"runs": runs}


def resident_mb() -> float:
    """Return the resident memory of this process now; Linux only, like the peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_memory(options: argparse.Namespace) -> dict[str, float]:
    """Peak of a session above what was resident before its volume was made, in this process."""
    depth = options.memory_slices
    middle = depth // 2
    engine = Official(options) if options.memory_of == "official" else Ours(options, "fast")
    before = resident_mb()
    with Meter() as meter:
        volume = make_volume(depth)
        if isinstance(engine, Official):
            engine.open(volume, StoredImages)
        else:
            engine.open(volume, CacheBudget(int(options.memory_of) * 2**20))
        engine.box(middle)
        engine.walk(middle)
        for i in range(options.corrections):
            engine.click(i * depth // options.corrections)
            engine.walk(middle)
    peak = meter.peak_rss_mb or float("nan")
    result = {"before_mb": before, "above_mb": peak - before}
    if isinstance(engine, Ours) and engine.session._engine.features is not None:
        statistics_now = engine.session._engine.features.statistics
        result["cache_mb"] = statistics_now.memory_bytes / 2**20
        result["disk_mb"] = statistics_now.disk_bytes / 2**20
        result["states_mb"] = engine.session._engine.runner.states.nbytes / 2**20
        result["encoded"] = engine.encoded
        engine.session.close()
    return result


def compare_memory(options: argparse.Namespace) -> dict[str, float]:
    result: dict[str, float] = {}
    for who in ("official", *(str(size) for size in options.cache_mb)):
        command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]]
        output = subprocess.run(
            [*command, "--memory-of", who, "--json"], check=True, capture_output=True, text=True
        ).stdout
        name = who if who == "official" else f"ours_{who}"
        result |= {f"{name}_{key}": value for key, value in json.loads(output).items()}
    result["volume_mb"] = options.memory_slices * 512 * 512 * 2 / 2**20
    return result


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(json.dumps(measure_memory(options)))
        return
    result = measure_speed(options)
    if options.memory_slices:
        result |= compare_memory(options)
    if options.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{options.config} at {options.image_size} px, {options.slices} slices, {options.device}")
    result.pop("runs")
    for name, value in result.items():
        print(f"{name:28} {value:10.3f}")


if __name__ == "__main__":
    main()
