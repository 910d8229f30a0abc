"""The whole study on phantoms, from the download to the report, without any real data.

Phantoms are written as the publishers hand out the real data (Lung1 as DICOM, RTSTRUCT and SEG;
Task06 as a tar of NIfTI) and served by a web server on this computer. From there on it is what a
user does, command by command: ``datasets fetch``, ``datasets prepare``, ``run paper``, ``report``.

In place of what takes days or cannot be had here stand small things, all by ``--set``: the small
presets of the automatic models, and networks of a few parameters and random weights for MedSAM
and MedSAM 2. Its numbers say nothing about any model; that all of it works is what it shows.

    python benchmarks/paper_rehearsal.py --out OUT
    python benchmarks/paper_rehearsal.py --out OUT --quick    # what the tests do: minutes
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari_lungfm.datasets.cases import Case
from napari_lungfm.datasets.phantom_cohort import PhantomCohort
from napari_lungfm.datasets.sources.download_site import DownloadSite, pack
from napari_lungfm.datasets.sources.phantom_downloads import write_lung1, write_task06

THREE = ["left lung", "right lung", "tumour"]
#: A network of SAM's build that takes seconds, where MedSAM takes minutes.
SMALL_SAM = {
    "image_size": 128,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "global_attn_indexes": [1],
    "window_size": 4,
    "prompt_dim": 64,
}
SMALL_SAM2_SIDE = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of everything")
    parser.add_argument("--patients", type=int, default=12, help="of Lung1")
    parser.add_argument("--tasks", type=int, default=8, help="cases of Task06")
    parser.add_argument("--quick", action="store_true", help="three methods, coarse phantoms")
    options = parser.parse_args()
    rehearse(options.out, options.patients, options.tasks, quick=options.quick)


def rehearse(out: Path, patients: int, tasks: int, *, quick: bool) -> None:
    """Do everything; what was done before is not done again."""
    out = out.resolve()
    server = out / "server"
    if not (server / "done").is_file():
        write_downloads(server, patients, tasks, coarse=quick)
        (server / "done").touch()
    with DownloadSite(server) as site:
        manifest = site.write_manifest(server / "nsclc_radiomics", out / "manifest.csv")
        tar = server / "Task06_Lung.tar"
        md5 = pack(server / "Task06_Lung", tar)
        raw = ["--out", out / "raw"]
        bench(
            "datasets", "fetch", "lung1", *raw, "--manifest", manifest, "--endpoint", site.endpoint
        )
        bench("datasets", "fetch", "task06", *raw, "--url", site.address(tar), "--md5", md5)
    data = out / "cohorts"
    bench(
        "datasets", "prepare", "lung1", out / "raw" / "nsclc_radiomics",
        "--out", data / "lung1", "--lungs", "own",
    )  # fmt: skip
    bench(
        "datasets", "prepare", "task06", out / "raw" / "Task06_Lung",
        "--out", data / "task06", "--lungs", "lungs-classical",
    )  # fmt: skip
    changes = quick_changes(out) if quick else stand_ins(write_bases(out / "bases"))
    asked = [part for change in changes for part in ("--set", change)]
    run = ["run", "paper", "--data", data, "--out", out / "run", *asked]
    bench(*run, "--dry-run")
    bench(*run)
    bench("report", out / "run")


def bench(*arguments: object) -> None:
    """Call the program as a user does; stop here if it fails."""
    words = [str(argument) for argument in arguments]
    print("\n$ napari-lungfm-bench", *words, flush=True)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "napari_lungfm", *words], check=True)
    print(f"  ({time.perf_counter() - start:.0f} s)", flush=True)


def write_downloads(server: Path, patients: int, tasks: int, *, coarse: bool) -> None:
    """Write phantoms as the real data come."""
    write_lung1(named(phantoms(1, patients, coarse=coarse), "LUNG1-{:03d}"), server)
    write_task06(named(phantoms(2, tasks, coarse=coarse), "lung_{:03d}"), server)


def phantoms(seed: int, count: int, *, coarse: bool) -> Iterator[Case]:
    size: dict[str, Any] = (
        {"shape": [20, 64, 80], "spacings": [[15.0, 5.5, 5.0]], "diameters_mm": [40, 60]}
        if coarse
        else {"shape": [48, 128, 160], "spacings": [[6.0, 2.8, 2.6]], "diameters_mm": [20, 60]}
    )
    cohort = PhantomCohort(
        name=f"rehearsal-{seed}", seed=seed, n_test=count, whole_chest=True, **size
    ).build(Path())
    for source in cohort.test:
        yield source.load()


def named(cases: Iterator[Case], form: str) -> Iterator[Case]:
    for number, case in enumerate(cases, start=1):
        yield Case(form.format(number), case.volume, case.reference)


def write_bases(folder: Path) -> dict[str, Path]:
    """Write the stand-ins of MedSAM and MedSAM 2: small networks with seeded random weights."""
    import torch  # noqa: PLC0415

    from napari_lungfm.models.foundation.finetuned import (  # noqa: PLC0415
        BaseFacts,
        FineTunedSettings,
        build_network,
    )
    from napari_lungfm.training.finetune.finish import write_base  # noqa: PLC0415
    from napari_lungfm.training.promptable.sam2_task import (  # noqa: PLC0415
        small_config,
        untrained_sam2,
    )

    facts = BaseFacts(name="random", sha256="0" * 64, licence="BSD-3-Clause")
    shared: dict[str, Any] = {"window": (-600.0, 1500.0), "base": facts}
    sam = FineTunedSettings(network="sam", build=SMALL_SAM, preprocessing="medsam", **shared)
    build = small_config(SMALL_SAM2_SIDE)
    sam2 = FineTunedSettings(network="sam2", build=build, **shared)
    torch.manual_seed(0)
    if not (folder / "medsam").is_dir():
        write_base(folder / "medsam", "medsam", build_network(sam), sam)
    if not (folder / "medsam2-zhu").is_dir():
        write_base(folder / "medsam2-zhu", "medsam2-zhu", untrained_sam2(build, 3), sam2)
    return {name: folder / name for name in ("medsam", "medsam2-zhu")}


def stand_ins(bases: dict[str, Path]) -> list[str]:
    """Return the changes to the configuration ``paper``; its methods are known by their place."""
    few = {"structures": THREE, "epochs": 1, "samples_per_epoch": 32, "validation": 0.0}
    small = [
        "deeplabv3-small",
        "unet-small",
        "nnunet-2d-small",
        "nnunet-3d_lowres-small",
        "nnunet-3d_fullres-small",
    ]
    changes = [f"methods.{place}.train={name}" for place, name in enumerate(small)]
    medsam = few | {"base": str(bases["medsam"])}
    zhu = few | {"base": str(bases["medsam2-zhu"])}
    return [
        *changes,
        f"methods.5.settings={json.dumps(medsam)}",
        f"methods.6.model={bases['medsam']}",
        f"methods.7.model={bases['medsam2-zhu']}",
        f"methods.8.settings={json.dumps(zhu)}",
        f"methods.9.settings={json.dumps(zhu)}",
    ]


def quick_changes(out: Path) -> list[str]:
    """Return changes that leave a U-Net of minutes and the prompts alone."""
    training = out / "unet-tiny.yaml"
    training.write_text(json.dumps(TINY_UNET), encoding="utf-8")
    methods = [
        {"train": str(training), "label": "U-Net"},
        {"model": "lungfm-s", "protocols": ["box-every-slice", "point-every-slice"]},
        {"model": "prompt-ellipse", "protocols": ["box-every-slice", "point-every-slice"]},
    ]
    return [f"methods={json.dumps(methods)}"]


TINY_UNET = {
    "name": "unet-tiny",
    "small": True,
    "network": {"architecture": "unet", "channels": [4, 6, 8, 8, 8], "norm": "instance"},
    "inputs": {"spacing": [15.0, 5.5, 5.0], "size": [64, 80]},
    "sampling": {"kind": "foreground", "slices_per_epoch": 32},
    "loss": "dice-cross-entropy",
    "optimiser": {"name": "adamw", "learning_rate": 1e-2},
    "workers": 0,
    "fit": {"epochs": 2},
}


if __name__ == "__main__":
    main()
