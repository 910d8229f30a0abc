"""Choosing model and device; what a model still needs; the window that it sees."""

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QStandardItemModel
from qtpy.QtWidgets import (
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QWidget,
)

from napari_lungfm.gui.annotation.downloads import Downloads
from napari_lungfm.gui.annotation.jobs import Deliver
from napari_lungfm.gui.annotation.models import ModelChoice, device_choices, model_choices
from napari_lungfm.gui.annotation.notices import Notice, explain
from napari_lungfm.gui.annotation.work import ModelWish
from napari_lungfm.gui.settings import setting
from napari_lungfm.preprocessing.windowing import WINDOWS

#: The entry for "whatever its publisher recommends".
AS_PUBLISHED = "as published"
#: Width of the captions on the left, in pixels, the same in all rows of the panel.
CAPTION_WIDTH = 76


class ModelBox(QWidget):
    """Model, device and state.

    Parameters
    ----------
    deliver
        The way back from the thread that downloads.
    """

    wished = Signal(object)
    noticed = Signal(object)

    def __init__(self, deliver: Deliver, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._downloads = Downloads(deliver)
        self._choices: tuple[ModelChoice, ...] = ()
        #: Why it is not the model of the settings, until another one is chosen.
        self._unmet = ""
        self.model, self.device, self.window = _combo(), _combo(), _combo()
        self.model.setMinimumContentsLength(10)
        self.device.setMinimumContentsLength(4)
        self.device.setToolTip("Where the model runs; auto takes a GPU if there is one.")
        self.window.setToolTip("The grey-value window that the model is shown; not yours.")
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.get = QPushButton("Get weights …")
        self.get.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self._lay_out()
        self.device.addItems(device_choices())
        self.window.addItems([AS_PUBLISHED, *WINDOWS])
        self.device.setCurrentText(str(setting("device")))
        self.window.setCurrentText(str(setting("model_window")))
        self.refresh(str(setting("model")))
        self.model.activated.connect(self._on_model)
        self.device.activated.connect(self._on_model)
        self.window.activated.connect(self._on_model)
        self.get.clicked.connect(self._on_get)

    def _lay_out(self) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(6)
        grid.setVerticalSpacing(3)
        row = QHBoxLayout()
        row.setSpacing(4)
        row.addWidget(self.model, 1)
        row.addWidget(self.device)
        grid.addWidget(_caption("Model"), 0, 0)
        grid.addLayout(row, 0, 1)
        grid.addWidget(self.state, 1, 1)
        self._window_caption = _caption("It sees")
        grid.addWidget(self._window_caption, 2, 0)
        grid.addWidget(self.window, 2, 1)
        get_row = QHBoxLayout()
        get_row.addWidget(self.get)
        get_row.addWidget(self.bar, 1)
        grid.addLayout(get_row, 3, 1)
        grid.setColumnStretch(1, 1)
        grid.setColumnMinimumWidth(0, CAPTION_WIDTH)
        self.bar.hide()

    @property
    def choice(self) -> ModelChoice | None:
        """The model that is chosen."""
        index = self.model.currentIndex()
        return self._choices[index] if 0 <= index < len(self._choices) else None

    @property
    def wish(self) -> ModelWish | None:
        """What the engine is to load; ``None`` while the model cannot be used."""
        choice = self.choice
        if choice is None or choice.state != "ready":
            return None
        device = self.device.currentText() if choice.on_device else "auto"
        chosen = self.window.currentText()
        options = (("window", chosen),) if choice.takes_window and chosen != AS_PUBLISHED else ()
        return ModelWish(choice.name, device, options)

    def refresh(self, name: str | None = None) -> None:
        """List the models anew.

        Parameters
        ----------
        name
            The one to choose; the present one, or the first that can be used.
        """
        wanted = name or (self.choice.name if self.choice else None)
        self._choices = model_choices()
        with QSignalBlocker(self.model):
            self.model.clear()
            self.model.addItems([choice.title for choice in self._choices])
            items = self.model.model()
            for i, choice in enumerate(self._choices):
                self.model.setItemData(i, _tip(choice), Qt.ItemDataRole.ToolTipRole)
                if choice.state in ("too big", "not installed") and isinstance(
                    items, QStandardItemModel
                ):
                    items.item(i).setEnabled(False)
            # What the settings name may not be usable here; what the user has chosen stays.
            usable = [
                i
                for i, c in enumerate(self._choices)
                if c.name == wanted and (c.state == "ready" or name is None)
            ]
            self.model.setCurrentIndex(usable[0] if usable else 0)
        self._unmet = "" if usable or name is None else self._why_not(name)
        self._show_state()

    def _why_not(self, name: str) -> str:
        """Return why the model that the settings name is not the one that is chosen."""
        choice = next((each for each in self._choices if each.name == name), None)
        if choice is None:
            return f"The settings name the model '{name}', which there is not; this one is taken."
        return f"The settings name '{name}', which cannot be used here ({choice.detail})."

    def show_wish(self, wish: ModelWish) -> None:
        """Show what the controller uses, after a restored session say."""
        for i, choice in enumerate(self._choices):
            if choice.name == wish.name and i != self.model.currentIndex():
                self.model.setCurrentIndex(i)
                self._unmet = ""
                self._show_state()

    def close_downloads(self) -> None:
        """Stop a download that is going on."""
        self._downloads.close()

    def _on_model(self, _: int) -> None:
        self._unmet = ""
        self._show_state()
        choice = self.choice
        if choice is not None and choice.state != "ready":
            self.noticed.emit(Notice("warning", f"'{choice.name}': {_tip(choice)}"))
            return
        self.wished.emit(self.wish)

    def _show_state(self) -> None:
        choice = self.choice
        if choice is None:
            return
        self.model.setToolTip(_tip(choice))
        words = {"ready": "Ready", "download": "Needs a download", "by hand": "Needs its weights"}
        state = words.get(choice.state, choice.state.capitalize())
        detail = choice.detail if choice.state != "by hand" else f"licence {choice.licence}"
        self.state.setText(f"{self._unmet} {state}: {detail}".strip())
        self.state.setToolTip(_tip(choice))
        self.device.setEnabled(choice.on_device)
        for widget in (self._window_caption, self.window):
            widget.setVisible(choice.takes_window)
        self.get.setVisible(choice.state == "download" and not self._downloads.going_on)

    # ------------------------------------------------------------------ downloads
    def _on_get(self) -> None:
        choice = self.choice
        if self._downloads.going_on:
            self._downloads.cancel()
            return
        if choice is None:
            return
        try:
            licence = self._downloads.licence(choice.name)
        except Exception as error:  # noqa: BLE001 - shown to the user
            self.noticed.emit(explain(error))
            return
        question = (
            f"{licence}\n\nDownload {choice.detail.partition(',')[0]} and accept this licence?"
        )
        answer = QMessageBox.question(self, f"Weights of {choice.name}", question)
        if answer == QMessageBox.StandardButton.Yes:
            self.get.setText("Cancel download")
            self.bar.setRange(0, 0)
            self.bar.show()
            self._downloads.fetch(choice.name, self._on_progress, self._on_fetched)

    def _on_progress(self, done: int, total: int) -> None:
        self.bar.setRange(0, 1000 if total else 0)
        self.bar.setValue(1000 * done // total if total else 0)
        self.bar.setFormat(f"{done / 1e6:.0f} MB" + (f" of {total / 1e6:.0f}" if total else ""))

    def _on_fetched(self, notice: Notice, here: bool) -> None:
        self.bar.hide()
        self.get.setText("Get weights …")
        self.refresh()
        self.noticed.emit(notice)
        if here:
            self.wished.emit(self.wish)


def _combo() -> QComboBox:
    combo = QComboBox()
    combo.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    return combo


def _caption(text: str) -> QLabel:
    return QLabel(text)


def _tip(choice: ModelChoice) -> str:
    return f"{choice.summary}; licence {choice.licence}; {choice.detail}"
