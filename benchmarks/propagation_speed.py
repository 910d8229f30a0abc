"""How fast SAM 2 propagates here, against the publishers' ``SAM2VideoPredictor``.

Both run the same random weights on the same slices in the same process, so that ratios mean
something on any machine:

- **correction**: after a first propagation, a click on a tracked slice and propagation over all
  slices again; ours takes every image feature from the cache;
- **second prompt**: another prompt on a slice that was prompted before, with other slices looked
  at in between, against the first prompt on it;
- **memory**: peak resident memory of a propagation over a volume, each in a process of its own,
  which holds nothing else.

    python benchmarks/propagation_speed.py                 # a few minutes on two cores
    python benchmarks/propagation_speed.py --slices 40 --memory-slices 300 --json
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_lungfm._core.imports import require
from napari_lungfm._core.measure import Meter
from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.inference.feature_cache import BoundedFeatureCache
from napari_lungfm.models.foundation.runtime import pick_device
from napari_lungfm.models.foundation.sam2_build import build_sam2, published_config
from napari_lungfm.models.foundation.sam2_engine import prepare_images
from napari_lungfm.models.foundation.sam2_video import Sam2Model
from napari_lungfm.models.foundation.slices import SliceSource
from napari_lungfm.models.foundation.zoom import Crop
from napari_lungfm.models.prompts import Box, Click
from napari_lungfm.preprocessing.windowing import Window

WINDOW = Window(-600, 1500)
STOCK = "sam2.sam2_video_predictor.SAM2VideoPredictor"
BOX = (200, 200, 260, 270)  # y0 x0 y1 x1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--config", default="sam2.1_hiera_t", help="configuration of sam2")
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--slices", type=int, default=40, help="slices to propagate over")
    parser.add_argument("--memory-slices", type=int, default=60, help="0 skips peak memory")
    parser.add_argument("--cache-mb", type=int, default=64, help="our cache in memory, in MiB")
    parser.add_argument("--attention", choices=("stock", "fast"), default="fast")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--memory-of", choices=("ours", "official"), help=argparse.SUPPRESS)
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
    def __init__(self, options: argparse.Namespace, volume: Volume, images: type[LazyImages]):
        self._net = make_network(options, STOCK)
        module: Any = require("sam2.sam2_video_predictor", purpose="this benchmark")
        frames = images(volume, options.image_size)
        module.load_video_frames = lambda **_: (frames, 512, 512)
        module.tqdm = lambda items, **_: items
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
    def __init__(self, options: argparse.Namespace, volume: Volume, cache: BoundedFeatureCache):
        model = Sam2Model(
            "benchmark",
            make_network(options),
            weight_hash="random",
            window=WINDOW,
            device=options.device,
            attention=options.attention,
            cache=cache,
            patience=10**6,  # random weights know no ends
        )
        model.warm_up()
        self._predictor, self._depth = model.open(volume), volume.shape[0]
        self._state = self._predictor.start()

    @property
    def encoded(self) -> int:
        return self._predictor.encoded

    def box(self, z: int) -> None:
        self._state, _ = self._predictor.prompt(self._state, z, [Box(z, *BOX)])

    def forget(self, z: int) -> None:
        self._state = self._predictor.forget(self._state, z)

    def click(self, z: int) -> None:
        self._state, _ = self._predictor.prompt(self._state, z, [Click(z, 230, 230, False)])

    def walk(self, start: int) -> int:
        del start  # ours goes both ways from every prompted slice
        count = len(self._state.prompted)
        for state, _, _ in self._predictor.walk(self._state, range(self._depth)):
            self._state, count = state, count + 1
        return count


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


def measure_speed(options: argparse.Namespace) -> dict[str, float]:
    clock, depth, middle = Clock(), options.slices, options.slices // 2
    volume = make_volume(depth)
    with BoundedFeatureCache(2**31) as cache:
        ours = Ours(options, volume, cache)
        clock.time("first_prompt", lambda: ours.box(middle))
        ours.box(middle + 1)
        clock.time("second_prompt", lambda: ours.box(middle))
        ours.forget(middle + 1)
        clock.time("ours_first_walk", lambda: ours.walk(middle))
        before = ours.encoded
        clock.time("ours_correction", lambda: correct(ours, depth))
        encoded_again = ours.encoded - before
    official = Official(options, volume, LazyImages)
    official.box(middle)
    clock.time("official_first_walk", lambda: official.walk(middle))
    clock.time("official_correction", lambda: correct(official, depth))
    result = {f"{name}_s": value for name, value in clock.wall.items()}
    result["encoded_again"] = encoded_again
    for name, slow, fast in (
        ("correction", "official_correction", "ours_correction"),
        ("prompt", "first_prompt", "second_prompt"),
    ):
        ratios = clock.ratios(slow, fast)
        result |= {f"{name}_ratio_{kind}": value for kind, value in ratios.items()}
    return result


def measure_memory(options: argparse.Namespace) -> dict[str, float]:
    """Peak of a propagation over a volume above what was resident before, in this process."""
    volume = make_volume(options.memory_slices)
    middle = options.memory_slices // 2
    with BoundedFeatureCache(options.cache_mb * 2**20) as cache, Meter() as build:
        engine: Official | Ours
        if options.memory_of == "ours":
            engine = Ours(options, volume, cache)
        else:
            engine = Official(options, volume, StoredImages)
        engine.box(middle)
        engine.walk(middle)
        held = cache.statistics.memory_bytes
    return {"peak_mb": build.peak_rss_mb or float("nan"), "cache_mb": held / 2**20}


def compare_memory(options: argparse.Namespace) -> dict[str, float]:
    result = {}
    for who in ("ours", "official"):
        command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]]
        output = subprocess.run(
            [*command, "--memory-of", who, "--json"], check=True, capture_output=True, text=True
        ).stdout
        measured = json.loads(output)
        result[f"{who}_peak_mb"] = measured["peak_mb"]
        if who == "ours":
            result["ours_cache_mb"] = measured["cache_mb"]
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
    for name, value in result.items():
        print(f"{name:22} {value:10.3f}")


if __name__ == "__main__":
    main()
