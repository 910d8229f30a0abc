"""A trained nnU-Net as an automatic model, through nnU-Net's own predictor in this process."""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, ValidationError

from napari_lungfm._core.imports import require
from napari_lungfm._core.torchvision_ops import ensure_torchvision_ops
from napari_lungfm._core.types import PathInput, ProgressCallback
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Volume, axis_codes, reorient, to_axial
from napari_lungfm.models.automatic.nnunet_settings import (
    DATASET,
    PLANS,
    Configuration,
    NNUNetSettings,
)
from napari_lungfm.models.automatic.postprocessing import parse_steps, postprocess
from napari_lungfm.models.automatic.protocol import (
    CancelCallback,
    SegmentationCancelledError,
    Steps,
)
from napari_lungfm.models.automatic.trained import TrainedModel, check_files, read_description
from napari_lungfm.models.foundation.runtime import Runtime
from napari_lungfm.models.weights import WeightsError
from napari_lungfm.models.weights.files import read_file
from napari_lungfm.models.weights.reference import check_finite
from napari_lungfm.preprocessing import check_no_nan

#: Plans name classes, which nnU-Net imports and calls: only networks and layers may be among them.
_NETWORKS = "dynamic_network_architectures."
_LAYERS = ("torch.nn.", _NETWORKS)
Tensors = Mapping[str, torch.Tensor]
#: How far one patch lies from the next, in parts of a patch.
Step = Annotated[float, Field(gt=0, le=1)]


def load_nnunet(
    folder: PathInput,
    *,
    device: str = "auto",
    postprocessing: str | Sequence[str] | None = None,
    mirroring: bool = True,
    step: Step = 0.5,
) -> "NNUNetModel":
    """Load a trained nnU-Net.

    Parameters
    ----------
    folder
        What a training left, or an import.
    device
        See `pick_device`.
    postprocessing
        Names of `POSTPROCESSING`, with commas between them, or ``"none"``; what the model was
        configured with if ``None``.
    mirroring, step
        See `NNUNetModel`.

    Raises
    ------
    UsageError
        If the folder is no trained model.
    WeightsError
        If its files were changed or do not fit together.
    MissingDependencyError
        If nnU-Net is not installed.
    """
    place = Path(folder)
    description = read_description(place)
    check_files(place, description)
    settings = _settings(place, description)
    return open_nnunet(
        place,
        description.title,
        settings,
        description.structures,
        device=device,
        postprocessing=settings.postprocessing if postprocessing is None else postprocessing,
        mirroring=mirroring,
        step=step,
    )


def open_nnunet(
    place: Path, name: str, settings: NNUNetSettings, structures: Sequence[int], **options: Any
) -> "NNUNetModel":
    """Load what lies in a folder that may have no description yet.

    Parameters
    ----------
    place
        The folder.
    name, settings, structures
        See `NNUNetModel`.
    **options
        Further ones of `NNUNetModel`.

    Raises
    ------
    WeightsError
        If its files cannot be read or do not fit together.
    MissingDependencyError
        If nnU-Net is not installed.
    """
    plans, dataset = (_read_json(place / file) for file in (PLANS, DATASET))
    check_plans(plans, settings.configuration, where=f"'{place / PLANS}'")
    weights = []
    for file in settings.weights:
        tensors = read_file(place / file, known_whole=True).content
        check_finite(tensors, where=f"'{place / file}'")
        weights.append(dict(tensors))
    return NNUNetModel(
        name, plans, dataset, settings, weights, structures, where=f"'{place}'", **options
    )


