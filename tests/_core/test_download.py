import errno
import socket
from types import SimpleNamespace

import numpy as np
import pytest

from napari_lungfm._core import download as module
from napari_lungfm._core.download import (
    DownloadCancelledError,
    DownloadError,
    Transfer,
    download,
    read_address,
)
from napari_lungfm._core.exceptions import OutputError

BODY = np.random.default_rng(0).bytes(1_500_000)


@pytest.fixture
def part(tmp_path):
    return tmp_path / "weights" / ".x.part"


def quick(part, **options):
    return Transfer(**{"part": part, "pause": 0.01, "timeout": 5, "smallest": 1000, **options})


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
def test_what_is_no_file_is_refused(site, part, body, options, message):
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


def test_without_a_smallest_size_an_empty_file_is_a_file(site, part):
    download(site.serve("/empty", b""), quick(part, smallest=0))
    assert part.read_bytes() == b""
    download(site.serve("/small", b"14 bytes or so"), quick(part, smallest=0, size=14))
    assert part.read_bytes() == b"14 bytes or so"


def test_an_address_is_read_into_memory(site):
    assert read_address(site.serve("/list", b"<a/>", drops=[2]), pause=0.01) == b"<a/>"
    assert read_address(site.serve("/busy", b"b", status=503, times=2), pause=0.01) == b"b"
    assert len(site.requests) == 5


def test_what_cannot_be_read_from_an_address_is_said(site, monkeypatch):
    with pytest.raises(DownloadError, match=r"no such file \(404\)"):
        read_address(site.serve("/none", b"", status=404), pause=0.01)
    with pytest.raises(DownloadError, match="broke off after 1 of 9 bytes"):
        read_address(site.serve("/lost", b"123456789", drops=[1] * 9), pause=0.01)
    with pytest.raises(DownloadError, match="503"):
        read_address(site.serve("/busy", b"", status=503), pause=0.01)
    with pytest.raises(DownloadError, match="no http"):
        read_address("file:///etc/passwd")
    with pytest.raises(DownloadCancelledError):
        read_address(site.serve("/busy", b"", status=503), pause=0.2, cancelled=lambda: True)
    monkeypatch.setattr(module, "_MOST", 10)
    with pytest.raises(DownloadError, match="more than 10 bytes"):
        read_address(site.serve("/large", b"x" * 11))
