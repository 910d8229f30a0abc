"""The audit: what the paper's tables say, and that sound tables are left alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_lungfm.benchmark.published import CHECKS, audit, read_paper, read_tables


@pytest.fixture(scope="module")
def paper():
    return audit(read_paper())


def table(tmp_path, text, weights=None):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    return audit(read_tables(path, weights))


# What a reading of the paper by hand has found; shared with nothing in the code.
def test_averages_of_three_methods_and_two_rows_of_the_paper_do_not_follow(paper) -> None:
    serious = [f for f in paper.of("average") if f.severity != "note"]
    assert {f.row for f in serious if f.table == "Table II"} == {"DeepLabV3", "U-Net", "MedSAM"}
    assert len([f for f in serious if f.table == "Table II"]) == 12
    others = {(f.table, f.group, f.row, f.column) for f in serious if f.table != "Table II"}
    assert others == {
        ("Table IV", "bounding box", "75 %", "Avg. Dice"),
        ("Table IV", "bounding box", "100 %", "Avg. Dice"),
    }
    assert {f.row for f in serious if f.severity == "impossible"} == {"U-Net"}


def test_five_lungs_dice_of_the_paper_exceed_what_their_iou_allows(paper) -> None:
    found = {(f.table, f.row): f.numbers["dice"] for f in paper.of("dice-iou")}
    assert found == {
        ("Table II", "MedSAM 2 BBox"): 0.9980,
        ("Table IV", "25 %"): 0.9967,
        ("Table IV", "50 %"): 0.9980,
        ("Table IV", "75 %"): 0.9989,
        ("Table IV", "100 %"): 0.9985,
    }
    assert {f.column for f in paper.of("dice-iou")} == {"Lungs Dice"}


def test_lungs_minus_tumour_is_one_constant_in_the_fine_tuned_rows_of_table_iii(paper) -> None:
    iou, dice = paper.of("constant-difference")
    assert {f.table for f in (iou, dice)} == {"Table III"}
    assert (round(iou.numbers["least"], 4), round(iou.numbers["most"], 4)) == (0.0226, 0.0245)
    assert (round(dice.numbers["least"], 4), round(dice.numbers["most"], 4)) == (0.0234, 0.0251)
    for finding in (iou, dice):
        rows = finding.row.split("; ")
        assert len(rows) == 8
        assert not any(row.endswith(" 0 %") for row in rows)


def test_wrong_marks_of_the_paper_are_named(paper) -> None:
    found = {(f.table, f.group, f.row, f.column) for f in paper.of("marks")}
    assert ("Table II", "Task06", "MedSAM 2 BBox", "Lungs Dice") in found  # the best, not bold
    assert ("Table III", "bounding box", "0 %", "Tumor Dice") in found
    assert ("Table II", "Lung1", "nnUnet 2d", "Lungs IoU") not in found


def test_rows_that_stand_in_two_tables_are_found(paper) -> None:
    assert [f.row for f in paper.of("repeated")] == [
        "MedSAM 2 Point; Table III, point, 50 %",
        "MedSAM 2 BBox; Table III, bounding box, 50 %",
        "MedSAM 2 Point; Table IV, point, 50 %",
        "MedSAM 2 BBox; Table IV, bounding box, 50 %",
    ]


def test_every_finding_is_one_sentence(paper) -> None:
    assert {f.check for f in paper.findings} <= set(CHECKS)
    for finding in paper.findings:
        assert finding.sentence.endswith(".")
        assert "\n" not in finding.sentence
    assert paper.to_dict()["checks"]["dice-iou"]["found"] == 5


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    cases=st.integers(1, 60),
    digits=st.integers(2, 4),
    weights=st.sampled_from([(1.0, 1.0), (2.0, 1.0)]),
)
def test_tables_of_real_means_pass(tmp_path_factory, seed, cases, digits, weights) -> None:
    """Means of any cases, rounded, are never called impossible."""
    rng = np.random.default_rng(seed)
    lines = ["row,A IoU,B IoU,Avg IoU,A Dice,B Dice,Avg Dice"]
    for row in range(4):
        iou = rng.beta(*rng.uniform(0.2, 5.0, 2), size=(2, cases))
        means = iou.mean(axis=1), (2 * iou / (1 + iou)).mean(axis=1)
        values = [v for m in means for v in (*m, np.average(m, weights=weights))]
        lines.append(f"r{row}," + ",".join(f"{v:.{digits}f}" for v in values))
    result = table(
        tmp_path_factory.mktemp("audit"), "\n".join(lines), dict(zip("AB", weights, strict=True))
    )
    assert result.tested["average"] == 8
    assert result.tested["dice-iou"] == 12
    assert result.findings == ()


def test_plain_averages_are_expected_without_weights(tmp_path) -> None:
    result = table(tmp_path, "row,A IoU,B IoU,Mean IoU\nx,0.80,0.60,0.70\ny,0.80,0.60,0.75\n")
    (finding,) = result.of("average")
    assert finding.row == "y"
    assert finding.numbers["implied_weight"] == pytest.approx(0.75)


def test_a_difference_in_the_last_digit_is_a_note_only(tmp_path) -> None:
    result = table(tmp_path, "row,A IoU,B IoU,Avg IoU\nx,0.8630,0.8610,0.86185\n")
    assert result.of("average")[0].severity == "inconsistent"
    result = table(tmp_path, "row,A IoU,B IoU,Avg IoU\nx,0.8630,0.8610,0.8618\n")
    assert result.of("average")[0].severity == "note"


def test_dice_below_iou_and_values_outside_0_to_1_are_impossible(tmp_path) -> None:
    result = table(tmp_path, "row,A IoU,A Dice\nx,0.80,0.70\ny,-0.10,0.20\nz,0.50,1.20\n")
    assert [f.row for f in result.of("dice-iou")] == ["x", "z"]
    assert [f.row for f in result.of("range")] == ["y", "z"]


def test_few_rows_or_a_varying_difference_are_not_called_constant(tmp_path) -> None:
    lines = ["row,A IoU,B IoU"]
    lines += [f"r{i},{0.5 + 0.05 * i:.3f},{0.4 + 0.05 * i:.3f}" for i in range(5)]
    assert table(tmp_path, "\n".join(lines)).tested["constant-difference"] == 0
    lines += ["r5,0.760,0.660"]
    assert len(table(tmp_path, "\n".join(lines)).of("constant-difference")) == 1
    rng = np.random.default_rng(1)
    varied = [
        "row,A IoU,B IoU",
        *(f"r{i},{a:.3f},{b:.3f}" for i, (a, b) in enumerate(rng.random((9, 2)))),
    ]
    result = table(tmp_path, "\n".join(varied))
    assert (result.tested["constant-difference"], result.of("constant-difference")) == (1, ())


def test_marks_follow_the_direction_of_the_metric_and_share_ties(tmp_path) -> None:
    good = "row,A HD95\nx,**3.0**\ny,**3.0**\nz,__4.0__\nw,5.0\n"
    assert table(tmp_path, good).of("marks") == ()
    wrong = table(tmp_path, "row,A HD95\nx,3.0\nz,__4.0__\nw,**5.0**\n").of("marks")
    assert [(f.row, f.numbers["rank"]) for f in wrong] == [("x", 1), ("w", 3)]
    assert table(tmp_path, "row,A HD95\nx,3.0\nz,4.0\n").tested["marks"] == 0


def test_a_table_that_marks_the_best_alone_is_not_asked_for_the_second(tmp_path) -> None:
    head = "table,row,A IoU,A Dice\n"
    bold = "t,x,**0.9**,**0.94**\nt,y,0.8,0.88\nt,z,0.7,0.80\n"
    result = table(tmp_path, head + bold)
    assert (result.tested["marks"], result.of("marks")) == (6, ())
    (finding,) = table(tmp_path, head + bold.replace("t,y,0.8", "t,y,0.95")).of("marks")[:1]
    assert "is the second-best of its column but marked as the best" in finding.sentence
    under = "t,x,0.9,0.94\nt,y,__0.8__,__0.88__\nt,z,0.7,0.80\n"
    assert table(tmp_path, head + under).of("marks") == ()
    # Another table of the same file may use both.
    both = bold + "u,x,**0.9**,**0.94**\nu,y,__0.8__,0.88\n"
    (missing,) = table(tmp_path, head + both).of("marks")
    assert (missing.table, missing.row, missing.column) == ("u", "y", "A Dice")


def test_a_table_of_two_units_is_told_once(tmp_path) -> None:
    mixed = table(tmp_path, "row,A IoU,A Dice\nx,0.80,88.9\ny,0.70,82.4\nz,0.60,75\n")
    (finding,) = mixed.findings
    assert (finding.check, finding.severity) == ("units", "inconsistent")
    assert finding.numbers == {"percents": 3, "fractions": 3}
    assert "3 overlaps are per cent (such as 88.9: x, A Dice) and 3 fractions" in finding.sentence
    plain = table(tmp_path, "row,A IoU,A Dice\nx,80,88.9\ny,70%,82.4 %\n")
    assert (plain.tested["units"], plain.of("units")) == (1, ())
    two = "table,row,A IoU\nt,x,80\nt,y,70\nu,x,0.8\nu,y,0.7\n"
    assert table(tmp_path, two).of("units") == ()
