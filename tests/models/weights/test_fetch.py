import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_lungfm import LungFMWarning
from napari_lungfm._core.exceptions import MissingDependencyError, UsageError
from napari_lungfm.models.cards import CheckValue
from napari_lungfm.models.weights import (
    DownloadCancelledError,
    DownloadError,
    WeightsError,
    WeightsNotFoundError,
    WeightStore,
    files,
)
from napari_lungfm.models.weights.fetch import fetch, licence_text
from napari_lungfm.models.weights.verify import verify

BODY = np.random.default_rng(0).bytes(1_500_000)


@pytest.fixture
def published(thin, write, site, catalogue):
    """A file of lungmask, published on the test server, bigger than the smallest size."""

    def publish(path="/good", state=None, **options):
        state = state or {**thin("lungmask-3")}
        state["down_path.4.block.0.weight"] = torch.randn(
            state["down_path.4.block.0.weight"].shape, generator=torch.Generator().manual_seed(1)
        )
        body = write(state, "published.pth").read_bytes()
        address = site.serve(path, body, **options)
        catalogue(
            "lungmask",
            addresses=(address,),
            size=len(body),
            checks=(CheckValue("sha256", hashlib.sha256(body).hexdigest()),),
        )
        return SimpleNamespace(address=address, body=body)

    return publish


def get(name="lungmask", **options):
    return fetch(name, licence_accepted=True, pause=0.01, timeout=5, **options)


def test_fetched_weights_are_checked_and_stored(published):
    file = published(drops=[1_000_000])
    stored = get()
    assert stored.path.read_bytes() == file.body
    manifest = stored.manifest
    assert (manifest.source, manifest.licence_accepted) == (file.address, True)
    assert manifest.checked == (f"sha256 {manifest.sha256}",)
    assert sorted(p.name for p in stored.path.parent.iterdir()) == [
        "manifest.json",
        "unet_r231-d5d2fc3d.pth",
    ]
    assert verify("lungmask").path == stored.path


def test_weights_that_are_here_are_not_fetched_again(published, site):
    published()
    first = get()
    asked = len(site.requests)
    assert get().manifest == first.manifest
    assert len(site.requests) == asked
    content = bytearray(first.path.read_bytes())
    content[-100] ^= 1
    first.path.write_bytes(content)
    assert get().manifest.sha256 == first.manifest.sha256  # spoilt: fetched again
    verify("lungmask")


def test_mirrors_are_tried_in_order(published, site):
    file = published()
    wrong = bytearray(file.body)
    wrong[5000] ^= 1
    addresses = [
        site.serve("/gone", b"", status=404),
        site.serve("/page", b"<html>"),
        site.serve("/wrong", bytes(wrong)),
        file.address,
    ]
    assert get(addresses=addresses).manifest.source == file.address


def test_a_wrong_file_is_not_kept(published, site, own_folder):
    file = published()
    wrong = bytearray(file.body)
    wrong[5000] ^= 1
    with pytest.raises(DownloadError, match=r"its sha256 is .* models import FILE --as lungmask"):
        get(addresses=[site.serve("/wrong", bytes(wrong))])
    assert [path for path in own_folder.rglob("*") if path.is_file()] == []


def test_a_spoilt_part_is_thrown_away_and_fetched_anew(published, own_folder):
    file = published()
    part = own_folder / "lungmask" / "R231" / ".unet_r231-d5d2fc3d.pth.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 2_000_000)
    assert get().path.read_bytes() == file.body


def test_a_cancelled_fetch_goes_on(published, site):
    published()
    calls = []
    with pytest.raises(DownloadCancelledError):
        get(cancelled=lambda: len(calls) > 3 or calls.append(1))
    with pytest.raises(WeightsNotFoundError):
        WeightStore().find("lungmask")
    get()
    assert site.requests[-1][1].startswith("bytes=")


def test_a_published_file_with_nan_is_refused(published, thin, own_folder):
    published(state={**thin("lungmask-3"), "last.bias": torch.full((3,), torch.nan)})
    with pytest.raises(WeightsError, match="NaN"):
        get()
    assert [path for path in own_folder.rglob("*") if path.is_file()] == []


def test_parts_are_not_trusted_where_the_check_value_cannot_be_computed(
    published, site, catalogue, monkeypatch, own_folder
):
    monkeypatch.setattr(files, "is_available", lambda _: False)
    file = published()
    catalogue("lungmask", checks=(CheckValue("xxh128", "0" * 32),))
    part = own_folder / "lungmask" / "R231" / ".unet_r231-d5d2fc3d.pth.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 2_000_000)
    with pytest.warns(LungFMWarning, match="xxhash"):
        stored = get()
    assert stored.path.read_bytes() == file.body
    assert stored.manifest.checked == ()


def test_a_missing_package_is_said_before_anything_is_downloaded(published, site, monkeypatch):
    from napari_lungfm.models.weights import reference

    published()
    reference.reference_shapes.cache_clear()

    def missing(module, *, purpose):
        raise MissingDependencyError(f"{purpose} needs {module}")

    monkeypatch.setattr(reference, "require", missing)
    with pytest.raises(MissingDependencyError):
        get()
    assert site.requests == []


def test_the_licence_comes_first(site):
    with pytest.raises(UsageError, match=r"licence of 'medsam2-ma' .*CC-BY-SA-4.0.*--yes"):
        fetch("medsam2-ma", licence_accepted=False)
    assert site.requests == []


def test_the_licence_text_says_what_matters():
    from napari_lungfm.models.catalogue import checkpoint_card

    assert "commercial use is NOT allowed" in licence_text(checkpoint_card("medsam2-ma"))
    assert "commercial use is allowed" in licence_text(checkpoint_card("sam2.1-tiny"))
    assert "is not stated" in licence_text(checkpoint_card("medicosam"))


def test_what_no_program_can_fetch_is_explained():
    with pytest.raises(DownloadError, match=r"drive\.google\.com.*--as litemedsam"):
        get("litemedsam")
    with pytest.raises(UsageError, match="no published weights 'mine'"):
        get("medsam:mine")
