"""Published tables as files."""

from pathlib import Path

import pytest

from napari_lungfm._core.exceptions import DataError, InputFileError
from napari_lungfm.benchmark.published import read_paper, read_tables


def written(folder: Path, text: str) -> Path:
    path = folder / "tables.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_paper_has_its_three_tables_and_twelve_columns_each() -> None:
    tables = read_paper()
    assert {name: len(cells) for (name,), cells in tables.by("table").items()} == {
        "Table II": 96,
        "Table III": 60,
        "Table IV": 60,
    }
    cell = next(
        c
        for c in tables.cells
        if (c.table, c.group, c.row, c.column) == ("Table IV", "bounding box", "75 %", "Lungs Dice")
    )
    assert (cell.value, cell.mark, cell.error) == (0.9989, "best", pytest.approx(5e-5))
    assert dict(tables.weights) == {"Lungs": 2.0, "Tumor": 1.0}


def test_marks_precision_and_gaps_are_read(tmp_path) -> None:
    path = written(
        tmp_path, "row,Left lung IoU,HD95 mm\na,**0.91**,3.2\nb,<u>0.9</u>,\nc,__0.85__,10\n"
    )
    cells = {(c.row, c.metric): c for c in read_tables(path).cells}
    assert [cells[row, "IoU"].mark for row in "abc"] == ["best", "second", "second"]
    assert cells["a", "IoU"].structure == "Left lung"
    assert cells["a", "IoU"].error == pytest.approx(0.005)
    assert cells["b", "IoU"].error == pytest.approx(0.05)
    assert cells["c", "HD95"].error == pytest.approx(0.5)
    assert ("b", "HD95") not in cells


def test_per_cent_becomes_fractions(tmp_path) -> None:
    path = written(tmp_path, "row,Tumor IoU,Tumor DSC\na,86.1,90.2\nb,0.9%,79\n")
    cells = read_tables(path).cells
    assert [c.value for c in cells] == pytest.approx([0.861, 0.902, 0.009, 0.79])
    assert cells[0].error == pytest.approx(0.0005)
    assert [c.kind for c in cells[:2]] == ["iou", "dice"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        (" \n\n", "the file is empty"),
        ("Tumor IoU,Tumor Dice\n0.5,0.6\n", "no column with the names of the rows in 'Tumor IoU,"),
        ("just words\n", "there are no columns of values in 'just words'"),
        ("row,Tumor IoU,Tumor IoU\na,0.5,0.5\n", "each column once; 'Tumor IoU' stands"),
        ("row,Tumor IoU,Tumor IoU %\na,0.5,0.5\n", "'Tumor IoU' and 'Tumor IoU %' are of the"),
        ("row,Backbone\na,ResNet\n", "no values in it; left out, being no values of a known"),
        ("row,Tumor IoU\na,high\n", "line 2, Tumor IoU: 'high' is not a number"),
        ("row,Tumor IoU\na,nan\n", "'nan' is not a number"),
        ("row,Tumor IoU\na,0.5,0.6\n", "line 2 has 3 columns, the first line 2"),
        ("row,Tumor IoU\na,0.5\na,0.6\n", "a stands there twice"),
        ("row,Tumor IoU\na,\n", "there are no values"),
        ('row,Tumor IoU\n"a,0.5\n', "is not CSV"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path, text, words) -> None:
    with pytest.raises(DataError) as caught:
        read_tables(written(tmp_path, text))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_not_text_is_refused(tmp_path) -> None:
    with pytest.raises(InputFileError, match="No such file"):
        read_tables(tmp_path / "no.csv")
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputFileError, match="not UTF-8"):
        read_tables(tmp_path / "x.csv")


def test_weights_must_name_structures_of_the_table(tmp_path) -> None:
    path = written(tmp_path, "row,Tumor IoU,Lung IoU\na,0.5,0.6\n")
    assert read_tables(path, {"Lung": 2.0}).weights["Lung"] == 2.0
    with pytest.raises(DataError, match="no column is of 'Lungs'"):
        read_tables(path, {"Lungs": 2.0})


@pytest.mark.parametrize(
    ("metric", "larger"), [("IoU", True), ("HD95", False), ("ASSD↓", False), ("error↑", True)]
)
def test_which_way_is_better(tmp_path, metric, larger) -> None:
    (cell,) = read_tables(written(tmp_path, f"row,Tumor {metric}\na,0.5\n")).cells
    assert cell.larger_is_better is larger


@pytest.mark.parametrize(
    ("text", "value", "spread", "mark"),
    [
        ("0.90 ± 0.02", 0.90, "± 0.02", ""),
        ("**0.90** ± 0.02", 0.90, "± 0.02", "best"),
        ("**0.90 +/- 0.02**", 0.90, "+/- 0.02", "best"),
        ("0.90 (0.02)", 0.90, "(0.02)", ""),
        ("__0.90__ (0.88–0.92)", 0.90, "(0.88–0.92)", "second"),
        ("0.90 [0.88, 0.92]", 0.90, "[0.88, 0.92]", ""),
        ("90.1%", 0.901, "", ""),
        ("90.1 ± 1.2 %", 0.901, "± 1.2 %", ""),
        ("−0.90", -0.90, "", ""),
    ],
)
def test_of_a_mean_with_its_spread_the_mean_is_taken(tmp_path, text, value, spread, mark) -> None:
    (cell,) = read_tables(written(tmp_path, f'row,Tumor IoU\na,"{text}"\n')).cells
    assert (cell.value, cell.spread, cell.mark) == (pytest.approx(value), spread, mark)
    assert cell.error == pytest.approx(0.0005 if cell.percent else 0.005)


