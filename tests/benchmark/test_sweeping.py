import os
import time

from napari_lungfm.benchmark.runner import run_benchmark
from napari_lungfm.benchmark.store import RunFolder
from napari_lungfm.benchmark.sweeping import sweep


def leave(folder, name, age):
    """Leave a file as a process that was killed does, so many seconds ago."""
    path = folder / name
    path.write_bytes(b"half")
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_only_what_nobody_writes_any_more_is_removed(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    old = [
        leave(run.masks, ".abcd_123.tmp.nii.gz", 100),
        leave(run.records, ".abcd1234.tmp.json", 100),
        leave(run.root, ".zzzz0000.tmp.yaml", 100),
    ]
    kept = [
        leave(run.masks, ".abcd5678.tmp.nii.gz", 1),
        leave(run.masks, "unit.nii.gz", 100),
        leave(run.masks, ".mine.tmp", 100),
        leave(run.root, ".hidden", 100),
    ]
    assert sweep(run, time.time() - 60) == 3
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in kept)
    assert sweep(run, time.time()) == 1


def test_a_run_sweeps_what_a_killed_one_left(make_config, tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    left = leave(folder.masks, ".abcd1234.tmp.nii.gz", 5)
    run_benchmark(make_config(), tmp_path / "run", base=tmp_path)
    assert not left.exists()
    assert len(list(folder.masks.iterdir())) == 6
