"""Options of methods, checked while a run is planned: before trainings and without weights."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from napari_lungfm._core.exceptions import LungFMError, UsageError
from napari_lungfm.models.automatic.postprocessing import parse_steps
from napari_lungfm.models.foundation.factory import parse_window, parse_zoom
from napari_lungfm.models.foundation.finetuned import family_of
from napari_lungfm.models.registry import check_options, check_trained_options

if TYPE_CHECKING:  # torch comes with the networks that they describe
    from napari_lungfm.training.automatic.config import AnyTraining
    from napari_lungfm.training.finetune.config import FineTuning


def check_model_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a model has not got, or values of them that make no sense.

    Parameters
    ----------
    name
        What the registry makes the model from: a name or a folder.
    options
        Its options.

    Raises
    ------
    UsageError
        If there is no such model or option, or a value is out of bounds or has no meaning.
    """
    check_options(name, options)
    _check_values(options)


def check_training_options(
    training: "AnyTraining | FineTuning", options: Mapping[str, Any]
) -> None:
    """Refuse the same of a model that is still to be trained.

    Parameters
    ----------
    training
        Its training.
    options
        The options that it is going to be run with.

    Raises
    ------
    UsageError
        If there is no such option, or a value is out of bounds or has no meaning.
    """
    if options:  # torch is imported for what they are
        check_trained_options(_family(training), training.name, options)
        _check_values(options)


def _check_values(options: Mapping[str, Any]) -> None:
    """Refuse values of the right type that stand for nothing."""
    for name, check in _CHECKS.items():
        if options.get(name) is not None:
            try:
                check(options)
            except LungFMError as error:
                msg = f"option '{name}': {error}"
                raise UsageError(msg) from error


def _check_zoom(options: Mapping[str, Any]) -> None:
    zoom, side = options.get("zoom"), options.get("zoom_mm")
    # As the registry reads them; text may be a number.
    given = TypeAdapter[float | bool | None](float | bool | None).validate_python(zoom)
    parse_zoom(given, None if side is None else float(side))


#: Option → refuses a value that is no name of what it stands for; told all options.
_CHECKS: Mapping[str, Callable[[Mapping[str, Any]], object]] = {
    "postprocessing": lambda options: parse_steps(options["postprocessing"]),
    "window": lambda options: parse_window(options["window"]),
    "zoom": _check_zoom,
    "zoom_mm": _check_zoom,
}


def _family(training: "AnyTraining | FineTuning") -> str:
    """Return the family that the description of a trained model is going to name."""
    from napari_lungfm.models.automatic.loading import SLICE_NETWORK  # noqa: PLC0415
    from napari_lungfm.models.automatic.nnunet_settings import NNUNET  # noqa: PLC0415

    if training.kind == "finetune":
        return family_of(training.recipe.networks)
    return NNUNET if training.kind == "nnunet" else SLICE_NETWORK
