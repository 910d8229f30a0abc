"""Two runs compared on the units that both have."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from napari_lungfm._core.exceptions import DataError
from napari_lungfm.benchmark.report.columns import BY_KEY, interval, number, p_value
from napari_lungfm.benchmark.report.content import Content, collect
from napari_lungfm.benchmark.report.folder import atomic_folder
from napari_lungfm.benchmark.report.scores import ROW, UNIT, case_scores
from napari_lungfm.benchmark.report.tables import escape_markdown, pipe_table
from napari_lungfm.benchmark.report.weights import different_weights
from napari_lungfm.benchmark.store import RunFolder
from napari_lungfm.evaluation.statistics import holm, mean_intervals, paired_comparison

#: Scores that are compared.
METRICS = ("dice", "iou", "hd95_mm", "nsd_2mm")
_KEY = ["cohort", "case", "method", "protocol", "seed"]
_NOTES = (
    "Per method, prompt protocol and structure, over the units (case and seed) that both runs "
    "have: the mean of either, the mean of the paired differences (B − A) with its 95 % BCa "
    "interval, and a two-sided Wilcoxon signed-rank test, Holm-corrected over all rows of a "
    "score. Seeds of a case are averaged first; cases undefined in either run take no part. Left "
    "out: units of the row that one run alone has."
)


@dataclass(frozen=True)
class ComparisonFiles:
    """Where the parts of a comparison lie, and its table.

    Parameters
    ----------
    folder, html, markdown, csv
        The folder and what stands in it.
    only_csv
        Units that one run alone has.
    table
        `compare_units`.
    only
        ``run`` (A or B) and the unit's names.
    """

    folder: Path
    html: Path
    markdown: Path
    csv: Path
    only_csv: Path
    table: pd.DataFrame
    only: pd.DataFrame


def compare_runs(a: RunFolder, b: RunFolder, out: Path) -> ComparisonFiles:
    """Compare two runs and write ``report.html``, ``comparison.md`` and CSV files.

    Parameters
    ----------
    a, b
        The runs, finished or not.
    out
        Folder to write; it is replaced whole if a report wrote it, see `folder.atomic_folder`.

    Raises
    ------
    DataError
        If either has no finished unit, or they share no case under one method and protocol.
    OutputError
        If the folder cannot be written, or holds other files.
    """
    first, second = (collect(run, lambda line: None) for run in (a, b))
    table = compare_units(first.units, second.units)
    if table.empty:
        msg = (
            f"'{a.root}' and '{b.root}' have no case in common under the same cohort, method, "
            "protocol, seed and structure, so there is nothing to compare"
        )
        raise DataError(msg)
    only = _only(first, second)
    titles = (str(a.root), str(b.root))
    remarks = _remarks(first, second, only)
    with atomic_folder(Path(out)) as folder:
        for frame, name in ((table, "comparison.csv"), (only, "only-in-one.csv")):
            frame.to_csv(folder / name, index=False, lineterminator="\n", encoding="utf-8")
        text = _markdown(table, titles, remarks)
        (folder / "comparison.md").write_text(text, encoding="utf-8", newline="\n")
        page = _html(table, titles, remarks)
        (folder / "report.html").write_text(page, encoding="utf-8", newline="\n")
    folder = Path(out)
    return ComparisonFiles(
        folder,
        folder / "report.html",
        folder / "comparison.md",
        folder / "comparison.csv",
        folder / "only-in-one.csv",
        table,
        only,
    )


def compare_units(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Compare scores per case, made from the units that both runs have.

    A seed that one run alone has would change the mean of its case, and with it the difference,
    although every unit that both have is the same.

    Parameters
    ----------
    a, b
        `scores.unit_scores` of either run.

    Returns
    -------
    DataFrame
        A row per cohort, protocol, method, structure and ``metric``: ``a`` and ``b`` (means over
        the shared cases), ``difference`` (b − a) with ``low`` and ``high``, ``n``,
        ``n_undefined``, ``n_left_out`` (units of the row that one run alone has),
        ``median_difference``, ``effect_size``, ``p_value``, ``p_holm``, ``smallest_possible_p``.
    """
    columns = [*ROW, "metric", "a", "b", "difference", "low", "high", "n", "n_undefined"]
    columns += ["n_left_out", "median_difference", "effect_size", "p_value"]
    columns += ["smallest_possible_p"]
    both, left_out = _shared_cases(a, b)
    rows = []
    for names, group in both.groupby(ROW, sort=False):
        for metric in METRICS:
            pair = group[[f"{metric}_a", f"{metric}_b"]].to_numpy(dtype=float)
            if np.isnan(pair).all(axis=0).any():
                continue
            own = {**dict(zip(ROW, names, strict=True)), "n_left_out": left_out.get(names, 0)}
            rows.append({**own, **_row(metric, pair)})
    table = pd.DataFrame(rows, columns=columns)
    table = table[table["n"] > 0].reset_index(drop=True)
    table["p_holm"] = np.nan
    for _, group in table.groupby("metric", sort=False):
        table.loc[group.index, "p_holm"] = holm(group["p_value"].to_numpy(dtype=float))
    return table


def _shared_cases(
    a: pd.DataFrame, b: pd.DataFrame
) -> tuple[pd.DataFrame, dict[tuple[Hashable, ...], int]]:
    """Return the cases of the units that both have, and how many of each row one alone has."""
    unit = [*UNIT, "structure"]
    joined = a[unit].merge(b[unit], on=unit, how="outer", indicator="in")
    lone = joined[joined["in"] != "both"].groupby(ROW).size()
    shared = joined.loc[joined["in"] == "both", unit]
    cases = [case_scores(each.merge(shared, on=unit)) for each in (a, b)]
    both = cases[0].merge(cases[1], on=[*ROW, "case"], suffixes=("_a", "_b"))
    return both, dict(zip(lone.index, map(int, lone), strict=True))


