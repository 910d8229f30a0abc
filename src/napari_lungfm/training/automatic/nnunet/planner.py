"""nnU-Net's planner with fewer features and small patches. Imported by the worker only."""

from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

FEATURES, MOST_FEATURES = 8, 64
#: Voxels of a patch in three dimensions.
_PATCH_VOXELS = 40000
#: A coarser configuration is made only where a patch covers much less than the volume.
_PATCH_PART = 1 / 16
#: Feature maps of a network of 8 features, in voxels per voxel of the patch.
_MAPS_PER_VOXEL = 80.0


class SmallPlanner(ExperimentPlanner):  # type: ignore[misc]
    """Plans what two cores train in a minute: for demonstrations only.

    Parameters
    ----------
    *arguments, **keywords
        See nnU-Net's `ExperimentPlanner`.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.UNet_base_num_features = FEATURES
        self.UNet_max_features_2d = self.UNet_max_features_3d = MOST_FEATURES
        voxels = min(_PATCH_VOXELS, _PATCH_PART * self._median_voxels())
        maps = _MAPS_PER_VOXEL * voxels
        self.UNet_vram_target_GB = (
            self.UNet_reference_val_corresp_GB * maps / self.UNet_reference_val_3d
        )

    def _median_voxels(self) -> float:
        spacing = self.determine_fullres_target_spacing()
        found = self.dataset_fingerprint
        shapes = [
            compute_new_shape(shape, old, spacing)
            for old, shape in zip(found["spacings"], found["shapes_after_crop"], strict=True)
        ]
        return float(np.prod(np.median(shapes, axis=0)))
