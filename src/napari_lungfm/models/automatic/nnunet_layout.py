"""How nnU-Net lays out its models on disk, and what a folder of its own is short of.

Nothing heavy is imported.
"""

from pathlib import Path

from napari_lungfm._core.types import PathInput
from napari_lungfm.models.automatic.nnunet_settings import DATASET, PLANS

#: What nnU-Net predicts with, and what it keeps until a training has ended.
FINAL = "checkpoint_final.pth"
_EARLIER = ("checkpoint_best.pth", "checkpoint_latest.pth")
_SHOWN = 5


def is_nnunet_folder(path: PathInput) -> bool:
    """Tell whether a folder is a model as nnU-Net itself keeps it."""
    return not _missing(Path(path))


def told_of_nnunet(path: PathInput) -> str | None:
    """Say in a line what a folder of nnU-Net's is, and which one to give or what it lacks.

    Parameters
    ----------
    path
        A folder that is no trained model of ours.

    Returns
    -------
    str or None
        ``None`` where it has nothing to do with a trained nnU-Net.
    """
    folder = Path(path)
    above = folder.resolve().parent
    missing = _missing(folder)
    if not missing:
        return (
            f"'{folder}' is no trained model yet, it is as nnU-Net keeps it; if you trust whoever "
            f"made it: napari-lungfm-bench models import {folder} --trust"
        )
    if folder.resolve().name.startswith("fold_") and _checkpoints(folder, ""):
        return f"'{folder}' is one fold of a model of nnU-Net; give the folder above it: '{above}'"
    earlier = _checkpoints(folder, "fold_*/")
    if earlier or (PLANS not in missing and any(folder.glob("fold_*/"))):
        return _told_if_not_whole(folder, missing, earlier)
    below = [each.parent for depth in ("*", "*/*") for each in folder.glob(f"{depth}/{PLANS}")]
    models = sorted(str(each) for each in below if any(each.glob("fold_*/")))
    if models:
        listed = ", ".join(f"'{each}'" for each in models[:_SHOWN])
        more = ", …" if len(models) > _SHOWN else ""
        return f"'{folder}' holds models of nnU-Net and is none; give one of them: {listed}{more}"
    return None


def _told_if_not_whole(folder: Path, missing: list[str], there: list[str]) -> str:
    start = (
        f"'{folder}' is a model of nnU-Net that is not whole: it has no {' and no '.join(missing)}"
    )
    if f"fold_N/{FINAL}" in missing and there:
        first = next((name for name in there if name.endswith(_EARLIER[0])), there[0])
        wanted = f"{first.rpartition('/')[0]}/{FINAL}"
        return f"{start}, only {', '.join(there)}; to use it, copy {first} to {wanted}"
    return f"{start}; copy the whole folder again, or train it to its end"


def _missing(folder: Path) -> list[str]:
    missing = [name for name in (PLANS, DATASET) if not (folder / name).is_file()]
    return missing if any(folder.glob(f"fold_*/{FINAL}")) else [*missing, f"fold_N/{FINAL}"]


def _checkpoints(folder: Path, within: str) -> list[str]:
    found = (each for name in (FINAL, *_EARLIER) for each in folder.glob(f"{within}{name}"))
    return sorted(each.relative_to(folder).as_posix() for each in found)
