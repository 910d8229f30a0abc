import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from napari_lungfm import LungFMWarning
from napari_lungfm._core.exceptions import OutputError, UsageError
from napari_lungfm.inference import feature_cache
from napari_lungfm.inference.feature_cache import BoundedFeatureCache
from napari_lungfm.models.foundation.features import FeatureKey, Features, RecentFeatures
from napari_lungfm.models.foundation.zoom import Crop
from napari_lungfm.preprocessing.windowing import Window

KEY = FeatureKey("abc", Window(-600, 1500), Crop.whole((64, 64)), "m", "w", "float32")
#: Bytes of `features` in half precision.
SIZE = 2 * (4 * 8 * 8 + 2 * 4 * 4)


def features(seed: int = 0, scale: float = 1.0) -> Features:
    random = torch.Generator().manual_seed(seed)
    return (
        torch.randn((1, 4, 8, 8), generator=random) * scale,
        torch.randn((1, 2, 4, 4), generator=random) * scale,
    )


def key(i: int) -> FeatureKey:
    return replace(KEY, image=str(i))


def same(one: Features | None, other: Features) -> bool:
    return one is not None and all(
        a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(one, other, strict=True)
    )


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., BoundedFeatureCache]]:
    made = []

    def make(memory: int = 10 * SIZE, disk: int = 10**6, **options: object) -> BoundedFeatureCache:
        made.append(BoundedFeatureCache(memory, disk, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for cache in made:
        cache.close()


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32"])
def test_what_comes_back_is_the_same_to_the_last_bit(
    make: Callable[..., BoundedFeatureCache], precision: str
) -> None:
    """Just computed, in memory, and on disk."""
    cache = make(memory=3 * SIZE, precision=precision)
    used = cache.put(key(0), features(0))
    in_memory = cache.get(key(0))
    for i in range(1, 9):
        cache.put(key(i), features(i))
    on_disk = cache.get(key(0))

    assert same(in_memory, used)
    assert same(on_disk, used)
    assert cache.statistics.disk_hits == 1
    for rounded, exact in zip(used, features(0), strict=True):
        assert rounded.dtype == getattr(torch, precision)
        assert torch.equal(rounded, exact.to(rounded.dtype))


def test_everything_in_the_key_counts(make: Callable[..., BoundedFeatureCache]) -> None:
    cache = make()
    cache.put(KEY, features())
    others = [
        replace(KEY, image="abd"),
        replace(KEY, window=Window(-600, 1501)),
        replace(KEY, crop=Crop(0, 0, 63, 64)),
        replace(KEY, model="n"),
        replace(KEY, weights="v"),
        replace(KEY, precision="bfloat16"),
    ]

    assert all(cache.get(other) is None for other in others)
    assert cache.get(KEY) is not None
    assert (cache.statistics.hits, cache.statistics.misses) == (1, 6)


def test_budgets_hold(make: Callable[..., BoundedFeatureCache]) -> None:
    cache = make(memory=3 * SIZE, disk=2500)
    for i in range(20):
        cache.put(key(i), features(i))
        held = cache.statistics
        assert held.memory_bytes <= 3 * SIZE
        assert cache.folder is None or _disk(cache.folder) == held.disk_bytes

    held = cache.statistics
    assert held.disk_bytes <= 2500 + 200  # the header of the last file
    assert held.dropped == 20 - 3 - len(list(cache.folder.iterdir()))  # type: ignore[union-attr]
    assert cache.get(key(0)) is None  # the oldest went first
    assert cache.get(key(19)) is not None


def _disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_what_was_used_last_stays_in_memory(make: Callable[..., BoundedFeatureCache]) -> None:
    cache = make(memory=2 * SIZE, disk=0)
    cache.put(key(0), features(0))
    cache.put(key(1), features(1))
    cache.get(key(0))
    cache.put(key(2), features(2))

    assert cache.get(key(0)) is not None
    assert cache.get(key(1)) is None


def test_without_any_budget_it_still_rounds(make: Callable[..., BoundedFeatureCache]) -> None:
    """Or results would depend on the budget."""
    cache = make(memory=0, disk=0)

    used = cache.put(KEY, features())

    assert used[0].dtype == torch.float16
    assert cache.get(KEY) is None
    assert cache.folder is None


def test_values_beyond_half_precision_are_kept_whole(
    make: Callable[..., BoundedFeatureCache],
) -> None:
    cache = make(memory=0)
    used = cache.put(KEY, features(scale=1e6))

    assert all(f.dtype == torch.float32 and torch.isfinite(f).all() for f in used)
    assert same(cache.get(KEY), used)


def test_a_temporary_folder_goes_with_the_cache() -> None:
    with BoundedFeatureCache(0, 10**6) as cache:
        cache.put(KEY, features())
        folder = cache.folder
        assert folder is not None
        assert len(list(folder.iterdir())) == 1
    assert not folder.exists()
    assert cache.statistics.disk_bytes == 0


def test_a_lasting_folder_serves_the_next_session(tmp_path: Path) -> None:
    with BoundedFeatureCache(10**6, 10**6, folder=tmp_path) as cache:
        used = cache.put(KEY, features())
    with BoundedFeatureCache(10**6, 10**6, folder=tmp_path) as again:
        assert same(again.get(KEY), used)
    with BoundedFeatureCache(10**6, 10**6, folder=tmp_path, precision="float32") as exact:
        assert exact.get(KEY) is None  # other precision, other features
    with BoundedFeatureCache(10**6, 10, folder=tmp_path) as small:
        assert small.get(KEY) is None  # a smaller budget than last time
    assert not list(tmp_path.iterdir())


def test_clear(make: Callable[..., BoundedFeatureCache]) -> None:
    cache = make(memory=SIZE)
    for i in range(3):
        cache.put(key(i), features(i))
    cache.clear()

    assert cache.get(key(0)) is None
    assert cache.get(key(2)) is None
    held = cache.statistics
    assert (held.memory_bytes, held.disk_bytes) == (0, 0)
    assert not list(cache.folder.iterdir())  # type: ignore[union-attr]


@pytest.mark.parametrize("harm", ["truncate", "remove", "garbage"])
def test_damaged_files_are_misses(make: Callable[..., BoundedFeatureCache], harm: str) -> None:
    cache = make(memory=0)
    used = cache.put(KEY, features())
    (path,) = cache.folder.iterdir()  # type: ignore[union-attr]
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100] if harm == "truncate" else b"x" * 500)

    assert cache.get(KEY) is None
    assert cache.statistics.disk_bytes == 0
    assert same(cache.put(KEY, features()), used)
    assert same(cache.get(KEY), used)


