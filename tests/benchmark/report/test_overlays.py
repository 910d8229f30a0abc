import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from napari_lungfm.benchmark.previews import Preview
from napari_lungfm.benchmark.report import write_report
from napari_lungfm.benchmark.report.montage import montage
from napari_lungfm.benchmark.report.overlays import (
    apply_window,
    case_overlay,
    choose_cases,
    choose_windows,
    encode_png,
    outline,
    overlays,
)
from napari_lungfm.benchmark.report.style import looks


def polygons(path):
    """Closed polygons of SVG path data, in units of half a pixel."""
    found = []
    for start, steps in re.findall(r"M(-?\d+ -?\d+)l([-\d ]*)z", path):
        first = np.array(start.split(), dtype=int)
        moves = np.array(steps.split(), dtype=int).reshape(-1, 2)
        found.append(np.vstack([first, first + np.cumsum(moves, axis=0)]))
    return found


def signed_area(points):
    x, y = points.T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def test_one_pixel_is_a_diamond_around_its_centre():
    mask = np.zeros((4, 5), dtype=bool)
    mask[2, 3] = True
    (points,) = polygons(outline(mask))
    # Pixel (y=2, x=3) covers x 6 to 8 and y 4 to 6 in half pixels; its centre is (7, 5).
    assert {tuple(p) for p in points.tolist()} == {(6, 5), (8, 5), (7, 4), (7, 6)}


def test_a_rectangle_keeps_only_its_corners():
    mask = np.zeros((30, 40), dtype=bool)
    mask[5:25, 10:30] = True
    (points,) = polygons(outline(mask))
    assert len(points) == 8  # four sides, each corner cut by half a pixel
    assert (points.min(axis=0).tolist(), points.max(axis=0).tolist()) == ([20, 10], [60, 50])


def test_the_border_of_the_picture_closes_the_contour():
    mask = np.ones((3, 3), dtype=bool)
    (points,) = polygons(outline(mask))
    assert points.min() == 0
    assert points.max() == 6


def test_nothing_has_no_outline():
    assert outline(np.zeros((4, 4), dtype=bool)) == ""


@settings(max_examples=60)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)))
def test_area_inside_the_outline_is_that_of_the_mask(mask):
    # Marching squares: every corner of the outline (2 x 2 block of pixels) cuts or adds 1/8 of a
    # pixel, so the enclosed area follows from the blocks (Gray's bit quads).
    padded = np.pad(mask, 1)
    blocks = sum(
        padded[i : i + padded.shape[0] - 1, j : j + padded.shape[1] - 1].astype(int)
        for i in (0, 1)
        for j in (0, 1)
    )
    diagonal = (blocks == 2) & (padded[:-1, :-1] == padded[1:, 1:])
    area = (
        0.125 * (blocks == 1).sum()
        + 0.5 * ((blocks == 2) & ~diagonal).sum()
        + 0.25 * diagonal.sum()
        + 0.875 * (blocks == 3).sum()
        + (blocks == 4).sum()
    )
    enclosed = abs(sum(signed_area(points) for points in polygons(outline(mask)))) / 4
    assert enclosed == pytest.approx(area)


def test_windows_map_their_limits_to_black_and_white():
    hu = np.array([[-1350, -600, 150, 3000, -2000]], dtype=np.int16)
    assert apply_window(hu, "lung").tolist() == [[0, 128, 255, 255, 0]]
    assert apply_window(np.array([[-160, 40, 240]]), "mediastinal").tolist() == [[0, 128, 255]]


def test_png_is_exact():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.open(io.BytesIO(base64.b64decode(encode_png(grey))))
    assert np.array_equal(np.asarray(image), grey)


# ---------------------------------------------------------------------- choice of cases
def test_few_cases_are_all_shown():
    assert choose_cases([("a", 0.5), ("b", 0.9)], 2) == ["a", "b"]
    assert choose_cases([("a", 0.5), ("b", 0.9)], 0) == []


def test_best_median_and_worst():
    dice = [("w", 0.1), ("x", 0.9), ("m", 0.5), ("y", 0.8), ("z", 0.3)]
    assert choose_cases(dice, 3) == ["w", "x", "m"]
    assert choose_cases([*dice, ("failed", float("nan"))], 2) == ["x", "failed"]
    assert choose_cases(dice, 1) == ["m"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(3, 12))
