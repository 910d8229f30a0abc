import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_lungfm.benchmark.report import summarise
from napari_lungfm.benchmark.report.tables import (
    escape_markdown,
    escape_tex,
    latex,
    main_rows,
    markdown,
)

HOSTILE = r"<b>a|b</b> 50% $x$ _y_ \z {w} ~ ^ # & [l](http://e.org) *s*"


@pytest.fixture
def summary(make_record):
    dice = {"prompt-ellipse": (0.5, 0.7), "a": (0.7, 0.9), "b": (0.6, 0.8), HOSTILE: (0.7, 0.9)}
    return summarise(
        [make_record(f"p{i}", m, d) for m, values in dice.items() for i, d in enumerate(values)]
    )


def cells_of(text, name):
    """Cells of the first line of a Markdown table that starts with a method."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_holds_the_numbers_and_the_marks(summary):
    text = markdown(summary, "made", "Phantoms", ["A note."])
    assert text.startswith("# made\n\nPhantoms\n")
    head = cells_of(text, "Method")
    best, second, base = (
        dict(zip(head, cells_of(text, m), strict=True)) for m in ("a", "b", "prompt-ellipse")
    )
    assert best["Dice ↑"].startswith("**0.800** \\[")
    assert second["Dice ↑"].startswith("<u>0.700</u> \\[")
    assert base["Dice ↑"].startswith("0.600 \\[")
    # Lower is better: HD95 = 10 (1 − Dice).
    assert best["HD95 mm ↓"].startswith("**2.00**")
    assert second["HD95 mm ↓"].startswith("<u>3.00</u>")
    assert best["Skill ↑"] == "**0.500**"
    assert second["Skill ↑"] == "<u>0.250</u>"
    assert best["Prompts"] == "1.0"
    assert (best["n"], best["failed"], best["undefined"]) == ("2", "0", "0")


def test_every_line_of_the_markdown_table_has_the_same_number_of_cells(summary):
    lines = [t for t in markdown(summary, "made", "", []).splitlines() if t.startswith("|")]
    counts = {len(re.split(r"(?<!\\)\|", line)) for line in lines}
    assert len(lines) == 2 + 4
    assert counts == {18}


def test_markdown_says_n_where_it_differs(make_record):
    records = [make_record("p1", "a", 0.8), make_record("p2", "a", 0.0)]
    text = markdown(summarise(records), "made", "", [])
    assert "2.00 (n = 1)" in text


def test_lungs_table_is_there_only_with_lungs(make_record, make_result, summary):
    assert "Lungs" not in markdown(summary, "made", "", [])
    parts = tuple(
        make_result(name, d)
        for name, d in (("left lung", 0.9), ("right lung", 1.0), ("tumour", 0.5))
    )
    records = [make_record("p1", "a", structures=parts)]
    text = markdown(summarise(records), "made", "", [])
    line = [t for t in text.splitlines() if t.startswith("| a |")][1]
    # IoU = Dice / (2 − Dice): 0.9 -> 0.818, 0.5 -> 0.333.
    assert line == "| a | box-one | 0.909 | 0.333 | 0.717 | 0.950 | 0.500 | 0.800 | – | 1 |"
    assert "Avg. Dice" in latex(summarise(records), "made", "", [])


def test_latex_holds_the_same_numbers(summary):
    text = latex(summary, "made", "50% phantoms", ["A note."])
    assert r"\caption{made: 50\% phantoms. Structure: tumour. A note.}" in text
    best = next(line for line in text.splitlines() if line.startswith("a & "))
    assert best.startswith(r"a & \textbf{0.800} & ")
    assert r"\underline{0.700}" in next(t for t in text.splitlines() if t.startswith("b & "))
    assert r"\multicolumn{15}{l}{\textit{box-one}}" in text


def test_latex_rows_are_complete(summary):
    text = latex(summary, "made", "", [])
    columns = int(re.search(r"\\multicolumn\{(\d+)\}", text)[1])
    spec = re.search(r"\\begin\{tabular\}\{(l r*|lr*)\}", text)[1]
    assert len(spec) == columns
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    lines = [t for t in body.splitlines() if "&" in t]
    assert len(lines) == 1 + 2 * 4
    for line in lines:
        assert len(re.findall(r"(?<!\\)&", line)) == columns - 1
        assert re.search(r"\\\\(\[2pt\])?$", line)
    for begin in re.findall(r"\\begin\{([a-z*]+)\}", text):
        assert text.count(rf"\begin{{{begin}}}") == text.count(rf"\end{{{begin}}}")


def test_hostile_names_do_not_break_either_table(summary):
    text = markdown(summary, "made", HOSTILE, [])
    assert "<b>" not in text
    assert "](http" not in text
    tex = latex(summary, "made", HOSTILE, [])
    assert HOSTILE not in tex
    assert r"50\% \$x\$ \_y\_ \textbackslash{}z \{w\}" in tex
    assert unescaped_balance(tex) == 0


def unescaped_balance(tex):
    bare = re.sub(r"\\[{}]", "", tex)
    return bare.count("{") - bare.count("}")


@given(st.text(max_size=40))
def test_escaped_tex_has_no_live_characters(text):
    escaped = escape_tex(text)
    assert unescaped_balance(escaped) == 0
    bare = re.sub(r"\\(text\w+\{\}|char34|[&%#_{}$])|\$(-|\\times|\\pm)\$", "", escaped)
    assert not re.search(r"[&%#_~^$\\\x00-\x1f]", bare)


@given(st.text(max_size=40))
def test_escaped_markdown_stays_in_its_cell(text):
    escaped = escape_markdown(text)
    assert not re.search(r"(?<!\\)(\\\\)*\|", escaped)
    assert "\n" not in escaped
    assert "\r" not in escaped
    assert "<" not in escaped
    bare = re.sub(r"\\.", "", escaped)
    assert not re.search(r"[`*_\[\]|\\]", bare)


def test_names_of_models_stay_readable():
    assert escape_markdown("sam2.1-tiny") == "sam2.1-tiny"
    assert escape_markdown("box-every-3+jitter-5") == "box-every-3+jitter-5"


def test_rows_on_fewer_cases_are_told_apart(make_record):
    records = [make_record("p1", "a"), make_record("p2", "a"), make_record("p1", "b")]
    rows = main_rows(summarise(records), "made")
    assert [(row["method"], row["incomplete"]) for row in rows] == [("a", False), ("b", True)]
