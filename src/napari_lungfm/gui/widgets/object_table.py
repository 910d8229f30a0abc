"""The objects, and the prompts of the active one."""

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHBoxLayout,
    QHeaderView,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSizePolicy,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_lungfm.gui.annotation.controller import Controller
from napari_lungfm.gui.widgets.look import heading, swatch
from napari_lungfm.inference.session import AnnotatedObject
from napari_lungfm.models.prompts import Box, Click, MaskPrompt, Prompt, Stop, is_conditioning

_LABEL = Qt.ItemDataRole.UserRole


class ObjectTable(QWidget):
    """Name, volume and slices of every object; a click chooses, a double click renames.

    Parameters
    ----------
    controller
        What it shows and asks.
    """

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        self._voxels: dict[int, tuple[AnnotatedObject, int]] = {}
        self.tree = QTreeWidget()
        self.tree.setHeaderLabels(["Object", "Volume", "Slices"])
        self.tree.setRootIsDecorated(False)
        self.tree.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.tree.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked)
        self.tree.setFixedHeight(76)
        header = self.tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in (1, 2):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.add = _small("New", "Add an object.")
        self.jump = _small("Go to  J", "Show its largest slice.  Key J.")
        self.lock = _small("Lock", "A locked object is finished: nothing changes it.")
        self.colour = _small("Colour", "Choose its colour.")
        self.delete = _small("Delete", "Delete it with its prompts; Undo brings it back.")
        self._lay_out()
        self.tree.itemClicked.connect(self._on_clicked)
        self.tree.itemChanged.connect(self._on_renamed)
        self.add.clicked.connect(lambda _=False: controller.add_object())
        self.jump.clicked.connect(lambda: controller.jump_to(controller.active))
        self.lock.clicked.connect(self._on_lock)
        self.colour.clicked.connect(self._on_colour)
        self.delete.clicked.connect(lambda: controller.delete(controller.active))

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addWidget(self.tree)
        row = QHBoxLayout()
        row.setSpacing(3)
        for button in (self.add, self.jump, self.lock, self.colour, self.delete):
            row.addWidget(button, 1)
        column.addLayout(row)

    def refresh(self) -> None:
        """Show the objects as they are now."""
        controller = self._controller
        per_voxel = controller.voxel_volume_ml()
        with QSignalBlocker(self.tree):
            if self.tree.state() == QAbstractItemView.State.EditingState:
                return
            self.tree.clear()
            for label, each in controller.objects.items():
                extent = each.extent
                item = QTreeWidgetItem(
                    [
                        each.name,
                        f"{self._voxels_of(each) * per_voxel:.2f} mL" if extent else "–",
                        f"{extent[0]}–{extent[1]}" if extent else "–",
                    ]
                )
                item.setData(0, _LABEL, label)
                locked = each.locked is not None
                item.setIcon(0, swatch(controller.colour_of(label), locked=locked))
                item.setToolTip(0, "Locked: nothing changes it." if locked else each.name)
                if each.locked is None:
                    item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
                for column in (1, 2):
                    item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight)
                self.tree.addTopLevelItem(item)
                if label == controller.active:
                    self.tree.setCurrentItem(item)
        obj = controller.active_object
        for button in (self.jump, self.lock, self.colour, self.delete):
            button.setEnabled(obj is not None)
        locked_now = obj is not None and obj.locked is not None
        self.lock.setText("Unlock" if locked_now else "Lock")
        self.delete.setEnabled(obj is not None and not locked_now)

    def _voxels_of(self, obj: AnnotatedObject) -> int:
        """Count the voxels of an object once: objects are values that do not change."""
        known = self._voxels.get(obj.label)
        if known is None or known[0] is not obj:
            known = self._voxels[obj.label] = (obj, obj.voxels)
        return known[1]

    def _on_clicked(self, item: QTreeWidgetItem, _: int) -> None:
        self._controller.choose(int(item.data(0, _LABEL)))

    def _on_renamed(self, item: QTreeWidgetItem, column: int) -> None:
        if column != 0:
            return
        label, name = int(item.data(0, _LABEL)), item.text(0)
        obj = self._controller.objects.get(label)
        if obj is not None and name.strip() in ("", obj.name):  # no other name: as before
            with QSignalBlocker(self.tree):
                item.setText(0, obj.name)
        self._controller.rename(label, name)

    def _on_lock(self) -> None:
        obj = self._controller.active_object
        if obj is not None:
            self._controller.set_locked(obj.label, locked=obj.locked is None)

    def _on_colour(self) -> None:
        label = self._controller.active
        chosen = QColorDialog.getColor(QColor(self._controller.colour_of(label)), self)
        if label and chosen.isValid():
            self._controller.set_colour(label, chosen.name())


class PromptList(QWidget):
    """What was said about the active object, in the order in which it was said.

    Parameters
    ----------
    controller
        What it shows and asks.
    """

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        self.list = QListWidget()
        self.list.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.list.setMinimumHeight(64)
        # Its own hint is taller than what is left of a small screen.
        self.list.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Ignored)
        self.remove = _small("Remove prompt", "Take the chosen prompt back, however old it is.")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        row = QHBoxLayout()
        row.addWidget(heading("Prompts"), 1)
        row.addWidget(self.remove)
        column.addLayout(row)
        column.addWidget(self.list, 1)
        self.list.itemClicked.connect(self._on_clicked)
        self.list.itemSelectionChanged.connect(self._on_selected)
        self.remove.clicked.connect(self.remove_chosen)

    def refresh(self) -> None:
        """Show the prompts as they are now."""
        obj = self._controller.active_object
        chosen = self._chosen()
        with QSignalBlocker(self.list):
            self.list.clear()
            for number, prompt in (obj.prompts if obj else {}).items():
                item = QListWidgetItem(describe(prompt))
                item.setData(_LABEL, number)
                self.list.addItem(item)
                if number == chosen:
                    self.list.setCurrentItem(item)
            if chosen is None or chosen not in (obj.prompts if obj else {}):
                self.list.setCurrentRow(-1)
        self._on_selected()

    def remove_chosen(self) -> None:
        """Take the chosen prompt back."""
        number, obj = self._chosen(), self._controller.active_object
        if number is not None and obj is not None:
            self._controller.remove_prompt(obj.label, number)

    def _chosen(self) -> int | None:
        item = self.list.currentItem()
        return None if item is None or not item.isSelected() else int(item.data(_LABEL))

    def _on_selected(self) -> None:
        self.remove.setEnabled(self._chosen() is not None)

    def _on_clicked(self, item: QListWidgetItem) -> None:
        obj = self._controller.active_object
        prompt = obj.prompts.get(int(item.data(_LABEL))) if obj else None
        if prompt is not None:
            self._controller.go_to(prompt.z)


def describe(prompt: Prompt) -> str:
    """Return a prompt as one line."""
    match prompt:
        case Box():
            size = f"{prompt.x1 - prompt.x0} × {prompt.y1 - prompt.y0}"
            return f"Box on slice {prompt.z}, {size} voxels"
        case Click():
            what = "Added" if prompt.positive else "Removed"
            return f"{what} by a click on slice {prompt.z}"
        case Stop():
            return f"Ends before slice {prompt.z}"
        case MaskPrompt():
            what = "Painted" if is_conditioning(prompt) else "Wiped off"
            return f"{what} by hand on slice {prompt.z}"


def _small(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    button.setStyleSheet("QPushButton { padding: 3px 4px; }")
    return button
