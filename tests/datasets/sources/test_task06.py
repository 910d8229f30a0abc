import dataclasses
import hashlib
import io as streams
import json
import tarfile

import pytest

from napari_lungfm._core.download import DownloadError
from napari_lungfm._core.exceptions import InputFileError, OutputError
from napari_lungfm.datasets.sources import TASK06
from napari_lungfm.datasets.sources import room as room_module
from napari_lungfm.datasets.sources import task06 as module
from napari_lungfm.datasets.sources.origin import read_origin
from napari_lungfm.datasets.sources.task06 import fetch_task06, labelled_images

NAMES = ("lung_003", "lung_001")
INDEX = {
    "training": [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
        for name in NAMES
    ],
    "test": ["./imagesTs/lung_002.nii.gz"],
}
FILES = {
    "Task06_Lung/dataset.json": json.dumps(INDEX).encode(),
    "Task06_Lung/imagesTr/lung_001.nii.gz": b"i1" * 200_000,
    "Task06_Lung/imagesTr/lung_003.nii.gz": b"i3" * 200_000,
    "./Task06_Lung/labelsTr/lung_001.nii.gz": b"l1",
    "Task06_Lung/labelsTr/lung_003.nii.gz": b"l3",
    "Task06_Lung/._dataset.json": b"of macOS",
}


def pack(files, links=()):
    stream = streams.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, streams.BytesIO(content))
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return stream.getvalue()


def card_of(body, address="http://localhost/none"):
    return dataclasses.replace(
        TASK06.archive,
        address=address,
        size=len(body),
        md5=hashlib.md5(body, usedforsecurity=False).hexdigest(),
    )


@pytest.fixture
def published(site):
    body = pack(FILES)
    return body, card_of(body, site.serve("/Task06_Lung.tar", body, tag="v1", drops=[300_000]))


def test_the_tar_is_fetched_checked_and_unpacked(published, tmp_path, site):
    _, card = published
    folder = fetch_task06(tmp_path, card=card, pause=0.01)
    assert folder == tmp_path / "Task06_Lung"
    assert [p.name for p in tmp_path.iterdir()] == ["Task06_Lung"]
    assert (folder / "imagesTr" / "lung_001.nii.gz").read_bytes() == b"i1" * 200_000
    assert not (folder / "._dataset.json").exists()
    assert [each.name for each in labelled_images(folder)] == ["lung_001", "lung_003"]
    asked = len(site.requests)
    assert asked == 2  # it dropped once
    assert fetch_task06(tmp_path, card=card) == folder
    assert len(site.requests) == asked


def test_an_interrupted_download_goes_on(published, tmp_path, site):
    body, card = published
    site.serve("/Task06_Lung.tar", body, tag="v1", drops=[400_000] + [0] * 9)
    with pytest.raises(DownloadError, match="broke off after 400000"):
        fetch_task06(tmp_path, card=card, pause=0.01)
    site.serve("/Task06_Lung.tar", body, tag="v1")
    fetch_task06(tmp_path, card=card, keep_archive=True)
    assert site.requests[-1][1] == "bytes=400000-"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["Task06_Lung", "Task06_Lung.tar"]


def test_a_spoilt_part_is_fetched_anew(published, tmp_path):
    _, card = published
    (tmp_path / ".Task06_Lung.tar.part").write_bytes(b"x" * 1000)
    fetch_task06(tmp_path, card=card, pause=0.01)
    assert len(labelled_images(tmp_path / "Task06_Lung")) == 2


def test_another_file_than_the_published_one_is_refused(published, tmp_path, site):
    body, card = published
    other = bytes(body[:-1]) + b"x"
    with pytest.raises(DownloadError, match="the md5 of what came is"):
        fetch_task06(tmp_path, card=card, address=site.serve("/other.tar", other))
    assert list(tmp_path.iterdir()) == []


def test_a_tar_that_is_here_is_unpacked_and_stays(published, tmp_path):
    body, card = published
    tar = tmp_path / "mine.tar"
    tar.write_bytes(body)
    folder = fetch_task06(tmp_path / "out", archive=tar, card=card)
    assert len(labelled_images(folder)) == 2
    assert tar.read_bytes() == body
    tar.write_bytes(body[:1000])
    with pytest.raises(InputFileError, match=r"is not the published Task06_Lung\.tar"):
        fetch_task06(tmp_path / "again", archive=tar, card=card)
    with pytest.raises(InputFileError, match=r"cannot read .*none\.tar"):
        fetch_task06(tmp_path / "again", archive=tmp_path / "none.tar", card=card)


