"""How long the window stands still while an object is propagated, and what a slice costs.

A real viewer with the Annotate panel and the plots, on a volume of 512 x 512 x 300 with a ball
for a tumour and a reference. A box is drawn and propagated, at first by a model that answers at
once (the ellipsoid that the box spans), so that slices come faster than a screen can show them:
the hardest case for the window. Then by one that takes its time.

Stretches: a timer that wants to fire every millisecond, on the GUI's thread; the time from one
firing to the next is what a mouse click would have had to wait. Other jobs of the machine lengthen
it, so that the CPU time of the GUI's thread is given beside it. Drawing the canvas is napari's and
OpenGL's, in software where there is no GPU; stretches are given with it and without it, and those
while somebody scrolls through the slices and nothing else is done, for comparison.

Slices: one propagated slice written to the screen as the widgets do it, against the same voxels
followed by ``layer.refresh()``, in turns, by CPU time and without the frame that follows.

    xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/gui_responsiveness.py
    xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/gui_responsiveness.py --json
"""

import argparse
import collections
import json
import os
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Self, TypeAlias

#: Settings and sessions of this run are nobody's: set before napari is imported.
_SCRATCH = Path(tempfile.mkdtemp(prefix="lungfm-responsiveness-"))
os.environ["NAPARI_CONFIG"] = str(_SCRATCH / "settings.yaml")
os.environ["NAPARI_LUNGFM_SESSIONS"] = str(_SCRATCH / "sessions")

import napari  # noqa: E402
import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
from napari.qt import get_qapp  # noqa: E402
from qtpy.QtCore import Qt, QTimer  # noqa: E402
from qtpy.QtWidgets import QApplication  # noqa: E402
from vispy.app.backends._qt import CanvasBackendDesktop  # noqa: E402

from napari_lungfm.geometry import LabelMap, Structure, Volume, VolumeGeometry  # noqa: E402
from napari_lungfm.gui.annotation.tools import Tool  # noqa: E402
from napari_lungfm.gui.annotation.work import ModelWish  # noqa: E402
from napari_lungfm.plugin.layer_geometry import image_layer, labels_layer  # noqa: E402

#: Seconds on the clock and of the GUI thread's CPU time.
Times: TypeAlias = npt.NDArray[np.float64]

TUMOUR = int(Structure.TUMOUR)
SPACING = (1.0, 0.7, 0.7)
SIZE = (1280, 800)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512), help="z y x")
    parser.add_argument("--radius", type=float, default=40.0, help="of the ball, in mm")
    parser.add_argument("--model", default="prompt-ellipse", help="answers at once")
    parser.add_argument("--slow-model", default="lungfm-s", help="takes its time; '' for none")
    parser.add_argument("--repeats", type=int, default=2, help="propagations of each kind")
    parser.add_argument("--slices", type=int, default=20, help="slices written each way")
    parser.add_argument("--profile", type=float, help="say what runs in stretches over so many ms")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


def now() -> Times:
    return np.array([time.perf_counter(), time.thread_time()])