def test_choice_has_the_right_size_and_the_extremes(values, n):
    dice = [(str(i), value) for i, value in enumerate(values)]
    chosen = choose_cases(dice, n)
    assert len(chosen) == len(set(chosen)) == min(n, len(dice))
    by_name = dict(dice)
    shown = [by_name[name] for name in chosen]
    assert max(shown) == max(values)
    assert min(shown) == min(values)
    assert sorted(values, reverse=True)[(len(values) - 1) // 2] in shown


# ---------------------------------------------------------------------- of a case
def test_overlay_shows_reference_and_methods(make_run, make_record, grid):
    records = [make_record("p1", "a"), make_record("p1", "b")]
    run = make_run(records, images=True)
    overlay = case_overlay(run, "made", "p1", run.load(), budget=10**7)
    assert overlay.spacing == grid.spacing[1:]
    assert overlay.n_omitted == 0
    assert sum(s.largest for s in overlay.slices) == 1
    largest = next(s for s in overlay.slices if s.largest)
    assert set(largest.images) == {"lung", "mediastinal"}
    assert set(largest.contours) == {("a", "box-one"), ("b", "box-one")}
    # "a" was written without a shift, "b" moved by 1 mm = two pixels = four half pixels.
    reference, same, moved = (
        polygons(p)[0]
        for p in (
            largest.reference,
            largest.contours["a", "box-one"],
            largest.contours["b", "box-one"],
        )
    )
    assert np.array_equal(reference, same)
    assert moved[:, 0].max() - reference[:, 0].max() == 4
    assert moved[:, 1].max() == reference[:, 1].max()


def test_budget_drops_slices_but_never_the_largest(make_run, make_record):
    run = make_run([make_record("p1", "a")], images=True)
    full = case_overlay(run, "made", "p1", run.load(), budget=10**7)
    size = sum(s.size for s in full.slices)
    half = case_overlay(run, "made", "p1", run.load(), budget=size // 2)
    used = sum(s.size for s in half.slices)
    assert used <= size // 2
    assert half.n_omitted == len(full.slices) - len(half.slices) > 0
    least = case_overlay(run, "made", "p1", run.load(), budget=0)
    assert [s.largest for s in least.slices] == [True]


def test_no_preview_no_overlay_and_a_lost_mask_is_told(make_run, make_record):
    run = make_run([make_record("p1", "a"), make_record("p1", "b")], images=True)
    records = run.load()
    run.mask_file(records[1].key, records[1].fingerprint).unlink()
    overlay = case_overlay(run, "made", "p1", records, budget=10**7)
    assert set(overlay.masks) == {("a", "box-one")}
    assert "b under box-one" in overlay.problems[0]
    run.preview_file("made", "p1").unlink()
    overlay = case_overlay(run, "made", "p1", records, budget=10**7)
    assert overlay.slices == ()
    assert "missing or damaged" in overlay.problems[0]
    assert montage([overlay], looks([("a", "box-one")]), {overlay.case: ("best",)}) is None


def test_windows_suit_what_there_is():
    lung = np.array([[[-850, 40]]], dtype=np.int16)
    assert choose_windows(lung) == ("lung", "mediastinal")
    # Published with HU limited to -160 to 240: a lung window would show grey on grey.
    limited = np.clip(lung, -160, 240)
    assert choose_windows(limited) == ("soft tissue", "narrow")
    spans = [np.ptp(apply_window(limited[0], name).astype(int)) for name in ("lung", "soft tissue")]
    assert spans == [34, 128]
    assert apply_window(np.array([[-75, 50, 175]]), "narrow").tolist() == [[0, 128, 255]]


def test_cases_without_lung_are_shown_in_soft_tissue(make_run, make_record):
    run = make_run([make_record("p1"), make_record("p2")], images=True)
    file = run.preview_file("made", "p1")
    preview = Preview.load(file)
    replace(preview, hu=np.clip(preview.hu, -160, 240)).save(file)
    one, two = (
        case_overlay(run, "made", c, run.load()[i : i + 1], budget=10**7)
        for i, c in enumerate(("p1", "p2"))
    )
    assert one.windows == tuple(one.slices[0].images) == ("soft tissue", "narrow")
    assert two.windows == tuple(two.slices[0].images) == ("lung", "mediastinal")
    figure = montage([one], looks([("a", "box-one")]), {one.case: ("best",)})
    shown = figure.axes[0].images[0].get_array()
    assert np.array_equal(shown, apply_window(one.hu, "soft tissue"))
    text = write_report(run).html.read_text(encoding="utf-8")
    assert "p1, slice" in text
    assert 'soft tissue window"' in text
    assert "narrow (level 50, width 250 HU)" in text
    assert text.count('<g id="o1-') == len(one.slices) + len(two.slices)


# ---------------------------------------------------------------------- for print
def test_montage_has_a_row_per_case_and_a_column_per_method(make_run, make_record):
    records = [
        make_record(f"p{i}", method, protocol=protocol)
        for i in range(6)
        for method, protocol in (("a", "box-one"), ("b", "box-one"), ("a", "point-one"))
    ]
    run = make_run(records, images=True)
    loaded = run.load()
    drawn = overlays(run, loaded, [("made", f"p{i}") for i in range(6)], lambda line: None)
    rows = looks([("a", "box-one"), ("b", "box-one"), ("a", "point-one")])
    roles = {f"p{i}": ("median",) for i in (3, 0, 5, 1)}
    figure = montage(drawn, rows, roles)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["CT", "reference", "a", "b"]
    assert len(figure.axes) == 4 * 4
    assert figure.axes[0].get_aspect() == pytest.approx(1.0 / 0.5)
    assert montage([], rows, {}) is None
