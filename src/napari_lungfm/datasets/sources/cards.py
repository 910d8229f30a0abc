"""What is known of the public data sets, as plain data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Any

from napari_lungfm._core.exceptions import UsageError


@dataclass(frozen=True)
class Archive:
    """One file that holds a whole data set.

    Parameters
    ----------
    address
        Where it is published.
    filename
        Its name.
    size
        Bytes; ``None`` where that is not known.
    md5
        Its check value in hexadecimal digits.
    folder
        The only folder that it holds.
    """

    address: str
    filename: str
    size: int | None
    md5: str
    folder: str


@dataclass(frozen=True)
class KnownProblem:
    """What is wrong with a patient of a data set.

    Parameters
    ----------
    reason
        In words, for the quality report.
    excludes
        Whether the patient cannot be used whatever the files say; otherwise they are looked at.
    """

    reason: str
    excludes: bool = False


@dataclass(frozen=True)
class SourceCard:
    """A public data set.

    Parameters
    ----------
    name
        Name on the command line.
    title
        What it is, in one line.
    licence
        Licence of the data.
    commercial
        Whether the licence allows commercial use.
    citation
        What its publishers want cited.
    pages
        Where a person reads more or downloads by hand.
    n_test, n_train
        How many patients the published study tested and trained on.
    size_gb
        What a download brings, in units of 1e9 bytes.
    notes
        What one has to know to use it.
    archive
        The one file that it is published as, if it is.
    collection
        Name of the collection at the Imaging Data Commons, if it is there.
    patients
        Names of all patients that have a reference.
    bad
        Patient → what is known to be wrong.
    """

    name: str
    title: str
    licence: str
    commercial: bool
    citation: str
    pages: tuple[str, ...]
    n_test: int
    n_train: int
    size_gb: float
    notes: tuple[str, ...] = ()
    archive: Archive | None = None
    collection: str | None = None
    patients: tuple[str, ...] = ()
    bad: Mapping[str, KnownProblem] = field(default_factory=dict)

    @property
    def usable(self) -> tuple[str, ...]:
        """The patients, but for those of whom it is known that they cannot be used."""
        excluded = {name for name, problem in self.bad.items() if problem.excludes}
        return tuple(name for name in self.patients if name not in excluded)

    def licence_text(self) -> str:
        """Return what a user should know before the data are fetched, in one paragraph."""
        allowed = "commercial use is allowed" if self.commercial else (
            "commercial use is NOT allowed, neither of the data nor, as many read it, of models "
            "trained on them"
        )  # fmt: skip
        return f"{self.title}. Licence {self.licence}: {allowed}. Cite: {self.citation}."

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        values["archive"] = None if self.archive is None else asdict(self.archive)
        values["bad"] = {patient: asdict(problem) for patient, problem in self.bad.items()}
        return values


_MISMATCH = KnownProblem("the published SEG does not fit the shape of the CT")

LUNG1 = SourceCard(
    name="lung1",
    title="Lung1 (NSCLC-Radiomics): CT of 422 patients with contours of the lung tumour",
    licence="CC BY-NC 3.0",
    commercial=False,
    citation=(
        "Aerts et al., Data From NSCLC-Radiomics, The Cancer Imaging Archive, "
        "doi:10.7937/K9/TCIA.2015.PF0M9REI; Aerts et al., Nature Communications 5 (2014) 4006, "
        "doi:10.1038/ncomms5006"
    ),
    pages=(
        "https://www.cancerimagingarchive.net/collection/nsclc-radiomics/",
        "https://portal.imaging.datacommons.cancer.gov/",
    ),
    n_test=58,
    n_train=246,
    size_gb=35.8,
    notes=(
        "422 CT series (51,230 files), 422 RTSTRUCT and 421 SEG files of the publishers in the "
        "index of the Imaging Data Commons (idc-index-data 25.0.5); SEG and SR series of others "
        "in the same collection are left out",
        "the tumour is the ROI 'GTV-1'; in the SEG it is the segment 'Neoplasm, Primary'",
        "part of the patients have contours of the lungs",
        "the paper used 304 patients without saying which",
    ),
    collection="nsclc_radiomics",
    patients=tuple(f"LUNG1-{number:03d}" for number in range(1, 423)),
    bad=MappingProxyType(
        {
            "LUNG1-128": KnownProblem(
                "post-operative: there is no gross tumour volume, and no SEG", excludes=True
            ),
            "LUNG1-412": KnownProblem("the published SEG has no tumour"),
            **{f"LUNG1-{n}": _MISMATCH for n in ("014", "021", "085", "095", "194")},
        }
    ),
)

#: Numbers of the cases under 'training' in the published dataset.json.
_TASK06_CASES = (
    1, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 20, 22, 23, 25, 26, 27, 28, 29, 31, 33, 34, 36, 37, 38,
    41, 42, 43, 44, 45, 46, 47, 48, 49, 51, 53, 54, 55, 57, 58, 59, 61, 62, 64, 65, 66, 69, 70, 71,
    73, 74, 75, 78, 79, 80, 81, 83, 84, 86, 92, 93, 95, 96,
)  # fmt: skip

TASK06 = SourceCard(
    name="task06",
    title="Task06_Lung (Medical Segmentation Decathlon): 95 CTs, 63 with a reference of the tumour",
    licence="CC BY-SA 4.0",
    commercial=True,
    citation=(
        "Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13 (2022) "
        "4128, doi:10.1038/s41467-022-30695-9; Simpson et al., arXiv:1902.09063"
    ),
    pages=("http://medicaldecathlon.com/",),
    n_test=12,
    n_train=51,
    size_gb=9.2,
    notes=(
        "only the 63 cases of 'training' in dataset.json have a reference; the others are not used",
        "label 1 is the tumour; there are no lungs",
    ),
    patients=tuple(f"lung_{number:03d}" for number in _TASK06_CASES),
    archive=Archive(
        address="https://msd-for-monai.s3-us-west-2.amazonaws.com/Task06_Lung.tar",
        filename="Task06_Lung.tar",
        size=9_163_696_640,
        md5="8afd997733c7fc0432f71255ba4e52dc",
        folder="Task06_Lung",
    ),
)

#: Name → data set.
SOURCES: Mapping[str, SourceCard] = MappingProxyType({c.name: c for c in (LUNG1, TASK06)})


def source_card(name: str) -> SourceCard:
    """Return what is known of a data set.

    Raises
    ------
    UsageError
        If there is none of this name.
    """
    if name not in SOURCES:
        msg = f"there is no data set '{name}'; known are: {', '.join(SOURCES)}"
        raise UsageError(msg)
    return SOURCES[name]
