import contextlib
import hashlib
import io
import os
import pickle
import sys
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_lungfm._core.exceptions import InputFileError, LungFMError, OutputError
from napari_lungfm.models.weights import WeightsError
from napari_lungfm.models.weights import files as module
from napari_lungfm.models.weights.files import (
    file_digests,
    read_file,
    write_fine_tuned,
    write_tensors,
)

# What torch's reader says of damaged pickles beside the error.
pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")

STATE = {"a.weight": torch.arange(1000.0), "b": torch.ones(3, 4)}


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_come_back_as_they_were(write, zipped):
    path = write({"model": STATE, "epoch": 3}, _use_new_zipfile_serialization=zipped)
    raw = read_file(path)
    assert raw.ours is None
    assert torch.equal(raw.content["model"]["a.weight"], STATE["a.weight"])


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_never_runs(write, tmp_path, zipped):
    trap = tmp_path / "trap"
    path = write({**STATE, "x": Evil(trap)}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"pickled code or objects \('\w+\.mkdir'\)"):
        read_file(path)
    assert not trap.exists()


def test_what_is_beside_tensors_is_named(write):
    """torch says "Unsupported global: GLOBAL fractions.Fraction"."""
    path = write({**STATE, "args": Fraction(1, 2)})
    with pytest.raises(WeightsError, match=r"pickled code or objects \('fractions\.Fraction'\)"):
        read_file(path)


def test_a_bare_malicious_pickle_never_runs(tmp_path):
    trap, path = tmp_path / "trap", tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Evil(trap)))
    with pytest.raises(WeightsError):
        read_file(path)
    assert not trap.exists()
    # The trap does work where code is run: the test above can fail.
    pickle.loads(path.read_bytes())
    assert trap.exists()


@pytest.mark.parametrize("share", [0.05, 0.5, 0.98])
@pytest.mark.parametrize("name", ["file.pth", "file.safetensors"])
def test_truncated_files_are_refused(tmp_path, write, name, share):
    path = write(STATE)
    if name.endswith("safetensors"):
        path = tmp_path / name
        write_fine_tuned(path, STATE, model="medsam", label="x")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match=r"cut short|damaged"):
        read_file(path)


def test_one_changed_byte_in_a_tensor_is_found(write):
    path = write(STATE)
    content = bytearray(path.read_bytes())
    at = content.index(torch.arange(1000.0).numpy().tobytes()[400:440]) + 5
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="wrong checksum"):
        read_file(path)
    read_file(path, known_whole=True)  # where a digest was compared


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"hello, these are no weights at all", r"no file of weights \(KeyError\)"),
        (b"\x80\x04garbage", "no file of weights"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_file(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputFileError, match=r"no_such\.pth"):
        read_file(tmp_path / "no_such.pth")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), zipped=st.booleans())
def test_damage_is_an_error_of_ours_or_harmless(tmp_path, data, zipped):
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(8.0)}, buffer, _use_new_zipfile_serialization=zipped)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with contextlib.suppress(LungFMError):
        read_file(path)


def test_fine_tuned_weights_say_so(tmp_path):
    path = tmp_path / "mine.safetensors"
    shared = torch.randn(5)
    write_fine_tuned(
        path, {"a": shared, "b": shared}, model="medsam", label="x", details={"epochs": 3}
    )
    raw = read_file(path)
    assert raw.ours == {"schema_version": 1, "model": "medsam", "label": "x", "epochs": 3}
    assert torch.equal(raw.content["b"], shared)


def test_fine_tuned_weights_may_be_pytorch_files(write):
    entry = {"schema_version": 1, "model": "medsam", "label": "x"}
    assert read_file(write({"model": STATE, "napari_lungfm": entry})).ours == entry


@pytest.mark.parametrize("entry", ["{", {"model": 3}, {"model": "medsam", "schema_version": 9}])
def test_an_entry_of_ours_that_cannot_be_read_is_refused(write, entry):
    with pytest.raises(WeightsError, match="again"):
        read_file(write({"model": STATE, "napari_lungfm": entry}))


def test_digests_are_those_of_hashlib(tmp_path, monkeypatch):
    path = tmp_path / "x"
    content = b"0123456789" * 300_000
    path.write_bytes(content)
    seen = []
    monkeypatch.setattr(module, "is_available", lambda _: False)
    assert module.computable_algorithms() == {"md5", "sha256"}
    digests = file_digests(path, lambda done, total: seen.append((done, total)))
    assert digests == {
        "md5": hashlib.md5(content).hexdigest(),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert seen[-1] == (len(content), len(content))
    # A stand-in for xxhash: it is used by the name of its 128-bit digest.
    monkeypatch.setattr(module, "is_available", lambda _: True)
    monkeypatch.setitem(sys.modules, "xxhash", SimpleNamespace(xxh3_128=hashlib.sha1))
    assert file_digests(path)["xxh128"] == hashlib.sha1(content).hexdigest()


def test_weights_that_cannot_be_written_are_one_line(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write '.*w\.safetensors': ") as caught:
            write_tensors(tmp_path / "w.safetensors", {"a": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    same = torch.arange(3.0)
    write_tensors(tmp_path / "w.safetensors", {"a": same, "b": same.view(-1)})
    assert (tmp_path / "w.safetensors").is_file()
