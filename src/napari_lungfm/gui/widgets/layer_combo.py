"""A list of the viewer's layers of one kind to choose from."""

from typing import Any

from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QWidget

from napari_lungfm.gui.annotation.layers import is_ours


class LayerCombo(QComboBox):
    """Follows the viewer's layers.

    Parameters
    ----------
    viewer
        The viewer.
    kind
        Class of the layers.
    nothing
        Text of an entry for "none"; without one, the first layer is chosen by itself.
    empty
        What it says when there is nothing to choose.
    parent
        The widget that it is in.
    """

    layer_chosen = Signal(object)

    def __init__(
        self,
        viewer: ViewerModel,
        kind: type[Layer],
        *,
        nothing: str | None = None,
        empty: str = "",
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._kind, self._nothing, self._empty = viewer, kind, nothing, empty
        self._layers: list[Layer | None] = []
        self._last: Layer | None = None
        # Typing goes to the viewer's shortcuts, not into the list.
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self._events = (
            viewer.layers.events.inserted,
            viewer.layers.events.removed,
            viewer.layers.events.reordered,
            viewer.layers.events.renamed,
        )
        for event in self._events:
            event.connect(self.refresh)
        self.currentIndexChanged.connect(self._on_index)
        self.refresh()

    @property
    def layer(self) -> Layer | None:
        """The layer that is chosen."""
        index = self.currentIndex()
        return self._layers[index] if 0 <= index < len(self._layers) else None

    def choose(self, layer: Layer | None) -> None:
        """Choose a layer."""
        if layer in self._layers:
            self.setCurrentIndex(self._layers.index(layer))

    def refresh(self, _: Any = None) -> None:
        """List the layers anew; the choice stays where it can."""
        kept = self.layer if self._layers else self._last
        found: list[Layer | None] = [
            each
            for each in self._viewer.layers
            if isinstance(each, self._kind) and not is_ours(each)
        ]
        if self._nothing is not None:
            found.insert(0, None)
        self.blockSignals(True)
        self.clear()
        self._layers = found
        for each in found:
            self.addItem(self._nothing or "" if each is None else each.name)
        if not found and self._empty:
            self.setPlaceholderText(self._empty)
        self.setCurrentIndex(found.index(kept) if kept in found else (0 if found else -1))
        self.setEnabled(bool(found))
        self.blockSignals(False)
        self._tell()

    def disconnect_viewer(self) -> None:
        """Follow the viewer no longer."""
        for event in self._events:
            event.disconnect(self.refresh)

    def _on_index(self, _: int) -> None:
        self._tell()

    def _tell(self) -> None:
        if self.layer is not self._last:
            self._last = self.layer
            self.setToolTip(self.currentText())
            self.layer_chosen.emit(self._last)
