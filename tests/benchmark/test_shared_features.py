"""Units of one case share what a model has opened, and nothing in the results tells."""

import numpy as np
import pytest

from napari_lungfm import io
from napari_lungfm.benchmark import loaded, units
from napari_lungfm.benchmark.report.summary import summarise
from napari_lungfm.benchmark.runner import run_benchmark
from napari_lungfm.benchmark.store import costs_frame, results_frame

pytest.importorskip("torch")
PROTOCOLS = ["box-every-slice", "box-one", "point-one", "zhu-validation"]


class Encoding:
    """A model made of SAM's slice features: an "encoder" that smooths, a mask by threshold."""

    def __init__(self, name):
        self.name = name
        self.opened = []

    def open(self, volume, *, cache=None):
        import torch

        from napari_lungfm.models.foundation.features import RecentFeatures, SliceFeatures
        from napari_lungfm.models.foundation.runtime import Runtime
        from napari_lungfm.models.foundation.slices import SliceSource
        from napari_lungfm.models.foundation.zoom import Crop
        from napari_lungfm.models.protocols import SlicePrediction
        from napari_lungfm.preprocessing.windowing import Window

        self.opened.append(volume)
        features = SliceFeatures(
            SliceSource(volume.array, Window(-400, 1200)),
            Runtime(torch.nn.Identity(), "cpu", "float32"),
            lambda greys: torch.stack([torch.from_numpy(g.copy()).float()[None] for g in greys]),
            lambda images: (torch.nn.functional.avg_pool2d(images, 3, 1, 1),),
            cache=cache if cache is not None else RecentFeatures(),
            name=self.name,
            weights="w",
        )
        crop = Crop.whole(volume.shape[1:])

        class Predictor:
            def predict_slice(self, z, prompts, prior=None):
                logits = features.get(z, crop)[0][0, 0].float().numpy() / 128 - 1.4
                return SlicePrediction(logits > 0, 1.0, logits)

        return Predictor()


@pytest.fixture
def models(monkeypatch):
    """All models made, in order; every name makes an `Encoding`."""
    made = []

    def create(name, **options):
        made.append(Encoding(name))
        return made[-1]

    monkeypatch.setattr(loaded, "create_model", create)
    return made


@pytest.fixture
def run(make_config, tmp_path):
    def call(out, methods, **changes):
        config = make_config(methods=methods, **changes)
        return run_benchmark(config, tmp_path / out, base=tmp_path)

    return call


def test_results_are_those_of_units_run_alone(run, models):
    together = run("all", [{"model": "classical", "protocols": PROTOCOLS}], seeds=[0, 1])
    found = {(r.key.case, r.key.protocol, r.key.seed): r for r in together.load()}
    assert len(found) == 16
    for protocol in PROTOCOLS:
        for seed in (0, 1):
            methods = [{"model": "classical", "protocols": [protocol]}]
            apart = run(f"{protocol}-{seed}", methods, seeds=[seed])
            for alone in apart.load():
                shared = found[alone.key.case, protocol, seed]
                same = [
                    [s.model_copy(update={"interactions": ()}) for s in record.structures]
                    for record in (alone, shared)
                ]
                assert same[0] == same[1]
                assert alone.zhu == shared.zhu
                masks = [
                    io.read_label_map(folder.root / record.mask_file).array
                    for folder, record in ((apart, alone), (together, shared))
                ]
                assert np.array_equal(*masks)
                assert masks[0].any()
                costs = shared.cost
                assert alone.cost.slices_reused == 0
                assert costs.slices_encoded + costs.slices_reused == alone.cost.slices_encoded
                assert costs.alone_seconds == costs.seconds + costs.saved_seconds
    assert sum(r.cost.slices_reused for r in found.values()) > 0


def test_a_model_is_made_once_and_opened_once_per_case(run, models):
    # The same model twice, under two labels, with another between.
    methods = [
        {"model": "classical", "label": "first", "protocols": ["box-one"]},
        {"model": "prompt-box", "protocols": ["box-one"]},
        {"model": "classical", "label": "second", "protocols": ["box-one", "point-one"]},
    ]
    folder = run("order", methods)
    assert [m.name for m in models] == ["classical", "prompt-box"] * 2  # two cases
    assert all(len(m.opened) == 1 for m in models)
    records = folder.load()
    assert [r.key.method for r in records[:4]] == ["first", "prompt-box", "second", "second"]
    reused = {r.key.method: r.cost.slices_reused for r in records[:3]}
    assert (reused["first"], reused["prompt-box"]) == (0, 0)
    assert reused["second"] > 0


def test_tables_tell_the_time_of_units_run_alone(run, models):
    folder = run("costs", [{"model": "classical", "protocols": PROTOCOLS[:3]}])
    records = folder.load()
    frame = costs_frame(records)
    assert (frame["alone_seconds"] == frame["seconds"] + frame["saved_seconds"]).all()
    summary = summarise(records).set_index("protocol")
    for protocol, own in frame.groupby("protocol"):
        assert summary.loc[protocol, "seconds"] == pytest.approx(own["alone_seconds"].mean())
    assert not {"slices_encoded", "slices_reused"} & set(results_frame(records).columns)


def test_models_without_an_encoder_count_no_slices(run):
    folder = run("plain", [{"model": "prompt-ellipse", "protocols": ["box-one"]}])
    for record in folder.load():
        assert (record.cost.slices_encoded, record.cost.slices_reused) == (None, None)
        assert record.cost.saved_seconds == 0.0


def test_a_model_that_fails_in_one_unit_serves_the_next(run, models, monkeypatch):
    simulate = units.simulate

    def fail(model, volume, reference, protocol, rng, **options):
        if protocol.name == "box-one":
            raise RuntimeError("no luck")
        return simulate(model, volume, reference, protocol, rng, **options)

    monkeypatch.setattr(units, "simulate", fail)
    folder = run("fail", [{"model": "classical", "protocols": ["box-one", "point-one"]}])
    status = [(r.key.protocol, r.status) for r in folder.load()]
    assert status == [("box-one", "failed"), ("point-one", "ok")] * 2
