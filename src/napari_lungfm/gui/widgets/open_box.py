"""Opening a CT: a button, how far it is, and the way to stop it."""

from pathlib import Path
from typing import Any

import napari
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QMenu,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_lungfm.gui.annotation.notices import Notice
from napari_lungfm.gui.annotation.opening import Opening
from napari_lungfm.gui.widgets.docked import DockedWidget
from napari_lungfm.gui.widgets.look import look_of
from napari_lungfm.gui.widgets.message_bar import MessageBar

_FILES = "CT, labels or session (*.nii *.nii.gz *.nrrd *.nhdr *.mha *.mhd *.dcm *.session)"
_HINT = "Choose the folder of a CT series, or a file. The largest series of a folder is opened."


class OpenButton(QPushButton):
    """Asks for a folder or a file and has it opened; while it is read, it cancels.

    Parameters
    ----------
    opening
        Does the reading.
    parent
        The widget that it is in.
    """

    def __init__(self, opening: Opening, parent: QWidget | None = None) -> None:
        super().__init__("Open …", parent)
        self._opening, self._folder = opening, ""
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setToolTip("Open a CT: the folder of a DICOM series, or a NIfTI, NRRD or MHA file.")
        self.setStyleSheet("QPushButton { padding: 3px 8px; }")
        self.choices = QMenu(self)
        self.choices.addAction("DICOM folder …", self.ask_folder)
        self.choices.addAction("File …", self.ask_file)
        self.clicked.connect(self._on_clicked)

    def show_progress(self, share: float | None) -> None:
        """Become the way to stop while something is read."""
        self.setText("Open …" if share is None else "Cancel")

    def ask_folder(self) -> None:
        """Ask for a folder."""
        self._open(QFileDialog.getExistingDirectory(self, "Open a DICOM series", self._folder))

    def ask_file(self) -> None:
        """Ask for a file."""
        self._open(QFileDialog.getOpenFileName(self, "Open a file", self._folder, _FILES)[0])

    def _on_clicked(self) -> None:
        if self._opening.going_on:
            self._opening.cancel()
        else:
            self.choices.popup(self.mapToGlobal(self.rect().bottomLeft()))

    def _open(self, name: str) -> None:
        if name:
            self._folder = str(Path(name).parent)  # the next case lies there, as a rule
            self._opening.open(Path(name))


class OpenBar(QProgressBar):
    """How much of a series is read; hidden while nothing is."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.hide()

    def show_progress(self, share: float | None) -> None:
        """Show how far it is."""
        self.setVisible(share is not None)
        if share is not None:
            self.setRange(0, 0 if share == 0 else 100)
            self.setValue(round(100 * share))


class OpenPanel(DockedWidget):
    """Open a CT in the background, with progress.

    Parameters
    ----------
    napari_viewer
        The viewer.
    """

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        super().__init__(napari_viewer)
        opening = self.workplace.opening
        self.message = MessageBar()
        self.message.show_notice(Notice("hint", _HINT))
        self.button, self.bar = OpenButton(opening), OpenBar()
        row = QHBoxLayout()
        row.addWidget(self.button)
        row.addWidget(self.bar, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 2, 4, 2)
        column.setSpacing(4)
        column.addWidget(self.message)
        column.addLayout(row)
        column.addStretch(1)
        self.follow(opening.progressed, self.button.show_progress)
        self.follow(opening.progressed, self.bar.show_progress)
        self.follow(opening.noticed, self.message.show_notice)
        self.follow(self.viewer.events.theme, self._on_theme)
        self._on_theme()

    def refresh(self) -> None:
        """Nothing else is shown."""

    def _on_theme(self, _: Any = None) -> None:
        self.message.set_look(look_of(self.viewer.theme))