def _row(metric: str, pair: np.ndarray) -> dict[str, object]:
    test = paired_comparison(pair[:, 1], pair[:, 0])
    shared = pair[~np.isnan(pair).any(axis=1)]
    mean = mean_intervals(shared[:, 1] - shared[:, 0]).iloc[0]
    means = shared.mean(axis=0) if len(shared) else (np.nan, np.nan)
    return {
        "metric": metric,
        "a": float(means[0]),
        "b": float(means[1]),
        "difference": float(mean["mean"]),
        "low": float(mean["low"]),
        "high": float(mean["high"]),
        **vars(test),
    }


def _only(first: Content, second: Content) -> pd.DataFrame:
    keys = [[tuple(getattr(r.key, name) for name in _KEY) for r in c.records]
            for c in (first, second)]  # fmt: skip
    sets = [set(own) for own in keys]
    rows = [(name, *key) for name, own, other in (("A", keys[0], sets[1]), ("B", keys[1], sets[0]))
            for key in own if key not in other]  # fmt: skip
    return pd.DataFrame(rows, columns=["run", *_KEY])


def _remarks(first: Content, second: Content, only: pd.DataFrame) -> list[str]:
    said = []
    for name, content in (("A", first), ("B", second)):
        head = content.header
        lone = int((only["run"] == name).sum())
        said.append(
            f"{name}: {head.n_done} of {head.n_planned} units done, {head.n_failed} failed; "
            f"{lone} of them only in {name} (only-in-one.csv)."
        )
    for what in ("versions", "hardware"):
        a, b = (dict(getattr(c.header, what)) for c in (first, second))
        different = [f"{n} {a.get(n, '–')} and {b.get(n, '–')}" for n in {**a, **b}
                     if a.get(n) != b.get(n)]  # fmt: skip
        if different:
            said.append(f"Different {what}: {'; '.join(different)}.")
    if first.config_text != second.config_text:
        said.append("The configurations differ.")
    said += different_weights(first.records, second.records)
    return said


_HEADS = ["Method", "Prompts by", "Cohort", "Structure", "Score", "A", "B", "B − A", "95 % CI",
          "n", "left out", "p", "p (Holm)"]  # fmt: skip


def _cells(row: "pd.Series[float]") -> list[str]:
    digits = BY_KEY[str(row["metric"])].digits
    values = [number(float(row[name]), digits) for name in ("a", "b", "difference")]
    spread = interval(float(row["low"]), float(row["high"]), digits)
    p = [p_value(float(row[name])) for name in ("p_value", "p_holm")]
    title = BY_KEY[str(row["metric"])].title
    names = [str(row[name]) for name in ("method", "protocol", "cohort", "structure")]
    counts = [str(int(row[name])) for name in ("n", "n_left_out")]
    return [*names, title, *values, spread, *counts, *p]


def _markdown(table: pd.DataFrame, titles: tuple[str, str], remarks: Sequence[str]) -> str:
    lines = ["# Two runs compared", "", f"A: {escape_markdown(titles[0])}", ""]
    lines += [f"B: {escape_markdown(titles[1])}", "", _NOTES, ""]
    lines += [*(f"- {escape_markdown(text)}" for text in remarks), ""]
    rows = [[escape_markdown(cell) for cell in _cells(row)] for _, row in table.iterrows()]
    return "\n".join([*lines, *pipe_table(_HEADS, rows)]) + "\n"


def _html(table: pd.DataFrame, titles: tuple[str, str], remarks: Sequence[str]) -> str:
    templates = files("napari_lungfm.benchmark.report").joinpath("templates")
    css, script = (
        templates.joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "report.js")
    )
    heads = "".join(
        f'<th data-sort="{"text" if i < 5 else "number"}"{" class=t" if i < 5 else ""}>'
        f"{escape(head)}</th>"
        for i, head in enumerate(_HEADS)
    )
    body = "\n".join(_html_row(row) for _, row in table.iterrows())
    said = "".join(f"<li>{escape(text)}</li>" for text in remarks)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f"<title>Two runs compared</title><style>{css}</style></head><body>"
        '<header class="top"><p class="soft small">napari-lungfm benchmark report</p>'
        f"<h1>Two runs compared</h1><p>A: {escape(titles[0])}<br>B: {escape(titles[1])}</p>"
        f'</header><main><div class="card"><p>{escape(_NOTES)}</p><ul>{said}</ul></div>'
        '<div class="bar"><h3>Differences</h3><input type="search" placeholder="Filter rows" '
        'aria-label="Filter rows" data-for="differences"></div>'
        f'<div class="scroll"><table id="differences"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></main><script>{script}</script></body></html>\n"
    )


def _html_row(row: "pd.Series[float]") -> str:
    cells = [escape(cell) for cell in _cells(row)]
    keys = ("a", "b", "difference", "low", "n", "n_left_out", "p_value", "p_holm")
    numbers = [row[key] for key in keys]
    bold = float(row["p_holm"]) <= 0.05
    text = "".join(f'<td class="t">{cell}</td>' for cell in cells[:5])
    for i, (cell, value) in enumerate(zip(cells[5:], numbers, strict=True)):
        shown = f"<strong>{cell}</strong>" if bold and i in (2, 7) else cell
        text += f'<td data-v="{value}">{shown}</td>'
    return f"<tr>{text}</tr>"
