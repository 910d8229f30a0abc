"""Slices for training: which are drawn, how they are cut out, turned and blurred.

An item is made from its epoch and number alone, so a resumed fit sees the same ones.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from napari_lungfm._core.imports import require
from napari_lungfm._core.seeding import generator, stable_hash
from napari_lungfm.geometry import Structure
from napari_lungfm.models.automatic.slice_network import slice_stack
from napari_lungfm.training.automatic.config import AllSlices, AutomaticTraining, ForegroundSlices
from napari_lungfm.training.automatic.prepared import PreparedCase, scaled

#: Image ``(c, y, x)`` float32, and classes ``(y, x)`` int64.
Item: TypeAlias = tuple[torch.Tensor, torch.Tensor]
#: Case, slice, and the class that the cut-out is centred on (0: the middle of the slice).
Draw: TypeAlias = tuple[int, int, int]


class TrainingSlices(Dataset[Item]):
    """The slices of a training, by ``(epoch, number)``.

    Parameters
    ----------
    cases
        Prepared cases.
    config
        Decides the rest.
    """

    def __init__(self, cases: Sequence[PreparedCase], config: AutomaticTraining) -> None:
        self._cases, self._config = tuple(cases), config
        self._plan: tuple[int, tuple[Draw, ...]] | None = None
        self._augment: Any = None

    def __len__(self) -> int:
        sampling = self._config.sampling
        if isinstance(sampling, ForegroundSlices):
            return sampling.slices_per_epoch
        return sum(len(case.classes) for case in self._cases)

    def plan(self, epoch: int) -> tuple[Draw, ...]:
        """Return what is drawn in an epoch, in order."""
        if self._plan is None or self._plan[0] != epoch:
            rng = generator("slices", self._config.fit.seed, epoch)
            sampling = self._config.sampling
            drawn = (
                self._all(rng) if isinstance(sampling, AllSlices) else self._drawn(rng, sampling)
            )
            self._plan = (epoch, tuple(drawn))
        return self._plan[1]

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, number = key
        seed = self._config.fit.seed
        case_number, z, centre = self.plan(epoch)[number]
        case, inputs = self._cases[case_number], self._config.inputs
        rng = generator("cut-out", seed, epoch, number)
        image = scaled(np.asarray(slice_stack(case.images, z, inputs.neighbours)))
        classes = np.asarray(case.classes[z])
        at = _centre(classes, centre, inputs.size, rng)
        image = cut_out(image, at, inputs.size)
        classes = cut_out(classes[np.newaxis], at, inputs.size)
        item = (torch.from_numpy(image), torch.from_numpy(classes))
        if self._config.augmentation == "standard":
            item = self._augmented(item, stable_hash("augmentation", seed, epoch, number) % 2**32)
        return item[0].contiguous(), item[1][0].long()

    def _all(self, rng: np.random.Generator) -> list[Draw]:
        every = [(c, z, 0) for c, case in enumerate(self._cases) for z in range(len(case.classes))]
        return [every[n] for n in rng.permutation(len(every))]

    def _drawn(self, rng: np.random.Generator, sampling: ForegroundSlices) -> list[Draw]:
        targets = self._config.targets
        tumour = [n for n, s in enumerate(targets, start=1) if s is Structure.TUMOUR]
        lungs = [n for n, s in enumerate(targets, start=1) if s is not Structure.TUMOUR]
        draws: list[Draw] = []
        for _ in range(sampling.slices_per_epoch):
            number = int(rng.integers(len(self._cases)))
            chance = rng.random()
            wanted = tumour if chance < sampling.tumour else []
            if sampling.tumour <= chance < sampling.tumour + sampling.lungs:
                wanted = lungs
            focus = int(rng.choice(wanted)) if wanted else 0
            case = self._cases[number]
            slices = case.slices_of[focus] if focus else range(len(case.classes))
            draws.append((number, int(rng.choice(np.asarray(slices))), focus))
        return draws

    def _augmented(self, item: Item, seed: int) -> Item:
        if self._augment is None:  # made in the process that uses it
            self._augment = standard_augmentation()
        self._augment.set_random_state(seed=seed)
        done = self._augment({"image": item[0], "classes": item[1]})
        return done["image"], done["classes"]


class WholeCases(Dataset[tuple[int, npt.NDArray[np.float32], npt.NDArray[np.uint8]]]):
    """Whole prepared cases, for validation: number, image, classes ``(z, y, x)``."""

    def __init__(self, cases: Sequence[PreparedCase]) -> None:
        self._cases = tuple(cases)

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, number: int) -> tuple[int, npt.NDArray[Any], npt.NDArray[Any]]:
        case = self._cases[number]
        return number, scaled(np.asarray(case.images)), np.asarray(case.classes)


def cut_out(
    image: npt.NDArray[Any], start: tuple[int, int], size: tuple[int, int]
) -> npt.NDArray[Any]:
    """Return ``image[:, y : y + height, x : x + width]``; what lies outside is 0 (air).

    Parameters
    ----------
    image
        ``(c, y, x)``.
    start
        Upper left corner ``(y, x)``; may be negative.
    size
        Height and width.
    """
    part = np.zeros((len(image), *size), dtype=image.dtype)
    into, out_of = [], []
    for first, wanted, there in zip(start, size, image.shape[1:], strict=True):
        low, high = max(0, first), min(there, first + wanted)
        into.append(slice(low - first, max(low, high) - first))
        out_of.append(slice(low, max(low, high)))
    part[:, into[0], into[1]] = image[:, out_of[0], out_of[1]]
    return part


def standard_augmentation() -> Any:
    """Return MONAI transforms that turn, scale, shift, blur, brighten and add noise.

    Nothing is mirrored: left and right lung are different structures. Ranges are in the order of
    those of nnU-Net (Isensee et al. 2021), turned less because patients lie on their backs.
    """
    require("monai", purpose="augmentation")
    from monai.data.meta_obj import set_track_meta  # noqa: PLC0415
    from monai.transforms import (  # noqa: PLC0415
        Compose,
        RandAdjustContrastd,
        RandAffined,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityd,
        RandShiftIntensityd,
    )

    set_track_meta(False)  # positions are of no use on cut-outs, and keeping them takes time
    return Compose(
        [
            RandAffined(
                ("image", "classes"),
                prob=0.5,
                rotate_range=np.deg2rad(15.0),
                scale_range=0.2,
                shear_range=0.1,
                translate_range=10,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            RandGaussianNoised("image", prob=0.15, std=0.03),
            RandGaussianSmoothd("image", prob=0.1, sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0)),
            RandScaleIntensityd("image", factors=0.15, prob=0.15),
            RandShiftIntensityd("image", offsets=0.05, prob=0.15),
            RandAdjustContrastd("image", gamma=(0.7, 1.5), prob=0.15),
        ]
    )


def _centre(
    classes: npt.NDArray[np.uint8], focus: int, size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    """Upper left corner of a cut-out: around a voxel of ``focus``, or in the middle."""
    starts = []
    places = np.argwhere(classes == focus) if focus else np.empty((0, 2), dtype=int)
    place = places[int(rng.integers(len(places)))] if len(places) else None
    for axis, (wanted, there) in enumerate(zip(size, classes.shape, strict=True)):
        middle = (there - wanted) // 2
        if place is None or there <= wanted:
            starts.append(middle)
        else:
            around = (
                int(place[axis]) - wanted // 2 + int(rng.integers(-wanted // 4, wanted // 4 + 1))
            )
            starts.append(min(max(around, 0), there - wanted))
    return starts[0], starts[1]
