"""Cohorts of synthetic chest CTs: seeded, endless, with exact references."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm._core.seeding import generator, stable_hash
from napari_lungfm.datasets.cases import Case, Cohort
from napari_lungfm.datasets.names import CohortName, Seed
from napari_lungfm.datasets.phantoms import (
    Imaging,
    PhantomSpec,
    TumourKind,
    TumourSpec,
    generate_phantom,
)
from napari_lungfm.datasets.phantoms.measure import longest_diameter
from napari_lungfm.datasets.phantoms.scanner import Infiltration, Scanner
from napari_lungfm.datasets.recent_cases import RecentCases
from napari_lungfm.geometry import LabelMap, Structure, Volume

Positive = Annotated[float, Field(gt=0)]
#: Coarse phantoms take seconds, and a benchmark, its trainings and its checks all ask for them.
_RECENT = RecentCases(256 * 2**20)


class PhantomCohort(BaseModel):
    """A cohort of phantoms. Kinds, spacings and contrast phases are dealt out in turn.

    Parameters
    ----------
    name, title
        See `Cohort`.
    seed
        Decides patients, tumours and noise.
    n_test, n_train
        Number of cases of either part. The training part serves the mean tumour size.
    kinds
        Tumour kinds (`TumourKind`); all by default.
    diameters_mm
        Smallest and largest tumour diameter; drawn log-uniformly between them.
    shape
        Voxels ``(z, y, x)``.
    spacings
        Voxel spacings ``(z, y, x)`` in mm; the slice thickness equals the slice spacing.
    contrast
        Phases of the contrast medium.
    noise_hu
        Smallest and largest standard deviation of the noise in HU.
    whole_chest
        Centre the grid on the lungs instead of on the tumour.
    scanner
        Another scanner than the CT of the phantoms: grey values, shading, noise, blur.
    infiltration
        Tumours that have grown into the lung around them; the growth belongs to the reference.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["phantom"] = "phantom"
    name: CohortName
    title: str = "synthetic chest CTs (phantoms)"
    seed: Seed = 0
    n_test: Annotated[int, Field(ge=1)]
    n_train: Annotated[int, Field(ge=0)] = 0
    kinds: Annotated[tuple[str, ...], Field(min_length=1)] = tuple(k.value for k in TumourKind)
    diameters_mm: tuple[Positive, Positive] = (10.0, 60.0)
    shape: tuple[int, int, int] = (64, 256, 256)
    spacings: Annotated[tuple[tuple[float, float, float], ...], Field(min_length=1)] = (
        (3.0, 1.4, 1.4),
    )
    contrast: Annotated[tuple[Literal["none", "arterial", "venous"], ...], Field(min_length=1)] = (
        "none",
        "arterial",
        "venous",
    )
    noise_hu: tuple[float, float] = (8.0, 20.0)
    whole_chest: bool = False
    scanner: Scanner | None = None
    infiltration: Infiltration | None = None

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        if self.noise_hu[0] < 0:
            msg = f"noise_hu: {self.noise_hu[0]:g} is negative"
            raise ValueError(msg)
        for low, high, what in ((*self.diameters_mm, "diameters_mm"), (*self.noise_hu, "noise_hu")):
            if high < low:
                msg = f"{what}: {high:g} is smaller than {low:g}"
                raise ValueError(msg)
        try:
            for number in range(max(len(self.kinds), len(self.spacings))):
                self._spec(number, "test")
            for diameter in self.diameters_mm:
                TumourSpec(diameter_mm=diameter)
        except LungFMError as error:
            raise ValueError(str(error)) from error
        return self

    def build(self, base: Path) -> Cohort:
        """Return the cohort; nothing is generated yet. ``base`` is of no concern to phantoms."""
        train = tuple(self._source(number, "train") for number in range(self.n_train))
        radii = [source.diameter_mm / 2 for source in train]
        return Cohort(
            self.name,
            self.title,
            test=tuple(self._source(number, "test") for number in range(self.n_test)),
            train=train,
            measure_radius=lambda: float(np.mean(radii)) if radii else None,
        )

    def _source(self, number: int, part: str) -> "PhantomCaseSource":
        kind = self.kinds[number % len(self.kinds)]
        return PhantomCaseSource(
            f"{part}-{number:03d}-{kind}",
            self._spec(number, part),
            self.scanner,
            self.infiltration,
        )

    def _spec(self, number: int, part: str) -> PhantomSpec:
        rng = generator("phantom cohort", self.seed, part, number)
        low, high = self.diameters_mm
        tumour = TumourSpec(
            kind=self.kinds[number % len(self.kinds)],
            diameter_mm=float(np.exp(rng.uniform(np.log(low), np.log(high)))),
        )
        return PhantomSpec(
            seed=stable_hash("phantom cohort", self.seed, part, number) % 2**31,
            shape=self.shape,
            spacing=self.spacings[number % len(self.spacings)],
            focus=None if self.whole_chest else 0,
            tumours=(tumour,),
            imaging=Imaging(
                contrast=self.contrast[number % len(self.contrast)],
                noise_hu=float(rng.uniform(*self.noise_hu)),
            ),
        )


