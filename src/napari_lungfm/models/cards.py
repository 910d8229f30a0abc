"""What a card of the catalogue says about a pretrained model and its files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

#: How a state dict is laid out, by the model package that reads it.
Family: TypeAlias = Literal["sam", "sam2", "lungmask"]
#: Whether the publisher allows commercial use of the weights.
Commercial: TypeAlias = Literal["yes", "no", "unstated"]
#: Algorithms of published check values.
Algorithm: TypeAlias = Literal["md5", "sha256", "xxh128"]

#: Mean and standard deviation per RGB channel, grey values in 0 to 1 (ImageNet).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
#: The same, rounded as ``segment_anything`` has them, for grey values in 0 to 255.
SAM_PIXEL_MEAN = (123.675, 116.28, 103.53)
SAM_PIXEL_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class CheckValue:
    """A published check value of a file.

    Parameters
    ----------
    algorithm
        What it was computed with.
    digest
        Lower-case hexadecimal digits; fewer than the algorithm gives where the publisher gives
        only the first ones, as in the names of PyTorch's model files.
    """

    algorithm: Algorithm
    digest: str

    def agrees(self, digest: str) -> bool:
        """Tell whether a computed digest begins with the published one."""
        return digest.startswith(self.digest)

    def __str__(self) -> str:
        return f"{self.algorithm} {self.digest}"


@dataclass(frozen=True)
class PublishedFile:
    """One file of weights that a publisher offers.

    Parameters
    ----------
    variant
        Which of the model's files; `CheckpointCard.files` has the default first.
    filename
        Its name where it is published.
    architecture
        What it must turn out to be (`weights.detect`); several where accounts differ.
    addresses
        Where it can be downloaded from without a browser, the publisher's own first.
    pages
        Where a person finds it.
    checks
        Check values; empty where none is known.
    size
        Bytes, where known exactly.
    confirmed
        Whether address, check values and size were compared with a file downloaded from the
        publisher. ``False``: they come from the publisher's pages or from others' manifests.
    note
        What is special about this file.
    """

    variant: str
    filename: str
    architecture: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()
    checks: tuple[CheckValue, ...] = ()
    size: int | None = None
    confirmed: bool = False
    note: str = ""


@dataclass(frozen=True)
class Preprocessing:
    """How a model wants a CT slice.

    Parameters
    ----------
    window
        Recommended level and width in HU for lung tumours; ``None`` where the publisher names
        none.
    window_source
        Where the recommendation comes from.
    fit
        ``"stretch"``: to a square without keeping the aspect; ``"longest-side"``: scaled, then
        padded at the bottom and right.
    normalisation
        ``"min-max"`` of the slice to 0 to 1; ``"mean-std"`` per channel after `scale`.
    scale
        What 8-bit grey values are divided by before mean and standard deviation.
    mean, std
        Per RGB channel.
    """

    window: tuple[float, float] | None
    window_source: str
    fit: Literal["stretch", "longest-side"]
    normalisation: Literal["min-max", "mean-std"]
    scale: float = 1.0
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class CheckpointCard:
    """All that is known of a pretrained model before it is loaded.

    Parameters
    ----------
    name
        The name on the command line and in records.
    family
        Which loader reads it.
    summary
        One line on what it is.
    configuration
        Name of the stock package's configuration; with two candidates the keys decide.
    overrides
        What differs from that configuration.
    input_size
        Side of the square input in pixels.
    preprocessing
        How it wants slices; ``None`` where its package does all by itself.
    prompts
        Prompts it was trained for.
    parameters
        Number of trained parameters.
    licence
        SPDX identifier of the licence of the weights, or ``"unstated"``.
    commercial
        Whether commercial use of the weights is allowed.
    licence_note
        Where licences differ or were not confirmed.
    training_data
        What it was trained on, as published.
    leakage
        What is known of public lung data among it; ``"not stated"`` where nothing is.
    citation
        What to cite.
    files
        Its files, the default first.
    package
        The package whose networks read the files; empty where none does.
    notes
        Anything else worth knowing.
    """

    name: str
    family: Family
    summary: str
    configuration: tuple[str, ...]
    input_size: int | None
    preprocessing: Preprocessing | None
    prompts: str
    parameters: int
    licence: str
    commercial: Commercial
    training_data: str
    leakage: str
    citation: str
    files: tuple[PublishedFile, ...]
    package: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    licence_note: str = ""
    notes: str = ""

    @property
    def default(self) -> PublishedFile:
        """The file that the bare name stands for."""
        return self.files[0]

    @property
    def runnable(self) -> bool:
        """Whether a package that this one relies on can run the model."""
        return bool(self.package)

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the published files."""
        return tuple(file.variant for file in self.files)

    @property
    def architectures(self) -> frozenset[str]:
        """What a file of this model may turn out to be."""
        return frozenset(a for file in self.files for a in file.architecture)

    def published(self, variant: str) -> PublishedFile | None:
        """Return the published file of a variant; ``None`` for one that a user named."""
        for file in self.files:
            if file.variant == variant:
                return file
        return None


def full_name(name: str, variant: str, card: CheckpointCard) -> str:
    """Return the name that stands for one file: ``medsam``, ``medsam2-ma:CTLesion``."""
    return name if variant == card.default.variant else f"{name}:{variant}"
