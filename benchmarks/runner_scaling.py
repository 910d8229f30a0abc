"""How many units a minute one and two workers do, and what handing them out costs.

    OMP_NUM_THREADS=1 python benchmarks/runner_scaling.py --json runner_scaling.json

Images are ellipsoids in noise, the method is `classical` with corrections: it computes on one core
and waits for nothing. Three runs of the same units, each in an empty folder:

- in this process, without Dask;
- one worker of Dask's, and several.

Rates are taken between the first case and the last unit; the seconds until the first case (starting
processes, importing) are told apart. The share of scheduling is the time between two cases of a
worker, by Dask's own stream of tasks, as a part of the time that the cases took: everything that
is not work on a case, the last case of a worker excepted, for after it there is nothing left to do.
Run it on a quiet machine; with
one thread for linear algebra a worker is a core, here as there.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from napari_lungfm import io
from napari_lungfm._core.environment import hardware, package_versions
from napari_lungfm.benchmark.case_work import pending_tasks
from napari_lungfm.benchmark.config import BenchmarkConfig, parse_config
from napari_lungfm.benchmark.events import RunEvent, Tally
from napari_lungfm.benchmark.plan import build_cohorts, make_plan
from napari_lungfm.benchmark.store import RunFolder, results_frame
from napari_lungfm.benchmark.workers import do_in_this_process, do_on_workers
from napari_lungfm.benchmark.workplace import Workplace, connect
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry

GRID = VolumeGeometry((24, 96, 96), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))


def write_cases(folder: Path, count: int) -> list[dict[str, Any]]:
    """Write ellipsoids in noise; their entries in a configuration."""
    rng = np.random.default_rng(0)
    z, y, x = np.indices(GRID.shape)
    listed = []
    for number in range(count):
        half = rng.uniform(14, 24, 3)
        away = [(z - 11.5) * 3 / half[0], (y - 47.5) / half[1], (x - 47.5) / half[2]]
        inside = sum(a**2 for a in away) <= 1
        hu = np.where(inside, 30, -800) + rng.normal(0, 80, GRID.shape)
        io.write_image(Volume(hu.astype(np.int16), GRID), folder / f"{number}.nii.gz")
        io.write_label_map(LabelMap.from_mask(inside, GRID, label=1), folder / f"{number}_m.nii.gz")
        name = f"case-{number:03d}"
        listed.append({"name": name, "image": f"{number}.nii.gz", "mask": f"{number}_m.nii.gz"})
    return listed


def measure(config: BenchmarkConfig, out: Path, workers: int | None) -> dict[str, Any]:
    """Do all units once; ``workers=None`` is this process."""
    folder = RunFolder.create(out)
    plan = make_plan(config, config.look_up(out), build_cohorts(config, out))
    folder.write_plan(config.to_yaml(), [(u.key, u.fingerprint) for u in plan.units])
    tasks = [task for _, _, task in pending_tasks(plan, folder) if task is not None]
    moments: list[float] = []

    def listen(event: RunEvent) -> None:
        if event.kind in ("case", "unit"):
            moments.append(time.perf_counter())

    tally = Tally(len(plan.units), listen)
    started = time.perf_counter()
    share = None
    if workers is None:
        do_in_this_process(tasks, folder, "cpu", tally)
    else:
        with connect(Workplace(workers), workers, on_gpus=False) as client:
            client.get_task_stream()  # begins to collect
            do_on_workers(tasks, folder, "cpu", tally, client)
            share = scheduling_share(client.get_task_stream())
    seconds = moments[-1] - moments[0]
    records = folder.load()
    return {
        "workers": "this process" if workers is None else workers,
        "units": len(records),
        "failed": sum(record.status == "failed" for record in records),
        "seconds": round(seconds, 2),
        "seconds_until_first_case": round(moments[0] - started, 2),
        "units_per_minute": round(60 * len(records) / seconds, 1),
        "scheduling_share": None if share is None else round(share, 5),
        "results": results_frame(records).to_csv(index=False),
    }


def scheduling_share(stream: Any) -> float:
    """Time between cases on each worker, as a part of the time that the cases took."""
    computed: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for task in stream:
        for step in task["startstops"]:
            if step["action"] == "compute":
                computed[task["worker"]].append((step["start"], step["stop"]))
    work = sum(stop - start for spans in computed.values() for start, stop in spans)
    between = sum(
        max(0.0, after[0] - before[1])
        for spans in computed.values()
        for before, after in pairwise(sorted(spans))
    )
    return between / work


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1, help="the fastest of so many counts")
    parser.add_argument("--json", type=Path, help="file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        data.mkdir()
        listed = write_cases(data, arguments.cases)
        config = parse_config(
            {
                "name": "scaling",
                "seeds": list(range(arguments.seeds)),
                "cohorts": [{"kind": "files", "name": "c", "root": str(data), "cases": listed}],
                "methods": [
                    {
                        "model": "classical",
                        "protocols": ["box-one+jitter-3", "point-one+corrections-3"],
                    }
                ],
            }
        )
        rows = []
        for workers in (None, 1, arguments.workers):
            tries = [
                measure(config, Path(scratch) / f"run-{workers}-{number}", workers)
                for number in range(arguments.repeats)
            ]
            rows.append(min(tries, key=lambda row: row["seconds"]))
            shown = {key: value for key, value in rows[-1].items() if key != "results"}
            print(json.dumps(shown))
    same = len({row.pop("results") for row in rows}) == 1
    found = {
        "rows": rows,
        "same_results": same,
        "speed_up": round(rows[2]["units_per_minute"] / rows[1]["units_per_minute"], 3),
        "one_worker_against_this_process": round(rows[1]["seconds"] / rows[0]["seconds"], 4),
        "hardware": hardware(),
        "versions": package_versions(),
    }
    print(f"speed-up with {arguments.workers} workers: {found['speed_up']}; same results: {same}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


# Workers are processes that import this file.
if __name__ == "__main__":
    main()
