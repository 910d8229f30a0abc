import errno
import hashlib
import socket
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_lungfm import LungFMWarning
from napari_lungfm._core.exceptions import MissingDependencyError, OutputError, UsageError
from napari_lungfm.models.cards import CheckValue
from napari_lungfm.models.weights import (
    DownloadCancelledError,
    DownloadError,
    WeightsError,
    WeightsNotFoundError,
    WeightStore,
    files,
)
from napari_lungfm.models.weights import download as module
from napari_lungfm.models.weights.download import Transfer, download
from napari_lungfm.models.weights.fetch import fetch, licence_text
from napari_lungfm.models.weights.verify import verify

BODY = np.random.default_rng(0).bytes(1_500_000)


@pytest.fixture
def part(tmp_path):
    return tmp_path / "weights" / ".x.part"


def quick(part, **options):
    return Transfer(part=part, pause=0.01, timeout=5, **options)


def test_a_download_arrives_whole_and_tells_its_progress(site, part):
    seen = []
    download(site.serve("/x", BODY), quick(part, progress=lambda *at: seen.append(at)))
    assert part.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert seen == sorted(seen)


def test_dropped_connections_are_gone_on_with(site, part):
    address = site.serve("/x", BODY, tag="v1", drops=[400_000, 0, 500_000])
    download(address, quick(part))
    assert part.read_bytes() == BODY
    assert [range_ for _, range_, _ in site.requests] == [
        None,
        "bytes=400000-",
        "bytes=400000-",
        "bytes=900000-",
    ]


def test_a_connection_that_drops_often_but_brings_something_is_not_given_up(site, part):
    address = site.serve("/x", BODY, tag="v1", drops=[200_000] * 7)
    download(address, quick(part, attempts=2))
    assert part.read_bytes() == BODY
    assert len(site.requests) == 8


def test_another_part_than_the_one_asked_for_is_refused(site, part):
    address = site.serve("/x", BODY, tag="v1", drops=[200_000], shift=100)
    with pytest.raises(DownloadError, match=r"from '200100'.* than from 200000"):
        download(address, quick(part))


def test_a_connection_that_always_drops_is_given_up(site, part):
    address = site.serve("/x", BODY, tag="v1", drops=[300_000] + [0] * 20)
    with pytest.raises(DownloadError, match="broke off after 300000 of 1500000 bytes"):
        download(address, quick(part))
    assert part.stat().st_size == 300_000  # kept for another day
    site.serve("/x", BODY, tag="v1")
    download(address, quick(part))
    assert part.read_bytes() == BODY
    assert site.requests[-1][1:] == ("bytes=300000-", '"v1"')


def test_cancelling_keeps_what_is_there(site, part):
    address = site.serve("/x", BODY, tag="v1")
    with pytest.raises(DownloadCancelledError, match="goes on from there"):
        download(address, quick(part, cancelled=lambda: part.stat().st_size >= 500_000))
    kept = part.stat().st_size
    assert 500_000 <= kept < len(BODY)
    download(address, quick(part))
    assert part.read_bytes() == BODY
    assert site.requests[-1][1] == f"bytes={kept}-"


def test_a_file_that_changed_meanwhile_is_taken_anew(site, part):
    address = site.serve("/x", BODY, tag="v1", drops=[300_000] + [0] * 20)
    with pytest.raises(DownloadError):
        download(address, quick(part))
    other = BODY[::-1]
    site.serve("/x", other, tag="v2")
    download(address, quick(part))
    assert part.read_bytes() == other


def test_a_server_without_ranges_starts_over(site, part):
    address = site.serve("/x", BODY, tag="v1", drops=[700_000], ranges=False)
    download(address, quick(part))
    assert part.read_bytes() == BODY


def test_a_part_without_any_mark_is_not_trusted(site, part):
    part.parent.mkdir()
    part.write_bytes(b"x" * 1000)
    address = site.serve("/x", BODY)
    download(address, quick(part))
    assert part.read_bytes() == BODY
    part.write_bytes(BODY[:1000])
    download(address, quick(part, trust_part=True))
    assert part.read_bytes() == BODY
    assert site.requests[-1][1] == "bytes=1000-"


def test_a_part_that_is_whole_already_is_enough(site, part):
    part.parent.mkdir()
    part.write_bytes(BODY)
    address = site.serve("/x", BODY)
    download(address, quick(part, trust_part=True))  # the server says 416
    download(address, quick(part, trust_part=True, size=len(BODY)))  # not asked at all
    assert len(site.requests) == 1
    part.write_bytes(BODY + b"too long")
    download(address, quick(part, trust_part=True))
    assert part.read_bytes() == BODY


def test_a_busy_server_is_asked_again(site, part):
    download(site.serve("/x", BODY, status=503, times=2), quick(part))
    assert part.read_bytes() == BODY
    with pytest.raises(DownloadError, match="503"):
        download(site.serve("/y", BODY, status=503, times=99), quick(part.with_name("y")))


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "no such file"), (403, "refuses access"), (401, "login"), (410, "taken away")],
)
def test_a_refusal_is_final(site, part, status, message):
    with pytest.raises(DownloadError, match=message):
        download(site.serve("/x", BODY, status=status, times=99), quick(part))
    assert len(site.requests) == 1


@pytest.mark.parametrize(
    ("body", "options", "message"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", {}, "web page"),
        (BODY, {"type": "text/html; charset=utf-8"}, "web page"),
        (b"quota exceeded", {}, "14 bytes only"),
        (b"", {}, "0 bytes only"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(site, part, body, options, message):
    with pytest.raises(DownloadError, match=message):
        download(site.serve("/x", body, **options), quick(part))
    assert not part.exists()


def test_a_file_of_another_size_is_refused_before_it_is_loaded(site, part):
    with pytest.raises(DownloadError, match="offers 1500000 bytes, the published file has 7"):
        download(site.serve("/x", BODY), quick(part, size=7))
    assert not part.exists()


def test_no_connection_is_said(part):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match=r"no connection .* are you online"):
        download(f"http://127.0.0.1:{port}/x", quick(part, attempts=2))


def test_only_web_addresses_are_opened(part):
    with pytest.raises(DownloadError, match="no http or https address"):
        download("file:///etc/passwd", quick(part))


def test_a_full_disk_is_said_before_and_during(site, part, monkeypatch):
    address = site.serve("/x", BODY)
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
        with pytest.raises(OutputError, match="2 MB are needed and 1 MB are free"):
            download(address, quick(part))
    real = module._write
    calls = []

    def write(stream, block, path):
        calls.append(block)
        if len(calls) < 3:
            return real(stream, block, path)
        full = SimpleNamespace(write=raises(OSError(errno.ENOSPC, "full")))
        return real(full, block, path)

    def raises(error):
        def call(_):
            raise error

        return call

    monkeypatch.setattr(module, "_write", write)
    with pytest.raises(OutputError, match="disk is full"):
        download(address, quick(part))
    assert len(calls) == 3


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
