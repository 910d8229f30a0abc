"""The annotation panel: it reads from top to bottom."""

import contextlib
from pathlib import Path
from typing import Any

import napari
from napari.layers import Image, Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QDockWidget,
    QFileDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_lungfm.gui.annotation.cases import same_case, show_case
from napari_lungfm.gui.annotation.keys import Shortcuts
from napari_lungfm.gui.annotation.notices import Notice
from napari_lungfm.gui.annotation.session_files import SavedSession
from napari_lungfm.gui.annotation.tools import Tool
from napari_lungfm.gui.annotation.windows import PRESET_KEYS, describe, show_window
from napari_lungfm.gui.gui_thread import GuiThread
from napari_lungfm.gui.settings import setting
from napari_lungfm.gui.widgets.docked import DockedWidget
from napari_lungfm.gui.widgets.layer_combo import LayerCombo
from napari_lungfm.gui.widgets.look import heading, look_of
from napari_lungfm.gui.widgets.message_bar import MessageBar
from napari_lungfm.gui.widgets.model_box import CAPTION_WIDTH, ModelBox
from napari_lungfm.gui.widgets.object_table import ObjectTable, PromptList
from napari_lungfm.gui.widgets.open_box import OpenBar, OpenButton
from napari_lungfm.gui.widgets.propagate_box import PropagateBox
from napari_lungfm.gui.widgets.quality_panel import QualityPanel
from napari_lungfm.gui.widgets.tool_box import STOP_KEY, TOOL_KEYS, ToolBox
from napari_lungfm.gui.widgets.window_box import OWN_KEY, WindowBox
from napari_lungfm.preprocessing.windowing import WINDOWS, Window

_WELCOME = "Press B, then drag a box around the tumour."
#: Room for a vertical scroll bar, in pixels.
_SCROLL_BAR = 14
_NO_IMAGE = "Open a CT first: press Open, or File → Open Sample → LungFM."


