"""What this machine and installation are, for records and for ``doctor``."""

import hashlib
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

#: Packages whose versions decide results.
PACKAGES = (
    "napari-lungfm",
    "numpy",
    "scipy",
    "scikit-image",
    "SimpleITK",
    "pydicom",
    "highdicom",
    "surface-distance",
    "torch",
    "torchvision",
    "monai",
    "sam2",
    "segment-anything",
    "nnunetv2",
    "lungmask",
    "napari",
    "distributed",
)


@cache
def package_versions() -> dict[str, str]:
    """Return the installed version of each of `PACKAGES`, absent ones left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def hardware() -> dict[str, str]:
    """Return processor, cores available to this process, memory and operating system."""
    memory = _memory_gib()
    return {
        "cpu": _cpu_name(),
        "cores": str(available_cores()),
        "memory_gib": f"{memory:.1f}" if memory is not None else "unknown",
        "system": platform.platform(aliased=True, terse=True),
        "machine": platform.machine(),
    }


@cache
def source_hash() -> str:
    """Return a hash of the code that decides results.

    A checkout changes without a new version; results of older code must not pass for its own.
    What only shows results (report, command line, widgets) is left out.
    """
    package = Path(__file__).parents[1]
    shown = ("cli", "gui", "plugin", "benchmark/report")
    mark = hashlib.blake2b(digest_size=16)
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if not name.startswith(shown):
            mark.update(name.encode() + b"\0" + path.read_bytes())
    return mark.hexdigest()


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _memory_gib() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, OSError, ValueError):  # not on Windows
        return None
