from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_lungfm._core.exceptions import PromptError, UsageError
from napari_lungfm.cli.parsing import folder_of_first, parse_options, parse_prompts
from napari_lungfm.geometry import VolumeGeometry
from napari_lungfm.models.prompts import Box, Click, Stop

GRID = VolumeGeometry((20, 30, 40), (3.0, 0.8, 0.7), (-10.0, 5.0, 100.0))


def _parse(boxes=(), clicks=(), stops=(), *, mm=False, geometry=GRID):
    return parse_prompts(boxes, clicks, stops, geometry, millimetres=mm)


def test_voxel_prompts():
    prompts = _parse(["3,1,2,10,20"], ["4,5,6,+", " 7, 8, 9, -"], ["12"])
    assert prompts == (
        Box(3, 1, 2, 10, 20),
        Click(4, 5, 6, positive=True),
        Click(7, 8, 9, positive=False),
        Stop(12),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"boxes": ["1,2,3,4"]}, "--box '1,2,3,4' is not of the form Z,Y0,X0,Y1,X1"),
        ({"boxes": ["1,2,3,4,x"]}, "is not of the form"),
        ({"boxes": ["1,2,3,4,nan"]}, "is not of the form"),
        ({"boxes": ["1.5,2,3,4,5"]}, "whole voxel indices; for millimetres add --mm"),
        ({"clicks": ["1,2,3"]}, "must end in"),
        ({"clicks": ["1,2,+"]}, "is not of the form"),
        ({"stops": ["a"]}, "is not of the form Z"),
    ],
)
def test_what_cannot_be_understood(arguments, message):
    with pytest.raises(PromptError, match=message):
        _parse(**arguments)


@given(
    z=st.integers(0, 19),
    y=st.tuples(st.integers(0, 29), st.integers(0, 29)).map(sorted),
    x=st.tuples(st.integers(0, 39), st.integers(0, 39)).map(sorted),
)
def test_millimetres_of_voxel_centres_give_the_voxels_back(z, y, x):
    (y0, y1), (x0, x1) = y, x
    left, top, height = GRID.index_to_world((z, y0, x0))
    right, bottom, _ = GRID.index_to_world((z, y1, x1))
    (box,) = _parse([f"{height},{top},{left},{bottom},{right}"], mm=True)
    assert box == Box(z, y0, x0, y1 + 1, x1 + 1)
    (click,) = _parse(clicks=[f"{height},{top},{left},+"], mm=True)
    assert click == Click(z, y0, x0)


def test_millimetres_on_a_grid_with_swapped_and_flipped_axes():
    swapped = VolumeGeometry(
        (5, 6, 7), (5.0, 1.0, 1.0), direction=((0, 1, 0), (1, 0, 0), (0, 0, -1))
    )
    (box,) = _parse(["-10,1,2,3,5"], mm=True, geometry=swapped)
    # Rows run along the patient's x, columns along y; slices downwards.
    assert box == Box(2, 2, 1, 6, 4)
    (stop,) = _parse(stops=["-20"], mm=True, geometry=swapped)
    assert stop == Stop(4)


def test_a_box_between_slices_is_refused_on_a_tilted_grid():
    tilted = VolumeGeometry((5, 60, 60), direction=((1, 0, 0), (0, 0.8, -0.6), (0, 0.6, 0.8)))
    with pytest.raises(PromptError, match="a box needs both on one slice"):
        _parse(["0,0,0,30,30"], mm=True, geometry=tilted)
    with pytest.raises(PromptError, match="oblique"):
        _parse(stops=["3"], mm=True, geometry=tilted)


def test_options_are_typed():
    assert parse_options(["a=1", "b=2.5", "c=text", "d=true"]) == {
        "a": 1,
        "b": 2.5,
        "c": "text",
        "d": True,
    }
    with pytest.raises(UsageError, match="key=value"):
        parse_options(["a"])


def test_paths_count_from_the_first_source_that_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.yaml").write_text("")
    assert folder_of_first(None, "b/x.yaml") == tmp_path / "b"
    assert folder_of_first(Path("a/x.yaml"), "b/x.yaml") == tmp_path / "a"
    assert folder_of_first(None, "unet-small") == tmp_path
