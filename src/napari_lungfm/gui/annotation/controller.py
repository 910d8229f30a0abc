"""What the annotation panel asks for, without Qt: tools, prompts, propagation, objects."""

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel

from napari_lungfm.gui.annotation.bench_view import counted
from napari_lungfm.gui.annotation.drawn import box_of, click_of, lies_outside
from napari_lungfm.gui.annotation.facts import Walking
from napari_lungfm.gui.annotation.hand_edits import HandEdits, told_locked
from napari_lungfm.gui.annotation.jobs import Deliver
from napari_lungfm.gui.annotation.layers import AnnotationLayers
from napari_lungfm.gui.annotation.session_files import SessionFiles
from napari_lungfm.gui.annotation.tools import DRAW_A_BOX, HINTS, Tool, in_hand, take
from napari_lungfm.gui.annotation.walks import Walks
from napari_lungfm.gui.annotation.work import Report
from napari_lungfm.gui.annotation.workbench import Workbench
from napari_lungfm.inference.session import AnnotationSession
from napari_lungfm.inference.session.events import Direction
from napari_lungfm.inference.session.transitions import free_name
from napari_lungfm.models.prompts import Box, Click, MaskPrompt, Prompt, Stop


class Controller(Workbench):
    """Everything that the annotation panel asks for.

    Parameters
    ----------
    viewer, deliver, files
        See `Workbench`.
    """

    def __init__(
        self, viewer: ViewerModel, deliver: Deliver, *, files: SessionFiles | None = None
    ) -> None:
        super().__init__(viewer, deliver, files=files)
        self._edits = HandEdits(self)
        self._click = Tool.POSITIVE
        self._walks = Walks(self)

    @property
    def propagation(self) -> Walking | None:
        """How far the propagation is that is under way."""
        return self._walks.now

    @property
    def under_way(self) -> bool:
        """Whether something is being done that another image would break off."""
        return super().under_way or self._walks.now is not None

    @property
    def tool(self) -> Tool:
        """The tool in hand."""
        here = self.annotation
        return Tool.LOOK if here is None else in_hand(self.viewer, here.layers, self._click)

    # ------------------------------------------------------------------ what the workbench asks
    def connect(self, layers: AnnotationLayers) -> None:
        """Listen to new layers."""
        super().connect(layers)
        layers.box_drawn.connect(self._on_box)
        layers.box_moved.connect(self._on_box_moved)
        layers.click_placed.connect(self._on_click)
        layers.click_moved.connect(self._on_click_moved)
        layers.prompt_deleted.connect(self._on_prompt_deleted)
        layers.painted.connect(self._edits.take)
        layers.replaced.connect(self._edits.replace)
        layers.refused.connect(lambda text: self.say("error", text))
        layers.undo_asked.connect(self.undo)
        layers.redo_asked.connect(self.redo)

    def forget(self) -> None:
        """Begin with nothing shown."""
        super().forget()
        self._edits.forget()
        self._walks.forget()

    def waiting_slices(self) -> frozenset[int]:
        """Return the slices with strokes that the engine has not taken in yet."""
        return self._edits.slices

    def hint(self) -> str:
        """Return what the tool in hand is for."""
        return HINTS[self.tool]

    def say_after(self, kind: str, report: Report, remark: str = "") -> None:
        """Say what to do after a prompt."""
        obj = self.objects.get(report.label or self.active)
        if kind in ("undo", "remove") and not any(o.prompts for o in self.objects.values()):
            self.say("hint", DRAW_A_BOX)
        elif kind == "redo":
            self.say("done", "Done again.")
        if obj is None or kind not in ("prompt", "edit", "remove", "redo"):
            return
        stale, then = len(obj.stale), ""
        if stale:
            then = f"{counted(stale, 'slice')} out of date: propagate again (G)."
        elif kind == "prompt" and obj.prompted:
            then = "Right? Propagate (G) through the slices. Wrong? Correct it: A, R."
        if remark or then:
            self.say("hint", f"{remark} {then}".strip())

    # ------------------------------------------------------------------ tools and prompts
    def use(self, tool: Tool) -> None:
        """Take a tool in hand; the session is opened if need be."""
        here = self.begin() if tool is not Tool.LOOK else self.annotation
        if here is None:
            self.changed.emit()
            return
        if tool in (Tool.POSITIVE, Tool.NEGATIVE):
            self._click = tool
        here.layers.next_box(self.active or 3, {self.active: self.colour_of(self.active)})
        take(tool, self.viewer, here.layers)
        if tool is not Tool.LOOK:
            here.layers.surface()
        problem = here.view.problem if tool.prompts else None
        obj = self.active_object
        if problem is None and tool is not Tool.LOOK and obj is not None and obj.locked is not None:
            problem = told_locked(obj)
        if problem:
            self.say("warning", problem)
        elif here.ready:
            self.say("hint", HINTS[tool])
        self.changed.emit()

    def _on_box(self, corners: npt.NDArray[np.float64], kind: str) -> None:
        box = self._box(corners, kind)
        if box is None:
            return
        remark = "" if kind == "rectangle" else f"The box around your {kind} was taken."
        label, obj = self.active, self.active_object
        same = (
            [n for n, p in obj.prompts.items() if isinstance(p, Box) and p.z == box.z]
            if obj
            else []
        )
        if same:  # drawn anew: the old one was wrong
            self._replace(label, same[-1], box, remark)
        else:
            self._prompt([box], remark)

    def _box(self, corners: npt.NDArray[np.float64], kind: str = "rectangle") -> Box | None:
        """Return a drawn box, or say why it is none and take it out of its layer."""
        here = self.annotation
        if here is None:
            return None
        here.layers.surface()
        box = box_of(corners, here.volume.shape)
        problem = here.view.problem or here.view.why_another([corners.mean(axis=0), *corners])
        if problem is None and kind == "line":
            problem = "A line has no area: press B, then drag a box around the tumour."
        elif problem is None and box is None:
            problem = "This box is too small: keep the mouse button down and drag."
            if lies_outside(corners, here.volume.shape):
                problem = "This box is outside the image."
        if problem:
            here.layers.restore_prompts()
            self.say("warning", problem)
            return None
        return box

    def _on_click(self, place: npt.NDArray[np.float64]) -> None:
        click = self._click_at(place, positive=self._click is Tool.POSITIVE)
        if click is not None:
            self._prompt([click])

    def _click_at(self, place: npt.NDArray[np.float64], *, positive: bool) -> Click | None:
        here = self.annotation
        if here is None:
            return None
        here.layers.surface()
        click = click_of(place, here.volume.shape, positive=positive)
        problem = here.view.problem or here.view.why_another([place])
        if problem is None and click is None:
            problem = "This click is outside the image."
        if problem:
            here.layers.restore_prompts()
            self.say("warning", problem)
            return None
        return click

    def _on_box_moved(self, number: int, corners: npt.NDArray[np.float64]) -> None:
        owner = self.owner_of(number)
        box = self._box(corners)
        if owner is not None and box is not None:
            self._replace(owner, number, box)

    def _on_click_moved(self, number: int, place: npt.NDArray[np.float64]) -> None:
        owner = self.owner_of(number)
        old = self.objects[owner].prompts[number] if owner is not None else None
        if owner is None or not isinstance(old, Click):
            return
        click = self._click_at(place, positive=old.positive)
        if click is not None:
            self._replace(owner, number, click)

    def _on_prompt_deleted(self, number: int) -> None:
        owner = self.owner_of(number)
        if owner is not None:
            self.remove_prompt(owner, number)

    def owner_of(self, number: int) -> int | None:
        """Return the object that a prompt belongs to."""
        for label, each in self.objects.items():
            if number in each.prompts:
                return label
        return None

    def stop_here(self) -> None:
        """Say that the object has ended before the slice in view."""
        here = self.annotation
        if here is None or self.active_object is None:
            self.say("warning", "There is no object yet: draw a box around the tumour first.")
            return
        problem = here.view.why_another() if here.view.is_axial else here.view.problem or ""
        if problem is not None:
            self.say("warning", problem)
            return
        self._prompt([Stop(here.view.z)])

    def _prompt(self, prompts: list[Prompt], remark: str = "") -> None:
        label = self.active

        def act(session: AnnotationSession) -> object:
            target = label if label in session.objects else _first_open(session)
            return session.add_prompts(target, prompts)

        self.act(act, label, "prompt", remark)

    def _replace(self, label: int, number: int, prompt: Prompt, remark: str = "") -> None:
        self.act(lambda s: s.replace_prompt(label, number, prompt), label, "prompt", remark)

    def remove_prompt(self, label: int, number: int) -> None:
        """Take a prompt back, however long ago it was given."""
        self.act(lambda s: s.remove_prompt(label, number), label, "remove")

    # ------------------------------------------------------------------ propagation
    def propagate(self, direction: Direction = "both", until: int | None = None) -> None:
        """Carry the active object through the slices."""
        self._walks.begin(direction, until)

    # ------------------------------------------------------------------ time
    def undo(self) -> None:
        """Undo the last action; a propagation that is going on is stopped and taken back."""
        if self._walks.now is not None:
            self._walks.take_back()
        elif self.can_undo:
            self.act(lambda s: s.undo(), self.active, "undo")

    def redo(self) -> None:
        """Do again what was undone last."""
        if self.can_redo and self._walks.now is None:
            self.act(lambda s: s.redo(), self.active, "redo")

    # ------------------------------------------------------------------ objects
    def choose(self, label: int) -> None:
        """Make an object the one that prompts go to."""
        here = self.annotation
        if here is None or label not in self.objects:
            return
        self._active = label
        here.layers.masks.selected_label = label
        here.layers.next_box(label, {label: self.colour_of(label)})
        self.changed.emit()

    def add_object(self, name: str | None = None) -> None:
        """Add an object and make it the active one."""
        if self.begin() is None:
            return

        def done(report: Report) -> None:
            self.acted(report, "object")
            self.choose(list(self.objects)[-1])
            self._begin_object()

        self.submit(lambda _: self.engine.act(lambda s: _new_object(s, name) and None), done)

    def _begin_object(self) -> None:
        """Have the tool in hand that a new object begins with, and say so."""
        here, obj = self.annotation, self.active_object
        if here is None or obj is None:
            return
        if self.tool is Tool.BRUSH:
            self.say("hint", f"'{obj.name}': paint it, or press B and drag a box around it.")
            return
        self.use(Tool.BOX)
        if here.view.problem is None:
            self.say("hint", f"'{obj.name}': drag a box around it on one slice.")

    def rename(self, label: int, name: str) -> None:
        """Give an object another name."""
        if label not in self.objects:
            return
        if not name.strip():
            kept = self.objects[label].name
            self.say("warning", f"An object needs a name: it is still called '{kept}'.")
        elif self.objects[label].name != name.strip():
            self.act(lambda s: s.rename_object(label, name.strip()), label, "object")

    def set_locked(self, label: int, *, locked: bool) -> None:
        """Finish an object, or open it again."""
        self.act(lambda s: s.lock(label) if locked else s.unlock(label), label, "object")

    def delete(self, label: int) -> None:
        """Delete an object with its prompts and masks; undo brings it back."""
        self.act(lambda s: s.delete_object(label), label, "object")

    def set_colour(self, label: int, colour: str) -> None:
        """Give an object another colour, ``#rrggbb``; it shows before the engine has it."""
        self._colours[label] = colour
        self._recolour()
        self.changed.emit()

        def ended() -> None:
            if self._colours.get(label) == colour:
                del self._colours[label]
                self._recolour()

        def done(report: Report) -> None:
            self.acted(report, "object")
            ended()

        def failed(error: BaseException) -> None:
            ended()
            self.failed(error)

        engine = self.engine
        self.submit(
            lambda _: engine.act(lambda s: s.colour_object(label, colour), label), done, failed
        )

    def jump_to(self, label: int) -> None:
        """Show an object: its largest slice."""
        obj, here = self.objects.get(label), self.annotation
        if obj is None or here is None or not obj.masks:
            return
        here.view.go_to(max(obj.masks, key=lambda z: obj.masks[z].area))

    def go_to(self, z: int) -> None:
        """Show a slice."""
        if self.annotation is not None:
            self.annotation.view.go_to(z)

    def clear_stale(self, label: int) -> None:
        """Clear the slices of an object that are out of date."""
        self.act(lambda s: s.clear_stale(label), label, "object")

    def start_from(self, mask: npt.NDArray[np.bool_], name: str) -> None:
        """Take a mask ``(z, y, x)`` of elsewhere as a new object, every slice a prompt."""
        if self.begin() is None:
            return
        slices = [int(z) for z in np.flatnonzero(mask.any(axis=(1, 2)))]
        prompts = [MaskPrompt(z, np.array(mask[z])) for z in slices]
        if not prompts:
            self.say("warning", f"'{name}' is empty; choose another mask.")
            return

        def act(session: AnnotationSession) -> object:
            empty = [i for i, o in session.objects.items() if not o.prompts and o.locked is None]
            label = empty[0] if empty else _new_object(session)
            return session.add_prompts(label, prompts)

        def done(report: Report) -> None:
            self.acted(report, "prompt")
            self.say("done", f"Started from '{name}': correct it by clicks, box or brush.")

        self.submit(lambda _: self.engine.act(act), done)


def _first_open(session: AnnotationSession) -> int:
    """Return an open object without prompts, or a new one."""
    for label, each in session.objects.items():
        if each.locked is None and not each.prompts:
            return label
    return _new_object(session)


def _new_object(session: AnnotationSession, name: str | None = None) -> int:
    """Add an object and return its label; the first is a tumour, others are numbered.

    Its label would be no number to go by: the first one's is 3.
    """
    if name is None and session.objects:
        name = free_name(session.state, f"object {len(session.objects) + 1}")
    return session.add_object(name=name).label
