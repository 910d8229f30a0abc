"""The page on the session tells the truth."""

import re
from pathlib import Path

import pytest

import napari_lungfm
from napari_lungfm.geometry import VolumeGeometry
from napari_lungfm.inference.session import events
from napari_lungfm.inference.session.events import event_from_dict, event_to_dict
from napari_lungfm.inference.session.log import SCHEMA_VERSION, parse_log

PAGE = Path(napari_lungfm.__file__).parents[2] / "docs" / "session.md"
COMMON = {"schema_version", "seq", "time", "model", "weights", "window", "result"}


@pytest.fixture(scope="module")
def entries() -> list[dict[str, object]]:
    (block,) = re.findall(r"```jsonl\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines, size = parse_log(block.encode(), "the example")
    assert size == len(block.encode())
    return lines


def test_the_example_is_a_log(entries: list[dict[str, object]]) -> None:
    opening, *rest = entries
    assert opening["schema_version"] == SCHEMA_VERSION
    assert VolumeGeometry.from_dict(opening["image"]).shape == (120, 512, 512)
    for line in rest:
        facts = {key: value for key, value in line.items() if key not in COMMON}
        assert event_to_dict(event_from_dict(line)) == facts
        assert ("result" in line) == (
            line["action"] in {"prompt", "edit", "remove-prompt", "replace-prompt", "propagate"}
        )


def test_the_example_and_the_table_have_every_action(entries: list[dict[str, object]]) -> None:
    known = {*events._ACTIONS.values(), "lock", "unlock"}
    assert {line["action"] for line in entries[1:]} == known
    table = PAGE.read_text(encoding="utf-8").split("| action |")[1].split("\n\n")[0]
    first_column = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert {name for row in first_column for name in re.findall(r"`([a-z-]+)`", row)} == known
