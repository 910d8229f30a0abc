import errno
import math
import re
import shutil
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_lungfm._core.exceptions import DataError, OutputError
from napari_lungfm.benchmark.report import figures, html, summarise, write, write_report
from napari_lungfm.benchmark.report.comparisons import families
from napari_lungfm.benchmark.report.example import example_command
from napari_lungfm.benchmark.report.folder import MARKER
from napari_lungfm.benchmark.report.header import make_header
from napari_lungfm.benchmark.report.scores import case_scores, unit_scores
from napari_lungfm.benchmark.report.style import BASELINES
from napari_lungfm.benchmark.store import results_frame

HOSTILE = "<script>alert(1)</script> & \"q\" 'x' $m$"


class Page(HTMLParser):
    """What a browser would do with a page: elements, ids, addresses, text."""

    VOID = {"meta", "input", "br", "link", "img", "hr"}  # noqa: RUF012

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.ids, self.links, self.words, self.open = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        if "id" in values:
            self.ids.append(values["id"])
        for name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
            if values.get(name):
                self.links.append(values[name])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page_of(files):
    return Page(files.html.read_text(encoding="utf-8"))


def test_page_is_one_well_formed_file_that_asks_for_nothing(report):
    text = report.html.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not {"link", "iframe", "object", "embed"} & set(page.tags)
    assert not re.search(r"url\(\s*['\"]?(?!#|data:)", text)
    assert "@import" not in text
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_page_shows_what_was_run(report):
    text = page_of(report).text
    assert "small run" in text
    assert "2025-03-01T10:00:00+00:00" in text
    assert "Phantoms with one lesion" in text
    assert text.count("synthetic phantoms") == 2  # in the header and over the cohort's tables
    assert "python 3.11.0" in text
    assert "out of memory" in text
    assert "box-every-slice" in text
    assert "napari-lungfm-bench run config.yaml" in text
    assert "kind: phantom" in text
    assert "incomplete" not in text


@pytest.mark.parametrize(
    ("kind", "title", "synthetic"),
    [
        ("files", "Public CT lesions (IBSI lung phantom patient)", False),
        ("files", "Lung1 in small: phantoms, not patients", True),
        ("phantom", "made by a program", True),
        ("files", "", False),
    ],
)
def test_only_phantoms_are_called_so(make_run, make_record, kind, title, synthetic):
    config = f"name: r\ncohorts: [{{kind: {kind}, name: made, title: '{title}'}}]"
    run = make_run([make_record("p1")])
    header = make_header(run, config, [], [make_record("p1")])
    assert header.synthetic is synthetic


def test_main_table_on_the_page(report):
    text = report.html.read_text(encoding="utf-8")
    table = re.search(r'<table class="wide" id="main1">.*?</table>', text, re.DOTALL)[0]
    rows = re.findall(r"<tr[^>]*><td.*?</tr>", table, re.DOTALL)
    assert len(rows) == 6
    best = next(row for row in rows if ">a</td>" in row)
    assert "<strong>0.820</strong>" in best
    assert "<u>0.720</u>" in next(row for row in rows if ">b</td>" in row)


def test_incomplete_runs_say_so(make_run, several):
    done, missing = several[:-2], [r.key for r in several[-2:]]
    files = write_report(make_run(done, missing=missing))
    text = page_of(files).text
    assert "These results are incomplete: 2 of 30 units" in text
    assert "Incomplete: 2 of 30 units" in (files.folder / "tables" / "made.md").read_text()


def test_a_planned_cohort_without_results_is_named(make_run, make_record):
    missing = make_record("q1", "a", cohort="real").key
    files = write_report(make_run([make_record()], missing=[missing]))
    assert "No unit of this cohort is finished yet" in page_of(files).text


