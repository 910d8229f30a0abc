import re
from pathlib import Path

import pytest
import yaml

import napari_lungfm
from napari_lungfm.benchmark.config import parse_config

ROOT = Path(napari_lungfm.__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_documented_configuration_is_valid():
    text = (ROOT / "docs" / "benchmark.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    values = yaml.safe_load(block)
    folders = [m for m in values["methods"] if "/" in m.get("model", "")]
    assert [m["model"] for m in folders] == ["runs/my-unet"]  # it would have to be trained first
    values["methods"] = [m for m in values["methods"] if m not in folders]
    config = parse_config(values)
    assert [cohort.name for cohort in config.cohorts] == ["clinic", "phantoms"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_placeholder_was_left(page):
    assert not re.findall(r"DEMO_[A-Z]+|T[O]DO|X{3}", page.read_text())


def test_the_readme_names_commands_that_exist():
    from napari_lungfm.cli.app import app

    known = {command.name for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    named = re.findall(
        r"^napari-lungfm-bench (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert named
    assert set(named) <= known
