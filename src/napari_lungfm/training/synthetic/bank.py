"""Clips on disk, so that a training can go over them more than once.

Making a clip takes longer than learning from it once. A bank is a folder of clips made from one
seed; it can be filled while a training reads from it, by several processes, and the numbers of
the clips say which are still missing.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from napari_lungfm._core.exceptions import InputFileError
from napari_lungfm._core.files import atomic_path
from napari_lungfm.training.synthetic.clips import Clip, Source, make_clip


class ClipBank:
    """A folder of clips.

    Parameters
    ----------
    folder
        Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)

    def indices(self) -> list[int]:
        """Return the numbers of the clips that are there, ascending."""
        return sorted(int(path.stem) for path in self._folder.glob("*.npz") if path.stem.isdigit())

    def path(self, index: int) -> Path:
        """Return the file of a clip."""
        return self._folder / f"{index:07d}.npz"

    def write(self, index: int, clip: Clip) -> None:
        """Keep a clip; a file is there whole or not at all."""
        with atomic_path(self.path(index)) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                image=clip.image,
                mask=np.packbits(clip.mask),
                spacing=np.asarray(clip.spacing),
                source=np.asarray(clip.source),
            )

    def read(self, index: int) -> Clip:
        """Return a clip.

        Raises
        ------
        InputFileError
            If it is not there or cannot be read.
        """
        try:
            with np.load(self.path(index)) as arrays:
                image = arrays["image"]
                bits = np.unpackbits(arrays["mask"], count=image.size)
                mask = bits.astype(bool).reshape(image.shape)
                z, y, x = (float(v) for v in arrays["spacing"])
                source: Source = str(arrays["source"])  # type: ignore[assignment]
                return Clip(image, mask, (z, y, x), source)
        except (OSError, ValueError, KeyError) as error:
            msg = f"{self.path(index)}: not a clip of a training bank ({error}); fill the bank anew"
            raise InputFileError(msg) from error


def fill_bank(
    folder: Path, seed: int, indices: Iterable[int], source: Source | None = None
) -> None:
    """Make the clips of these numbers that are not in a folder yet."""
    bank = ClipBank(folder)
    bank.path(0).parent.mkdir(parents=True, exist_ok=True)
    for index in indices:
        if not bank.path(index).exists():
            bank.write(index, make_clip(seed, index, source))
