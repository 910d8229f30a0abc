import re

import numpy as np
import pandas as pd
import pytest

from napari_lungfm.benchmark.records import InteractionResult
from napari_lungfm.benchmark.report import write_report
from napari_lungfm.benchmark.report.corrections import case_effort, curves, effort_rows
from napari_lungfm.evaluation.statistics import bootstrap_mean

PROTOCOL = "box-one+corrections-3"


@pytest.fixture
def corrected(make_record, make_result):
    """A unit with the Dice after each interaction."""

    def make(case, looks, model="a", **more):
        interactions = tuple(
            InteractionResult(n_prompts=i, dice=d, seconds=0.1) for i, d in enumerate(looks, 1)
        )
        last = looks[-1] if looks else 0.0
        parts = (make_result(dice=last, interactions=interactions),)
        return make_record(case, model, structures=parts, **({"protocol": PROTOCOL} | more))

    return make


@pytest.fixture
def records(corrected):
    return [
        corrected("p1", [0.5, 0.7, 0.8, 0.92]),
        corrected("p2", [0.7, 0.86]),  # nothing was wrong any more after one correction
        corrected("p3", [0.2, 0.3, 0.4, 0.5]),
    ]


def test_curves_are_means_over_cases(records):
    curve = curves(case_effort(records))
    assert curve["interaction"].tolist() == [1, 2, 3, 4]
    expected = [[0.5, 0.7, 0.2], [0.7, 0.86, 0.3], [0.8, 0.86, 0.4], [0.92, 0.86, 0.5]]
    assert curve["dice"].tolist() == pytest.approx([np.mean(v) for v in expected])
    interval = bootstrap_mean(expected[1])
    assert curve.loc[1, "dice_low"] == pytest.approx(interval.low)
    assert curve.loc[1, "dice_high"] == pytest.approx(interval.high)
    assert set(curve["n"]) == {3}


def test_table_tells_what_was_reached(records):
    (row,) = effort_rows(case_effort(records), "made")
    assert (row["method"], row["protocol"], row["n"], row["allowed"]) == ("a", PROTOCOL, 3, 4)
    assert row["first"] == pytest.approx(1.4 / 3)
    assert row["last"] == pytest.approx((0.92 + 0.86 + 0.5) / 3)
    areas = [(0.25 + 0.7 + 0.8 + 0.46) / 3, (0.35 + 0.86 * 2.5) / 3, (0.1 + 0.7 + 0.25) / 3]
    assert row["area"] == pytest.approx(np.mean(areas))
    # 0.80 after 3, 2 and never; 0.85 after 4, 2 and never; 0.90 after 4, never and never.
    assert [t["share"] for t in row["targets"]] == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    assert [t["needed"] for t in row["targets"]] == [3, 4, np.inf]


def test_a_failure_counts_as_an_empty_prediction_and_an_unread_case_not(corrected, make_record):
    records = [
        corrected("p1", [0.9, 0.95]),
        corrected("p2", [], status="failed"),
        make_record("p3", "a", protocol=PROTOCOL, status="failed", structures=()),
    ]
    (row,) = effort_rows(case_effort(records), "made")
    assert (row["n"], row["first"]) == (2, 0.45)
    assert row["targets"][0]["share"] == 0.5


def test_seeds_are_averaged_within_a_case(corrected):
    records = [
        corrected("p1", [0.9, 0.9], seed=0),
        corrected("p1", [0.5, 0.7], seed=1),
        corrected("p2", [0.1, 0.1], seed=0),
        corrected("p2", [0.1, 0.1], seed=1),
    ]
    (row,) = effort_rows(case_effort(records), "made")
    assert (row["n"], row["first"]) == (2, pytest.approx((0.7 + 0.1) / 2))
    assert row["targets"][0]["share"] == 0.25


def test_section_is_there_only_with_corrections(make_run, make_record, records, corrected):
    plain = write_report(make_run([make_record()], name="plain"))
    assert "<h3>Corrections</h3>" not in plain.html.read_text(encoding="utf-8")
    assert pd.read_csv(plain.corrections_csv).empty
    others = [
        corrected("p1", [0.6, 0.7], "b"),
        make_record("p1", "unet", protocol="none"),  # automatic: its protocol is only a name
        make_record("p1", "a"),
        make_record("q1", "a", cohort="real"),
    ]
    files = write_report(make_run([*records, *others], name="corrected"))
    text = files.html.read_text(encoding="utf-8")
    assert text.count("<h3>Corrections</h3>") == 1
    table = text[text.index("<h3>Corrections</h3>") :]
    assert re.search(r"67 %<span class=.ci.>median 3</span>", table)
    assert re.search(r"33 %<span class=.ci.>median &gt; 4</span>", table)
    assert (files.folder / "figures" / "made--corrections.svg").is_file()
    assert not (files.folder / "figures" / "real--corrections.svg").exists()
    assert len(pd.read_csv(files.corrections_csv)) == 2 * 4
    results = pd.read_csv(files.results_csv)
    assert results["first_dice"].notna().sum() == 4
    assert pd.read_parquet(files.results_parquet)["effort_area"].notna().sum() == 4


def test_rows_are_grouped_by_protocol_in_the_order_of_the_plan(corrected):
    records = [
        corrected(case, [0.5, 0.6], model, protocol=protocol)
        for case in ("p1", "p2")
        for model in ("z", "a")
        for protocol in ("point-one+corrections-1", PROTOCOL)
    ]
    rows = effort_rows(case_effort(records), "made")
    assert [(row["protocol"], row["method"]) for row in rows] == [
        (protocol, model) for protocol in ("point-one+corrections-1", PROTOCOL) for model in "za"
    ]
