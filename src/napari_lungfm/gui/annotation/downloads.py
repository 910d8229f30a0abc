"""Fetching the weights of a model without keeping the engine from its work."""

from collections.abc import Callable

from napari_lungfm.gui.annotation.jobs import Deliver, Job, JobContext, JobQueue
from napari_lungfm.gui.annotation.notices import Notice, explain
from napari_lungfm.models.catalogue import resolve
from napari_lungfm.models.weights import fetch as fetching
from napari_lungfm.models.weights.errors import DownloadCancelledError
from napari_lungfm.models.weights.store import StoredWeights


class Downloads:
    """One download at a time, on a thread of its own.

    Parameters
    ----------
    deliver
        See `JobQueue`.
    """

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._queue: JobQueue | None = None
        self._job: Job[StoredWeights] | None = None

    @property
    def going_on(self) -> bool:
        """Whether something is being fetched."""
        return self._job is not None

    def licence(self, name: str) -> str:
        """Return what the user has to agree to."""
        card, _ = resolve(name)
        return fetching.licence_text(card)

    def fetch(
        self,
        name: str,
        progress: Callable[[int, int], None],
        ended: Callable[[Notice, bool], None],
    ) -> None:
        """Fetch weights; the user has agreed to the licence.

        Parameters
        ----------
        name
            The model.
        progress
            Called with bytes done and bytes in all.
        ended
            Called with what to say, and whether the weights are here.
        """
        if self._queue is None:
            self._queue = JobQueue(self._deliver, name="lungfm-download")

        def work(context: JobContext) -> StoredWeights:
            last = -1

            def tell(done: int, total: int) -> None:
                nonlocal last
                percent = 100 * done // total if total else done // 10**6
                if percent != last:
                    last = percent
                    context.report(progress, done, total)

            return fetching.fetch(
                name, licence_accepted=True, progress=tell, cancelled=lambda: context.cancelled
            )

        def done(stored: StoredWeights) -> None:
            self._job = None
            ended(Notice("done", f"The weights of '{stored.name}' are here."), True)

        def failed(error: BaseException) -> None:
            self._job = None
            if isinstance(error, DownloadCancelledError):
                ended(
                    Notice("warning", "Download cancelled; it goes on from here next time."), False
                )
            else:
                ended(explain(error), False)

        self._job = self._queue.submit(work, done, failed)

    def cancel(self) -> None:
        """Stop the download; what is here already is kept for the next time."""
        if self._job is not None:
            self._job.cancel.set()

    def close(self) -> None:
        """Stop everything."""
        if self._queue is not None:
            self._queue.close()
            self._queue, self._job = None, None