class Heart:
    """Beats on the GUI's thread and notes how long it could not.

    Parameters
    ----------
    sampled_over
        Milliseconds after which the stack of the GUI's thread is noted, ``None`` for never.
    """

    def __init__(self, sampled_over: float | None = None) -> None:
        self.gaps: list[Times] = []
        self.drawing: list[Times] = []
        self.beating = False
        self.seen: collections.Counter[str] = collections.Counter()
        self._drawn, self._last = np.zeros(2), now()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(1)
        self._timer.timeout.connect(self._beat)
        self._thread = threading.get_ident()
        self._time_drawing()
        if sampled_over:
            self._sampled_over = sampled_over
            threading.Thread(target=self._sample, daemon=True).start()

    def __enter__(self) -> Self:
        self.gaps.clear()
        self.drawing.clear()
        self._drawn, self._last = np.zeros(2), now()
        self.beating = True
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.beating = False
        self._timer.stop()

    def _beat(self) -> None:
        here = now()
        self.gaps.append(1e3 * (here - self._last))
        self.drawing.append(1e3 * self._drawn)
        self._drawn, self._last = np.zeros(2), now()

    def _time_drawing(self) -> None:
        """Take the time of every frame of a canvas."""
        draw = CanvasBackendDesktop.paintGL

        def timed(canvas: Any) -> None:
            start = now()
            draw(canvas)
            self._drawn = self._drawn + now() - start

        CanvasBackendDesktop.paintGL = timed

    def _sample(self) -> None:
        """Note where the GUI's thread is when it has not beaten for long."""
        while True:
            time.sleep(0.002)
            if self.beating and 1e3 * (time.perf_counter() - self._last[0]) > self._sampled_over:
                frame = sys._current_frames().get(self._thread)
                stack = traceback.extract_stack(frame)[-9:]
                self.seen[" < ".join(f"{Path(f.filename).stem}:{f.name}" for f in stack[::-1])] += 1

    def summary(self) -> dict[str, float]:
        """Return the longest stretches in ms, with the drawing and without it."""
        gaps, drawing = np.array(self.gaps), np.array(self.drawing)
        (wall, cpu), (_, frames) = gaps.T, drawing.T
        own = gaps - drawing
        return {
            "longest_wall_ms": float(wall.max()),
            "longest_cpu_ms": float(cpu.max()),
            "longest_wall_without_drawing_ms": float(own[:, 0].max()),
            "longest_cpu_without_drawing_ms": float(own[:, 1].max()),
            "longest_frame_cpu_ms": float(frames.max()),
            "over_50_ms_cpu": int((cpu > 50).sum()),
            "over_50_ms_cpu_without_drawing": int((own[:, 1] > 50).sum()),
            "beats": len(wall),
        }


