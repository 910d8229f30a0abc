"""Tell from the names and shapes of its tensors what a state dict is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from napari_lungfm.models.cards import Family
from napari_lungfm.models.catalogue import candidates


class Shaped(Protocol):
    """A tensor, as far as detection looks at it."""

    @property
    def shape(self) -> Any:
        """Its sizes."""
        ...


#: Keys under which training programs keep the state dict: SAM 2 and MedSAM, PyTorch examples,
#: nnU-Net, Lightning, torch-em (MedicoSAM).
WRAPPERS = (
    "model",
    "state_dict",
    "network_state_dict",
    "network_weights",
    "model_state_dict",
    "model_state",
)
#: What DataParallel and torch.compile put before every name.
PREFIXES = ("module.", "_orig_mod.")
#: Tensors that SAM 2.1 has and SAM 2.0 has not: the only difference of the stock configurations.
ONLY_IN_21 = ("no_obj_embed_spatial", "obj_ptr_tpos_proj.weight", "obj_ptr_tpos_proj.bias")
# Width of the first stage and number of blocks, from the stock configurations.
_HIERA = {(96, 12): "t", (96, 16): "s", (112, 24): "b+", (144, 48): "l"}
# Width and number of blocks of the ViT of segment_anything.
_VIT = {(768, 12): "vit_b", (1024, 24): "vit_l", (1280, 32): "vit_h"}


@dataclass(frozen=True)
class Layout:
    """What a state dict is.

    Parameters
    ----------
    family
        Which loader reads it; ``None`` where it is unknown.
    architecture
        Name of the stock configuration: ``vit_b``, ``sam2.1_hiera_t``, ``lungmask-3``
        (three classes), ``litemedsam``, or ``unknown``.
    tensors
        Number of tensors.
    image_size
        Side of the input in pixels, where the shapes tell it. Those of SAM 2 do not: 512 and
        1024 px have the same.
    wrapper, prefix
        What was taken off by `normalise`; ``None`` for nothing.
    hint
        What may be said of something unknown.
    """

    family: Family | None
    architecture: str
    tensors: int
    image_size: int | None = None
    wrapper: str | None = None
    prefix: str | None = None
    hint: str = ""

    @property
    def candidates(self) -> tuple[str, ...]:
        """Names in the catalogue that it may be; the keys cannot tell these apart."""
        return candidates(self.architecture)

    def __str__(self) -> str:
        if self.family is None:
            return f"unknown ({self.hint})"
        parts = [f"{self.architecture}, {self.tensors} tensors"]
        if self.image_size is not None:
            parts.append(f"{self.image_size} px")
        parts.append(f"wrapped in '{self.wrapper}'" if self.wrapper else "not wrapped")
        if self.prefix:
            parts.append(f"names begin with '{self.prefix}'")
        return ", ".join(parts)


@dataclass(frozen=True, eq=False)
class Normalised:
    """A state dict under the names of the stock networks.

    Parameters
    ----------
    tensors
        Name → tensor.
    wrapper, prefix
        What was taken off; ``None`` for nothing.
    """

    tensors: dict[str, Any]
    wrapper: str | None
    prefix: str | None


def normalise(content: Any) -> Normalised:
    """Take wrappers and prefixes off a state dict.

    Entries that are no tensors (epochs, settings) are left out. A prefix is taken off only where
    all names have it.

    Parameters
    ----------
    content
        What a file holds; anything that is not a mapping gives no tensors.
    """
    wrappers = []
    inner = content
    while isinstance(inner, Mapping) and (key := _wrapper_of(inner)) is not None:
        wrappers.append(key)
        inner = inner[key]
    tensors = _tensors_of(inner)
    prefix = ""
    while tensors and (found := _prefix_of(tensors)) is not None:
        prefix += found
        tensors = {name.removeprefix(found): tensor for name, tensor in tensors.items()}
    return Normalised(tensors, "/".join(wrappers) or None, prefix or None)


def _tensors_of(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {}
    return {k: v for k, v in value.items() if isinstance(k, str) and hasattr(v, "shape")}


def _wrapper_of(value: Mapping[Any, Any]) -> str | None:
    for key in WRAPPERS:
        inner = value.get(key)
        if isinstance(inner, Mapping) and (_tensors_of(inner) or _wrapper_of(inner) is not None):
            return key
    return None


def _prefix_of(tensors: Mapping[str, Any]) -> str | None:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            return prefix
    return None


def detect(state: Normalised) -> Layout:
    """Tell what a state dict is.

    Only names and shapes are looked at. MedSAM, MedicoSAM and SAM ViT-B have the same, as have
    MedSAM 2 of Ma et al. and SAM 2.1 tiny: `Layout.candidates` lists what it may be.
    """
    tensors = state.tensors
    for recognise in (_as_sam2, _as_sam, _as_litemedsam, _as_lungmask):
        found = recognise(tensors)
        if found is not None:
            family, architecture, image_size = found
            return Layout(
                family, architecture, len(tensors), image_size, state.wrapper, state.prefix
            )
    return Layout(
        None, "unknown", len(tensors), None, state.wrapper, state.prefix, _hint_of(tensors)
    )


def _shape(tensors: Mapping[str, Shaped], name: str) -> tuple[int, ...]:
    return tuple(tensors[name].shape) if name in tensors else ()


def _blocks(tensors: Mapping[str, Shaped], start: str) -> int:
    pattern = re.compile(re.escape(start) + r"(\d+)\.")
    numbers = [int(found.group(1)) for name in tensors if (found := pattern.match(name))]
    return max(numbers, default=-1) + 1


_Found = tuple[Family, str, int | None]


def _as_sam2(tensors: Mapping[str, Shaped]) -> _Found | None:
    first = _shape(tensors, "image_encoder.trunk.patch_embed.proj.weight")
    if not first or not any(name.startswith("memory_attention.") for name in tensors):
        return None
    size = _HIERA.get((first[0], _blocks(tensors, "image_encoder.trunk.blocks.")))
    if size is None:
        return None
    version = ".1" if any(name in tensors for name in ONLY_IN_21) else ""
    return "sam2", f"sam2{version}_hiera_{size}", None


def _as_sam(tensors: Mapping[str, Shaped]) -> _Found | None:
    position = _shape(tensors, "image_encoder.pos_embed")
    patch = _shape(tensors, "image_encoder.patch_embed.proj.weight")
    if len(position) != 4 or len(patch) != 4:
        return None
    if "prompt_encoder.point_embeddings.0.weight" not in tensors:
        return None
    name = _VIT.get((position[3], _blocks(tensors, "image_encoder.blocks.")))
    return None if name is None else ("sam", name, position[1] * patch[2])


def _as_litemedsam(tensors: Mapping[str, Shaped]) -> _Found | None:
    # MobileSAM has the same names with 3 x 3 kernels.
    first = _shape(tensors, "image_encoder.patch_embed.seq.0.c.weight")
    if first[1:] != (3, 1, 1) or "image_encoder.neck.0.weight" not in tensors:
        return None
    return "sam", "litemedsam", None


def _as_lungmask(tensors: Mapping[str, Shaped]) -> _Found | None:
    last = _shape(tensors, "last.weight")
    if len(last) != 4 or not any(name.startswith("down_path.0.block.") for name in tensors):
        return None
    return "lungmask", f"lungmask-{last[0]}", None


def _hint_of(tensors: Mapping[str, Shaped]) -> str:
    if not tensors:
        return "no tensors"
    if any(name.startswith("vision_encoder.") for name in tensors):
        return "the layout of the transformers library; take the publisher's .pth or .pt file"
    if "image_encoder.patch_embed.seq.0.c.weight" in tensors:
        return "a TinyViT encoder, as MobileSAM has; it is not LiteMedSAM"
    if any(name.startswith("image_encoder.") for name in tensors):
        return "an image encoder that is no stock SAM or SAM 2, or a part of a model"
    return f"{len(tensors)} tensors, the first named " + ", ".join(f"'{n}'" for n in [*tensors][:3])