@pytest.mark.parametrize("text", ["0.90 high", "0.90 (U-Net)", "0.90 ±", "1,234.5", "0.9 0.8"])
def test_what_is_no_spread_is_refused(tmp_path, text) -> None:
    with pytest.raises(DataError, match="is not a number"):
        read_tables(written(tmp_path, f'row,Tumor IoU\na,"{text}"\n'))


@pytest.mark.parametrize("sign", [";", "\t"])
def test_other_separators_and_decimal_commas(tmp_path, sign) -> None:
    lines = [["row", "Tumor IoU", "Tumor Dice"], ["a", "**0,91**", "0,95 ± 0,01"], ["b", "0", ""]]
    path = written(tmp_path, "\r\n".join(sign.join(line) for line in lines))
    assert [cell.value for cell in read_tables(path).cells] == pytest.approx([0.91, 0.95, 0.0])
    mixed = written(tmp_path, f"row{sign}Tumor IoU\na{sign}0,91\nb{sign}0.8\n")
    with pytest.raises(DataError, match=r"'0,91' has a decimal comma, '0.8' \(line 3, Tumor IoU\)"):
        read_tables(mixed)
    with pytest.raises(DataError, match="into quotation marks, or part cells by ;"):
        read_tables(written(tmp_path, "row,Tumor IoU\na,0,91\n"))


@pytest.mark.parametrize(
    ("heading", "structure", "kind", "percent"),
    [
        ("Tumor Dice %", "Tumor", "dice", True),
        ("Tumor IoU (%)", "Tumor", "iou", True),
        ("Tumor DSC [%] ↑", "Tumor", "dice", True),
        ("Left lung IoU, in %", "Left lung", "iou", True),
        ("Tumor HD95 (mm)", "Tumor", "hd95", False),
        ("HD95 mm ↓", "", "hd95", False),
        ("Dice", "", "dice", False),
        ("IOU", "", "iou", False),
        ("Dice (tumour)", "tumour", "dice", False),
        ("tumor_dice", "tumor", "dice", False),
        ("Avg. Dice Score", "Avg.", "dice", False),
    ],
)
def test_headings_are_read_without_their_units(tmp_path, heading, structure, kind, percent) -> None:
    path = written(tmp_path, f'row,"{heading}"\na,70.5\nb,0.9\n')
    tables = read_tables(path)
    assert {(c.structure, c.kind) for c in tables.cells} == {(structure, kind)}
    assert tables.warnings == ()
    values = [70.5 if kind == "hd95" else 0.705, 0.009 if percent else 0.9]
    assert [c.value for c in tables.cells] == pytest.approx(values)


def test_a_heading_in_per_cent_over_fractions_is_not_believed(tmp_path) -> None:
    path = written(tmp_path, "row,Tumor Dice %\na,0.81\nb,0.79\n")
    assert [c.value for c in read_tables(path).cells] == pytest.approx([0.81, 0.79])


@pytest.mark.parametrize("name", ["row", "Row", "METHOD", "Model", "Architecture"])
def test_the_column_with_the_names_of_the_rows_may_have_other_names(tmp_path, name) -> None:
    tables = read_tables(written(tmp_path, f"Dataset;{name};Dice\nlung1;U-Net;0,8\n"))
    assert [(c.group, c.row) for c in tables.cells] == ([("lung1", "U-Net")])


def test_columns_without_a_known_metric_are_named(tmp_path) -> None:
    tables = read_tables(
        written(tmp_path, "Method,Backbone,Tumor Quality,Tumor Dice std,Dice\na,R50,0.5,0.1,0.6\n")
    )
    assert [c.column for c in tables.cells] == ["Tumor Quality", "Tumor Dice std", "Dice"]
    left_out, guessed = tables.warnings
    assert "left out" in left_out
    assert "'Backbone'" in left_out
    assert "'Tumor Quality', 'Tumor Dice std'" in guessed
    assert [c.is_overlap for c in tables.cells] == [False, False, True]


@pytest.mark.parametrize(
    ("text", "value", "mark"),
    [
        (r"\textbf{0.70}", 0.70, "best"),
        (r"\textbf{0.70} $\pm$ 0.02", 0.70, "best"),
        (r"\underline{0.70}", 0.70, "second"),
        (r"$\mathbf{0.70}$", 0.70, "best"),
        (r"\textbf{70.1\%}", 0.701, "best"),
    ],
)
def test_marks_of_latex_are_read(tmp_path, text, value, mark) -> None:
    (cell,) = read_tables(written(tmp_path, f"row,Tumor IoU\na,{text}\n")).cells
    assert (cell.value, cell.mark) == (pytest.approx(value), mark)