class AnnotatePanel(DockedWidget):
    """Draw a box, get the tumour, correct it.

    Parameters
    ----------
    napari_viewer
        The viewer that it is docked in.
    """

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__(napari_viewer)
        self._quality_dock: QDockWidget | None = None
        self._image: Image | None = None
        self._looks_at_cases = False
        self._make_widgets()
        self._lay_out()
        self._connect()
        self.shortcuts = Shortcuts(self.viewer, self._actions())
        self.shortcuts.bind()
        self.at_the_end(self.shortcuts.unbind)
        self._on_theme()
        self._on_image(self.image_combo.layer)
        self._looks_at_cases = True  # what was there before the panel stays as it was shown
        if self.models.wish is not None:
            self.controller.set_model(self.models.wish)
        self.refresh()

    # ------------------------------------------------------------------ making
    def _make_widgets(self) -> None:
        self.message = MessageBar()
        self.message.show_notice(Notice("hint", _WELCOME))
        self.restore_bar = QFrame()
        self.restore_text = QLabel()
        self.restore_text.setWordWrap(True)
        self.restore_button, self.dismiss_button = QPushButton("Restore"), QPushButton("Start anew")
        self.open_button, self.open_bar = OpenButton(self.workplace.opening), OpenBar()
        self.image_combo = LayerCombo(self.viewer, Image, empty="no image is open")
        self.reference_combo = LayerCombo(self.viewer, Labels, nothing="none")
        self.models = ModelBox(GuiThread())
        self.windows = WindowBox()
        self.tools = ToolBox()
        self.propagation = PropagateBox(self.controller)
        self.objects = ObjectTable(self.controller)
        self.prompts = PromptList(self.controller)
        self.save_button = QPushButton("Save masks …")
        self.save_button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.save_button.setStyleSheet("QPushButton { padding: 3px 8px; }")
        self.save_button.setToolTip(
            "Write the masks of all objects: NIfTI, NRRD, MHA; DICOM SEG or RTSTRUCT of a series."
        )

    def _lay_out(self) -> None:
        row = QHBoxLayout(self.restore_bar)
        row.setContentsMargins(6, 4, 6, 4)
        row.addWidget(self.restore_text, 1)
        row.addWidget(self.restore_button)
        row.addWidget(self.dismiss_button)
        self.restore_bar.hide()
        layers = QGridLayout()
        layers.setHorizontalSpacing(6)
        layers.setVerticalSpacing(3)
        layers.addWidget(QLabel("Image"), 0, 0)
        layers.addWidget(self.image_combo, 0, 1)
        layers.addWidget(self.open_button, 0, 2)
        layers.addWidget(QLabel("Reference"), 1, 0)
        layers.addWidget(self.reference_combo, 1, 1, 1, 2)
        layers.addWidget(self.open_bar, 2, 1, 1, 2)
        layers.setColumnMinimumWidth(0, CAPTION_WIDTH)
        layers.setColumnStretch(1, 1)
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(4, 2, 4, 2)
        column.setSpacing(4)
        column.addLayout(layers)
        column.addWidget(self.models)
        column.addWidget(self.windows)
        column.addWidget(heading("1  Mark the tumour on one slice"))
        column.addWidget(self.tools)
        column.addWidget(heading("2  Carry it through the slices"))
        column.addWidget(self.propagation)
        row = QHBoxLayout()
        row.addWidget(heading("Objects"), 1)
        row.addWidget(self.save_button)
        column.addLayout(row)
        column.addWidget(self.objects)
        column.addWidget(self.prompts, 1)
        scroll = QScrollArea()
        scroll.setWidget(body)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll, self._body = scroll, body
        outer = QVBoxLayout(self)
        outer.setContentsMargins(2, 2, 2, 2)
        outer.setSpacing(4)
        outer.addWidget(self.message)
        outer.addWidget(self.restore_bar)
        outer.addWidget(scroll, 1)

    def _connect(self) -> None:
        controller = self.controller
        self.follow(controller.changed, self.soon)
        self.follow(controller.noticed, self.message.show_notice)
        self.follow(controller.walking, self.propagation.show_walking)
        self.follow(controller.repeating, self.propagation.show_repeating)
        self.follow(controller.restorable, self._offer)
        self.follow(controller.opened, self._on_opened)
        self.follow(self.viewer.events.theme, self._on_theme)
        opening = self.workplace.opening
        self.follow(opening.progressed, self.open_button.show_progress)
        self.follow(opening.progressed, self.open_bar.show_progress)
        self.follow(opening.noticed, self.message.show_notice)
        self.follow(opening.opened, self.image_combo.choose)
        self.follow(self.workplace.saving.noticed, self.message.show_notice)
        self.at_the_end(self.image_combo.disconnect_viewer)
        self.at_the_end(self.reference_combo.disconnect_viewer)
        self.at_the_end(self.models.close_downloads)
        self.at_the_end(self._leave_image)
        self.image_combo.layer_chosen.connect(self._on_image)
        self.reference_combo.layer_chosen.connect(self._on_reference)
        self.models.wished.connect(self._on_wished)
        self.models.noticed.connect(self.message.show_notice)
        self.windows.chosen.connect(self._on_window)
        self.windows.typed.connect(self._on_own_window)
        self.windows.outline.toggled.connect(self._on_outline)
        self.tools.chosen.connect(controller.use)
        self.tools.stop.connect(controller.stop_here)
        self.dismiss_button.clicked.connect(self._hide_offer)
        self.restore_button.clicked.connect(self._on_restore)
        self.save_button.clicked.connect(self._on_save)

    def _actions(self) -> dict[str, Any]:
        controller = self.controller
        actions: dict[str, Any] = {
            key: lambda tool=tool: controller.use(Tool.LOOK if controller.tool is tool else tool)
            for tool, (_, key) in TOOL_KEYS.items()
        }
        actions |= {
            key: lambda name=name: self._on_window(name) for key, name in PRESET_KEYS.items()
        }
        return actions | {
            OWN_KEY: self.windows.use_own,
            STOP_KEY: controller.stop_here,
            "G": self.propagation.propagate,
            "O": self.windows.outline.toggle,
            "W": self.workplace.quality.go_to_worst,
            "N": self.workplace.quality.go_to_next,
            "J": lambda: controller.jump_to(controller.active),
            "Escape": self._on_escape,
            "Control-Z": controller.undo,
            "Control-Shift-Z": controller.redo,
        }

    # ------------------------------------------------------------------ what happens
    def refresh(self) -> None:
        """Show everything as it is now."""
        controller = self.controller
        self.tools.show_tool(controller.tool)
        if controller.objects:
            self.restore_bar.hide()
        self.propagation.refresh()
        self.objects.refresh()
        self.prompts.refresh()
        self.save_button.setEnabled(self.workplace.saving.possible)
        self.models.show_wish(controller.wish)
        self._show_window()

    def _on_image(self, layer: Image | None) -> None:
        self._leave_image()
        self._image = layer
        if layer is not None:
            layer.events.contrast_limits.connect(self._show_window)
        self.controller.set_image(layer)
        if layer is not None and self._looks_at_cases:
            self._show_case(layer)
        text = _NO_IMAGE if layer is None else _WELCOME
        if self.controller.annotation is None:
            self.message.show_notice(Notice("hint", text))
        self._show_window()

    def _show_case(self, image: Image) -> None:
        """Bring the case that was chosen to the top; the reference of another one is none."""
        show_case(self.viewer, image)
        reference = self.reference_combo.layer
        if reference is not None and not same_case(reference, image):
            self.reference_combo.choose(None)

    def _leave_image(self) -> None:
        if self._image is not None:
            self._image.events.contrast_limits.disconnect(self._show_window)
            self._image = None

    def _on_wished(self, wish: Any) -> None:
        if wish is not None:
            self.controller.set_model(wish)

    def _on_window(self, name: str) -> None:
        if self._image is not None and not self._image.rgb:
            show_window(self._image, WINDOWS[name])
        self._show_window()

    def _on_own_window(self, window: Window) -> None:
        if self._image is not None and not self._image.rgb:
            show_window(self._image, window)

    def _on_outline(self, on: bool) -> None:
        self.workplace.comparing.outlines(only=on)

    def _show_window(self, _: Any = None) -> None:
        self.windows.refresh(self._image, self._seen())

    def _seen(self) -> str:
        session = self.controller.session
        window = getattr(session.model, "window", None) if session is not None else None
        if isinstance(window, Window):
            return describe(window)
        choice = self.models.choice
        if choice is not None and choice.takes_window:
            return "what its publisher recommends" if session is None else "all HU"
        return "all HU"

    def _on_escape(self) -> None:
        controller = self.controller
        if controller.propagation is not None or controller.repetition is not None:
            controller.cancel()
        else:
            controller.use(Tool.LOOK)

    def _offer(self, found: list[SavedSession]) -> None:
        self._found = found[0]
        when = self._found.time.strftime("%d %b %H:%M")
        self.restore_text.setText(f"You have worked on this image before ({when}).")
        self.restore_text.setToolTip(f"{self._found.actions} actions with {self._found.model}")
        self.restore_bar.show()

    def _hide_offer(self, _: Any = None) -> None:
        self.restore_bar.hide()

    def _on_restore(self) -> None:
        self.restore_bar.hide()
        self.controller.restore(self._found)

    def _on_save(self) -> None:
        saving = self.workplace.saving
        kinds = {f"{title} (*{end})": end for end, title in saving.formats().items()}
        name, kind = QFileDialog.getSaveFileName(
            self, "Save masks", str(saving.proposal()), ";;".join(kinds)
        )
        if name:
            saving.save(Path(name), kinds.get(kind, ".nii.gz"))

    def _on_theme(self, _: Any = None) -> None:
        look = look_of(self.viewer.theme)
        for widget in (self.message, self.tools, self.propagation, self.windows):
            widget.set_look(look)
        self.models.state.setStyleSheet(f"QLabel {{ color: {look.dim.name()}; }}")

    def _on_reference(self, layer: Labels | None) -> None:
        self.workplace.quality.set_reference(layer)
        self.workplace.comparing.reference = layer

    def _on_opened(self) -> None:
        """Show quality under the slider when work begins."""
        self._hide_offer()
        window = getattr(self.viewer, "window", None)
        if self.controller.annotation is None or window is None or not setting("show_quality"):
            return
        if self._quality_dock is None:
            panel = QualityPanel(self.viewer)
            dock = window.add_dock_widget(panel, name="LungFM: quality", area="bottom")
            self._quality_dock = dock
            _put_under_canvas(dock)

    # ------------------------------------------------------------------ the end
    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Make the panel as wide as its rows; only now are fonts and styles those of napari."""
        super().showEvent(event)
        width = self._body.minimumSizeHint().width() + _SCROLL_BAR
        self._scroll.setMinimumWidth(width)

    def docked(self, *, shown: bool) -> None:
        """Leave the keys alone while the panel is hidden."""
        if shown:
            self.shortcuts.bind()
        else:
            self.shortcuts.unbind()

    def let_go(self) -> None:
        """Take the plots away; the layers stay."""
        dock, self._quality_dock = self._quality_dock, None
        if dock is not None:
            with contextlib.suppress(RuntimeError, LookupError):  # closed by hand already
                self.viewer.window.remove_dock_widget(dock)


def _put_under_canvas(dock: QDockWidget) -> None:
    """Let the docks on the left and on the right keep their height beside one at the bottom."""
    window = dock.parent()
    if isinstance(window, QMainWindow):
        window.setCorner(Qt.Corner.BottomLeftCorner, Qt.DockWidgetArea.LeftDockWidgetArea)
        window.setCorner(Qt.Corner.BottomRightCorner, Qt.DockWidgetArea.RightDockWidgetArea)
