"""The demo: a benchmark small enough to run while you wait, on real cases too if they are here."""

from pathlib import Path
from typing import Any

import yaml

from napari_lungfm.benchmark.config import BenchmarkConfig, parse_config
from napari_lungfm.benchmark.shipped import shipped_benchmarks

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
    """Return the demo's configuration: the shipped one, and the real cases that are there.

    Parameters
    ----------
    real_data
        Folder of the public real cases (IBSI lung phantom, DeepLesion with masks); cases that
        are not there are left out.
    """
    values = yaml.safe_load(shipped_benchmarks()["demo"])
    present = [
        c for c in _REAL_CASES if real_data is not None and (real_data / c["image"]).exists()
    ]
    if present and real_data is not None:
        values["cohorts"].append(
            {
                "kind": "files",
                "name": "real",
                "title": "public real lesions: IBSI lung cancer CT, two of DeepLesion",
                "root": str(real_data.resolve()),
                "cases": present,
            }
        )
    return parse_config(values, source="the demo")
