"""The three layers of an annotation: masks to paint on, boxes and clicks as prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image, Layer, Points, Shapes
from psygnal import Signal

from napari_lungfm._core.types import Region
from napari_lungfm.gui.annotation.cases import covers, same_case
from napari_lungfm.gui.annotation.drawn import corners_of
from napari_lungfm.gui.annotation.images import placement_of
from napari_lungfm.gui.annotation.jobs import Deliver
from napari_lungfm.gui.annotation.palette import label_colormap
from napari_lungfm.gui.annotation.screen import draw_part, limit_markers
from napari_lungfm.gui.annotation.view import SliceView
from napari_lungfm.inference.session.state import SessionState
from napari_lungfm.models.prompts import Box, Click, Prompt
from napari_lungfm.plugin.layer_geometry import METADATA_KEY, info_of_layer
from napari_lungfm.plugin.palette import default_colour

#: Colours and symbols of clicks: told apart by shape as well as by colour.
_CLICKS = {True: ("cross", "#2ecc71"), False: ("x", "#ff4d40")}
#: What marks our layers in their metadata.
OWNED = "napari-lungfm"
#: What marks masks and measures that were made here, in this window, and not opened.
MADE = "napari-lungfm-made"


@dataclass(frozen=True)
class ShownPrompt:
    """A prompt as it stands in a layer: its number, its object's colour, and itself."""

    number: int
    label: int
    colour: str
    prompt: Prompt


