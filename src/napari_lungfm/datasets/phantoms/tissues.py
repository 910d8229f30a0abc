"""Tissues of the phantom and their mean attenuation."""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

from napari_lungfm._core.seeding import generator
from napari_lungfm.datasets.phantoms.spec import Contrast


class Tissue(IntEnum):
    """What a voxel is made of; values of the optional tissue map."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    CORTEX = 4
    MARROW = 5
    CARTILAGE = 6
    DISC = 7
    SPINAL_CANAL = 8
    MEDIASTINAL_FAT = 9
    MYOCARDIUM = 10
    ARTERIAL_BLOOD = 11
    VENOUS_BLOOD = 12
    PULMONARY_BLOOD = 13
    OESOPHAGUS = 14
    AIRWAY_WALL = 15
    AIRWAY_LUMEN = 16
    LUNG = 17
    LUNG_VESSEL = 18
    LIVER = 19
    SPLEEN = 20
    STOMACH = 21
    BOWEL_GAS = 22
    KIDNEY = 23
    GLAND = 24
    TABLE = 25
    ATELECTASIS = 26
    TUMOUR_SOLID = 27
    TUMOUR_GROUND_GLASS = 28
    TUMOUR_NECROSIS = 29
    TUMOUR_CAVITY = 30


#: Tissue value → name, for label maps of tissues.
TISSUE_NAMES: Mapping[int, str] = MappingProxyType(
    {int(t): t.name.lower().replace("_", " ") for t in Tissue}
)

#: Mean HU without contrast medium: usual ranges at 120 kV from Kalender, "Computed Tomography"
#: (3rd ed. 2011), table of CT values of organs, and for lung parenchyma in inspiration from
#: Mascalchi et al., J Thorac Dis 2017;9:3319 (mean lung density about -850).
_NATIVE: Mapping[Tissue, float] = {
    Tissue.AIR: -1000.0,
    Tissue.SKIN: 20.0,
    Tissue.FAT: -104.0,
    Tissue.MUSCLE: 52.0,
    Tissue.CORTEX: 850.0,
    Tissue.MARROW: 170.0,
    Tissue.CARTILAGE: 105.0,
    Tissue.DISC: 85.0,
    Tissue.SPINAL_CANAL: 28.0,
    Tissue.MEDIASTINAL_FAT: -92.0,
    Tissue.MYOCARDIUM: 46.0,
    Tissue.ARTERIAL_BLOOD: 43.0,
    Tissue.VENOUS_BLOOD: 43.0,
    Tissue.PULMONARY_BLOOD: 43.0,
    Tissue.OESOPHAGUS: 38.0,
    Tissue.AIRWAY_WALL: 30.0,
    Tissue.AIRWAY_LUMEN: -985.0,
    Tissue.LUNG: -862.0,
    Tissue.LUNG_VESSEL: 40.0,
    Tissue.LIVER: 58.0,
    Tissue.SPLEEN: 48.0,
    Tissue.STOMACH: 30.0,
    Tissue.BOWEL_GAS: -960.0,
    Tissue.KIDNEY: 32.0,
    Tissue.GLAND: 25.0,
    Tissue.TABLE: -180.0,
    Tissue.ATELECTASIS: 42.0,
    Tissue.TUMOUR_SOLID: 38.0,
    Tissue.TUMOUR_GROUND_GLASS: -560.0,
    Tissue.TUMOUR_NECROSIS: 16.0,
    Tissue.TUMOUR_CAVITY: -970.0,
}

#: Enhancement in HU: about 30 s (late arterial) and 70 s (portal venous) after injection; the
#: usual curves of Bae, Radiology 2010;256:32-61 (aorta 300 and 150, liver 15 and 55 above native).
#: Tumours enhance by some 20 to 60 HU, atelectatic lung more (Swensen et al., Radiology 2000).
_ENHANCEMENT: Mapping[Contrast, Mapping[Tissue, float]] = {
    "none": {},
    "arterial": {
        Tissue.ARTERIAL_BLOOD: 270.0,
        Tissue.VENOUS_BLOOD: 300.0,
        Tissue.PULMONARY_BLOOD: 250.0,
        Tissue.LUNG_VESSEL: 230.0,
        Tissue.MYOCARDIUM: 60.0,
        Tissue.MUSCLE: 6.0,
        Tissue.LIVER: 15.0,
        Tissue.SPLEEN: 70.0,
        Tissue.KIDNEY: 110.0,
        Tissue.ATELECTASIS: 60.0,
        Tissue.TUMOUR_SOLID: 25.0,
        Tissue.TUMOUR_NECROSIS: 3.0,
    },
    "venous": {
        Tissue.ARTERIAL_BLOOD: 140.0,
        Tissue.VENOUS_BLOOD: 135.0,
        Tissue.PULMONARY_BLOOD: 130.0,
        Tissue.LUNG_VESSEL: 125.0,
        Tissue.MYOCARDIUM: 65.0,
        Tissue.MUSCLE: 12.0,
        Tissue.LIVER: 55.0,
        Tissue.SPLEEN: 72.0,
        Tissue.KIDNEY: 150.0,
        Tissue.ATELECTASIS: 55.0,
        Tissue.TUMOUR_SOLID: 38.0,
        Tissue.TUMOUR_NECROSIS: 5.0,
    },
}

#: Patients differ: standard deviation of the mean HU of a tissue between patients.
_SPREAD: Mapping[Tissue, float] = {
    Tissue.FAT: 4.0,
    Tissue.MUSCLE: 4.0,
    Tissue.CORTEX: 60.0,
    Tissue.MARROW: 30.0,
    Tissue.LUNG: 18.0,
    Tissue.LIVER: 7.0,
    Tissue.SPLEEN: 4.0,
    Tissue.STOMACH: 12.0,
    Tissue.TUMOUR_SOLID: 5.0,
}


def tissue_hu(seed: int, contrast: Contrast) -> dict[Tissue, float]:
    """Return the mean HU of every tissue of one patient in one contrast phase.

    Parameters
    ----------
    seed
        Seed of the patient.
    contrast
        ``"none"``, ``"arterial"`` or ``"venous"``.
    """
    rng = generator("phantom", seed, "attenuation")
    strength = float(rng.uniform(0.9, 1.15))  # injected dose and weight
    draws = {t: float(rng.standard_normal()) for t in Tissue}
    enhancement = _ENHANCEMENT[contrast]
    return {
        t: _NATIVE[t]
        + min(2.0, max(-2.0, draws[t])) * _SPREAD.get(t, 0.0)
        + strength * enhancement.get(t, 0.0)
        for t in Tissue
    }