class NNUNetModel:
    """A network of nnU-Net that segments CT as nnU-Net's own prediction does.

    Volumes are turned to axial slices first and the result is turned back, so that oblique and
    axis-swapped series come out on their own grid.

    Parameters
    ----------
    name
        The name in records.
    plans, dataset
        Contents of nnU-Net's ``plans.json`` and ``dataset.json``.
    settings
        Which configuration, and what goes with it.
    weights
        One or more state dicts; of several the mean of the logits is taken.
    structures
        Label values in the order of nnU-Net's classes.
    device
        See `pick_device`. A GPU that runs out of memory is left with a warning, as `Runtime` says.
    postprocessing
        Names of `POSTPROCESSING`; none by default.
    mirroring
        Average over mirrored patches where the training mirrored, as nnU-Net does: four times
        (2d) or eight times (3d) the work.
    step
        How far one patch lies from the next, in parts of a patch.
    where
        What messages call the model.

    Raises
    ------
    UsageError
        If there is no such device or post-processing.
    WeightsError
        If the weights do not fit the plans.
    MissingDependencyError
        If nnU-Net is not installed.
    """

    def __init__(
        self,
        name: str,
        plans: Mapping[str, Any],
        dataset: Mapping[str, Any],
        settings: NNUNetSettings,
        weights: Sequence[Tensors],
        structures: Sequence[int],
        *,
        device: str = "auto",
        postprocessing: str | Sequence[str] = (),
        mirroring: bool = True,
        step: Step = 0.5,
        where: str = "the model",
    ) -> None:
        self.name = name
        self.postprocessing = parse_steps(postprocessing)
        self._structures = tuple(int(value) for value in structures)
        self._plans, self._dataset = dict(plans), dict(dataset)
        network, self._managers = _network(self._plans, self._dataset, settings.configuration)
        self.weights = tuple(_loaded(network, state, where) for state in weights)
        self.parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
        self._network, self._settings = network, settings
        self._mirroring, self._step = mirroring, step
        self._runtime = Runtime(network, device, "float32")

    @property
    def labels(self) -> Mapping[int, str]:
        """Label value → name."""
        return {v: LUNG_LABELS.get(v, f"label {v}") for v in self._structures}

    def segment(
        self,
        volume: Volume,
        *,
        progress: ProgressCallback | None = None,
        cancelled: CancelCallback | None = None,
    ) -> LabelMap:
        """See `AutomaticModel.segment`; progress counts patches."""
        check_no_nan(volume.array)
        axial = to_axial(volume)
        image = np.ascontiguousarray(axial.array[np.newaxis], dtype=np.float32)
        spacing = [float(mm) for mm in axial.spacing]
        steps = Steps(1, progress, cancelled)
        steps.check()

        def work() -> np.ndarray[Any, Any]:
            predictor = self._predictor(progress, cancelled)
            # nnU-Net writes into what it is given, and the work may be done a second time.
            found: np.ndarray[Any, Any] = predictor.predict_single_npy_array(
                image, {"spacing": list(spacing)}
            )
            return found

        with _threads_kept():
            classes = self._runtime.run(work)
        values = np.array([0, *self._structures], dtype=np.uint8)
        found = LabelMap(values[classes], axial.geometry, self.labels)
        turned = reorient(postprocess(found, self.postprocessing), axis_codes(volume.geometry))
        return LabelMap(np.ascontiguousarray(turned.array), volume.geometry, self.labels)

    def _predictor(
        self, progress: ProgressCallback | None, cancelled: CancelCallback | None
    ) -> Any:
        device = self._runtime.device
        predictor = _watched_predictor(
            device=device,
            tile_step_size=self._step,
            use_mirroring=self._mirroring and self._settings.mirroring is not None,
            perform_everything_on_device=device.type == "cuda",
            allow_tqdm=False,
        )
        predictor.told = (progress, cancelled, len(self.weights))
        plans_manager, configuration, labels = self._managers
        # What `manual_initialization` does; that one also heeds an environment variable.
        predictor.plans_manager, predictor.configuration_manager = plans_manager, configuration
        predictor.label_manager, predictor.dataset_json = labels, self._dataset
        predictor.network, predictor.list_of_parameters = self._network, list(self.weights)
        predictor.trainer_name = self._settings.trainer
        predictor.allowed_mirroring_axes = self._settings.mirroring
        return predictor


def check_plans(plans: Mapping[str, Any], configuration: Configuration, *, where: str) -> None:
    """Refuse plans that name anything to import but networks and layers, or lack a configuration.

    Parameters
    ----------
    plans
        Content of a ``plans.json``.
    configuration
        The configuration that is to be run.
    where
        What messages call the plans.

    Raises
    ------
    WeightsError
        If they do.
    """
    try:
        chosen = plans["configurations"][configuration]
        architecture = chosen["architecture"]
        network = str(architecture["network_class_name"])
        arguments = architecture["arch_kwargs"]
        imported = [arguments[name] for name in architecture["_kw_requires_import"]]
    except (KeyError, TypeError) as error:
        msg = f"{where} are no plans of nnU-Net v2 with a configuration {configuration} ({error!r})"
        raise WeightsError(msg) from error
    layers = [str(name) for name in imported if name is not None]
    strange = [network] if not network.startswith(_NETWORKS) else []
    strange += [name for name in layers if not name.startswith(_LAYERS)]
    if strange:
        msg = f"{where} name '{strange[0]}', which is no network or layer; it is not imported"
        raise WeightsError(msg)


