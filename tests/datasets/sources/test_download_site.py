import urllib.error
import urllib.request

import pytest

from napari_lungfm._core.download import Transfer, download
from napari_lungfm.datasets.sources import download_site
from napari_lungfm.datasets.sources.download_site import DownloadSite
from napari_lungfm.datasets.sources.s3 import Bucket


@pytest.fixture
def folder(tmp_path):
    for name in ("p/a b.dcm", "p/c&d.dcm", "p/e.dcm", "q/f.dcm"):
        path = tmp_path / "served" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 100)
    return tmp_path / "served"


def test_our_own_client_lists_and_gets_objects(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(download_site, "_PAGE", 2)
    with DownloadSite(folder) as site:
        bucket = Bucket("bucket", site.endpoint)
        found = bucket.list_objects("p/")
        assert [each.key for each in found] == ["p/a b.dcm", "p/c&d.dcm", "p/e.dcm"]
        for each in found:
            assert bucket.get(each, tmp_path / each.filename)
            assert (tmp_path / each.filename).read_bytes() == (folder / each.key).read_bytes()


def test_a_download_goes_on_where_it_broke_off(folder, tmp_path) -> None:
    body = (folder / "q" / "f.dcm").read_bytes()
    part = tmp_path / "part"
    part.write_bytes(body[:77])
    with DownloadSite(folder) as site:
        request = urllib.request.Request(
            site.address(folder / "q" / "f.dcm"), headers={"Range": "bytes=77-"}
        )
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 206
            assert answer.read() == body[77:]
        download(site.address(folder / "q" / "f.dcm"), Transfer(part, trust_part=True))
    assert part.read_bytes() == body


@pytest.mark.parametrize("path", ["/bucket/none", "/bucket/../part", "/other/p/e.dcm", "/bucket/p"])
def test_nothing_else_is_served(folder, tmp_path, path) -> None:
    (tmp_path / "part").write_text("not for you")
    with DownloadSite(folder) as site, pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(site.endpoint + path)