def test_hostile_names_are_shown_and_do_nothing(make_run, make_record):
    records = [
        make_record(HOSTILE, HOSTILE, 0.8, cohort=HOSTILE),
        make_record(HOSTILE, "_b", 0.5, cohort=HOSTILE, status="failed", error=HOSTILE),
        make_record("p2", HOSTILE, 0.9, cohort=HOSTILE),
        make_record("p2", "_b", 0.9, cohort=HOSTILE),
    ]
    config = f"name: '{HOSTILE.replace(chr(39), chr(39) * 2)}'\ncohorts: []\n"
    files = write_report(make_run(records, images=True, config=config))
    page = page_of(files)
    assert page.tags.count("script") == 1
    assert HOSTILE in page.text
    assert page.open == []


def test_all_files_are_there_and_read_back_the_same(report, several):
    files = report
    expected = results_frame(several)
    csv = pd.read_csv(files.results_csv, dtype=str)
    parquet = pd.read_parquet(files.results_parquet)
    assert list(csv.columns) == list(parquet.columns) == list(expected.columns)
    for name in expected.select_dtypes("number"):
        np.testing.assert_array_equal(csv[name].astype(float), expected[name])
        np.testing.assert_array_equal(parquet[name], expected[name])
    assert csv["method"].tolist() == parquet["method"].tolist() == expected["method"].tolist()
    assert len(pd.read_csv(files.costs_csv)) == len(several)
    summary = pd.read_csv(files.summary_csv)
    assert len(summary) == 12
    # Each of two cohorts: three pairs under each of two protocols.
    assert len(pd.read_csv(files.comparisons_csv)) == 12
    assert [p.name for p in files.tables] == ["made.md", "made.tex", "real.md", "real.tex"]
    assert {p.name for p in files.figures} == {
        f"{cohort}--{name}.{kind}"
        for cohort in ("made", "real")
        for name in ("dice", "volume", "slices", "cost", "prompts", "overlays")
        for kind in ("svg", "png")
    }
    for file in files.figures:
        assert file.read_bytes().startswith((b"\x89PNG", b"<?xml"))


def test_odd_case_attributes_are_kept_as_text(make_run, make_record):
    odd = [{"a": [1, 2], "b": 1, "c": None}, {"a": {"x": 1}, "b": "two"}, {"b": True, "d": False}]
    records = [
        make_record(f"p{i}", case_attributes=values, structures=make_record().structures)
        for i, values in enumerate(odd)
    ]
    files = write_report(make_run(records))
    parquet = pd.read_parquet(files.results_parquet)
    assert parquet["case_a"].tolist()[:2] == ["[1, 2]", '{"x": 1}']
    assert parquet["case_b"].tolist() == ["1", "two", "true"]
    assert pd.read_csv(files.results_csv)["case_a"].tolist()[:2] == ["[1, 2]", '{"x": 1}']


def test_same_records_same_files(make_run, several):
    several = [r for r in several if r.key.cohort == "made"]
    first = write_report(make_run(several, images=True, name="one"))
    second = write_report(make_run(several, images=True, name="two"))
    names = sorted(
        p.relative_to(first.folder).as_posix() for p in first.folder.rglob("*") if p.is_file()
    )
    assert names
    for name in names:
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes(), name


def test_a_second_process_draws_the_same_figures(make_run, several, monkeypatch):
    monkeypatch.setattr(write, "_MANY_UNITS", 1)
    one = write_report(make_run(several, name="one"))
    two = write_report(make_run(several, name="two"), processes=2)
    assert one.figures
    assert [p.name for p in one.figures] == [p.name for p in two.figures]
    for mine, other in zip(one.figures, two.figures, strict=True):
        assert mine.read_bytes() == other.read_bytes(), mine.name


def test_figures_that_the_second_process_does_not_deliver_are_drawn_here(
    make_run, several, monkeypatch
):
    class Broken(Executor):
        def submit(self, function, /, *arguments, **keywords):
            future = Future()
            future.set_running_or_notify_cancel()
            future.set_exception(BrokenProcessPool())
            return future

    @contextmanager
    def helper(run, processes):
        yield Broken()

    one = write_report(make_run(several, name="one"))
    monkeypatch.setattr(write, "_helper", helper)
    two = write_report(make_run(several, name="two"))
    assert [p.read_bytes() for p in one.figures] == [p.read_bytes() for p in two.figures]


