"""What it costs to keep Dice and IoU up to date while painting.

A volume of 512 x 512 x 300 with a tumour of 40 mm and a mask that is being corrected. After each
brush stroke the scores of the volume and of the slice are wanted: by `LiveOverlap`, told what the
stroke changed in the form of napari's ``paint`` event, and by counting anew in the whole volume
with the function that counts a finished mask slice by slice (its sums are those of the volume).
Both in one process, so that the ratio means something on any machine; both must give the same
counts. CPU times are given beside wall times, which other jobs of the machine lengthen.

    python benchmarks/live_metrics.py
    python benchmarks/live_metrics.py --strokes 200 --json
"""

import argparse
import json
import time
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_lungfm.evaluation.live import LiveOverlap
from napari_lungfm.metrics import Counts, count_overlap_per_slice

#: Seconds on the clock and of the CPU.
Times: TypeAlias = npt.NDArray[np.float64]

LABEL = 3
SPACING = (1.0, 0.7, 0.7)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512), help="z y x")
    parser.add_argument("--strokes", type=int, default=100)
    parser.add_argument("--dabs", type=int, default=10, help="brush positions in a stroke")
    parser.add_argument("--brush", type=int, default=20, help="diameter of the brush in voxels")
    parser.add_argument("--recounts", type=int, default=5, help="how often to count anew")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


def now() -> Times:
    return np.array([time.perf_counter(), time.thread_time()])


def ball(shape: tuple[int, int, int], radius_mm: float, shift: int) -> Any:
    """Return uint8 labels with a ball in the middle, ``shift`` rows off it."""
    labels = np.zeros(shape, np.uint8)
    z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
    centre = (shape[0] // 2, shape[1] // 2 + shift, shape[2] // 2)
    away = sum(
        ((axis - c) * mm) ** 2 for axis, c, mm in zip((z, y, x), centre, SPACING, strict=True)
    )
    labels[away <= radius_mm**2] = LABEL
    return labels


def stroke(labels: Any, options: argparse.Namespace, random: np.random.Generator) -> list[Any]:
    """Paint a stroke into the labels; return it as napari's event does."""
    radius = options.brush // 2
    rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disc = (rows**2 + columns**2 <= radius**2)[None]
    depth, height, width = labels.shape
    new = int(random.choice([0, LABEL]))
    z = int(depth // 2 + random.integers(-20, 20))
    y, x = (int(n // 2 + random.integers(-30, 30)) for n in (height, width))
    atoms = []
    for _ in range(options.dabs):
        y, x = y + int(random.integers(-3, 4)), x + int(random.integers(-3, 4))
        region = (
            slice(z, z + 1),
            slice(y - radius, y + radius + 1),
            slice(x - radius, x + radius + 1),
        )
        box = labels[region]
        changed = disc & (box != new)
        if changed.any():
            atoms.append(
                SimpleNamespace(
                    slice_key=region, mask=changed, old_values=box[changed], new_value=new
                )
            )
            box[changed] = new
    return atoms


def main() -> None:
    options = arguments()
    random = np.random.default_rng(0)
    shape = tuple(options.shape)
    reference, labels = ball(shape, 20.0, 0), ball(shape, 20.0, 5)
    live = LiveOverlap(labels, LABEL, reference)
    updates: list[Times] = []
    for _ in range(options.strokes):
        atoms = stroke(labels, options, random)
        z = atoms[0].slice_key[0].start if atoms else 0
        started = now()
        live.update_paint(atoms)
        scores = (live.counts.dice, live.counts.iou, live.slice_counts(z).dice)
        updates.append(now() - started)
    recounts: list[Times] = []
    for _ in range(options.recounts):
        started = now()
        found, true = labels == LABEL, reference == LABEL
        slices = count_overlap_per_slice(found, true)
        counts = Counts(int(slices.tp.sum()), int(slices.fp.sum()), int(slices.fn.sum()))
        anew = (counts.dice, counts.iou, float(slices.dice[z]))
        recounts.append(now() - started)
    if counts != live.counts or not np.allclose(scores, anew, equal_nan=True):
        msg = f"the live scores {scores} are not those counted anew {anew}"
        raise SystemExit(msg)
    result: dict[str, Any] = {
        "shape": shape,
        "strokes": options.strokes,
        "dabs_per_stroke": options.dabs,
        "brush_voxels": options.brush,
        "same_counts": True,
    }
    for column, kind in enumerate(("wall", "cpu")):
        update, recount = np.array(updates)[:, column], np.array(recounts)[:, column]
        result |= {
            f"update_ms_median_{kind}": 1e3 * float(np.median(update)),
            f"update_ms_p95_{kind}": 1e3 * float(np.percentile(update, 95)),
            f"update_ms_max_{kind}": 1e3 * float(update.max()),
            f"recount_ms_median_{kind}": 1e3 * float(np.median(recount)),
            f"times_faster_{kind}": float(np.median(recount) / np.median(update)),
            f"times_faster_slowest_update_{kind}": float(recount.min() / update.max()),
        }
    if options.json:
        print(json.dumps(result, indent=1))
        return
    for kind in ("wall", "cpu"):
        print(
            f"{kind}: update {result[f'update_ms_median_{kind}']:.3f} ms "
            f"(95 %: {result[f'update_ms_p95_{kind}']:.3f} ms), counting anew "
            f"{result[f'recount_ms_median_{kind}']:.0f} ms: "
            f"{result[f'times_faster_{kind}']:.0f} times"
        )


if __name__ == "__main__":
    main()
