"""The annotation session: objects, prompts, propagation, undo, a log of everything."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.types import PathInput, ProgressCallback, Region, SliceMask
from napari_lungfm.geometry import LUNG_LABELS, Structure, Volume
from napari_lungfm.inference.session.caching import CacheBudget, FeaturePrecision
from napari_lungfm.inference.session.engine import SessionEngine
from napari_lungfm.inference.session.errors import SessionError
from napari_lungfm.inference.session.events import (
    AddObject,
    AddPrompts,
    ClearStale,
    ColourObject,
    DeleteObject,
    Direction,
    EditSlices,
    LockObject,
    Propagate,
    RemovePrompt,
    RenameObject,
    ReplacePrompt,
    own_prompt,
    plain,
)
from napari_lungfm.inference.session.identity import (
    describe_image,
    describe_model,
    signature_of,
)
from napari_lungfm.inference.session.log import EventLog, stamped, to_line
from napari_lungfm.inference.session.recording import (
    Recording,
    opening_facts,
    read_recording,
    replay,
)
from napari_lungfm.inference.session.results import PromptOutcome, SliceUpdate, outcome_of
from napari_lungfm.inference.session.saving import write_saved
from napari_lungfm.inference.session.state import AnnotatedObject, SessionState, changed_region
from napari_lungfm.inference.session.transitions import (
    check_heeded,
    check_new_name,
    free_name,
)
from napari_lungfm.inference.session.view import SessionView
from napari_lungfm.inference.session.walking import LiveWalk
from napari_lungfm.models.automatic.protocol import CancelCallback
from napari_lungfm.models.prompts import MaskPrompt, Prompt, Stop
from napari_lungfm.models.protocols import PromptableModel

NamedT = TypeVar("NamedT", AddObject, RenameObject)
#: Room for what encoders make of slices, unless it is said otherwise.
DEFAULT_CACHE = CacheBudget()


class AnnotationSession(SessionView):
    """A volume, a model, and the objects that are being delineated with it.

    Every action is checked, done by the model, written to the log and only then counts; one that
    fails leaves session and log as they were. Replaying the log gives the same masks.

    All methods may be called from one thread, which may be a worker; `interrupt` from any. One
    action at a time: while a propagation is under way, others are refused, but reading is not.

    Used as a context manager it is closed at the end; one that nobody has any more closes itself.

    Parameters
    ----------
    volume
        The image in HU, axial slices along the first array axis.
    model
        A promptable model.
    log
        File for the event log, one that does not exist yet; ``None`` keeps it in memory.
    options
        What the model was made with, in values that JSON knows, for the log.
    cache
        Room for what the model's encoder makes of slices, so that no slice is encoded twice;
        ``None`` leaves the matter to the model. Models without an encoder of slices have no use
        for it.
    kept_states, kept_bytes
        How many states of the model are kept, and how much memory they may hold together, so
        that going on from them computes nothing again. The latest one is kept in any case.
    kept_snapshots
        How many states of the objects are kept for undo; older ones are made again when needed,
        from the masks, without the model.

    Raises
    ------
    GeometryError
        If the slices along the first axis are not axial.
    DataError
        If voxels are NaN.
    SessionError
        If the log exists.
    UsageError
        If an option cannot be written to a log.
    OutputError
        If the log cannot be written.
    """

    def __init__(
        self,
        volume: Volume,
        model: PromptableModel,
        *,
        log: PathInput | None = None,
        options: Mapping[str, Any] | None = None,
        cache: CacheBudget | None = DEFAULT_CACHE,
        kept_states: int = 64,
        kept_bytes: int = 512 * 2**20,
        kept_snapshots: int = 256,
    ) -> None:
        if kept_states < 1 or kept_snapshots < 1 or kept_bytes < 0:
            msg = "a session needs at least one kept state and one kept snapshot"
            raise UsageError(msg)
        describe_model(model, options or {})  # before anything is opened
        engine = SessionEngine(
            volume,
            model,
            cache=cache,
            kept_states=kept_states,
            kept_bytes=kept_bytes,
            kept_snapshots=kept_snapshots,
        )
        super().__init__(engine)
        engine.signature = lambda: signature_of(model)
        rounding = None if cache is None or engine.features is None else cache.precision
        facts = opening_facts(volume, model, options or {}, rounding, with_hash=log is not None)
        engine.log = EventLog.create(log, [stamped(0, facts)])

    def close(self) -> None:
        """Free what was kept to be quick, files of features included.

        What was done can still be read and saved, and the session can even go on, slower at first.
        """
        self._engine.close()

    def __enter__(self) -> Self:
        """Return the session."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    # ------------------------------------------------------------------ objects
    def add_object(self, label: int | None = None, name: str | None = None) -> AnnotatedObject:
        """Add an object.

        Parameters
        ----------
        label
            Its value in the label map, 1 to 255; by default that of tumours, or the next free.
        name
            Its name; by default that of the structure with this label, with a number behind it
            where another object has that name.

        Raises
        ------
        UsageError
            If the label is taken or out of range, or the name is blank, longer than 64 letters
            or that of another object.
        """
        if label is None:
            label = next(i for i in range(int(Structure.TUMOUR), 257) if i not in self.objects)
        if name is None:
            name = free_name(self.state, LUNG_LABELS.get(label, f"object {label}"))
        self._engine.do(self._named(AddObject(label, name), None))
        return self.get(label)

    def rename_object(self, label: int, name: str) -> None:
        """Give an object another name; see `add_object`."""
        self._engine.do(self._named(RenameObject(label, name), label))

    def colour_object(self, label: int, colour: str) -> None:
        """Choose the colour that an object is shown in, ``#rrggbb``; a locked one's as well."""
        self._engine.do(ColourObject(label, colour))

    def lock(self, label: int) -> Region | None:
        """Finish an object: nothing changes it, and no other object takes its voxels.

        Returns
        -------
        Region or None
            Where the label map may differ from before.
        """
        return self._changing(lambda: self._engine.do(LockObject(label, locked=True)))

    def unlock(self, label: int) -> Region | None:
        """Open a finished object again."""
        return self._changing(lambda: self._engine.do(LockObject(label, locked=False)))

    def delete_object(self, label: int) -> Region | None:
        """Delete an open object, its prompts and its masks."""
        return self._changing(lambda: self._engine.do(DeleteObject(label)))

    def clear_stale(self, label: int) -> Region | None:
        """Clear the slices of an object that are out of date."""
        return self._changing(lambda: self._engine.do(ClearStale(label)))

    # ------------------------------------------------------------------ prompts
    def add_prompt(self, label: int, prompt: Prompt) -> PromptOutcome:
        """Give an object a prompt and segment its slice; see `add_prompts`."""
        return self.add_prompts(label, [prompt])

    def add_prompts(self, label: int, prompts: Sequence[Prompt]) -> PromptOutcome:
        """Give an object several prompts in one action, and segment their slices.

        Slices that were found by propagation are out of date then; they stay visible until the
        object is propagated again. Nothing of the object is left beyond a stop.

        Raises
        ------
        PromptError
            If a prompt cannot be used, see `check_prompts`; if a stop lies between prompted
            slices; or if a box or click is on a slice that was drawn by hand, where it would
            change nothing.
        SessionError
            If there is no such object, or it is locked.
        InterruptedActionError
            If `interrupt` was called between two of its slices.
        """
        first = self.state.next_prompt
        numbered = tuple(enumerate((own_prompt(prompt) for prompt in prompts), start=first))
        check_heeded(self.get(label), (prompt for _, prompt in numbered))
        before = self.state
        findings = self._engine.do(AddPrompts(label, numbered))
        touched = {prompt.z for _, prompt in numbered if not isinstance(prompt, Stop)}
        numbers = tuple(number for number, _ in numbered)
        return self._outcome(before, label, numbers, {*touched, *dict(findings)})

    def edit_slice(self, label: int, z: int, mask: SliceMask) -> PromptOutcome:
        """Take a slice as it was drawn by hand: boolean ``(y, x)``; empty for "not here".

        It is kept whatever is propagated, and replaces an earlier edit of the slice.

        Raises
        ------
        PromptError, SessionError
            See `add_prompts`.
        """
        return self.edit_slices(label, {z: mask})

    def edit_slices(self, label: int, masks: Mapping[int, SliceMask]) -> PromptOutcome:
        """Take several slices as they were drawn by hand, in one action; see `edit_slice`.

        Parameters
        ----------
        label
            The object.
        masks
            Slice → boolean ``(y, x)``.

        Raises
        ------
        PromptError, SessionError, InterruptedActionError
            See `add_prompts`.
        """
        before, obj = self.state, self.get(label)
        drawn = {p.z: number for number, p in obj.prompts.items() if isinstance(p, MaskPrompt)}
        prompts = [own_prompt(MaskPrompt(z, mask)) for z, mask in masks.items()]
        if not any(prompt.z in drawn for prompt in prompts):
            return self.add_prompts(label, prompts)
        if len(prompts) == 1:
            return self.replace_prompt(label, drawn[prompts[0].z], prompts[0])
        fresh = count(before.next_prompt)
        numbered = tuple((drawn[p.z] if p.z in drawn else next(fresh), p) for p in prompts)
        findings = self._engine.do(EditSlices(label, numbered))
        slices = {*(p.z for p in prompts), *dict(findings)}
        return self._outcome(before, label, tuple(number for number, _ in numbered), slices)

    def remove_prompt(self, label: int, prompt_id: int) -> PromptOutcome:
        """Take a prompt back, however long ago it was given.

        What remains is as if it had never been given. Its slice shows what was there before the
        prompt; propagated slices are out of date. An object without a box, positive click or
        mask is empty.

        Raises
        ------
        SessionError
            If there is no such object or prompt, or the object is locked.
        InterruptedActionError
            If `interrupt` was called before it was done.
        """
        before = self.state
        findings = self._engine.do(RemovePrompt(label, prompt_id))
        return self._outcome(before, label, (), dict(findings))

    def replace_prompt(self, label: int, prompt_id: int, prompt: Prompt) -> PromptOutcome:
        """Put another prompt in the place of one: as if it had been given instead.

        Raises
        ------
        PromptError, SessionError, InterruptedActionError
            See `add_prompts` and `remove_prompt`.
        """
        before, own = self.state, own_prompt(prompt)
        check_heeded(self.get(label), (own,), instead_of=prompt_id)
        findings = self._engine.do(ReplacePrompt(label, prompt_id, own))
        touched = set() if isinstance(own, Stop) else {own.z}
        slices = {*touched, *dict(findings)}
        return self._outcome(before, label, (prompt_id,), slices)

    # ------------------------------------------------------------------ propagation
    def propagate(
        self,
        label: int,
        direction: Direction = "both",
        *,
        until: int | None = None,
        max_extent_mm: float | None = None,
    ) -> Generator[SliceUpdate, None, None]:
        """Carry an object from its prompted slices through the others.

        Closing the generator, or `interrupt` from another thread, cancels between two slices:
        those that were done are kept, the others stay out of date, and the log knows how many
        they were. So are those that were done before a model failed on the way. `save` may be
        called between two slices: the file then has what was found so far.

        Parameters
        ----------
        label
            The object.
        direction
            ``"up"`` to higher slice numbers, ``"down"`` to lower ones, or ``"both"``; slices
            between prompted ones are filled in any case.
        until
            Last slice to visit, with one direction.
        max_extent_mm
            How far from the first and last prompted slices, in mm between slice centres, the
            object may reach; what lies beyond is cleared.

        Yields
        ------
        SliceUpdate
            Each slice as it is found, or found to be empty where something was before.

        Raises
        ------
        PromptError
            If nothing says where the object is.
        UsageError
            If the object is locked or a limit makes no sense.
        OutputError
            If the log cannot take it. All of them before anything is computed.
        """
        order = self._engine.admitted(Propagate(label, direction, until, max_extent_mm))
        return LiveWalk(self._engine, order).stream()

    def interrupt(self) -> None:
        """Interrupt the action that is going on, at the next slice; from any thread."""
        self._engine.runner.interrupt.set()

    # ------------------------------------------------------------------ time
    def undo(self) -> Region | None:
        """Undo the last action that counts; any number of times.

        Returns
        -------
        Region or None
            Where the label map may differ from before.

        Raises
        ------
        SessionError
            If there is nothing to undo.
        """
        return self._changing(self._engine.undo)

    def redo(self) -> Region | None:
        """Do again what was undone last; see `undo`."""
        return self._changing(self._engine.redo)

    # ------------------------------------------------------------------ keeping
    def renew_log(self) -> Path | None:
        """Write the log anew, with all that was done, if its file is not as it was left.

        One that is gone is written again. One that another program has changed stays as it is,
        and the log goes on in a new file beside it.

        Returns
        -------
        Path or None
            The file, if one had to be written.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        return self._engine.log.renew()

    def save(self, path: PathInput) -> None:
        """Write log and masks into one file, so that opening it computes nothing.

        During a propagation, the file has it as one that was cancelled after the slices that
        were found so far; the log gets its line at the end.

        Raises
        ------
        SessionError
            If it is the file of the session's own log.
        OutputError
            If it cannot be written.
        """
        if self._engine.log.is_at(path):
            msg = f"'{path}' is the log of this session and would be lost; choose another name"
            raise SessionError(msg)
        entries = self._engine.log.entries
        if "hash" not in entries[0]["image"]:
            entries[0] = {**entries[0], "image": describe_image(self.volume)}
        lines, records = self._engine.recorded()
        write_saved(path, "".join(to_line(line) for line in lines), records)

    @classmethod
    def load(
        cls,
        path: PathInput | Recording,
        volume: Volume,
        model: PromptableModel,
        *,
        log: PathInput | None = None,
        read_only: bool = False,
        other_model: bool = False,
        options: Mapping[str, Any] | None = None,
        cache: CacheBudget | None = DEFAULT_CACHE,
        progress: ProgressCallback | None = None,
        cancelled: CancelCallback | None = None,
        **kept: Any,
    ) -> Self:
        """Open a log, by doing everything again, or a saved session, without the model.

        Parameters
        ----------
        path
            A log or a saved session, or what `read_recording` made of it.
        volume
            The image that it belongs to.
        model
            The model that it was made with.
        log
            A new file for the log, the old lines included. Without it, and without
            ``read_only``, an opened log is gone on with in its own file, and the log of a saved
            session stays in memory.
        read_only
            Do not touch the file; what is done from here on stays in memory.
        other_model
            Repeat the actions with another model, or with other options of it. The masks will
            be other ones and the log is a new one, so that the opened file is never gone on with.
        options
            What the model was made with; by default what the log says, if it is the same model.
        cache
            See the class. Features are rounded as they were when the log was made.
        progress
            Called with the actions that were done again and their number.
        cancelled
            Asked between actions and between slices whether to give it up.
        **kept
            ``kept_states``, ``kept_bytes`` and ``kept_snapshots``, see the class.

        Raises
        ------
        SessionMismatchError
            If it belongs to another image, another model or other options of it, or a newer
            version wrote it.
        SessionFileError
            If it is damaged.
        InputFileError
            If it cannot be read.
        InterruptedActionError
            If ``cancelled`` said yes; no file was touched.

        Warns
        -----
        LungFMWarning
            If the last line is unfinished, the masks differ from the recorded ones, or the
            model computes with another precision.
        """
        own_file = log is None and not read_only and not other_model
        recording = path if isinstance(path, Recording) else read_recording(path)
        recording.check(volume, None if other_model else model, options)
        if not other_model:
            options = recording.options
            if cache is not None:
                cache = replace(cache, precision=cast("FeaturePrecision", recording.features))
        session = cls(volume, model, options=options, cache=cache, **kept)
        engine = session._engine
        with engine.runner.cancelled_by(cancelled):
            session._differing = replay(
                engine, recording, use_masks=not other_model, progress=progress
            )
        entries = engine.log.entries if other_model else recording.entries
        entries = [{**entries[0], "image": recording.entries[0]["image"]}, *entries[1:]]
        if log is not None:
            engine.log = EventLog.create(log, entries)
        elif own_file and recording.log_path is not None:
            engine.log = EventLog.resume(
                recording.log_path, entries, recording.log_size, recording.log_stamp
            )
        else:
            engine.log = EventLog(entries)
        return session

    # ------------------------------------------------------------------ helpers
    def _named(self, event: NamedT, label: int | None) -> NamedT:
        """Refuse names that are none, before those that are not allowed."""
        event = plain(event)
        check_new_name(self.state, event.name, label)
        return event

    def _changing(self, act: Callable[[], object]) -> Region | None:
        before = self.state
        act()
        return changed_region(before, self.state)

    def _outcome(
        self, before: SessionState, label: int, numbers: tuple[int, ...], slices: Iterable[int]
    ) -> PromptOutcome:
        shape = self.geometry.shape[1:]
        return outcome_of(before, self.state, label, numbers, slices, shape)
