import hashlib

import pytest

from napari_lungfm._core.download import DownloadCancelledError, DownloadError
from napari_lungfm.datasets.sources.s3 import Bucket, StoredObject

BODY = bytes(range(256)) * 4000


@pytest.fixture
def store(bucket):
    return Bucket("store", bucket.endpoint, timeout=5, pause=0.01)


def test_the_address_is_amazons_own_by_default():
    assert Bucket("idc-open-data").address == "https://idc-open-data.s3.amazonaws.com/"
    assert Bucket("b", "http://mirror/x/").address == "http://mirror/x/b/"


def test_a_list_of_many_pages_is_read_to_the_end(bucket, store):
    for n in range(5):
        bucket.put(f"a/{n} & é.dcm", b"x" * n)
    bucket.put("b/other.dcm", b"")
    found = store.list_objects("a/")
    assert [(each.key, each.size) for each in found] == [(f"a/{n} & é.dcm", n) for n in range(5)]
    assert found[3].etag == hashlib.md5(b"xxx", usedforsecurity=False).hexdigest()
    assert [asked.get("continuation-token") for asked in bucket.listings] == [None, "2", "4"]
    assert store.list_objects("none/") == ()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{}", "no list of objects"),
        (b"<Error><Code>AccessDenied</Code></Error>", "it is <Error>"),
        (b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", "the rest"),
        (b"<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>", "'Size'"),
    ],
)
def test_what_is_no_list_is_refused(bucket, store, body, message):
    bucket.site.answer_with(lambda _: {"body": body})
    with pytest.raises(DownloadError, match=message):
        store.list_objects("a/")


def test_an_object_arrives_over_a_connection_that_drops(bucket, store, tmp_path):
    bucket.put("a/1.dcm", BODY, drops=[300_000, 0, 200_000])
    (item,) = store.list_objects("a/")
    target = tmp_path / "1.dcm"
    assert store.get(item, target) is True
    assert target.read_bytes() == BODY
    assert [p.name for p in tmp_path.iterdir()] == ["1.dcm"]
    before = len(bucket.site.requests)
    assert store.get(item, target) is False
    assert len(bucket.site.requests) == before


def test_a_cancelled_object_goes_on_from_where_it_stopped(bucket, store, tmp_path):
    bucket.put("a/1.dcm", BODY)
    (item,) = store.list_objects("a/")
    target = tmp_path / "1.dcm"
    with pytest.raises(DownloadCancelledError):
        store.get(item, target, cancelled=lambda: True)
    assert not target.exists()
    store.get(item, target)
    assert target.read_bytes() == BODY
    wanted = [range_ for path, range_, _ in bucket.site.requests if path.endswith("1.dcm")]
    assert wanted == [None, f"bytes={2**18}-"]


def test_content_that_is_not_what_the_list_says_is_refused(bucket, store, tmp_path):
    bucket.put("a/1.dcm", BODY, etag="0" * 32)
    (item,) = store.list_objects("a/")
    with pytest.raises(DownloadError, match=r"its md5 is .*, the list says 0000"):
        store.get(item, tmp_path / "1.dcm")
    assert list(tmp_path.iterdir()) == []


def test_a_spoilt_part_is_replaced(bucket, store, tmp_path):
    bucket.put("a/1.dcm", BODY)
    (item,) = store.list_objects("a/")
    (tmp_path / ".1.dcm.part").write_bytes(b"z" * 1000)
    store.get(item, tmp_path / "1.dcm")
    assert (tmp_path / "1.dcm").read_bytes() == BODY


def test_objects_stored_in_parts(bucket, store, tmp_path):
    inner = hashlib.md5(BODY, usedforsecurity=False).digest()
    one_part = hashlib.md5(inner, usedforsecurity=False).hexdigest() + "-1"
    bucket.put("a/1.dcm", BODY, etag=one_part)
    bucket.put("a/2.dcm", BODY, etag="0" * 32 + "-7")  # only the size can be checked
    bucket.put("a/3.dcm", BODY, etag="0" * 32 + "-1")
    first, second, third = store.list_objects("a/")
    assert store.get(first, tmp_path / "1")
    assert store.get(second, tmp_path / "2")
    with pytest.raises(DownloadError, match=r"the list says 0000.*-1"):
        store.get(third, tmp_path / "3")


@pytest.mark.parametrize("key", ["a/", "a/..", "a/.hidden", "a/x\\y"])
def test_keys_that_no_file_could_have(key):
    with pytest.raises(DownloadError, match="no name that a file could have"):
        _ = StoredObject(key, 1, "").filename if key != "a/" else StoredObject("", 1, "").filename
