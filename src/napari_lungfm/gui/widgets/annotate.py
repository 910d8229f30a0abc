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
    QMessageBox,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_lungfm.gui.annotation.cases import is_new_case, same_case, show_case
from napari_lungfm.gui.annotation.keys import Shortcuts
from napari_lungfm.gui.annotation.notices import Notice
from napari_lungfm.gui.annotation.references import lone_reference
from napari_lungfm.gui.annotation.session_files import SavedSession
from napari_lungfm.gui.annotation.tools import DRAW_A_BOX, Tool
from napari_lungfm.gui.annotation.windows import PRESET_KEYS, describe, show_window
from napari_lungfm.gui.gui_thread import GuiThread
from napari_lungfm.gui.settings import setting
from napari_lungfm.gui.widgets.docked import DockedWidget
from napari_lungfm.gui.widgets.layer_combo import LayerCombo
from napari_lungfm.gui.widgets.look import blend, heading, look_of
from napari_lungfm.gui.widgets.message_bar import MessageBar
from napari_lungfm.gui.widgets.model_box import CAPTION_WIDTH, ModelBox
from napari_lungfm.gui.widgets.object_table import ObjectTable, PromptList
from napari_lungfm.gui.widgets.open_box import OpenBar, OpenButton
from napari_lungfm.gui.widgets.propagate_box import PropagateBox
from napari_lungfm.gui.widgets.quality_panel import QualityPanel
from napari_lungfm.gui.widgets.tool_box import STOP_KEY, TOOL_KEYS, ToolBox
from napari_lungfm.gui.widgets.window_box import OWN_KEY, WindowBox
from napari_lungfm.preprocessing.windowing import WINDOWS, Window

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

    about = ""

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__(napari_viewer)
        self._quality_dock: QDockWidget | None = None
        self._image: Image | None = None
        self._next_case: Image | None = None
        self._looks_at_cases = self._reference_by_hand = False
        self._make_widgets()
        self._lay_out()
        self._connect()
        self.shortcuts = Shortcuts(self.viewer, self._actions())
        self.shortcuts.bind()
        self.at_the_end(self.shortcuts.unbind)
        self._on_theme()
        self._on_image(self.image_combo.layer)
        self._on_remark(self.controller.remark)
        self._looks_at_cases = True  # what was there before the panel stays as it was shown
        if self.models.wish is not None:
            self.controller.set_model(self.models.wish)
        self.refresh()

    # ------------------------------------------------------------------ making
    def _make_widgets(self) -> None:
        self.message = MessageBar()
        self.message.show_notice(Notice("hint", DRAW_A_BOX))
        self.restore_bar = QFrame()
        self.restore_text = QLabel()
        self.restore_text.setWordWrap(True)
        self.restore_button, self.dismiss_button = QPushButton("Restore"), QPushButton("Start anew")
        self.open_button, self.open_bar = OpenButton(self.workplace.opening), OpenBar()
        self.close_button = QPushButton("Close case")
        self.close_button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.close_button.setStyleSheet("QPushButton { padding: 3px 8px; }")
        self.close_button.setToolTip(
            "Take the case away: its layers and its memory go, its session is kept."
        )
        self.remark = QLabel()
        self.remark.setWordWrap(True)
        self.remark.hide()
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
        row.addWidget(self.close_button)
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
        outer.addWidget(self.remark)
        outer.addWidget(self.restore_bar)
        outer.addWidget(scroll, 1)

    def _connect(self) -> None:
        controller = self.controller
        self.follow(controller.changed, self.soon)
        self.follow(controller.noticed, self.show_notice)
        self.follow(controller.walking, self.propagation.show_walking)
        self.follow(controller.repeating, self.propagation.show_repeating)
        self.follow(controller.restorable, self._offer)
        self.follow(controller.opened, self._on_opened)
        self.follow(controller.remarked, self._on_remark)
        self.follow(self.workplace.quality.refused, self._on_reference_refused)
        self.follow(self.viewer.layers.events.inserted, self._look_for_reference)
        self.follow(self.viewer.layers.events.inserted, self._look_at_new)
        self.follow(self.viewer.events.theme, self._on_theme)
        opening = self.workplace.opening
        self.follow(opening.progressed, self.open_button.show_progress)
        self.follow(opening.progressed, self.open_bar.show_progress)
        self.follow(opening.noticed, self._on_opening)
        self.follow(opening.opened, self._on_opened_image)
        self.follow(self.workplace.saving.noticed, self.message.show_notice)
        self.at_the_end(self.image_combo.disconnect_viewer)
        self.at_the_end(self.reference_combo.disconnect_viewer)
        self.at_the_end(self.models.close_downloads)
        self.at_the_end(self._leave_image)
        self.image_combo.layer_chosen.connect(self._on_image)
        self.reference_combo.layer_chosen.connect(self._on_reference)
        self.reference_combo.activated.connect(self._on_reference_by_hand)
        self.image_combo.activated.connect(self._on_image_by_hand)
        self.close_button.clicked.connect(self._on_close)
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
            key: lambda tool=tool: controller.use(tool) for tool, (_, key) in TOOL_KEYS.items()
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
        if self._next_case is not None:
            self._go_to_next_case()
        self.tools.show_tool(controller.tool)
        if controller.objects:
            self.restore_bar.hide()
        self.propagation.refresh()
        self.objects.refresh()
        self.prompts.refresh()
        self.save_button.setEnabled(self.workplace.saving.possible)
        self.close_button.setEnabled(self.workplace.closing.possible)
        self.models.show_wish(controller.wish)
        self._show_window()

    def _on_image(self, layer: Image | None) -> None:
        self._leave_image()
        self._image, self._reference_by_hand, self._next_case = layer, False, None
        self._hide_offer()
        if layer is not None:
            layer.events.contrast_limits.connect(self._show_window)
        self.controller.set_image(layer)
        if layer is not None and self._looks_at_cases:
            self._show_case(layer)
        self._look_for_reference()
        text = _NO_IMAGE if layer is None else DRAW_A_BOX
        if self.controller.annotation is None:
            self.message.show_notice(Notice("hint", text))
        self._show_window()

    def _show_case(self, image: Image) -> None:
        """Bring the case that was chosen to the top; the reference of another one is none."""
        show_case(self.viewer, image)
        reference = self.reference_combo.layer
        if reference is not None and not same_case(reference, image):
            self.reference_combo.choose(None)

    def _on_image_by_hand(self, _: int) -> None:
        """Show the case that is chosen, also where it was before and another one lies on it."""
        if self._image is not None:
            self._show_case(self._image)

    def _look_at_new(self, event: Any) -> None:
        """Go to a case that was opened, when all that is opened with it is there."""
        if isinstance(event.value, Image):
            self._next_case = event.value
            self.controller.defer(self._go_to_next_case)

    def _on_opened_image(self, layer: Image) -> None:
        """Go to an image that the button has opened, also to one of the same study."""
        if not self._held_here():
            self.image_combo.choose(layer)

    def _held_here(self) -> str:
        """Say why the case that is chosen cannot be left without asking; mostly empty."""
        if self.controller.under_way:
            return "is being worked on"
        return "has masks that are kept nowhere" if self.workplace.closing.would_lose else ""

    def _go_to_next_case(self) -> None:
        controller, old, new = self.controller, self._image, self._next_case
        if self.released or new is None or (controller.busy and not controller.under_way):
            return  # it is looked at again when the engine has told what it has done
        self._next_case = None
        if old is None or new not in self.viewer.layers or not is_new_case(new, old):
            return
        why = self._held_here()
        if why:
            text = f"'{new.name}' was opened; '{old.name}' {why} and stays the case"
            controller.say("warning", f"{text}: choose '{new.name}' under Image to go on with it.")
            return
        kept = any(each.prompts for each in controller.objects.values())
        self.image_combo.choose(new)
        then = f" What you did on '{old.name}' is kept." if kept else ""
        controller.say("done", f"'{new.name}' is annotated now.{then} {DRAW_A_BOX}")

    def _look_for_reference(self, _: Any = None) -> None:
        """Choose the reference that suggests itself, when all that is opened with it is there."""
        self.controller.defer(self._choose_reference)

    def _choose_reference(self) -> None:
        if self.released or self._image is None or self._image not in self.viewer.layers:
            return
        if self._reference_by_hand or self.reference_combo.layer is not None:
            return
        found = lone_reference(self.viewer.layers, self._image)
        if found is None:
            return
        self.reference_combo.choose(found)
        if self.message.notice.level in ("hint", "done"):
            text = f"'{found.name}' is the reference (scores only)."
            notice = self.message.notice
            self.message.show_notice(Notice(notice.level, f"{notice.text} {text}"))

    def _on_reference_by_hand(self, _: int) -> None:
        self._reference_by_hand = True

    def _on_opening(self, notice: Notice) -> None:
        """Say what was opened, and what to do then."""
        drawn = any(each.prompts for each in self.controller.objects.values())
        if notice.level == "done" and self._image is not None and not drawn:
            notice = Notice(notice.level, f"{notice.text} {DRAW_A_BOX}")
        self.message.show_notice(notice)

    def _on_remark(self, text: str) -> None:
        self.remark.setText(text)
        self.remark.setVisible(bool(text))

    def _on_close(self) -> None:
        closing = self.workplace.closing
        question = closing.question
        if question:
            answer = QMessageBox.question(self, "Close the case", question)
            if answer != QMessageBox.StandardButton.Yes:
                return
        closing.close()

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
        back = blend(look.background, look.warning, 0.16)
        self.remark.setStyleSheet(
            f"QLabel {{ background-color: {back.name()}; color: {look.text.name()};"
            f" border-left: 4px solid {look.warning.name()}; border-radius: 3px;"
            " padding: 3px 6px; }"
        )
        self.models.state.setStyleSheet(f"QLabel {{ color: {look.dim.name()}; }}")

    def _on_reference(self, layer: Labels | None) -> None:
        self.workplace.comparing.reference = layer
        self.workplace.quality.set_reference(layer)

    def _on_reference_refused(self, layer: Labels) -> None:
        """Show that there is none: one that cannot be used must not look as if it were."""
        if self.reference_combo.layer is layer:
            self.reference_combo.choose(None)

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
