"""The demo: a benchmark small enough to run while you wait, the paper's Table II in miniature.

The automatic models are trained for real, on phantoms and with presets that take a minute or so
each: their rows are marked as small, and show that everything works, not what such models can do.
"""

from pathlib import Path
from typing import Any

from napari_lungfm.benchmark.config import BenchmarkConfig, parse_config

#: Prompt protocols of the demo: the paper's boxes and points on every slice, and one prompt.
PROTOCOLS = ("box-every-slice", "point-every-slice", "box-one", "point-one", "box-every-3")
#: The promptable methods, which need no weights.
PROMPTABLE = ("prompt-box", "prompt-ellipse", "classical")
#: The automatic rows, by the configurations that train them.
AUTOMATIC = (
    "unet-small",
    "deeplabv3-small",
    "nnunet-2d-small",
    "nnunet-3d_lowres-small",
    "nnunet-3d_fullres-small",
)
#: No hand at all: prompts from the masks of the first of them.
AUTO_PROTOCOLS = tuple(f"auto-{name}:{AUTOMATIC[0]}" for name in ("box-every-slice", "box-one"))

_PHANTOMS: dict[str, Any] = {
    "kind": "phantom",
    "name": "phantoms",
    "title": "synthetic chest CTs (phantoms, not patients)",
    "seed": 1,
    "n_test": 10,
    "n_train": 14,
    "shape": [46, 116, 116],
    "spacings": [[6.5, 3.0, 3.0]],
    "diameters_mm": [15.0, 60.0],
    "whole_chest": True,
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
    prompts = [*PROTOCOLS, *AUTO_PROTOCOLS]
    promptable = [{"model": name, "protocols": prompts} for name in PROMPTABLE]
    # What was trained on phantoms has no place beside real patients.
    automatic = [{"train": name, "cohorts": [_PHANTOMS["name"]]} for name in AUTOMATIC]
    return parse_config(
        {
            "name": "demo",
            "structures": ["left lung", "right lung", "tumour"],
            "cohorts": cohorts,
            "methods": [*automatic, *promptable],
        },
        source="the demo",
    )
