"""Encoded slices of a clip, and the walk of a network in use through them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from napari_lungfm.training.finetune.memory import Features
from napari_lungfm.training.finetune.sam2.clips import PreparedClip, network_input, prompt_of
from napari_lungfm.training.promptable.sam2_episodes import Frame


def encoder_maps(network: Any, images: Tensor) -> Features:
    """Return the maps of the image encoder alone that are needed later, finest first.

    The mask decoder's own layers on the finer ones are not among it; see `frame_of`.
    """
    maps = network.image_encoder(images)["backbone_fpn"]
    return tuple(maps[-network.num_feature_levels :])


def frame_of(network: Any, maps: Sequence[Tensor]) -> Frame:
    """Return maps of `encoder_maps` as the stock code passes them on.

    As in its ``forward_image``, the finer maps go through layers of the mask decoder first.
    """
    prepared = list(maps)
    if network.use_high_res_features_in_sam:
        decoder = network.sam_mask_decoder
        prepared[0] = decoder.conv_s0(prepared[0])
        prepared[1] = decoder.conv_s1(prepared[1])
    encoding = network.image_encoder.neck.position_encoding
    positions = [encoding(each).to(each.dtype) for each in prepared]
    _, flat, places, sizes = network._prepare_backbone_features(
        {"backbone_fpn": prepared, "vision_pos_enc": positions}
    )
    return Frame(flat, places, sizes)


@torch.no_grad()
def clip_dice(
    network: Any, clip: PreparedClip, maps: Callable[[int], Features] | None = None
) -> Tensor:
    """Return the Dice of a clip that is prompted once and walked through both ways.

    The prompt is on the slice with most of the structure: its tight box, or a click where it is
    thickest.

    Parameters
    ----------
    network
        A ``SAM2Base``, in inference mode.
    clip
        The clip.
    maps
        Returns `encoder_maps` of the slice at a place of the clip, where they are known.
    """
    areas = clip.truth.flatten(1).sum(dim=1)
    anchor, count = int(areas.argmax()), len(areas)
    found = torch.zeros_like(clip.truth)
    outputs: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    points = prompt_of(clip.truth[anchor], boxed=clip.boxed)
    order = [anchor, *range(anchor + 1, count), *range(anchor - 1, -1, -1)]
    for place in order:
        if maps is None:
            found_maps = encoder_maps(network, network_input(clip.grey[place : place + 1]))
        else:
            found_maps = maps(place)
        frame = frame_of(network, found_maps)
        if place == anchor - 1:  # the walk down knows the prompted slice, not the walk up
            outputs["non_cond_frame_outputs"] = {}
        answer = network.track_step(
            frame_idx=place,
            is_init_cond_frame=place == anchor,
            current_vision_feats=frame.maps,
            current_vision_pos_embeds=frame.positions,
            feat_sizes=frame.sizes,
            point_inputs=points if place == anchor else None,
            mask_inputs=None,
            output_dict=outputs,
            num_frames=max(count, 2),
            track_in_reverse=place < anchor,
        )
        kind = "cond_frame_outputs" if place == anchor else "non_cond_frame_outputs"
        outputs[kind][place] = answer
        found[place] = answer["pred_masks_high_res"][0, 0] > 0
    common = (found & clip.truth).sum()
    return 2.0 * common / (found.sum() + clip.truth.sum())
