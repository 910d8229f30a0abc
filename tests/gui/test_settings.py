"""What the settings say counts from the next session on, and what cannot be met is said."""

import pytest

from napari_lungfm.gui.annotation.session_files import BESIDE
from napari_lungfm.gui.annotation.tools import Tool
from napari_lungfm.gui.annotation.work import ModelWish
from napari_lungfm.gui.settings import BESIDE_THE_IMAGE
from napari_lungfm.gui.shared import FilesAsSet, Workplace


@pytest.fixture
def settings(monkeypatch):
    now = {"autosave": True, "session_folder": BESIDE_THE_IMAGE}
    monkeypatch.setattr("napari_lungfm.gui.shared.setting", now.__getitem__)
    return now


def test_where_and_whether_sessions_are_saved_is_asked_for_each(settings, tmp_path, monkeypatch):
    monkeypatch.delenv("NAPARI_LUNGFM_SESSIONS", raising=False)
    monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: tmp_path / "data")
    image = tmp_path / "ct.nii.gz"
    image.touch()
    files = FilesAsSet()
    assert files.new_log("ct", str(image)).parent == tmp_path / BESIDE
    settings["session_folder"] = "data folder"
    assert files.new_log("ct", str(image)).parent == tmp_path / "data" / "sessions"
    settings["autosave"] = False
    assert files.new_log("ct", str(image)) is None


def test_saving_switched_off_while_the_panel_is_open_counts_from_the_next_session(
    settings, bench, viewer, truth, tmp_path, monkeypatch
):
    monkeypatch.setenv("NAPARI_LUNGFM_SESSIONS", str(tmp_path / "kept"))
    place = Workplace(viewer, bench.mail, FilesAsSet())
    controller, offers = place.controller, []
    controller.restorable.connect(offers.append)

    def settle():
        bench.mail.flush(until=lambda: not controller.busy and not place.background.pending)

    controller.set_model(ModelWish("prompt-box"))
    controller.set_image(viewer.layers["ct"])
    controller.use(Tool.BOX)
    log = controller.annotation.log
    settings["autosave"] = False
    controller.start_from(truth, "truth")
    settle()
    assert controller.annotation.log == log
    assert log.is_file()
    controller.end()
    controller.use(Tool.BOX)
    settle()
    assert controller.annotation.log is None
    assert not offers
    assert place.closing.would_lose is False
    controller.start_from(truth, "truth")
    settle()
    assert place.closing.would_lose
    assert [*(tmp_path / "kept").glob("*.jsonl")] == [log]
    settings["autosave"] = True
    controller.end()
    controller.use(Tool.BOX)
    settle()
    assert [found.log for found in offers[-1]] == [log]
    place.close()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("no-such", "name the model 'no-such', which there is not"),
        ("medsam", "'medsam', which cannot be used here"),
        ("classical", ""),
    ],
)
def test_a_model_of_the_settings_that_cannot_be_had_is_said(
    qtbot, model, words, tmp_path, monkeypatch
):
    box_module = pytest.importorskip("napari_lungfm.gui.widgets.model_box")
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path))
    now = {"model": model, "device": "auto", "model_window": "as published"}
    monkeypatch.setattr(box_module, "setting", now.__getitem__)
    box = box_module.ModelBox(lambda call: call())
    qtbot.addWidget(box)
    assert words in box.state.text()
    assert ("settings" in box.state.text()) is bool(words)
    assert box.wish is not None
    box.refresh()
    box.model.setCurrentIndex(0)
    box.model.activated.emit(0)
    assert "settings" not in box.state.text()
    box.close_downloads()