class AnnotationLayers:
    """Masks, boxes and clicks on one image.

    What a person does in the layers comes out as signals, on the next turn of the event loop:
    napari is still at its own work when it tells of a change.

    Parameters
    ----------
    viewer
        The viewer; the layers are added to it.
    image
        The image that they lie on.
    defer
        Runs a callable soon on the same thread.
    """

    #: Corners of a new shape, ``(n, 3)`` in voxels, and what napari calls it: a rectangle for a
    #: box; its other tools draw an ellipse, a polygon, a path or a line.
    box_drawn = Signal(object, str)
    #: Number of a prompt whose box was moved, and its corners now.
    box_moved = Signal(int, object)
    #: Place of a new click ``(z, y, x)`` in voxels.
    click_placed = Signal(object)
    #: Number of a click that was moved, and its place now.
    click_moved = Signal(int, object)
    #: Number of a prompt that was deleted in its layer.
    prompt_deleted = Signal(int)
    #: What a paint event says; at once, for the next stroke may come before the next turn.
    painted = Signal(object)
    #: Other labels were put in the place of all of them: the array before, and the one after.
    replaced = Signal(object, object)
    #: What was put in their place cannot be taken: why.
    refused = Signal(str)
    #: The mask layer was asked to undo, to do again: by napari's own key or button, or a script.
    undo_asked = Signal()
    redo_asked = Signal()

    def __init__(self, viewer: ViewerModel, image: Image, defer: Deliver) -> None:
        self._viewer, self._image, self._defer = viewer, image, defer
        self._shown: dict[str, tuple[ShownPrompt, ...]] = {"box": (), "click": ()}
        self._wanted: dict[str, tuple[ShownPrompt, ...]] = dict(self._shown)
        self._colours: dict[int, str] = {}
        self._dragging = self._refresh_waits = self._closed = False
        self._boxes_told = 0
        self._place = placement_of(image)
        self.masks = viewer.add_labels(
            np.zeros(image.data.shape, dtype=np.uint8),
            name="masks",
            opacity=0.45,
            metadata=replace(info_of_layer(image), labels={}).to_metadata(),
            **self._place,
        )
        #: The labels on screen, an array of ours: what else is put in its place goes into it.
        self._labels: npt.NDArray[np.uint8] = self.masks.data
        self.masks.metadata[OWNED] = True
        self.masks.preserve_labels = True
        self.masks.selected_label = 3
        self.masks.events.paint.connect(self._on_paint)
        self.masks.events.data.connect(self._on_replaced)
        # napari's own undo tells nobody of what it changes: the session's takes its place.
        self.masks.undo = self.undo_asked.emit
        self.masks.redo = self.redo_asked.emit
        self.boxes = self._add_boxes()
        self.clicks = self._add_clicks()
        viewer.mouse_drag_callbacks.append(self._watch_drag)

    def _add_boxes(self) -> Shapes:
        layer = self._viewer.add_shapes(
            ndim=3,
            name="boxes",
            face_color="transparent",
            edge_width=0.5,
            opacity=0.95,
            **self._place,
        )
        layer.metadata[OWNED] = True
        layer.events.data.connect(self._on_boxes)
        return layer

    def _add_clicks(self) -> Points:
        layer = self._viewer.add_points(ndim=3, name="clicks", size=8, opacity=1.0, **self._place)
        layer.events.set_data.connect(lambda _: limit_markers(layer, 12, 20))
        limit_markers(layer, 12, 20)
        layer.metadata[OWNED] = True
        layer.events.data.connect(self._on_clicks)
        return layer

    @property
    def all(self) -> tuple[Layer, ...]:
        """The three layers."""
        return (self.masks, self.boxes, self.clicks)

    @property
    def in_hand(self) -> bool:
        """Whether something is just being drawn."""
        return self._dragging or bool(getattr(self.boxes, "_is_creating", False))

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """The label map on screen, uint8 ``(z, y, x)``."""
        return self._labels

    def surface(self) -> None:
        """Put the layers above the image again where a user has put it above them."""
        order = list(self._viewer.layers)
        mine = [layer for layer in self.all if layer in order]
        lowest = min((order.index(layer) for layer in mine), default=len(order))
        if not any(covers(each) and same_case(each, self._image) for each in order[lowest:]):
            return
        for layer in mine:
            self._viewer.layers.move(self._viewer.layers.index(layer), len(order))

    # ------------------------------------------------------------------ to the screen
    def write(self, region: Region, labels: npt.NDArray[np.uint8], view: SliceView) -> None:
        """Write a part of the label map; draws only that, and only if it is in view."""
        self.data[region] = labels
        shows = view.shows(region[0].start, region[0].stop - 1)
        if shows and not draw_part(self.masks, region):
            self.redraw()

    def redraw(self) -> None:
        """Draw all masks anew, once however often it is asked for before the next turn."""
        if not self._refresh_waits:
            self._refresh_waits = True
            self._defer(self._redraw)

    def _redraw(self) -> None:
        self._refresh_waits = False
        if not self._closed and self.masks in self._viewer.layers:
            self.masks.refresh(thumbnail=False, highlight=False, extent=False)

    def colour(self, colours: Mapping[int, str]) -> None:
        """Give the labels their colours."""
        if self._colours != colours:
            self._colours = dict(colours)
            self.masks.colormap = label_colormap(colours)

    def show(self, state: SessionState, colours: Mapping[int, str]) -> None:
        """Bring boxes and clicks in line with the session, when no mouse button is down."""
        # Whoever writes the layer to a file finds the names of the objects here.
        self.masks.metadata[METADATA_KEY]["labels"] = {
            label: each.name for label, each in state.objects.items()
        }
        prompts = [
            ShownPrompt(number, each.label, colours.get(each.label, "#b0b0b0"), prompt)
            for each in state.objects.values()
            for number, prompt in each.prompts.items()
        ]
        self._wanted = {
            "box": tuple(p for p in prompts if isinstance(p.prompt, Box)),
            "click": tuple(p for p in prompts if isinstance(p.prompt, Click)),
        }
        self._settle()

    def restore_prompts(self) -> None:
        """Take out of the layers what the session does not have, such as a refused box."""
        self._shown = {"box": _UNKNOWN, "click": _UNKNOWN}
        self._settle()

    def bring_back(self, gone: Layer) -> Layer | None:
        """Add a layer of prompts anew that was taken out of the viewer, with what it had.

        ``None`` where nothing is to be brought back any more.
        """
        if self._closed:
            return None
        if gone is self.boxes:
            layer = self.boxes = self._add_boxes()
            self._shown["box"] = _UNKNOWN
        elif gone is self.clicks:
            layer = self.clicks = self._add_clicks()
            self._shown["click"] = _UNKNOWN
        else:
            return None
        self._settle()
        return layer

    def _settle(self) -> None:
        # A polygon is drawn by several clicks; napari says so only when it is done.
        if self.in_hand or self._closed:
            return
        if self._shown["box"] != self._wanted["box"] or self._strays(self.boxes, "box"):
            self._show_boxes(self._wanted["box"])
        if self._shown["click"] != self._wanted["click"] or self._strays(self.clicks, "click"):
            self._show_clicks(self._wanted["click"])

    def _strays(self, layer: Shapes | Points, kind: str) -> bool:
        return layer in self._viewer.layers and len(layer.data) != len(self._wanted[kind])

    def _show_boxes(self, shown: tuple[ShownPrompt, ...]) -> None:
        self._shown["box"] = shown
        if self.boxes not in self._viewer.layers:
            return
        with self.boxes.events.data.blocker():
            self.boxes.selected_data = set()
            self.boxes.data = []
            if shown:
                corners = [corners_of(p.prompt) for p in shown if isinstance(p.prompt, Box)]
                self.boxes.add_rectangles(corners, edge_color=[p.colour for p in shown])
            self.boxes.selected_data = set()
        self._boxes_told = len(shown)
        self.boxes.refresh()

    def _show_clicks(self, shown: tuple[ShownPrompt, ...]) -> None:
        self._shown["click"] = shown
        if self.clicks not in self._viewer.layers:
            return
        clicks = [p.prompt for p in shown if isinstance(p.prompt, Click)]
        with self.clicks.events.data.blocker():
            self.clicks.selected_data = set()
            self.clicks.data = np.array([(c.z, c.y, c.x) for c in clicks]).reshape(-1, 3)
            if clicks:
                self.clicks.symbol = [_CLICKS[c.positive][0] for c in clicks]
                # napari draws a cross mostly as border: both in one colour make it bold.
                colours = [_CLICKS[c.positive][1] for c in clicks]
                self.clicks.face_color = self.clicks.border_color = colours
            self.clicks.selected_data = set()

    def next_click(self, *, positive: bool) -> None:
        """Draw the next click as a positive or a negative one."""
        symbol, colour = _CLICKS[positive]
        self.clicks.selected_data = set()
        self.clicks.current_symbol = symbol
        self.clicks.current_face_color = self.clicks.current_border_color = colour

    def next_box(self, label: int, colours: Mapping[int, str]) -> None:
        """Draw the next box in the colour of its object."""
        self.boxes.selected_data = set()
        self.boxes.current_edge_color = colours.get(label, default_colour(label))

    # ------------------------------------------------------------------ from the screen
    def _on_boxes(self, event: object) -> None:
        action = str(getattr(event, "action", ""))
        indices = [int(i) for i in getattr(event, "data_indices", ())]
        told, self._boxes_told = self._boxes_told, len(self.boxes.data)
        # napari tells of a polygon that was given up as well, though nothing was added then.
        if action == "added" and len(self.boxes.data) > told:
            corners, kind = np.array(self.boxes.data[-1]), str(self.boxes.shape_type[-1])
            self._later(lambda: self.box_drawn.emit(corners, kind))
        elif action == "added":
            self._later(self._settle)
        elif action == "changed":
            for i in indices:
                if i < len(self._shown["box"]):
                    self._tell_moved(
                        self.box_moved, self._shown["box"][i], np.array(self.boxes.data[i])
                    )
        elif action == "removed":
            self._tell_deleted("box", indices)

    def _on_clicks(self, event: object) -> None:
        action = str(getattr(event, "action", ""))
        indices = [int(i) for i in getattr(event, "data_indices", ())]
        if action == "added" and len(self.clicks.data):
            place = np.array(self.clicks.data[-1])
            self._later(lambda: self.click_placed.emit(place))
        elif action == "changed":
            for i in indices:
                if i < len(self._shown["click"]):
                    self._tell_moved(
                        self.click_moved, self._shown["click"][i], np.array(self.clicks.data[i])
                    )
        elif action == "removed":
            self._tell_deleted("click", indices)

    def _tell_moved(self, signal: object, shown: ShownPrompt, place: object) -> None:
        self._later(lambda: signal.emit(shown.number, place))  # type: ignore[attr-defined]

    def _tell_deleted(self, kind: str, indices: Sequence[int]) -> None:
        shown = self._shown[kind]
        gone = {i % len(shown) for i in indices} if shown else set()
        self._shown[kind] = tuple(p for i, p in enumerate(shown) if i not in gone)
        for i in sorted(gone):
            number = shown[i].number
            self._later(lambda number=number: self.prompt_deleted.emit(number))

    def _on_paint(self, event: object) -> None:
        if not self._closed:
            self.painted.emit(event.value)  # type: ignore[attr-defined]

    def _on_replaced(self, _: object = None) -> None:
        """Take labels that were put in the place of ours, by a script say, into our array."""
        given = self.masks.data
        if self._closed or given is self._labels:
            return
        given = np.asarray(given)
        fits = given.shape == self._labels.shape and given.dtype.kind in "bui"
        before = self._labels.copy()
        if fits and given.size and given.min() >= 0 and given.max() <= 255:
            self._labels[...] = given
        else:
            fits = False
        self.masks.data = self._labels
        if not fits:
            text = f"whole numbers from 0 to 255 in the shape {before.shape} (z, y, x) are needed"
            self.refused.emit(f"The labels put into 'masks' were not taken: {text}.")
        elif not np.array_equal(before, self._labels):
            self.replaced.emit(before, self._labels.copy())

    def _later(self, call: object) -> None:
        self._defer(lambda: None if self._closed else call())  # type: ignore[operator]

    def _watch_drag(self, viewer: object, event: object):
        self._dragging = True
        yield
        while getattr(event, "type", "") == "mouse_move":
            yield
        self._dragging = False
        self._later(self._settle)

    # ------------------------------------------------------------------ the end
    def close(self, *, later: bool = False) -> None:
        """Let go of the layers; boxes and clicks go, the masks stay as a layer like any other.

        ``later`` takes them out on the next turn: napari is still at removing others.
        """
        if self._closed:
            return
        self._closed = True
        self.boxes.events.data.disconnect(self._on_boxes)
        self.clicks.events.data.disconnect(self._on_clicks)
        self.masks.events.paint.disconnect(self._on_paint)
        self.masks.events.data.disconnect(self._on_replaced)
        if self._watch_drag in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._watch_drag)
        del self.masks.undo, self.masks.redo  # napari's own again, which know nothing of before
        self.masks._reset_history()
        self.masks.metadata.pop(OWNED, None)
        self.masks.metadata[MADE] = True
        if later:
            self._defer(self._take_out)
        else:
            self._take_out()

    def _take_out(self) -> None:
        """Remove boxes and clicks, and masks in which there is nothing."""
        empty = () if self._labels.any() else (self.masks,)
        for layer in (self.boxes, self.clicks, *empty):
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)


#: Stands for "not known": unequal to every wanted tuple of prompts.
_UNKNOWN: tuple[ShownPrompt, ...] = (ShownPrompt(-1, 0, "", Click(-1, -1, -1)),)


def is_ours(layer: Layer) -> bool:
    """Tell whether a layer belongs to an annotation that goes on."""
    return OWNED in layer.metadata