class Desk:
    """A viewer with the panel on a volume with a ball in it."""

    def __init__(self, options: argparse.Namespace) -> None:
        shape = tuple(options.shape)
        grid = np.ogrid[tuple(slice(n) for n in shape)]
        z, y, x = (
            (((axis - n // 2) * mm) ** 2).astype(np.float32)
            for axis, n, mm in zip(grid, shape, SPACING, strict=True)
        )
        truth = z + y + x <= options.radius**2
        noise = np.random.default_rng(0).integers(-30, 30, shape[1:], dtype=np.int16)
        geometry = VolumeGeometry(shape, SPACING)
        volume = Volume(np.where(truth, np.int16(40), np.int16(-850)) + noise, geometry, {})
        self.truth, self.z = truth, shape[0] // 2
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(*SIZE)
        data, kwargs, _ = image_layer(volume, "ct")
        self.image = self.viewer.add_image(data, **kwargs)
        labels = LabelMap(truth.astype(np.uint8) * np.uint8(TUMOUR), geometry, {TUMOUR: "tumour"})
        data, kwargs, _ = labels_layer(labels, "reference")
        self.reference = self.viewer.add_labels(data, **kwargs, visible=False)
        _, self.panel = self.viewer.window.add_plugin_dock_widget("napari-lungfm", "Annotate")
        self.controller = self.panel.controller
        self.controller.set_model(ModelWish(options.model))
        self.controller.use(Tool.BOX)
        self.panel.reference_combo.choose(self.reference)
        self.wait(1.0)

    def wait(self, seconds: float = 0.3, limit: float = 600.0) -> None:
        """Let Qt work until nothing is left to do, and for a while in any case."""
        background, start = self.panel.workplace.background, time.monotonic()
        while time.monotonic() < start + seconds or self.controller.busy or background.pending:
            QApplication.processEvents()
            time.sleep(0.0005)
            if time.monotonic() > start + limit:
                raise SystemExit("the engine does not come to an end")

    def draw_box(self) -> None:
        """Draw a box around the ball on its middle slice."""
        self.controller.go_to(self.z)
        rows, columns = np.nonzero(self.truth[self.z])
        y0, y1, x0, x1 = rows.min(), rows.max(), columns.min(), columns.max()
        corners = [(self.z, y, x) for y, x in ((y0, x0), (y0, x1), (y1, x1), (y1, x0))]
        self.controller.annotation.layers.boxes.add_rectangles([np.array(corners, dtype=float)])
        self.wait(0.5)


def propagate(desk: Desk, heart: Heart, view: int) -> dict[str, float]:
    """Propagate with the view on a slice; undo afterwards."""
    desk.controller.go_to(view)
    desk.wait(0.5)
    with heart:
        desk.controller.propagate()
        desk.wait(0.3)
        result = heart.summary()
    result["slices"] = len(desk.controller.active_object.masks)
    with heart:
        desk.controller.undo()
        desk.wait(0.5)
        undone = heart.summary()
    for key in ("longest_cpu_ms", "longest_cpu_without_drawing_ms"):
        result[f"undo_{key}"] = undone[key]
    return result


def scroll(desk: Desk, heart: Heart, steps: int = 15) -> dict[str, float]:
    """Go through the slices with nothing else to do."""
    with heart:
        for i in range(steps):
            desk.controller.go_to(desk.z - steps // 2 + i)
            desk.wait(0.02)
        return heart.summary()


def write_slices(desk: Desk, number: int) -> dict[str, float]:
    """Write slices into the view as a propagation does, and with a refresh of the layer."""
    here = desk.controller.annotation
    layers, masks = here.layers, here.layers.masks
    rows, columns = np.nonzero(desk.truth[desk.z])
    region = (
        slice(desk.z, desk.z + 1),
        slice(int(rows.min()), int(rows.max()) + 1),
        slice(int(columns.min()), int(columns.max()) + 1),
    )
    mask = desk.truth[region].astype(np.uint8) * np.uint8(TUMOUR)
    desk.controller.go_to(desk.z)
    desk.wait()
    times: dict[str, list[float]] = {"ours": [], "refresh": []}
    for i in range(number):
        labels = mask if i % 2 else np.zeros_like(mask)
        for kind, spent in times.items():
            start = time.thread_time()
            if kind == "ours":
                layers.write(region, labels, here.view)
            else:
                masks.data[region] = labels
                masks.refresh()
            spent.append(1e3 * (time.thread_time() - start))
            QApplication.processEvents()
    masks.data[region] = 0
    masks.refresh()
    result = {f"{kind}_cpu_ms": float(np.median(spent)) for kind, spent in times.items()}
    return result | {"times_faster": result["refresh_cpu_ms"] / result["ours_cpu_ms"]}


def main() -> None:
    options = arguments()
    application = get_qapp()  # before the first timer
    heart = Heart(options.profile)
    desk = Desk(options)
    scroll(desk, heart)  # the first frames of a canvas compile its shaders
    result: dict[str, Any] = {
        "shape": list(options.shape),
        "load_average": os.getloadavg()[0],
        "cores": len(os.sched_getaffinity(0)),
        "scrolling": scroll(desk, heart),
        "slice": write_slices(desk, options.slices),
    }
    desk.draw_box()
    kinds = {"at_once": options.model, "taking_its_time": options.slow_model}
    for kind, model in kinds.items():
        if not model:
            continue
        desk.controller.set_model(ModelWish(model))
        desk.wait(1.0)
        heart.seen.clear()
        runs = [
            propagate(desk, heart, desk.z + (6 if i % 2 else 0)) for i in range(options.repeats)
        ]
        result[kind] = {
            "model": model,
            **{key: max(run[key] for run in runs) for key in runs[0]},
            "longest_cpu_to_longest_of_scrolling": max(run["longest_cpu_ms"] for run in runs)
            / result["scrolling"]["longest_cpu_ms"],
        }
        for stack, count in heart.seen.most_common(14) if options.profile else ():
            print(f"{count:5d}  {stack}", file=sys.stderr)
    desk.viewer.close()
    application.processEvents()
    if options.json:
        print(json.dumps(result, indent=1))
        return
    for name, values in result.items():
        print(name, values)


if __name__ == "__main__":
    main()