def test_a_lasting_file_with_other_content_is_a_miss(
    make: Callable[..., BoundedFeatureCache], tmp_path: Path
) -> None:
    with make(memory=0, folder=tmp_path / "kept") as cache:
        used = cache.put(KEY, features())
    (path,) = (tmp_path / "kept").iterdir()
    content = path.read_bytes()
    for harmed in (content[:-64] + bytes(64), content.replace(b"content", b"kontent")):
        path.write_bytes(harmed)
        with make(memory=0, folder=tmp_path / "kept") as cache:
            assert cache.get(KEY) is None
            assert same(cache.put(KEY, features()), used)
        assert path.read_bytes() == content


def test_a_full_disk_is_a_warning(
    make: Callable[..., BoundedFeatureCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make(memory=SIZE)

    def full(*_: object) -> None:
        msg = "cannot write: the disk is full"
        raise OutputError(msg)

    monkeypatch.setattr(cache, "_write", full)
    cache.put(key(0), features(0))
    with pytest.warns(LungFMWarning, match="stops using the disk: .* the disk is full"):
        cache.put(key(1), features(1))
    cache.put(key(2), features(2))  # says so once

    assert cache.get(key(2)) is not None
    assert cache.statistics.dropped == 2


@pytest.mark.parametrize("lasting", [False, True])
def test_what_safetensors_says_of_a_full_disk_is_a_warning_too(
    make: Callable[..., BoundedFeatureCache],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    lasting: bool,
) -> None:
    cache = make(memory=SIZE, folder=tmp_path if lasting else None)

    def full(*_: object) -> None:
        msg = "Error while serializing: I/O error: No space left on device (os error 28)"
        raise SafetensorError(msg)

    monkeypatch.setattr(feature_cache, "save_file", full)
    cache.put(key(0), features(0))
    with pytest.warns(LungFMWarning, match="stops using the disk: .* No space left"):
        cache.put(key(1), features(1))
    assert cache.get(key(1)) is not None
    assert cache.get(key(0)) is None
    assert cache.folder is not None
    assert not list(cache.folder.iterdir())


def test_a_temporary_folder_takes_half_of_what_is_free(
    make: Callable[..., BoundedFeatureCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage("/")._replace(free=7 * SIZE)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    cache = make(memory=0, disk=10**9)
    for i in range(6):
        cache.put(key(i), features(i))
    assert cache.statistics.dropped == 3  # half of the room is for three of the six


def test_several_threads(make: Callable[..., BoundedFeatureCache]) -> None:
    cache = make(memory=4 * SIZE, disk=10**6)
    wrong: list[int] = []

    def work(start: int) -> None:
        for n in range(150):
            i = (start + n * 7) % 12
            found = cache.get(key(i)) or cache.put(key(i), features(i))
            if not torch.equal(found[0], features(i)[0].half()):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong
    assert cache.statistics.memory_bytes <= 4 * SIZE
    assert cache.statistics.hits + cache.statistics.misses == 600


@pytest.mark.parametrize(
    ("options", "message"),
    [({"memory": -1}, "cannot be negative"), ({"precision": "int8"}, "stored as 'int8'")],
)
def test_options_that_make_no_sense(
    make: Callable[..., BoundedFeatureCache], options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make(**options)


def test_the_default_of_the_models_is_bounded_too() -> None:
    exact = 2 * SIZE
    cache = RecentFeatures(2 * exact)
    for i in range(3):
        assert same(cache.put(key(i), features(i)), features(i))

    assert cache.get(key(0)) is None
    assert same(cache.get(key(1)), features(1))
    cache.put(key(1), features(1))  # again: counted once
    assert cache.get(key(2)) is not None
