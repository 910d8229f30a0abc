"""What ``run --dry-run`` prints."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from napari_lungfm.cli.run_progress import duration

if TYPE_CHECKING:
    from napari_lungfm.benchmark.estimate import Estimate, PlannedTraining, UnitGroup


def estimate_lines(estimate: "Estimate", workers: int | None) -> Iterator[str]:
    """Yield what a run would do, for people.

    Parameters
    ----------
    estimate
        What was found out.
    workers
        Processes on this machine; ``None`` on a cluster.
    """
    total = len(estimate.units)
    yield f"{total} units, {total - estimate.pending} finished, {estimate.pending} to do"
    rows: list[tuple[str, ...]] = [("cohort", "method", "protocol", "units", "to do", "time")]
    rows += [
        (g.cohort, g.method, g.protocol, str(g.units), str(g.pending), _time(g))
        for g in estimate.groups
    ]
    yield from _table(rows)
    for training in estimate.trainings:
        patients = f"up to {training.cases} patients"
        yield (
            f"training {training.text}: {training.state} ({patients}{_of_training(training)}; "
            f"{training.folder})"
        )
    for weights in estimate.weights:
        size = "size unknown" if weights.size is None else _bytes(weights.size)
        yield f"weights missing: {weights.name} ({size}); {weights.how}"
    if estimate.weights:
        yield _weights(estimate)
    yield _disk(estimate)
    yield _total_time(estimate, workers)


def estimate_values(estimate: "Estimate", workers: int | None) -> dict[str, Any]:
    """Return what a run would do as plain values, with every unit."""
    return {
        "units": {
            "planned": len(estimate.units),
            "finished": len(estimate.units) - estimate.pending,
            "to_do": estimate.pending,
        },
        "groups": [dict(vars(group)) for group in estimate.groups],
        "trainings": [
            {
                **vars(training),
                "bytes_kept": training.bytes_kept,
                "bytes_while_running": training.bytes_while_running,
            }
            for training in estimate.trainings
        ],
        "missing_weights": [dict(vars(weights)) for weights in estimate.weights],
        "disk": {
            "bytes_needed": estimate.bytes_needed,
            "measured": estimate.bytes_measured,
            "estimated": ["trainings"],
            "bytes_free": estimate.bytes_free,
            "bytes_of_weights": estimate.bytes_of_weights,
        },
        "workers": workers,
        "seconds_on_one_worker": estimate.seconds if not estimate.unknown else None,
        "seconds_of_known": estimate.seconds,
        "units_of_unknown_time": estimate.unknown,
        "list": [
            {**unit.key.model_dump(), "fingerprint": unit.fingerprint, "finished": finished}
            for unit, finished in estimate.units
        ],
    }


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            f"{cell:>{width}}" if number > 2 else f"{cell:<{width}}"
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield ("  " + "  ".join(cells)).rstrip()


def _time(group: "UnitGroup") -> str:
    if not group.pending:
        return "-"
    return "unknown" if group.seconds is None else duration(group.seconds)


def _weights(estimate: "Estimate") -> str:
    unknown = sum(each.size is None for each in estimate.weights)
    known = [_bytes(estimate.bytes_of_weights)] if estimate.bytes_of_weights else []
    parts = [*known, *([f"{unknown} of unknown size"] if unknown else [])]
    return f"weights to get: {' and '.join(parts)}, in a folder of their own"


def _of_training(training: "PlannedTraining") -> str:
    kept, passing = training.bytes_kept, training.bytes_while_running
    if not kept and not passing:
        return ""
    more = f" and {_bytes(passing)} more while it runs" if passing else ""
    return f", by estimate {_bytes(kept)} that stay{more}"


def _passing(estimate: "Estimate") -> str:
    """Say how the lines of trainings add up."""
    most = max((each.bytes_while_running for each in estimate.trainings), default=0)
    kept = sum(each.bytes_kept for each in estimate.trainings)
    if not most:
        return ""
    return f": {_bytes(kept)} that stay and at most {_bytes(most)} more while one runs"


def _disk(estimate: "Estimate") -> str:
    needed = dict(estimate.bytes_needed)
    total, trainings = sum(needed.values()), needed.pop("trainings", 0)
    parts = ", ".join(f"{kind} {_bytes(size)}" for kind, size in needed.items())
    source = "as those that are there" if estimate.bytes_measured else "as of usual chest CTs"
    free = estimate.bytes_free
    trained = (
        f"trainings {_bytes(trainings)}{_passing(estimate)}, an estimate from the sizes of their "
        "cases and networks; "
        if trainings
        else ""
    )
    text = f"disk: about {_bytes(total)} ({trained}{parts}, {source})"
    if free is None:
        return text
    short = "; this is NOT enough" if total > free else ""
    return f"{text}, {_bytes(free)} free{short}"


def _total_time(estimate: "Estimate", workers: int | None) -> str:
    to_train = sum(training.state != "done" for training in estimate.trainings)
    training = f"; {to_train} trainings come on top, their time is unknown" if to_train else ""
    if not estimate.pending:
        return f"time: no unit is left{training}"
    if estimate.unknown == estimate.pending:
        return f"time: unknown, there are no records of these methods and protocols yet{training}"
    several = workers is not None and workers > 1
    share = f", about {duration(estimate.seconds / (workers or 1))} on {workers}" if several else ""
    text = f"time: {duration(estimate.seconds)} of models on one worker{share}"
    text += ", by records that are there; reading and scoring cases come on top"
    if estimate.unknown:
        text += f"; unknown for {estimate.unknown} of {estimate.pending} units"
    return text + training


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
