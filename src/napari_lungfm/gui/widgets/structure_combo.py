"""Choosing the structure of the reference that an object is compared with."""

from collections.abc import Mapping

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QComboBox, QWidget

_TIP = (
    "The structure of the reference that the object is compared with: that of its name, or the "
    "one that you choose. Kept for every object while the case is open."
)


class StructureCombo(QComboBox):
    """The structures of the reference; on top, that of the name of the object."""

    #: Label of the structure, ``None`` for "by its name".
    chosen = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setToolTip(_TIP)
        self.activated.connect(lambda i: self.chosen.emit(self.itemData(i)))

    def show_choice(
        self, structures: Mapping[int, str], matched: int | None, chosen: int | None
    ) -> None:
        """Show what can be chosen and what counts now.

        Parameters
        ----------
        structures
            Label → name, of the reference.
        matched
            The one that the object is compared with, ``None`` for none.
        chosen
            The one that was chosen by hand, ``None`` for none.
        """
        automatic, others = "choose …", dict(structures)
        if matched is not None and chosen is None:
            automatic = others.pop(matched, str(matched))
        elif chosen is not None:
            automatic = "by its name"
        wanted = [(automatic, None), *((name, v) for v, name in others.items())]
        if wanted != [(self.itemText(i), self.itemData(i)) for i in range(self.count())]:
            with QSignalBlocker(self):
                self.clear()
                for text, value in wanted:
                    self.addItem(text, value)
        with QSignalBlocker(self):
            self.setCurrentIndex(0 if chosen is None else max(self.findData(chosen), 0))
