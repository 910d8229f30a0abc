import errno
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from napari_lungfm._core.exceptions import InputFileError, OutputError
from napari_lungfm._core.files import (
    atomic_path,
    file_sha256,
    hash_file,
    make_folder,
    slug,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_alone(tmp_path):
    target = tmp_path / "a" / "b" / "result.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.parent == target.parent
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert names(target.parent) == ["result.txt"]


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nrrd", "table.csv", "a.b.c.nii.gz", "plain"])
def test_the_temporary_name_has_the_same_ending(tmp_path, name):
    with atomic_path(tmp_path / name) as temporary:
        assert temporary.name.endswith("".join(Path(name).suffixes[-2:]))
        assert temporary.name != name


def fail_half_way(target: Path, error: type[BaseException]) -> None:
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, FileNotFoundError])
def test_a_failure_leaves_nothing_and_keeps_the_old_file(tmp_path, error):
    target = tmp_path / "result.txt"
    with pytest.raises(error):
        fail_half_way(target, error)
    assert names(tmp_path) == []
    target.write_text("old")
    with pytest.raises(error):
        fail_half_way(target, error)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_an_older_file_is_replaced(tmp_path):
    target = tmp_path / "result.txt"
    write_text(target, "old and longer")
    write_text(str(target), "new é")
    assert target.read_bytes() == "new é".encode()


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a", "x")
        (tmp_path / "b").write_text("x")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"]
    assert modes == [0o666 & ~umask] * 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_full_disk_is_one_precise_line(tmp_path):
    target = tmp_path / "result.txt"
    target.write_text("old")
    with pytest.raises(OutputError, match="the disk is full") as caught, atomic_path(target):
        Path("/dev/full").write_text("x")
    assert "\n" not in str(caught.value)
    assert str(target) in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_an_error_with_another_file_is_not_blamed_on_the_output(tmp_path):
    other = PermissionError(errno.EACCES, "Permission denied", "/somewhere/input.dcm")
    with pytest.raises(PermissionError) as caught, atomic_path(tmp_path / "result.txt"):
        raise other
    assert caught.value is other


def test_a_failing_rename_leaves_nothing(tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.EROFS, "Read-only file system", str(self), None, str(target))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match="read-only"):
        write_text(tmp_path / "result.txt", "x")
    assert names(tmp_path) == []


def test_paths_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"(not a folder|exists)"):
        write_text(tmp_path / "file" / "result.txt", "x")
    with pytest.raises(OutputError, match="not a folder"):
        make_folder(tmp_path / "file" / "deeper" / "still")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        write_text(tmp_path / "folder", "x")
    for name in ("x" * 300, "a." + "x" * 250):
        with pytest.raises(OutputError, match="too long"):
            write_text(tmp_path / name, "x")
    with pytest.raises(OutputError, match="cannot write '/proc"):
        write_text("/proc/no/such/result.txt", "x")
    assert names(tmp_path) == ["file", "folder"]


def test_make_folder(tmp_path):
    folder = make_folder(str(tmp_path / "a" / "b"))
    assert folder == tmp_path / "a" / "b"
    assert make_folder(folder) == folder
    assert names(folder) == []


@pytest.mark.parametrize("value", [float("nan"), {"a": [1.0, float("inf")]}])
def test_json_has_no_nan(tmp_path, value):
    target = tmp_path / "a.json"
    with pytest.raises(ValueError, match="JSON"):
        write_json(target, value)
    assert names(tmp_path) == []


def test_json_is_sorted_and_ends_with_a_line(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"b": 1, "a": [0.1, None, "é"]})
    text = target.read_text()
    assert text.endswith("}\n")
    assert list(json.loads(text)) == ["a", "b"]
    assert json.loads(text) == {"a": [0.1, None, "é"], "b": 1}


def test_slugs_are_safe_and_distinct():
    texts = ["plain", "a b", "a/b", "a-b", "../x", "é", "ü", "x" * 80, "x" * 81, "LUNG1-001"]
    slugs = [slug(text) for text in texts]
    assert len(set(slugs)) == len(texts)
    assert slugs[0] == "plain"
    assert slugs[-1] == "LUNG1-001"
    for made in slugs:
        assert len(made) <= 60
        assert not set(made) & set("/\\ :*?")
        assert not made.startswith(".")


def test_files_are_hashed_in_one_reading(tmp_path):
    path = tmp_path / "a.bin"
    content = bytes(range(256)) * 5000
    path.write_bytes(content)
    assert file_sha256(path) == hashlib.sha256(content).hexdigest()
    seen = []
    found = hash_file(
        path,
        {"md5": hashlib.md5(), "sha1": hashlib.sha1()},
        lambda *part: seen.append(part),
    )
    assert found == {
        "md5": hashlib.md5(content).hexdigest(),
        "sha1": hashlib.sha1(content).hexdigest(),
    }
    assert seen == [(2**20, len(content)), (len(content), len(content))]


def test_a_file_that_cannot_be_hashed_is_named(tmp_path):
    with pytest.raises(InputFileError, match=r"missing\.bin.*check the file"):
        file_sha256(tmp_path / "missing.bin")
