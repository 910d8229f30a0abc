"""Other weights are another method: they are part of what decides a unit, and of its record."""

import hashlib
import json

import pytest

from napari_lungfm.benchmark import loaded
from napari_lungfm.benchmark.estimate import estimate_run
from napari_lungfm.benchmark.records import RECORD_SCHEMA, Record
from napari_lungfm.benchmark.runner import run_benchmark
from napari_lungfm.benchmark.weights import weight_hashes
from napari_lungfm.models.prompt_only import PromptOnlyModel
from napari_lungfm.models.weights.store import ENVIRONMENT_VARIABLE, Manifest, WeightStore

NAME = "litemedsam"


@pytest.fixture
def store_weights(tmp_path, monkeypatch):
    """Put a file into a store of weights of its own, as an import does."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "weights"))
    from napari_lungfm.models.catalogue import resolve

    def store(content):
        card, variant = resolve(NAME)
        folder = WeightStore().begin(card, variant)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "w.pth").write_bytes(content)
        mark = hashlib.sha256(content).hexdigest()
        WeightStore().finish(
            Manifest(
                NAME, variant, "w.pth", "here", mark, len(content), "sam", None, None, (), "now",
                "any", licence_accepted=False,
            )
        )  # fmt: skip
        return mark

    return store


@pytest.fixture
def call(make_config, tmp_path, monkeypatch):
    """Run the model of the catalogue, whose network is not the point here."""
    monkeypatch.setattr(loaded, "create_model", lambda name, device: PromptOnlyModel("box"))
    methods = [{"model": NAME, "protocols": ["box-one"]}]
    config = make_config(methods=methods, count_macs=False)

    def run():
        folder = run_benchmark(config, tmp_path / "run", base=tmp_path)
        done = estimate_run(config, tmp_path / "run", base=tmp_path)
        assert done.pending == sum(record.status == "failed" for record in folder.load())
        return folder

    return run


def test_other_weights_are_run_anew_and_records_name_theirs(store_weights, call):
    first = store_weights(b"first")
    folder = call()
    before = {path.name for path in folder.records.iterdir()}
    config = hashlib.sha256(folder.config_file.read_bytes()).hexdigest()
    for record in folder.load():
        assert record.weights == {NAME: first}
        assert record.config_hash == config
    call()
    assert {path.name for path in folder.records.iterdir()} == before
    second = store_weights(b"other")
    call()
    assert [record.weights for record in folder.load()] == [{NAME: second}] * 2
    assert len(list(folder.records.iterdir())) == 4
    store_weights(b"first")
    call()
    assert len(list(folder.records.iterdir())) == 4  # those of the first are still there


def test_weights_that_change_under_a_run_fail_their_units(store_weights, call, monkeypatch):
    store_weights(b"first")
    planned = loaded.weight_hashes
    monkeypatch.setattr(loaded, "weight_hashes", lambda name, options: {NAME: "f" * 64})
    for record in call().load():
        assert record.status == "failed"
        assert "are not those that the run began with" in record.error
    monkeypatch.setattr(loaded, "weight_hashes", planned)
    assert {record.status for record in call().load()} == {"ok"}


def test_what_is_hashed(store_weights, tmp_path):
    assert weight_hashes("prompt-box", {}) == {}
    assert weight_hashes("lungs-classical", {}) == {}
    assert weight_hashes(NAME, {}) == {}  # not here
    mark = store_weights(b"x")
    assert weight_hashes(NAME, {}) == {NAME: mark}
    own = tmp_path / "own.pth"
    own.write_bytes(b"y")
    assert weight_hashes(NAME, {"weights": str(own)}) == {
        "own.pth": hashlib.sha256(b"y").hexdigest()
    }
    own.write_bytes(b"zz")
    assert weight_hashes(NAME, {"weights": str(own)})["own.pth"] == (
        hashlib.sha256(b"zz").hexdigest()
    )
    (shipped,) = weight_hashes("lungfm-s", {}).items()
    assert shipped[0] == "lungfm-s.safetensors"
    assert len(shipped[1]) == 64


def test_records_of_the_schema_before_can_be_read(store_weights, call):
    store_weights(b"first")
    folder = call()
    path = next(folder.records.iterdir())
    values = json.loads(path.read_text())
    for name in ("weights", "config_hash"):
        del values[name]
    del values["cost"]["peak_gpu_mb"]
    old = Record.model_validate({**values, "schema_version": 2})
    assert (old.weights, old.config_hash, old.cost.peak_gpu_mb) == ({}, "", None)
    with pytest.raises(ValueError, match="schema_version"):
        Record.model_validate({**values, "schema_version": RECORD_SCHEMA + 1})