def test_a_report_that_fails_leaves_the_old_one(make_run, make_record, monkeypatch):
    run = make_run([make_record()])
    old = write_report(run)
    before = {p: p.read_bytes() for p in old.folder.rglob("*") if p.is_file()}

    def fail(page):
        raise KeyboardInterrupt

    monkeypatch.setattr(html, "render", fail)
    with pytest.raises(KeyboardInterrupt):
        write_report(run)
    assert {p: p.read_bytes() for p in old.folder.rglob("*") if p.is_file()} == before
    assert [p.name for p in run.root.iterdir() if p.name.startswith(".")] == []


def test_a_new_report_replaces_the_old_one_whole(make_run, make_record):
    both = make_run([make_record(), make_record(cohort="real")])
    stale = write_report(both).folder / "tables" / "real.md"
    assert stale.is_file()
    run = make_run([make_record()])
    files = write_report(run)
    assert not stale.exists()
    assert files.html.is_file()
    assert [p.name for p in run.root.iterdir() if p.name.startswith(".")] == []


def test_a_folder_with_other_files_is_never_replaced(make_run, make_record, tmp_path):
    run = make_run([make_record()])
    place = tmp_path / "mine"
    place.mkdir()
    (place / "thesis.docx").write_text("precious")
    with pytest.raises(OutputError, match=r"thesis\.docx"):
        write_report(run, out=place)
    assert (place / "thesis.docx").read_text() == "precious"
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(OutputError, match="choose another"):
        write_report(run, out=file)


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


