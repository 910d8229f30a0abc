"""The demo: a benchmark small enough to run while you wait, with every method there is."""

from pathlib import Path
from typing import Any

from napari_lungfm.benchmark.config import BenchmarkConfig, parse_config

#: Prompt protocols of the demo: the paper's boxes and points on every slice, and one prompt.
PROTOCOLS = ["box-every-slice", "point-every-slice", "box-one", "point-one", "box-every-3"]

_PHANTOMS: dict[str, Any] = {
    "kind": "phantom",
    "name": "phantoms",
    "title": "synthetic chest CTs (phantoms, not patients)",
    "seed": 1,
    "n_test": 10,
    "n_train": 20,
    "shape": [48, 144, 144],
    "spacings": [[3.0, 1.0, 1.0], [1.5, 0.8, 0.8], [5.0, 1.0, 1.0]],
    "diameters_mm": [12.0, 60.0],
}

#: The public real cases and how their references are stored.
_REAL_CASES: list[dict[str, Any]] = [
    {
        "name": "ibsi-lung",
        "image": "ibsi_lung/dicom/image",
        "rtstruct": "ibsi_lung/dicom/mask/DCM_RS_00060.dcm",
        "rois": {"GTV-1": "tumour"},
        "attributes": {"site": "lung", "licence": "CC BY-NC 3.0"},
    },
    {
        "name": "deeplesion-000001",
        "image": "deeplesion/000001_ct.nii.gz",
        "mask": "deeplesion/000001_lesion.nii.gz",
        "attributes": {"site": "chest wall or mediastinum"},
    },
    {
        "name": "deeplesion-000009",
        "image": "deeplesion/000009_ct.nii.gz",
        "mask": "deeplesion/000009_lesion.nii.gz",
        "attributes": {"site": "abdomen"},
    },
]


def demo_config(real_data: Path | None = None) -> BenchmarkConfig:
    """Return the demo's configuration.

    Parameters
    ----------
    real_data
        Folder of the public real cases (IBSI lung phantom, DeepLesion with masks); cases that
        are not there are left out.
    """
    cohorts: list[dict[str, Any]] = [_PHANTOMS]
    present = [
        c for c in _REAL_CASES if real_data is not None and (real_data / c["image"]).exists()
    ]
    if present and real_data is not None:
        cohorts.append(
            {
                "kind": "files",
                "name": "real",
                "title": "public real lesions: IBSI lung cancer CT, two of DeepLesion",
                "root": str(real_data.resolve()),
                "cases": present,
            }
        )
    methods = ("prompt-box", "prompt-ellipse", "classical")
    return parse_config(
        {
            "name": "demo",
            "cohorts": cohorts,
            "methods": [{"model": name, "protocols": PROTOCOLS} for name in methods],
        },
        source="the demo",
    )
