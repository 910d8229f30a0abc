"""A collection of the Imaging Data Commons: which series there are, and their files.

The columns are those of the index in ``idc-index-data`` (seen in 25.0.5): ``collection_id``,
``analysis_result_id``, ``PatientID``, ``StudyInstanceUID``, ``SeriesInstanceUID``, ``Modality``,
``series_aws_url`` (``s3://BUCKET/UUID/*``), ``series_size_MB``, ``license_short_name``.
"""

import csv
import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_lungfm._core.download import Cancelled
from napari_lungfm._core.exceptions import InputFileError, UsageError
from napari_lungfm._core.files import make_folder, slug
from napari_lungfm._core.imports import require
from napari_lungfm._core.types import PathInput, ProgressCallback
from napari_lungfm.datasets.sources.cards import SourceCard
from napari_lungfm.datasets.sources.origin import record_origin
from napari_lungfm.datasets.sources.room import check_room
from napari_lungfm.datasets.sources.s3 import Bucket, StoredObject
from napari_lungfm.datasets.sources.series_record import SeriesRecord

#: What a cohort is made of.
MODALITIES = ("CT", "RTSTRUCT", "SEG")
_NEEDED = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "series_aws_url")
_URL = re.compile(r"s3://([a-z0-9.-]+)/([A-Za-z0-9_./-]+?)/?\*?")
_UID = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True)
class RemoteSeries:
    """One DICOM series in a bucket.

    Parameters
    ----------
    patient, study, uid, modality
        PatientID, StudyInstanceUID, SeriesInstanceUID and Modality.
    bucket, prefix
        Where its files are.
    size
        Bytes, as far as the list tells.
    licence
        Short name of the licence, or empty.
    """

    patient: str
    study: str
    uid: str
    modality: str
    bucket: str
    prefix: str
    size: float = 0.0
    licence: str = ""

    def folder(self, root: Path, collection: str) -> Path:
        """Return where its files go: collection/patient/study/modality_series."""
        return root / collection / slug(self.patient) / self.study / f"{self.modality}_{self.uid}"


@dataclass(frozen=True)
class Fetched:
    """What a download brought.

    Parameters
    ----------
    series, patients
        How many.
    downloaded, present
        Files that came now, and files that were there.
    replaced
        Files among the downloaded in place of which others had been: cut off or, where they were
        verified, damaged.
    """

    series: int
    patients: int
    downloaded: int
    present: int
    replaced: int = 0


def series_from_index(card: SourceCard) -> tuple[RemoteSeries, ...]:
    """List the series of a collection with the ``idc-index`` package.

    Series that others derived from the collection are left out.

    Raises
    ------
    MissingDependencyError
        If the package is not installed.
    InputFileError
        If its index has no such collection.
    """
    package = require(
        "idc_index", purpose="listing a collection of the Imaging Data Commons without --manifest"
    )
    table = package.IDCClient.client().index
    rows = table[table["collection_id"] == card.collection]
    columns = [c for c in rows.columns if isinstance(c, str)]
    records = rows[columns].astype(object).where(rows[columns].notna(), None).to_dict("records")
    return _series(records, f"the index of idc-index for '{card.collection}'", card)


