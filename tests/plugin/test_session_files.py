import numpy as np
import pytest

from napari_lungfm._core.exceptions import InputFileError, UsageError
from napari_lungfm.geometry import Volume
from napari_lungfm.inference import AnnotationSession
from napari_lungfm.inference.session import SessionFileError
from napari_lungfm.inference.session.recording import read_recording
from napari_lungfm.models.prompts import Box
from napari_lungfm.models.registry import create_model
from napari_lungfm.plugin.layer_geometry import LayerInfo
from napari_lungfm.plugin.palette import default_colour
from napari_lungfm.plugin.reader import get_reader
from napari_lungfm.plugin.session_files import read_session_masks


@pytest.fixture
def session(volume: Volume):
    """Two objects that overlap, one removed prompt, an undone and a redone action."""
    session = AnnotationSession(volume, create_model("prompt-ellipse"))
    session.add_object(3, "tumour")
    session.add_object(5, "node")
    session.add_prompt(3, Box(2, 3, 4, 12, 14))
    for _ in session.propagate(3):
        pass
    session.lock(3)
    first = session.add_prompt(5, Box(3, 6, 6, 15, 18)).prompt_ids[0]
    session.add_prompt(5, Box(4, 6, 6, 15, 18))
    session.remove_prompt(5, first)
    session.edit_slice(5, 1, np.eye(17, 20) > 0)
    session.undo()
    session.undo()
    session.redo()
    session.rename_object(5, "lymph node")
    session.colour_object(5, "#123abc")
    return session


def test_the_masks_are_those_of_the_session(session, tmp_path):
    path = tmp_path / "case.session"
    session.save(path)
    found, colours = read_session_masks(path)
    true = session.label_map()
    np.testing.assert_array_equal(found.array, true.array)
    assert set(np.unique(found.array)) == {0, 3, 5}
    assert found.labels == {3: "tumour", 5: "lymph node"}
    assert found.geometry.is_close(true.geometry)
    assert colours == {3: default_colour(3), 5: "#123abc"}


def test_napari_gets_a_labels_layer(session, tmp_path):
    path = str(tmp_path / "case.session")
    session.save(path)
    ((data, options, kind),) = get_reader(path)(path)
    assert (kind, options["name"]) == ("labels", "case")
    np.testing.assert_array_equal(data, session.label_map().array)
    info = LayerInfo.from_metadata(options["metadata"])
    assert info.session == path
    assert info.labels == {3: "tumour", 5: "lymph node"}
    layer = pytest.importorskip("napari.layers").Labels(data, **options)
    np.testing.assert_allclose(
        layer.get_color(5), (0x12 / 255, 0x3A / 255, 0xBC / 255, 1), atol=1e-6
    )
    assert layer.get_color(0) is None or layer.get_color(0)[3] == 0
    assert not np.allclose(layer.get_color(3), layer.get_color(9))


def test_a_log_has_no_masks(volume, tmp_path):
    path = tmp_path / "log.session"
    AnnotationSession(volume, create_model("prompt-ellipse"), log=path)
    assert read_recording(path).findings is None
    with pytest.raises(UsageError, match="no masks"):
        read_session_masks(path)


def test_a_damaged_session_is_refused_in_one_line(session, tmp_path):
    path = tmp_path / "case.session"
    session.save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(SessionFileError) as caught:
        read_session_masks(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputFileError):
        read_session_masks(tmp_path / "missing.session")
