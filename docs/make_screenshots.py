"""Make the pictures of the widgets in docs/images from the sample data.

Run it with a display, or without one::

    xvfb-run -a -s "-screen 0 1400x900x24" python docs/make_screenshots.py
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

#: Settings and sessions of this run are nobody's: set before napari is imported.
_SCRATCH = Path(tempfile.mkdtemp(prefix="lungfm-pictures-"))
os.environ["NAPARI_CONFIG"] = str(_SCRATCH / "settings.yaml")
os.environ["NAPARI_LUNGFM_SESSIONS"] = str(_SCRATCH / "sessions")

import napari  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from qtpy.QtWidgets import QApplication  # noqa: E402

from napari_lungfm.geometry import Structure  # noqa: E402
from napari_lungfm.gui.annotation.tools import Tool  # noqa: E402

SIZE = (1280, 800)
LARGEST = 300_000  # bytes of a picture
TUMOUR = int(Structure.TUMOUR)


class Studio:
    """A viewer of fixed size, and what is done in it.

    Parameters
    ----------
    folder
        Where the pictures go.
    sample
        Key of the sample data.
    size
        Width and height of the window in pixels.
    """

    def __init__(self, folder: Path, sample: str, size: tuple[int, int] = SIZE) -> None:
        self.folder = folder
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(*size)
        self.viewer.open_sample("napari-lungfm", sample)
        _, self.panel = self.viewer.window.add_plugin_dock_widget("napari-lungfm", "Annotate")
        self.controller = self.panel.controller
        self.reference = self.viewer.layers["reference"]
        self.image = next(layer for layer in self.viewer.layers if layer is not self.reference)
        self.reference.visible = False
        self.truth = np.asarray(self.reference.data) == TUMOUR
        self.z = int(np.argmax(self.truth.sum(axis=(1, 2))))
        self.wait(1.0)

    def wait(self, seconds: float = 0.3) -> None:
        """Let Qt work for a while, and until the engine is done."""
        end = time.monotonic() + seconds
        background = self.panel.workplace.background
        while time.monotonic() < end or self.controller.busy or background.pending:
            QApplication.processEvents()
            time.sleep(0.01)
        QApplication.processEvents()

    def look_at_tumour(self, zoom: float = 2.4) -> None:
        """Show the tumour's largest slice, nearer."""
        rows, columns = np.nonzero(self.truth[self.z])
        place = self.image.data_to_world((self.z, rows.mean(), columns.mean()))
        self.viewer.dims.set_point(0, float(place[0]))
        self.viewer.scene.camera.zoom *= zoom
        self.viewer.scene.camera.center = place[-2:]
        self.wait()

    def draw_box(self, margin: int = 1) -> None:
        """Draw a box around the tumour."""
        rows, columns = np.nonzero(self.truth[self.z])
        y0, y1 = rows.min() - margin, rows.max() + margin
        x0, x1 = columns.min() - margin, columns.max() + margin
        corners = np.array([(self.z, y, x) for y, x in ((y0, x0), (y0, x1), (y1, x1), (y1, x0))])
        self.controller.annotation.layers.boxes.add_rectangles([corners])
        self.wait(0.5)

    def click_at_error(self) -> None:
        """Click where the mask is wrong on the slice in view."""
        mask = self.controller.annotation.layers.data == TUMOUR
        z = self.controller.annotation.view.z
        missed, extra = self.truth[z] & ~mask[z], mask[z] & ~self.truth[z]
        positive = missed.sum() >= extra.sum()
        wrong = np.argwhere(missed if positive else extra)
        if not len(wrong):
            return
        middle = wrong[np.argmin(np.abs(wrong - wrong.mean(axis=0)).sum(axis=1))]
        self.controller.use(Tool.POSITIVE if positive else Tool.NEGATIVE)
        self.controller.annotation.layers.clicks.add(np.array([z, *middle], dtype=float))
        self.wait(0.5)

    def picture(self, name: str) -> None:
        """Take a picture of the window."""
        self.wait(0.5)
        array = self.viewer.window.screenshot(canvas_only=False, flash=False)
        picture = Image.fromarray(np.asarray(array)[..., :3])
        path = self.folder / f"{name}.png"
        picture.save(path, optimize=True)
        if path.stat().st_size > LARGEST:
            picture.quantize(256, method=Image.Quantize.MEDIANCUT).save(path, optimize=True)
        print(f"{path} {picture.size[0]} x {picture.size[1]}, {path.stat().st_size // 1000} kB")

    def close(self) -> None:
        """Close the viewer."""
        self.viewer.close()
        self.wait_closed()

    def wait_closed(self) -> None:
        """Let Qt take everything down."""
        for _ in range(20):
            QApplication.processEvents()
            time.sleep(0.01)


def annotate(studio: Studio, theme: str) -> None:
    """Open, draw a box, propagate, correct."""
    studio.viewer.theme = theme
    studio.look_at_tumour()
    studio.picture(f"1-open-{theme}")
    studio.controller.use(Tool.BOX)
    studio.wait(0.5)
    studio.draw_box()
    studio.picture(f"2-box-{theme}")
    studio.panel.windows.outline.setChecked(True)
    studio.controller.propagate()
    studio.panel.reference_combo.choose(studio.reference)
    studio.wait(1.5)
    studio.picture(f"3-propagated-{theme}")
    studio.panel.workplace.quality.go_to_worst()
    studio.wait()
    studio.click_at_error()
    studio.controller.propagate()
    studio.wait(3.0)
    studio.picture(f"4-corrected-{theme}")


def measure(studio: Studio, theme: str) -> None:
    """Measure the tumour."""
    _, panel = studio.viewer.window.add_plugin_dock_widget("napari-lungfm", "Measure", tabify=True)
    panel.measure.click()
    studio.wait(0.8)
    studio.panel.workplace.measuring.show(studio.panel.workplace.measuring.measures[0])
    studio.picture(f"5-measured-{theme}")


def compare(studio: Studio, theme: str) -> None:
    """Compare with what another method makes of the same prompts."""
    _, panel = studio.viewer.window.add_plugin_dock_widget("napari-lungfm", "Compare", tabify=True)
    panel.models.setCurrentText("prompt-ellipse (prompted)")
    panel.run.click()
    studio.wait(1.0)
    panel.staple.click()
    studio.wait(1.0)
    panel.compare.click()
    studio.wait(1.0)
    studio.picture(f"6-compared-{theme}")


STEPS: dict[str, Callable[[Studio, str], None]] = {
    "annotate": annotate,
    "measure": measure,
    "compare": compare,
}


def main() -> None:
    """Make all pictures in both themes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    parser.add_argument("--themes", nargs="+", default=["dark", "light"])
    parser.add_argument("--sample", default="solid_tumour")
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--size", nargs=2, type=int, default=SIZE, metavar=("WIDTH", "HEIGHT"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for theme in arguments.themes:
        # Sessions of the theme before would be offered to be restored.
        os.environ["NAPARI_LUNGFM_SESSIONS"] = str(_SCRATCH / f"sessions-{theme}")
        studio = Studio(arguments.out, arguments.sample, tuple(arguments.size))
        for name in arguments.steps:
            STEPS[name](studio, theme)
        studio.close()


if __name__ == "__main__":
    main()