@dataclass(frozen=True)
class PhantomCaseSource:
    """Generates one phantom when it is asked for."""

    name: str
    spec: PhantomSpec
    scanner: Scanner | None = None
    infiltration: Infiltration | None = None

    @property
    def diameter_mm(self) -> float:
        """Diameter (mm) of the sphere of the tumour's volume, as asked for, and as grown."""
        diameter = self.spec.tumours[0].diameter_mm
        growth = 0.0 if self.infiltration is None else sum(self.infiltration.reach_mm)
        return float(diameter) + growth if diameter is not None else float("nan")

    def fingerprint(self) -> str:
        """Hash of the specification, which decides every voxel for a given program code."""
        steps = [step for step in (self.scanner, self.infiltration) if step is not None]
        text = repr(self.spec) + "".join(map(repr, steps))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def patient(self) -> int:
        """What anatomy and noise are drawn from: phantoms of two of them never are one image."""
        return self.spec.seed

    def inputs(self) -> tuple[Path, ...]:
        """Return nothing: a phantom is read from no file."""
        return ()

    def load(self) -> Case:
        """Generate the phantom, or return it if it was asked for lately."""
        return _RECENT.get(f"{self.name} {self.fingerprint()}", self._make)

    def _make(self) -> Case:
        phantom = generate_phantom(self.spec)
        tumour = phantom.tumours[0]
        attributes = {
            "tumour_kind": str(tumour.kind),
            "tumour_diameter_mm": round(float(tumour.longest_diameter_mm), 2),
            **{
                f"tumour_{axis}_mm": round(float(position), 2)
                for axis, position in zip("xyz", tumour.centre, strict=True)
            },
            "tumour_mean_hu": round(float(tumour.mean_hu), 1),
            "pleural_contact": bool(tumour.pleural_contact),
            "contrast": self.spec.imaging.contrast,
            "synthetic": True,
        }
        case = Case(self.name, phantom.volume, phantom.labels, attributes)
        return case if self.scanner is None and self.infiltration is None else self._changed(case)

    def _changed(self, case: Case) -> Case:
        """Return the case as another scanner sees it, its tumour grown."""
        volume, labels, seed = case.volume, case.reference, self.spec.seed
        hu, values = volume.array, np.asarray(labels.array, dtype=np.uint8)
        if self.infiltration is not None:
            hu, values = self.infiltration.grow(hu, values, volume.spacing, seed)
        if self.scanner is not None:
            hu = self.scanner.image(hu, volume.spacing, seed)
        image = np.rint(hu).astype(np.int16)
        tumour = values == int(Structure.TUMOUR)
        diameter = longest_diameter(tumour.astype(np.float32), 0.5, volume.spacing[1:])
        measured = {
            "tumour_diameter_mm": round(diameter, 2),
            "tumour_mean_hu": round(float(image[tumour].mean()), 1) if tumour.any() else None,
        }
        return Case(
            case.name,
            Volume(image, volume.geometry, volume.metadata),
            LabelMap(values, labels.geometry, labels.labels),
            {**case.attributes, **measured},
        )