def test_a_tar_that_lies_there_is_checked_and_never_removed(published, tmp_path, site):
    body, card = published
    lying = tmp_path / "Task06_Lung.tar"
    lying.write_bytes(body[:-1] + b"x")
    with pytest.raises(InputFileError, match=r"its md5 is .*move it away.* or give the --md5"):
        fetch_task06(tmp_path, card=card)
    assert [p.name for p in tmp_path.iterdir()] == ["Task06_Lung.tar"]
    assert lying.read_bytes() == body[:-1] + b"x"
    lying.write_bytes(body)
    folder = fetch_task06(tmp_path, card=card)
    assert len(labelled_images(folder)) == 2
    assert lying.read_bytes() == body
    assert site.requests == []


def test_a_download_that_was_not_unpacked_yet_is_gone_on_with(
    published, tmp_path, monkeypatch, site
):
    _, card = published

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_unpack", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch_task06(tmp_path, card=card, pause=0.01)
    asked = len(site.requests)
    fetch_task06(tmp_path, card=card)
    assert [p.name for p in tmp_path.iterdir()] == ["Task06_Lung"]
    assert len(site.requests) == asked


def test_what_was_unpacked_from_another_tar_is_not_taken_for_this_one(published, tmp_path):
    body, card = published
    fetch_task06(tmp_path, card=card, pause=0.01)
    assert read_origin(tmp_path / "Task06_Lung").elsewhere == (card.address,)
    other = dataclasses.replace(card, md5="0" * 32)
    with pytest.raises(InputFileError, match=f"with the md5 {card.md5}, not 0000"):
        fetch_task06(tmp_path, card=other)
    tar = tmp_path / "mine.tar"
    tar.write_bytes(body[:-1])
    with pytest.raises(InputFileError, match=r"is not the published"):
        fetch_task06(tmp_path, card=card, archive=tar)
    (tmp_path / "Task06_Lung" / ".source.json").unlink()
    assert fetch_task06(tmp_path, card=other) == tmp_path / "Task06_Lung"  # nothing is known


def test_the_published_tar_is_the_publishers_wherever_it_came_from(
    published, tmp_path, monkeypatch
):
    _, card = published
    monkeypatch.setattr(module, "TASK06", dataclasses.replace(TASK06, archive=card))
    folder = fetch_task06(tmp_path, address=card.address, pause=0.01)
    assert read_origin(folder).sentence() == ""
    assert read_origin(folder).md5 == card.md5


@pytest.mark.parametrize(
    ("files", "links", "message"),
    [
        ({"../evil": b""}, (), "'../evil', which is not in 'Task06_Lung'"),
        ({"Task06_Lung/../../evil": b""}, (), "which is not in"),
        ({"/etc/evil": b""}, (), "which is not in"),
        ({"Task07/a": b""}, (), "which is not in"),
        ({}, [("Task06_Lung/link", "/etc/passwd")], "is a link or device"),
        ({}, (), "not whole: there is no labelled case"),
    ],
)
def test_tars_that_are_not_unpacked(tmp_path, files, links, message):
    index = {"Task06_Lung/dataset.json": b'{"training": []}'}
    body = pack(files | index, links)
    tar = tmp_path / "in.tar"
    tar.write_bytes(body)
    with pytest.raises(InputFileError, match=message):
        fetch_task06(tmp_path / "out", archive=tar, card=card_of(body))
    assert list((tmp_path / "out").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.tar", "out"]


def test_a_tar_that_is_cut_off_leaves_nothing(tmp_path):
    body = pack(FILES)[:500_000]
    tar = tmp_path / "in.tar"
    tar.write_bytes(body)
    with pytest.raises(InputFileError, match="cannot be unpacked"):
        fetch_task06(tmp_path / "out", archive=tar, card=card_of(body))
    assert list((tmp_path / "out").iterdir()) == []


def test_room_for_tar_and_folder_is_wanted_before(published, tmp_path, monkeypatch, site):
    _, card = published
    free = type("Free", (), {"free": card.size})
    monkeypatch.setattr(room_module.shutil, "disk_usage", lambda _: free)
    with pytest.raises(OutputError, match="GB are free"):
        fetch_task06(tmp_path, card=card)
    assert site.requests == []


def test_folders_that_are_not_task06(tmp_path):
    with pytest.raises(InputFileError, match=r"dataset\.json"):
        labelled_images(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps(INDEX))
    with pytest.raises(InputFileError, match="4 files are not there"):
        labelled_images(tmp_path)
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(InputFileError, match="lists no images"):
        labelled_images(tmp_path)
