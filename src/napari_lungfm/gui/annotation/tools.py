"""The tools: which layer is active, and in which mode."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from napari.components import ViewerModel

from napari_lungfm.gui.annotation.layers import AnnotationLayers


class Tool(StrEnum):
    """What the mouse does."""

    LOOK = "look"
    BOX = "box"
    POSITIVE = "positive"
    NEGATIVE = "negative"
    BRUSH = "brush"
    ERASER = "eraser"

    @property
    def prompts(self) -> bool:
        """Whether it places prompts, for which the view must be axial."""
        return self in (Tool.BOX, Tool.POSITIVE, Tool.NEGATIVE)


#: What to do first.
DRAW_A_BOX = "Draw a box around the tumour: press B, then drag."
#: What to do next, shown while a tool is in hand.
HINTS: Mapping[Tool, str] = MappingProxyType(
    {
        Tool.LOOK: f"Drag to move the image, scroll to zoom. {DRAW_A_BOX}",
        Tool.BOX: "Drag a box around the tumour on one slice.",
        Tool.POSITIVE: "Click on a part of the tumour that the mask has missed.",
        Tool.NEGATIVE: "Click on a part of the mask that is no tumour.",
        Tool.BRUSH: "Paint what is missing; [ and ] change the size of the brush.",
        Tool.ERASER: "Wipe off what is too much; [ and ] change the size of the eraser.",
    }
)


def take(tool: Tool, viewer: ViewerModel, layers: AnnotationLayers) -> None:
    """Make the layer of a tool the active one, in the tool's mode."""
    if tool is Tool.LOOK:
        for layer in layers.all:
            layer.mode = "pan_zoom"
        return
    if tool is Tool.BOX:
        layer, mode = layers.boxes, "add_rectangle"
    elif tool.prompts:
        layer, mode = layers.clicks, "add"
    else:
        layer, mode = layers.masks, "paint" if tool is Tool.BRUSH else "erase"
    if layer not in viewer.layers:
        return
    layer.visible = True
    viewer.layers.selection.active = layer
    if layer is layers.clicks:
        layers.next_click(positive=tool is Tool.POSITIVE)
    layer.mode = mode


def in_hand(viewer: ViewerModel, layers: AnnotationLayers, click: Tool) -> Tool:
    """Return the tool that the active layer and its mode amount to.

    Parameters
    ----------
    viewer, layers
        Where to look.
    click
        Which click is placed next.
    """
    active = viewer.layers.selection.active
    mode = str(getattr(active, "mode", ""))
    if active is layers.boxes and mode == "add_rectangle":
        return Tool.BOX
    if active is layers.clicks and mode == "add":
        return click
    if active is layers.masks and mode in ("paint", "erase"):
        return Tool.BRUSH if mode == "paint" else Tool.ERASER
    return Tool.LOOK
