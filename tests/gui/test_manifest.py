import importlib
import json
import os
import subprocess
import sys

import npe2
import pytest

from napari_lungfm.gui import settings


@pytest.fixture(scope="module")
def manifest():
    return npe2.PluginManifest.from_distribution("napari-lungfm")


def test_every_widget_of_the_manifest_is_there(manifest):
    commands = {c.id: c.python_name for c in manifest.contributions.commands}
    names = [widget.display_name for widget in manifest.contributions.widgets]
    assert names == ["Annotate", "Live quality", "Measure", "Compare", "Open CT"]
    for widget in manifest.contributions.widgets:
        module, _, attribute = commands[widget.command].partition(":")
        assert isinstance(getattr(importlib.import_module(module), attribute), type)


def test_menus_name_commands_that_there_are(manifest):
    commands = {c.id for c in manifest.contributions.commands}
    assert set(manifest.contributions.menus) == {
        "napari/file/io_utilities",
        "napari/layers/annotate",
        "napari/layers/segment",
        "napari/layers/measure",
    }
    for items in manifest.contributions.menus.values():
        assert {item.command for item in items} <= commands


def test_settings_without_napari_are_those_of_the_manifest(manifest):
    (group,) = manifest.contributions.configurations.values()
    assert {name: p.default for name, p in group.properties.items()} == settings._DEFAULTS


def test_listing_models_and_finding_the_plugin_import_no_torch():
    code = (
        "import json, sys, npe2, napari_lungfm;"
        "npe2.PluginManager.instance().discover();"
        "npe2.PluginManifest.from_distribution('napari-lungfm');"
        "early = [m for m in ('torch', 'qtpy', 'napari') if m in sys.modules];"
        "from napari_lungfm.gui.widgets import annotate, compare_panel;"
        "from napari_lungfm.gui.annotation.models import model_choices; model_choices();"
        "print(json.dumps([early, 'torch' in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [[], False]
