"""One controller per viewer, shared by all widgets that are open in it."""

from dataclasses import dataclass
from pathlib import Path

from napari.components import ViewerModel

from napari_lungfm.gui.annotation.choices import Choices
from napari_lungfm.gui.annotation.closing import Closing
from napari_lungfm.gui.annotation.comparing import Comparing
from napari_lungfm.gui.annotation.controller import Controller
from napari_lungfm.gui.annotation.jobs import Deliver, JobQueue
from napari_lungfm.gui.annotation.measuring import Measuring
from napari_lungfm.gui.annotation.opening import Opening
from napari_lungfm.gui.annotation.quality import Quality
from napari_lungfm.gui.annotation.saving import Saving
from napari_lungfm.gui.annotation.session_files import SavedSession, SessionFiles
from napari_lungfm.gui.gui_thread import GuiThread
from napari_lungfm.gui.settings import BESIDE_THE_IMAGE, setting


class FilesAsSet(SessionFiles):
    """Keeps sessions as the settings say when each of them begins.

    Those that were kept elsewhere before are found as well.
    """

    def new_log(self, name: str, source: str | None = None) -> Path | None:
        """Return the path of a new log, ``None`` where saving is switched off."""
        if not setting("autosave"):
            return None
        beside = setting("session_folder") == BESIDE_THE_IMAGE
        return super().new_log(name, source if beside else None)

    def of_image(
        self, voxel_hash: str, source: str | None = None, *, other_than: Path | None = None
    ) -> list[SavedSession]:
        """Return the sessions of an image, none where saving is switched off."""
        if not setting("autosave"):
            return []
        return super().of_image(voxel_hash, source, other_than=other_than)


class Workplace:
    """All that the widgets of one viewer show and ask.

    Parameters
    ----------
    viewer
        The viewer.
    deliver
        See `JobQueue`.
    files
        Where sessions are kept; ``None`` keeps none.
    """

    def __init__(
        self, viewer: ViewerModel, deliver: Deliver, files: SessionFiles | None = None
    ) -> None:
        self.controller = Controller(viewer, deliver, files=files)
        self.background = JobQueue(deliver, name="lungfm-background")
        self.choices = Choices(self.controller)
        self.quality = Quality(self.controller, self.background, self.choices)
        self.measuring = Measuring(self.controller, self.background)
        self.comparing = Comparing(self.controller, self.background, self.choices)
        self.closing = Closing(self.controller)
        self.saving = Saving(self.controller, self.background)
        self._reading = JobQueue(deliver, name="lungfm-reading")
        self.opening = Opening(viewer, self._reading)

    def close(self) -> None:
        """End everything."""
        self._reading.close()
        self.background.close()
        self.controller.close()


@dataclass(eq=False)
class _Entry:
    workplace: Workplace
    users: int


_ENTRIES: dict[int, _Entry] = {}


class Hold:
    """A widget's hold on the workplace of its viewer; the last one to let go closes it.

    Parameters
    ----------
    viewer
        The viewer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._key = id(viewer)
        entry = _ENTRIES.get(self._key)
        if entry is None:
            entry = _Entry(Workplace(viewer, GuiThread(), FilesAsSet()), 0)
            _ENTRIES[self._key] = entry
        entry.users += 1
        self._held = True
        self.workplace = entry.workplace

    def release(self) -> None:
        """Let go; may be called more than once."""
        if not self._held:
            return
        self._held = False
        entry = _ENTRIES[self._key]
        entry.users -= 1
        if not entry.users:
            del _ENTRIES[self._key]
            entry.workplace.close()