def series_from_manifest(path: PathInput, card: SourceCard) -> tuple[RemoteSeries, ...]:
    """Read the list of series from a CSV with the columns of the index.

    Raises
    ------
    InputFileError
        If it cannot be read, lacks a column, or lists no series.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        msg = f"cannot read the manifest '{path}': {reason}"
        raise InputFileError(msg) from error
    return _series(rows, f"the manifest '{path}'", card)


def choose_patients(
    series: Sequence[RemoteSeries], *, patients: Sequence[str] = (), limit: int | None = None
) -> tuple[RemoteSeries, ...]:
    """Keep the series of some patients: those named, and the first ``limit`` of them by name.

    Raises
    ------
    UsageError
        If a patient is not there.
    """
    known = sorted({each.patient for each in series})
    unknown = sorted(set(patients) - set(known))
    if unknown:
        msg = f"there is no patient {', '.join(unknown)}; there are {known[0]} to {known[-1]}"
        raise UsageError(msg)
    kept = set([name for name in known if not patients or name in patients][:limit])
    return tuple(each for each in series if each.patient in kept)


def fetch_series(
    series: Sequence[RemoteSeries],
    out: PathInput,
    *,
    collection: str,
    endpoint: str | None = None,
    jobs: int = 8,
    verify: bool = False,
    progress: ProgressCallback | None = None,
    cancelled: Cancelled | None = None,
    pause: float = 1.0,
) -> Fetched:
    """Download series, each file checked against its ETag; what is there already is kept.

    Series that are not whole are marked (see `series_record`), each until it is. A download
    through ``endpoint`` is recorded as not the publisher's (see `origin`).

    Parameters
    ----------
    series
        Which.
    out
        Folder that gets ``collection/patient/study/modality_series/instance.dcm``.
    collection
        First folder of the layout.
    endpoint
        A mirror; see `Bucket`.
    jobs
        Downloads at one time.
    verify
        Read the files that are there too, and bring again those that are not what their ETag
        says; without it only their sizes are compared.
    progress
        Called with bytes done and bytes in all.
    cancelled
        Asked again and again; ``True`` stops.
    pause
        Seconds before a lost connection is tried again.

    Raises
    ------
    DownloadError
        If a file cannot be had; the others are kept.
    DownloadCancelledError
        If it was cancelled.
    OutputError
        If the disk has no room for it, or cannot be written to.
    """
    root = make_folder(out)
    total = int(sum(each.size for each in series))
    check_room(root, max(0.0, total - _bytes_there(series, root, collection)), "the download")
    work = _Work(root, collection, endpoint, pause, progress, cancelled, total, verify)
    work.begin(series)
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        try:
            listed = _all(pool, [(work.list_files, each) for each in series])
            files = [
                (each, item) for each, items in zip(series, listed, strict=True) for item in items
            ]
            work.expect(files)
            came = _all(pool, [(work.get, file) for file in files])
        except BaseException:
            work.stop.set()  # the files under way end at their next block
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    patients = len({each.patient for each in series})
    return Fetched(len(series), patients, sum(came), len(came) - sum(came), work.replaced)


class _Work:
    """One download, from many threads."""

    def __init__(
        self,
        root: Path,
        collection: str,
        endpoint: str | None,
        pause: float,
        progress: ProgressCallback | None,
        cancelled: Cancelled | None,
        total: int,
        verify: bool,
    ) -> None:
        self.root, self.collection, self.total = root, collection, total
        self.stop, self.replaced = threading.Event(), 0
        self._record, self._verify = SeriesRecord(root / collection), verify
        self._left: Counter[str] = Counter()
        self._endpoint, self._pause = endpoint, pause
        self._progress, self._cancelled = progress, cancelled
        self._done, self._lock = 0, threading.Lock()

    def begin(self, series: Sequence[RemoteSeries]) -> None:
        """Mark what is not whole, and record that it comes from elsewhere, if it does."""
        wanted = [each for each in series if not self._is_whole(each)]
        for each in wanted:
            self._record.begin(each.uid, each.patient)
        if self._endpoint is not None and (wanted or self._verify):
            record_origin(make_folder(self.root / self.collection), [self._endpoint])

    def expect(self, files: Sequence[tuple[RemoteSeries, StoredObject]]) -> None:
        """Say what `get` is going to be asked for."""
        self.total = sum(item.size for _, item in files)
        self._left.update(series.uid for series, _ in files)

    def list_files(self, series: RemoteSeries) -> tuple[StoredObject, ...]:
        """Return the files of a series; the answer is kept, for what a UUID names never changes."""
        kept = self._kept(series)
        if kept is not None:
            return kept
        listed = self._bucket(series.bucket).list_objects(f"{series.prefix}/", self._asked)
        files = tuple(each for each in listed if each.size and not each.key.endswith("/"))
        if not files:
            msg = (
                f"there are no files of the series {series.uid} of '{series.patient}' at "
                f"{self._bucket(series.bucket).address}{series.prefix}/; is the list out of date?"
            )
            raise InputFileError(msg)
        self._record.keep(series.uid, series.patient, series.modality, files)
        return files

    def get(self, file: tuple[RemoteSeries, StoredObject]) -> bool:
        """Bring one file; return whether it came now."""
        series, item = file
        target = make_folder(series.folder(self.root, self.collection)) / item.filename
        there = target.is_file()
        came = self._bucket(series.bucket).get(item, target, self._asked, verify=self._verify)
        with self._lock:
            self._done += item.size
            self.replaced += came and there
            self._left[series.uid] -= 1
            if not self._left[series.uid]:
                self._record.end(series.uid)
            if self._progress is not None:
                self._progress(self._done, self.total)
        return came

    def _kept(self, series: RemoteSeries) -> tuple[StoredObject, ...] | None:
        """Return the list that is kept of a series, unless the series has moved."""
        files = self._record.files(series.uid)
        ours = files and all(each.key.startswith(f"{series.prefix}/") for each in files)
        return files if ours else None

    def _is_whole(self, series: RemoteSeries) -> bool:
        folder, files = series.folder(self.root, self.collection), self._kept(series)
        return files is not None and all(
            (path := folder / each.filename).is_file() and path.stat().st_size == each.size
            for each in files
        )

    def _bucket(self, name: str) -> Bucket:
        return Bucket(name, self._endpoint, pause=self._pause)

    def _asked(self) -> bool:
        return self.stop.is_set() or (self._cancelled is not None and self._cancelled())


def _all(pool: ThreadPoolExecutor, calls: Iterable[tuple[Any, Any]]) -> list[Any]:
    """Return what the calls return, in order; the first error ends it."""
    futures: list[Future[Any]] = [pool.submit(call, argument) for call, argument in calls]
    finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in finished:
        future.result()
    return [future.result() for future in futures]


def _bytes_there(series: Sequence[RemoteSeries], root: Path, collection: str) -> float:
    folders = [each.folder(root, collection) for each in series]
    return float(
        sum(
            path.stat().st_size
            for folder in folders
            if folder.is_dir()
            for path in folder.iterdir()
        )
    )


def _series(
    rows: Iterable[Mapping[str, Any]], source: str, card: SourceCard
) -> tuple[RemoteSeries, ...]:
    found = []
    for number, row in enumerate(rows, start=1):
        missing = [column for column in _NEEDED if not row.get(column)]
        if missing:
            msg = f"{source}: row {number} has no {', '.join(missing)}"
            raise InputFileError(msg)
        other = row.get("collection_id") not in (None, "", card.collection)
        if other or row.get("analysis_result_id") or row["Modality"] not in MODALITIES:
            continue
        found.append(_one(row, f"{source}: row {number}"))
    if not found:
        msg = f"{source} lists no {', '.join(MODALITIES)} series of '{card.collection}'"
        raise InputFileError(msg)
    return tuple(sorted(found, key=lambda each: (each.patient, each.modality, each.uid)))


def _one(row: Mapping[str, Any], where: str) -> RemoteSeries:
    place = _URL.fullmatch(str(row["series_aws_url"]).strip())
    if place is None or ".." in place[2]:
        msg = f"{where}: '{row['series_aws_url']}' is not of the form s3://BUCKET/UUID/*"
        raise InputFileError(msg)
    for column in ("StudyInstanceUID", "SeriesInstanceUID"):
        if not _UID.fullmatch(str(row[column])):
            msg = f"{where}: '{row[column]}' is no {column}"
            raise InputFileError(msg)
    made = RemoteSeries(
        str(row["PatientID"]),
        str(row["StudyInstanceUID"]),
        str(row["SeriesInstanceUID"]),
        str(row["Modality"]),
        place[1],
        place[2],
        licence=str(row.get("license_short_name") or ""),
    )
    try:
        return replace(made, size=float(row.get("series_size_MB") or 0.0) * 1e6)
    except ValueError as error:
        msg = f"{where}: series_size_MB is '{row['series_size_MB']}', which is no number"
        raise InputFileError(msg) from error