def _settings(folder: Path, description: TrainedModel) -> NNUNetSettings:
    try:
        settings = NNUNetSettings.model_validate(description.settings)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        msg = f"the settings of '{folder}' cannot be used ({place}: {first['msg']}); train it again"
        raise WeightsError(msg) from error
    missing = {PLANS, DATASET, *settings.weights} - set(description.files)
    if missing:
        msg = f"the description of '{folder}' has no check value of {sorted(missing)[0]}"
        raise WeightsError(msg)
    return settings


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"'{path}' cannot be read; copy or train the model again"
        raise WeightsError(msg) from error
    if not isinstance(content, dict):
        msg = f"'{path}' holds no mapping; copy or train the model again"
        raise WeightsError(msg)
    return content


def _network(
    plans: dict[str, Any], dataset: dict[str, Any], configuration: Configuration
) -> tuple[torch.nn.Module, tuple[Any, Any, Any]]:
    """Build the network of a configuration, and nnU-Net's managers of plans and labels."""
    ensure_torchvision_ops()
    handling = require("nnunetv2.utilities.plans_handling.plans_handler", purpose="nnU-Net")
    labelling = require("nnunetv2.utilities.label_handling.label_handling", purpose="nnU-Net")
    building = require("nnunetv2.utilities.get_network_from_plans", purpose="nnU-Net")
    manager = handling.PlansManager(plans)
    chosen = manager.get_configuration(configuration)
    labels = manager.get_label_manager(dataset)
    network: torch.nn.Module = building.get_network_from_plans(
        chosen.network_arch_class_name,
        chosen.network_arch_init_kwargs,
        chosen.network_arch_init_kwargs_req_import,
        labelling.determine_num_input_channels(manager, chosen, dataset),
        labels.num_segmentation_heads,
        allow_init=False,
        deep_supervision=False,
    )
    return network, (manager, chosen, labels)


def _loaded(network: torch.nn.Module, state: Tensors, where: str) -> dict[str, torch.Tensor]:
    """Load a state dict, and return it with every name that the network has for a tensor."""
    names: dict[int, list[str]] = {}
    for key, tensor in network.state_dict().items():
        names.setdefault(tensor.data_ptr(), []).append(key)
    whole = dict(state)
    for same in names.values():
        known = next((key for key in same if key in state), None)
        if known is not None:
            whole |= {key: state[known] for key in same if key not in state}
    try:
        network.load_state_dict(whole, strict=True)
    except RuntimeError as error:
        msg = f"the weights of {where} do not fit the network of its plans; train it again"
        raise WeightsError(msg) from error
    return whole


@contextlib.contextmanager
def _threads_kept() -> Iterator[None]:
    """NnU-Net sets torch's number of threads, and does not put it back when it is interrupted."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark


def _watched_predictor(**arguments: Any) -> Any:
    """Make nnU-Net's predictor with `_Watched` mixed in."""
    ensure_torchvision_ops()
    module = require("nnunetv2.inference.predict_from_raw_data", purpose="nnU-Net")
    kind = type("WatchedPredictor", (_Watched, module.nnUNetPredictor), {})
    with contextlib.redirect_stdout(io.StringIO()):  # it prints advice on its arguments
        return kind(**arguments)


class _Watched:
    """Counts the patches that nnU-Net's predictor has done, and stops it when asked to.

    The predictor feeds itself from a thread that waits for ever when the other end is gone. So a
    cancelled prediction runs to its end, over empty results, and is given up there.
    """

    told: tuple[ProgressCallback | None, CancelCallback | None, int] = (None, None, 1)
    _steps: Steps | None = None
    _stopped = False
    _heads = 0

    def _internal_get_sliding_window_slicers(self, image_size: tuple[int, ...]) -> Any:
        slicers = super()._internal_get_sliding_window_slicers(image_size)  # type: ignore[misc]
        if self._steps is None:
            progress, cancelled, folds = self.told
            self._steps = Steps(folds * len(slicers), progress, cancelled)
        return slicers

    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        if self._stopped:
            return torch.zeros((1, self._heads, *x.shape[2:]), device=x.device)
        result: torch.Tensor = super()._internal_maybe_mirror_and_predict(x)  # type: ignore[misc]
        self._heads = result.shape[1]
        self._advance()
        return result

    def _advance(self) -> None:
        if self._steps is None:
            return
        try:
            self._steps.advance()
        except SegmentationCancelledError:
            self._stopped = True

    def predict_sliding_window_return_logits(self, input_image: torch.Tensor) -> Any:
        """Predict, and give up afterwards if the caller has asked for that."""
        logits = super().predict_sliding_window_return_logits(input_image)  # type: ignore[misc]
        if self._steps is not None:
            self._steps.check()
        return logits
