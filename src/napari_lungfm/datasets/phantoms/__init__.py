"""Synthetic chest CTs with exact reference label maps.

A patient is anatomy in continuous space (LPS mm, the carina near ``z = 0``); an acquisition is
a grid with slice thickness, kernel, contrast and noise. The two and the tumours are drawn from
separate random streams, so each can vary while the others stay.
"""

from napari_lungfm.datasets.phantoms.generate import (
    Phantom,
    TumourInfo,
    TumourSize,
    generate_phantom,
    phantom_geometry,
    tumour_sizes,
)
from napari_lungfm.datasets.phantoms.patient import Patient, draw_patient
from napari_lungfm.datasets.phantoms.render import Rendering, render
from napari_lungfm.datasets.phantoms.spec import (
    Contrast,
    Imaging,
    Kernel,
    PhantomSpec,
    TumourKind,
    TumourSpec,
)
from napari_lungfm.datasets.phantoms.tissues import TISSUE_NAMES, Tissue
from napari_lungfm.datasets.phantoms.tumours import Tumour, draw_tumours

__all__ = [
    "TISSUE_NAMES",
    "Contrast",
    "Imaging",
    "Kernel",
    "Patient",
    "Phantom",
    "PhantomSpec",
    "Rendering",
    "Tissue",
    "Tumour",
    "TumourInfo",
    "TumourKind",
    "TumourSize",
    "TumourSpec",
    "draw_patient",
    "draw_tumours",
    "generate_phantom",
    "phantom_geometry",
    "render",
    "tumour_sizes",
]
