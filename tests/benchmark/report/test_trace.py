"""From numbers to records, and two runs side by side."""

import json

import numpy as np
import pandas as pd
import pytest

from napari_lungfm._core.exceptions import DataError, OutputError, UsageError
from napari_lungfm.benchmark.report import compare_runs, trace, write_report
from napari_lungfm.evaluation.statistics import paired_comparison


def test_every_mean_of_the_main_table_can_be_traced(make_run, several):
    run = make_run(several)
    summary = write_report(run).summary
    for row in summary.itertuples():
        names = {"cohort": row.cohort, "method": row.method, "protocol": row.protocol}
        for metric in ("dice", "hd95_mm", "volume_error_ml"):
            found = trace(run, **names, structure=row.structure, metric=metric)
            assert found.mean == pytest.approx(getattr(row, metric), nan_ok=True)
            assert found.n == getattr(row, f"{metric}_n")
        for unit in found.units:
            record = json.loads((run.root / unit.record_file).read_text())
            assert record["key"]["case"] == unit.case
            assert list(unit.prompts["tumour"]) == record["structures"][0]["prompts"]


def test_seeds_are_averaged_and_undefined_cases_left_out(make_run, make_record):
    records = [
        make_record("p1", dice=0.6, seed=0),
        make_record("p1", dice=0.8, seed=1),
        make_record("p2", dice=None),
        make_record("p3", dice=0.9),
    ]
    found = trace(make_run(records), cohort="made", method="a", protocol="box-one")
    assert found.mean == pytest.approx(0.8)
    assert (found.n, found.n_undefined) == (2, 1)
    assert [unit.value for unit in found.units] == [0.6, 0.8, None, 0.9]


def test_joint_structures_name_their_parts(make_run, make_record, make_result):
    lungs = [make_result(name, value) for name, value in (("left lung", 0.8), ("right lung", 0.9))]
    one = make_record(structures=(*lungs, make_result(dice=0.5)))
    run = make_run([one])
    found = trace(run, cohort="made", method="a", protocol="box-one", structure="avg")
    assert found.mean == pytest.approx((2 * 0.85 + 0.5) / 3)
    assert list(found.units[0].prompts) == ["left lung", "right lung", "tumour"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"cohort": "x"}, "no cohort 'x'; there are: made"),
        ({"method": "x"}, "no method 'x' on 'made'; there are: prompt-ellipse, a, b"),
        ({"protocol": "x"}, "no protocol 'x' of 'a'; there are: box-every-slice, box-one"),
        ({"metric": "x"}, "no score 'x'; there are: dice"),
        ({"structure": "lungs"}, "no 'dice' of 'lungs'; structures: tumour"),
    ],
)
def test_what_is_not_there_is_named(make_run, several, changes, text):
    names = {"cohort": "made", "method": "a", "protocol": "box-one"}
    with pytest.raises(UsageError) as error:
        trace(make_run(several), **(names | changes))
    assert text in str(error.value)


def test_a_row_without_results_is_named(make_run, make_record):
    missing = make_record("p2", "b").key
    run = make_run([make_record()], missing=[missing])
    with pytest.raises(DataError, match="no unit of 'b'"):
        trace(run, cohort="made", method="b", protocol="box-one")


# ---------------------------------------------------------------------- two runs
@pytest.fixture
def pair(make_run, make_record):
    rng = np.random.default_rng(3)
    a, b = rng.uniform(0.4, 0.9, (2, 9))
    first = [make_record(f"p{i}", "a", value) for i, value in enumerate(a)]
    second = [make_record(f"p{i}", "a", value) for i, value in enumerate(b[:7])]
    second.append(make_record("p1", "only b", 0.5))
    return make_run(first, name="first"), make_run(second, name="second"), a, b


def test_runs_are_compared_on_the_cases_that_both_have(pair, tmp_path):
    first, second, a, b = pair
    files = compare_runs(first, second, tmp_path / "out")
    row = files.table[files.table["metric"] == "dice"].iloc[0]
    test = paired_comparison(b[:7], a[:7])
    assert row["n"] == 7
    assert row["difference"] == pytest.approx((b[:7] - a[:7]).mean())
    assert row["low"] < row["difference"] < row["high"]
    assert row["p_value"] == pytest.approx(test.p_value)
    assert row["p_holm"] == pytest.approx(test.p_value)
    assert files.only.groupby("run").size().to_dict() == {"A": 2, "B": 1}
    read = pd.read_csv(files.csv)
    assert read["difference"].tolist() == pytest.approx(files.table["difference"].tolist())
    assert "2 of them only in A" in files.markdown.read_text(encoding="utf-8")
    page = files.html.read_text(encoding="utf-8")
    assert 'data-for="differences"' in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_comparison_replaces_only_a_comparison(pair, tmp_path):
    first, second, *_ = pair
    compare_runs(first, second, tmp_path / "out")
    compare_runs(first, second, tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="no report wrote"):
        compare_runs(first, second, tmp_path / "out")


def test_runs_without_a_common_case_are_refused(make_run, make_record, tmp_path):
    runs = [make_run([make_record(cohort=name)], name=name) for name in ("made", "real")]
    with pytest.raises(DataError, match="no case in common"):
        compare_runs(*runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()
