"""What a fine-tuning begins with: a network with its weights, and what is known of it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm._core.files import file_sha256
from napari_lungfm.models.automatic.trained import (
    WEIGHTS,
    TrainedModel,
    is_trained_model,
    read_description,
)
from napari_lungfm.models.catalogue import resolve
from napari_lungfm.models.foundation.factory import (
    parse_window,
    preprocessing_of,
    recommended_window,
)
from napari_lungfm.models.foundation.finetuned import (
    FINE_TUNED,
    BaseFacts,
    FineTunedSettings,
    NetworkKind,
    build_network,
    open_fine_tuned,
    read_weights,
)
from napari_lungfm.models.foundation.sam2_build import published_config
from napari_lungfm.models.foundation.sam_build import VIT_B
from napari_lungfm.models.lungfm.model import SHIPPED, facts_of, read_network
from napari_lungfm.models.weights.files import write_tensors
from napari_lungfm.models.weights.loading import load_weights
from napari_lungfm.models.weights.store import WeightStore
from napari_lungfm.preprocessing.windowing import Window

#: The promptable model that needs no window and is trained on episodes.
LUNGFM = "lungfm-s"


@dataclass(frozen=True, eq=False)
class BaseNetwork:
    """A network to fine-tune.

    Parameters
    ----------
    network
        With its weights, float32, on the CPU.
    settings
        How it is built, what it sees, and what its weights are; the settings of the result begin
        as these.
    description
        What its folder says, of a model that was fine-tuned before; else ``None``.
    """

    network: torch.nn.Module
    settings: FineTunedSettings
    description: TrainedModel | None = None

    @property
    def name(self) -> str:
        """Name in the catalogue, or title of the folder."""
        return self.settings.base.name

    @property
    def sha256(self) -> str:
        """Hash of its file of weights."""
        return self.settings.base.sha256

    @property
    def kind(self) -> NetworkKind:
        """What the network is built like."""
        return self.settings.network

    @property
    def build(self) -> dict[str, Any]:
        """What the builder of the network takes."""
        return self.settings.build

    @property
    def window(self) -> Window:
        """What it sees; the lung window where it sees HU itself."""
        settings = self.settings
        return parse_window("lung") if settings.window is None else Window(*settings.window)


def load_base(
    name: str, wanted: NetworkKind, *, place: Path, window: str | None = None
) -> BaseNetwork:
    """Load what is to be fine-tuned.

    Parameters
    ----------
    name
        A name of the catalogue, ``lungfm-s``, or the folder of a model.
    wanted
        What kind of network the recipe is for.
    place
        Folder that a relative one counts from.
    window
        What the model is to see, in place of its own.

    Raises
    ------
    ConfigError
        If the model is of another kind than the recipe is for, or takes no window.
    LungFMError
        If there is no such model, or its weights are missing or unusable.
    """
    folder = place / name
    if is_trained_model(folder):
        base = _from_folder(folder, wanted)
    elif name == LUNGFM:
        _fits(name, "lungfm", wanted)
        digest = file_sha256(SHIPPED)
        facts = BaseFacts(name=name, sha256=digest, licence="BSD-3-Clause", commercial="yes")
        network = read_network(SHIPPED)
        base = BaseNetwork(network, FineTunedSettings(network="lungfm", base=facts))
    else:
        base = _from_catalogue(name, wanted)
    if window is None:
        return base
    if base.kind == "lungfm":
        msg = f"'{name}' sees HU as they are and takes no window; leave it out"
        raise ConfigError(msg)
    seen = parse_window(window)
    settings = base.settings.model_copy(update={"window": (seen.level, seen.width)})
    return BaseNetwork(base.network, settings, base.description)


def base_hash(name: str) -> str:
    """Return the sha256 of the weights of a base, without loading them.

    Parameters
    ----------
    name
        A name of the catalogue, ``lungfm-s``, or the folder of a model.

    Raises
    ------
    LungFMError
        If there is no such model, or its weights are missing.
    """
    if is_trained_model(name):
        return read_description(name).files[WEIGHTS]
    return file_sha256(SHIPPED) if name == LUNGFM else WeightStore().find(name).manifest.sha256


def _from_folder(folder: Path, wanted: NetworkKind) -> BaseNetwork:
    architecture = read_description(folder).architecture
    if architecture != FINE_TUNED:
        msg = f"'{folder}' is an automatic model ({architecture}): it takes no prompts"
        raise ConfigError(msg)
    description, settings = open_fine_tuned(folder)
    _fits(description.title, settings.network, wanted)
    facts = settings.base.model_copy(
        update={"name": description.title, "sha256": description.files[WEIGHTS]}
    )
    return BaseNetwork(
        read_weights(folder / WEIGHTS, settings),
        settings.model_copy(update={"base": facts}),
        description,
    )


def _from_catalogue(name: str, wanted: NetworkKind) -> BaseNetwork:
    card, _ = resolve(name)
    _fits(name, card.family, wanted)
    loaded = load_weights(name)
    facts = BaseFacts(
        name=name,
        sha256=loaded.sha256,
        licence=card.licence,
        commercial=card.commercial,
        licence_note=card.licence_note,
    )
    window = recommended_window(card)
    if card.family == "sam":
        if loaded.layout.architecture != "vit_b":
            msg = f"'{name}' is {loaded.layout.architecture}; recipes for SAM train a vit_b"
            raise ConfigError(msg)
        build = {**VIT_B, "global_attn_indexes": list(VIT_B["global_attn_indexes"])}
    else:
        size = card.overrides.get("image_size")
        build = published_config(loaded.layout.architecture, image_size=size)
    settings = FineTunedSettings(
        network=wanted,
        build=build,
        window=(window.level, window.width),
        preprocessing=preprocessing_of(card) if card.family == "sam" else None,
        base=facts,
    )
    network = build_network(settings)
    network.load_state_dict(dict(loaded.tensors), strict=True)
    return BaseNetwork(network.float(), settings)


def _fits(name: str, kind: str, wanted: NetworkKind) -> None:
    if kind != wanted:
        msg = f"'{name}' is a network of the kind '{kind}', the recipe is for '{wanted}'; "
        raise ConfigError(msg + "choose another base or another recipe")


def write_weights(
    path: Path, state: Mapping[str, Tensor], settings: FineTunedSettings, network: torch.nn.Module
) -> None:
    """Write the weights of a promptable model, float32.

    Parameters
    ----------
    path
        The file.
    state
        Name → tensor.
    settings
        What they are the weights of.
    network
        A network that they fit; LungFM-S says its sizes in the file.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    facts = {}
    if settings.network == "lungfm":
        sizes: Any = network
        # The layout is that of the file that ships; the sizes are the network's own.
        facts = {"layout": facts_of(SHIPPED)["layout"], "network": json.dumps(asdict(sizes.config))}
    write_tensors(path, state, facts)
