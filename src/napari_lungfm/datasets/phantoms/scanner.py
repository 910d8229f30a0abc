"""Another scanner and another growth of tumours than those of the phantoms as they are made.

A second step on a finished phantom: what a cone-beam scanner makes of the patient (grey values that
are no HU, shading, coarse noise, blur), and tumours that grow into the lung around them, with a
reference that has the growth in it. A cohort made so is unlike any that models for phantoms have
been trained on.
"""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage

from napari_lungfm._core.seeding import generator
from napari_lungfm._core.types import MaskArray, Vector3

Amount = Annotated[float, Field(ge=0)]
_AIR_HU, _TUMOUR, _LUNGS = -1000.0, 3, (1, 2)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scanner(_Model):
    """What a scanner of another kind makes of a CT.

    Parameters
    ----------
    gain, offset_hu
        Grey value = −1000 + ``gain`` · (HU + 1000) + ``offset_hu``: values that are no HU.
    cupping_hu
        How much darker the middle of the field is than its border (scatter).
    blur_mm
        Standard deviation of the blur within slices.
    noise_hu, grain_mm
        Standard deviation of the noise, and of the Gaussian that it was smoothed with.
    """

    gain: Annotated[float, Field(gt=0)] = 1.0
    offset_hu: float = 0.0
    cupping_hu: Amount = 0.0
    blur_mm: Amount = 0.0
    noise_hu: Amount = 0.0
    grain_mm: Amount = 0.0

    def image(
        self, hu: npt.NDArray[np.generic], spacing: Vector3, seed: int
    ) -> npt.NDArray[np.int16]:
        """Return the image that this scanner would have made.

        Parameters
        ----------
        hu
            HU ``(z, y, x)``.
        spacing
            Voxel spacing ``(z, y, x)`` in mm.
        seed
            Seed of the noise.
        """
        pixels = (spacing[1], spacing[2])
        result = _smooth(np.asarray(hu, dtype=np.float32), self.blur_mm, pixels)
        result = _AIR_HU + self.gain * (result - _AIR_HU) + self.offset_hu
        y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in hu.shape[1:])
        result -= self.cupping_hu * np.clip(1 - (y[:, None] ** 2 + x**2), 0, 1)
        if self.noise_hu > 0:
            rng = generator("noise of another scanner", seed)
            noise = _smooth(rng.standard_normal(hu.shape, dtype=np.float32), self.grain_mm, pixels)
            result += self.noise_hu / float(noise.std()) * noise
        return np.clip(np.rint(result), -1024, 3071).astype(np.int16)


class Infiltration(_Model):
    """Tumours that have grown into the lung around them.

    Parameters
    ----------
    reach_mm
        Smallest and largest distance from the solid part that the growth reaches.
    density_hu
        Smallest and largest value of the lung where the growth begins; it fades to half of the
        way back to lung at its end.
    roughness
        How much the reach differs from place to place, as a part of it.
    """

    reach_mm: tuple[Amount, Amount]
    density_hu: tuple[float, float] = (-550.0, -350.0)
    roughness: Amount = 0.35

    def grow(
        self,
        hu: npt.NDArray[np.generic],
        labels: npt.NDArray[np.uint8],
        spacing: Vector3,
        seed: int,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """Return image and reference with the growth in them.

        Parameters
        ----------
        hu
            HU ``(z, y, x)``.
        labels
            1 left lung, 2 right lung, 3 tumour.
        spacing
            Voxel spacing ``(z, y, x)`` in mm.
        seed
            Decides how the growth looks.
        """
        rng = generator("growth of a tumour", seed)
        reach = float(rng.uniform(*self.reach_mm))
        density = float(rng.uniform(*self.density_hu))
        distance = np.asarray(
            ndimage.distance_transform_edt(labels != _TUMOUR, sampling=spacing), np.float32
        )
        rough = _smooth3(rng.standard_normal(hu.shape, dtype=np.float32), 6.0, spacing)
        rough *= self.roughness / max(float(rough.std()), 1e-6)
        local = reach * np.clip(1 + rough, 0.3, 2.0)
        grown: MaskArray = (labels != _TUMOUR) & np.isin(labels, _LUNGS) & (distance < local)
        image = np.array(hu, dtype=np.float32)
        there = image[grown]
        share = 1 - 0.5 * distance[grown] / local[grown]
        image[grown] = np.maximum(there, there + share * (density - there))
        result = np.array(labels)
        result[grown] = _TUMOUR
        return image, result


def _smooth(
    array: npt.NDArray[np.float32], sigma_mm: float, pixels: tuple[float, float]
) -> npt.NDArray[np.float32]:
    sigmas = (0.0, sigma_mm / pixels[0], sigma_mm / pixels[1])
    result: npt.NDArray[np.float32] = ndimage.gaussian_filter(array, sigmas)
    return result


def _smooth3(
    array: npt.NDArray[np.float32], sigma_mm: float, spacing: Vector3
) -> npt.NDArray[np.float32]:
    result: npt.NDArray[np.float32] = ndimage.gaussian_filter(
        array, [sigma_mm / mm for mm in spacing]
    )
    return result
