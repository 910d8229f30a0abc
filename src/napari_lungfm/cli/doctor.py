"""``doctor``: what is installed and what this machine can do."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_lungfm.cli.console import print_json, stdout_console

#: Optional parts: importable module → what works only with it.
OPTIONAL = {
    "torch": "foundation models and automatic models",
    "sam2": "MedSAM 2 and SAM 2.1",
    "segment_anything": "MedSAM, LiteMedSAM, SAM and MedicoSAM",
    "timm": "LiteMedSAM",
    "nnunetv2": "nnU-Net",
    "lungmask": "lung masks",
    "monai": "U-Net and training losses",
    "lightning": "training",
    "distributed": "the benchmark on several processes",
    "napari": "the plugin",
}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show versions, devices, OpenGL, disk space and the models that are present."""
    facts = examine()
    if as_json:
        print_json(facts)
        return
    _print(facts)


def examine() -> dict[str, Any]:
    """Return what `doctor` shows, as plain values."""
    from napari_lungfm._core.environment import hardware, package_versions
    from napari_lungfm._core.imports import EXTRA_OF_MODULE, is_available
    from napari_lungfm.models.registry import brings_weights, model_card, model_names

    missing = {
        module: {"needed_for": purpose, "extra": EXTRA_OF_MODULE[module]}
        for module, purpose in OPTIONAL.items()
        if not is_available(module)
    }
    names, here = model_names(), _weights_here()
    cards = [model_card(name) for name in (*names, *(n for n in here if n not in names))]
    return {
        "versions": package_versions(),
        "missing": missing,
        "hardware": hardware(),
        "devices": _torch_devices() if "torch" not in missing else {"cpu": "without torch"},
        "opengl": _opengl() if "napari" not in missing else {"works": False, "why": "no napari"},
        "disk_free_gb": _disk_free(),
        "models": {
            card.name: {
                "kind": card.kind,
                "summary": card.summary,
                "ready": brings_weights(card.name) or card.name in here,
            }
            for card in cards
        },
    }


def _weights_here() -> tuple[str, ...]:
    """Names of the promptable models whose weights are stored."""
    from napari_lungfm.models.catalogue import checkpoint_card
    from napari_lungfm.models.weights import WeightStore

    return tuple(n for n in WeightStore().names() if checkpoint_card(n).family in ("sam", "sam2"))


def _torch_devices() -> dict[str, str]:
    try:
        import torch
    # Whatever a broken installation raises is what doctor is there to show.
    except Exception as error:  # noqa: BLE001
        return {"cpu": f"torch is installed but cannot be imported: {error}"}
    devices = {"cpu": f"{torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices[f"cuda:{index}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    return devices


def _opengl() -> dict[str, Any]:
    """Ask for an OpenGL context in a process of its own: a bad driver can crash it."""
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "napari_lungfm.gui.opengl_probe"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"works": False, "why": str(error)}
    try:
        found: dict[str, Any] = json.loads(answer.stdout.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        lines = [line for line in answer.stderr.splitlines() if line.strip()]
        why = lines[0] if lines else f"the probe ended with code {answer.returncode}"
        if sys.platform.startswith("linux") and not _has_display():
            why = "no display (neither DISPLAY nor WAYLAND_DISPLAY is set); try: xvfb-run -a"
        return {"works": False, "why": why}
    return found


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _disk_free() -> dict[str, float]:
    import platformdirs

    free = {}
    data = Path(platformdirs.user_data_dir("napari-lungfm"))
    for path in (Path.cwd(), data):
        there = next(p for p in (path, *path.parents) if p.exists())
        free[str(path)] = round(shutil.disk_usage(there).free / 1e9, 1)
    return free


def _print(facts: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_column()

    def section(title: str, rows: dict[str, str]) -> None:
        for index, (name, value) in enumerate(rows.items()):
            table.add_row(title if index == 0 else "", name, value)

    section("versions", facts["versions"])
    section(
        "missing",
        {
            module: f"needed for {what['needed_for']}: pip install 'napari-lungfm[{what['extra']}]'"
            for module, what in facts["missing"].items()
        },
    )
    section("machine", facts["hardware"])
    section("devices", facts["devices"])
    opengl = facts["opengl"]
    state = f"{opengl['version']}, {opengl['renderer']}" if opengl["works"] else opengl["why"]
    section("OpenGL", {"works" if opengl["works"] else "does not work": state})
    section("disk free", {path: f"{size} GB" for path, size in facts["disk_free_gb"].items()})
    section(
        "models",
        {
            name: card["summary"] + ("" if card["ready"] else " (weights not here)")
            for name, card in facts["models"].items()
        },
    )
    stdout_console().print(table)