@pytest.mark.parametrize(
    "name",
    [
        "figures/fig1.png",  # names alone say nothing: these are a paper's, not a report's
        "tables/table1.tex",
        "results.csv",
        "report.html",
        ".napari-lungfm-report",
    ],
)
def test_a_folder_that_only_looks_like_a_report_is_kept(make_run, make_record, tmp_path, name):
    file = tmp_path / "paper" / name
    file.parent.mkdir(parents=True)
    file.write_text("precious")
    with pytest.raises(OutputError, match=name):
        write_report(make_run([make_record()]), out=tmp_path / "paper")
    assert contents(tmp_path / "paper") == {name: b"precious"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["paper", "run"]


@pytest.mark.parametrize("name", ["notes.txt", "tables/mine.md", "figures/mine.png", "more/a.csv"])
def test_files_put_into_a_report_are_not_lost(make_run, make_record, name):
    run = make_run([make_record()])
    file = write_report(run).folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("precious")
    before = contents(run.root)
    with pytest.raises(OutputError, match=name):
        write_report(run)
    assert contents(run.root) == before


def test_files_that_come_while_a_report_is_written_are_not_lost(make_run, make_record, monkeypatch):
    run = make_run([make_record()])
    file = write_report(run).folder / "notes.txt"
    monkeypatch.setattr(html, "render", lambda page: str(file.write_text("precious")))
    with pytest.raises(OutputError, match=r"notes\.txt"):
        write_report(run)
    assert file.read_text() == "precious"


def test_a_report_without_marker_is_known_by_its_page(make_run, make_record):
    run = make_run([make_record()])
    folder = write_report(run).folder
    (folder / MARKER).unlink()
    (folder / ".DS_Store").write_text("clutter")
    write_report(run)
    assert (folder / MARKER).is_file()
    (folder / MARKER).unlink()
    deep = folder / "figures" / "raw" / "mine.png"
    deep.parent.mkdir()
    deep.write_text("precious")
    with pytest.raises(OutputError, match=r"raw/mine\.png"):
        write_report(run)


def test_links_are_not_followed(make_run, make_record, tmp_path):
    run = make_run([make_record()])
    folder = write_report(run).folder
    (tmp_path / "mine").mkdir()
    shutil.move(folder / "tables" / "made.md", tmp_path / "mine" / "made.md")
    shutil.rmtree(folder / "tables")
    (folder / "tables").symlink_to(tmp_path / "mine", target_is_directory=True)
    with pytest.raises(OutputError, match="tables"):
        write_report(run)
    assert (tmp_path / "mine" / "made.md").is_file()


@pytest.mark.parametrize("limit", [10, 6000, 100_000])
def test_a_write_that_fails_is_one_line_and_leaves_the_old_report(make_run, make_record, limit):
    resource = pytest.importorskip("resource")
    run = make_run([make_record()])
    write_report(run)
    before = contents(run.root)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Like a full disk: the write itself fails, and the error names no file.
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*report") as caught:
            write_report(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert contents(run.root) == before
    assert not [p for p in run.root.iterdir() if p.name.startswith(".")]


def test_a_full_disk_is_named(make_run, make_record, monkeypatch):
    def fail(page):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(html, "render", fail)
    with pytest.raises(OutputError, match="the disk is full"):
        write_report(make_run([make_record()]))


def test_a_swap_that_fails_puts_the_old_report_back(make_run, make_record, monkeypatch):
    run = make_run([make_record()])
    write_report(run)
    before = contents(run.root)
    rename = Path.rename

    def fail(self, target):
        if self.name.endswith(".tmp"):
            raise PermissionError(errno.EACCES, "no", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OutputError, match="permission denied"):
        write_report(run)
    assert contents(run.root) == before
    assert not [p for p in run.root.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("damage", ["lost", "cut off", "altered"])
def test_a_damaged_preview_does_not_stop_the_report(make_run, make_record, damage):
    run = make_run([make_record("p1"), make_record("p2")], images=True)
    file = run.preview_file("made", "p1")
    data = file.read_bytes()
    if damage == "lost":
        file.unlink()
    else:
        half = len(data) // 2
        file.write_bytes(data[:half] + (b"" if damage == "cut off" else b"xx" + data[half + 2 :]))
    page = page_of(write_report(run))
    assert page.text.count("no overlays: the preview of the case is missing or damaged") == 1
    assert page.tags.count("image") > 0
    assert page.open == []


def test_failures_are_counted_in_cases_everywhere(make_run, make_record):
    records = [
        make_record(f"p{i}", "a", 0.8 if i else 0.0, seed=seed, status="ok" if i else "failed")
        for i in range(3)
        for seed in range(4)
    ]
    files = write_report(make_run(records))
    table = re.search(r'id="main1">.*?</table>', files.html.read_text("utf-8"), re.DOTALL)[0]
    counts = re.findall(r"<td data-v=.(\d+).[^>]*>(\d+)</td>", table)
    assert counts[-3:] == [("3", "3"), ("1", "1"), ("0", "0")]
    summary = pd.read_csv(files.summary_csv).iloc[0]
    assert (summary["n_failed"], summary["n_failed_units"]) == (1, 4)


def test_labelled_baselines_are_drawn_as_baselines(make_run, make_record):
    keys = [("prompt-ellipse", "Ellipse"), ("m", "Model")]
    records = [make_record(f"p{i}", model, label=label) for i in (1, 2) for model, label in keys]
    run = make_run(records, images=True)
    summary = summarise(records)
    rows = figures.row_looks(summary)
    assert rows["Ellipse", "box-one"].baseline
    assert rows["Ellipse", "box-one"].colour == BASELINES["prompt-ellipse"]
    assert not rows["Model", "box-one"].baseline
    text = write_report(run).html.read_text(encoding="utf-8")
    assert re.search(r'aria-pressed="true" data-r="1"', text)  # the model is shown first ...
    assert re.search(r'aria-pressed="false" data-r="0"', text)  # ... the baseline on a click


def test_report_works_in_another_place(make_run, make_record, tmp_path):
    run = make_run([make_record()], images=True)
    moved = run.root.rename(tmp_path / "moved")
    files = write_report(type(run).open(moved), out=tmp_path / "elsewhere")
    assert files.folder == tmp_path / "elsewhere"
    assert "svg" in Page(files.html.read_text(encoding="utf-8")).tags
    assert "image" in page_of(files).tags


def test_no_finished_unit_is_an_error(make_run, make_record):
    run = make_run([], missing=[make_record().key])
    with pytest.raises(DataError, match=r"no unit .* is finished \(1 planned\)"):
        write_report(run)
    assert not (run.root / "report").exists()


@pytest.mark.parametrize("structures", [(), None])
def test_all_failed_is_reported(make_run, make_record, make_result, structures):
    parts = (make_result(dice=None),) if structures is None else structures
    records = [
        make_record(case, model, status="failed", error="boom", structures=parts)
        for case in ("p1", "p2")
        for model in ("a", "b")
    ]
    page = page_of(write_report(make_run(records)))
    assert "4 units failed" in page.text
    assert page.text.count("boom") >= 4


def test_one_case_has_no_interval(make_run, make_record):
    files = write_report(make_run([make_record("p1", "a"), make_record("p1", "b", 0.9)]))
    text = page_of(files).text
    assert "Only 1 case" in text
    summary = pd.read_csv(files.summary_csv)
    assert summary["dice_low"].isna().all()
    assert "No difference could be significant" in text


def test_config_may_be_missing_or_odd(make_run, make_record):
    run = make_run([make_record()], config="- just\n- a list\n")
    assert "made" in page_of(write_report(run)).text
    run.config_file.write_text("key: [unclosed")
    assert "unclosed" in page_of(write_report(run)).text
    run.config_file.unlink()
    assert "holds no config.yaml" in page_of(write_report(run)).text


def test_overlays_are_limited_by_rule(make_run, make_record):
    records = [make_record(f"p{i}", "a", 0.5 + 0.05 * i) for i in range(5)]
    run = make_run(records, images=True)
    text = write_report(run, overlay_cases=3).html.read_text(encoding="utf-8")
    assert text.count('class="card case"') == 3
    assert "3 of 5 cases: those of Figure 1, and others by their Dice under a (box-one)" in text
    text = write_report(run, overlay_cases=0).html.read_text(encoding="utf-8")
    assert 'class="card case"' not in text


def test_progress_tells_every_step(make_run, make_record):
    lines = []
    write_report(make_run([make_record()], images=True), progress=lines.append)
    assert lines[0] == "records"
    assert lines[-1] == "page"
    assert "overlays 1/1: made/p1" in lines


# ---------------------------------------------------------------------- what is on it
def test_example_command_replays_the_unit_with_the_fewest_prompts(make_record, make_result):
    many = make_result(prompts=tuple({"kind": "stop", "z": z} for z in range(4)))
    few = make_result(
        prompts=(
            {"kind": "box", "z": 5, "box": [8, 9, 20, 25]},
            {"kind": "click", "z": 5, "point": [10, 11], "positive": False},
        )
    )
    records = [
        make_record("p1", structures=(many,), mask_file="m"),
        make_record("p2", structures=(few,), mask_file="m", protocol="box-every-slice"),
        make_record("p3", status="failed", mask_file="m"),
    ]
    assert example_command(records) == (
        "napari-lungfm-bench segment --image p2.nii.gz --model a --box 5,8,9,20,25 "
        "--click 5,10,11,- --no-propagate --out again.nii.gz"
    )
    assert example_command([make_record(structures=())]) is None


def test_slice_profile_places_slices_between_the_ends(make_record):
    profile = figures.slice_profile([make_record(dice=0.8)], "tumour")
    # Slice 3 lies beyond the lower end; 4, 5, 6 are the first, middle and last of the reference.
    assert profile["bin"].tolist() == [0, 5, 10]
    assert profile["dice"].tolist() == [0.8, 0.5, 0.25]


def test_every_pair_is_compared_within_its_protocol(make_record):
    n = 8
    records = [
        make_record(f"p{i}", model, value + 0.01 * i, protocol=protocol)
        for i in range(n)
        for protocol in ("box-one", "point-one")
        for model, value in (("a", 0.8), ("b", 0.7), ("c", 0.6))
    ]
    found = families(case_scores(unit_scores(records)))
    assert [f.protocol for f in found] == ["box-one", "point-one"]
    assert [len(f.pairs) for f in found] == [3, 3]
    # Every case differs the same way: p = 2 / 2^8, Holm over three pairs.
    assert found[0].pairs["p_value"].tolist() == pytest.approx([2 ** (1 - n)] * 3)
    assert found[0].pairs["p_holm"].max() == pytest.approx(3 * 2 ** (1 - n))
    assert "3 of 3 differences are significant" in found[0].verdict
    assert found[0].ranks.table["rank"].tolist() == [1, 2, 3]


def test_methods_without_prompts_join_every_protocol(make_record, make_result):
    free = (make_result(prompts=()),)
    records = [
        make_record(f"p{i}", *rest, protocol=protocol, **more)
        for i in range(3)
        for rest, protocol, more in (
            (("a", 0.8), "box-one", {}),
            (("a", 0.7), "point-one", {}),
            (("unet",), "none", {"structures": free}),
        )
    ]
    found = families(case_scores(unit_scores(records)))
    assert [(f.protocol, len(f.pairs)) for f in found] == [("box-one", 1), ("point-one", 1)]
    assert found[0].pairs["method_b"].tolist() == ["unet"]


def test_verdict_without_common_cases(make_record):
    records = [make_record("p1", "a"), make_record("p2", "b")]
    (family,) = families(case_scores(unit_scores(records)))
    assert "nothing can be compared" in family.verdict
    assert math.isnan(family.ranks.tau_mean)


def test_a_case_without_the_structure_is_named_everywhere(make_run, make_record, make_result):
    """A patient of the plan must not disappear because there is no tumour."""
    lungs = tuple(make_result(side) for side in ("left lung", "right lung"))
    records = [make_record(f"p{i}", "a", structures=(make_result(), *lungs)) for i in range(2)]
    records.append(make_record("p2", "a", structures=lungs))
    # A method that segments lungs alone says nothing about tumours.
    records += [make_record(f"p{i}", "b", structures=lungs) for i in range(3)]
    files = write_report(make_run(records), overlay_cases=0)
    said = "1 case without this structure (tumour) in its reference, left out of its means: p2."
    assert files.html.read_text(encoding="utf-8").count(said) == 1
    texts = {path.name: path.read_text(encoding="utf-8") for path in files.tables}
    assert said in texts["made.md"].replace("\\(", "(").replace("\\)", ")")
    assert said in texts["made.tex"]
    page = files.html.read_text(encoding="utf-8")
    units = page[page.index('id="units"') :]
    assert units.count("no tumour in the reference") == 1


def test_damaged_records_are_counted(make_run, make_record):
    run = make_run([make_record(f"p{i}", "a") for i in range(3)])
    assert write_report(run, overlay_cases=0).damaged == ()
    (first, *_) = sorted(run.records.iterdir())
    first.write_text("{")
    files = write_report(run, overlay_cases=0)
    assert files.damaged == (first.name,)
    assert (files.n_planned, files.n_done) == (3, 2)
    page = files.html.read_text(encoding="utf-8")
    assert "1 record is damaged</strong> and counts as missing: " + first.name in page
    for path in run.records.iterdir():
        path.write_text("{")
    with pytest.raises(DataError, match="3 planned, 3 records damaged"):
        write_report(run, overlay_cases=0)


def test_labels_of_latex_differ_where_the_names_do(make_run, make_record):
    names = ("made 1", "made-1", "made_1", "made(1)")
    files = write_report(
        make_run([make_record(cohort=name) for name in names], config="name: x\n"),
        overlay_cases=0,
    )
    texts = [path.read_text(encoding="utf-8") for path in files.tables if path.suffix == ".tex"]
    labels = [label for text in texts for label in re.findall(r"\\label\{(.*?)\}", text)]
    assert len(labels) == len(set(labels)) == 4
    assert "tab:made-1-main" in labels
