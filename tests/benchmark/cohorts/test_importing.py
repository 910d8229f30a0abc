import numpy as np
import pytest

from napari_lungfm import io
from napari_lungfm._core.exceptions import ConfigError, InputFileError
from napari_lungfm.benchmark.cohorts.cohort_file import read_cohort
from napari_lungfm.benchmark.cohorts.importing import import_cases, load_import_config
from napari_lungfm.benchmark.cohorts.lungs import lung_source
from napari_lungfm.benchmark.cohorts.prepare import prepare_cohort
from napari_lungfm.benchmark.cohorts.split import split_patients
from napari_lungfm.geometry import LabelMap

MASKS = """\
name: clinic
image: "{case}/ct.nii.gz"
mask: "{case}/{case}_*.nii.gz"
values: {7: tumour, 1: left lung, 2: right lung}
exclude: {p4: biopsy missing}
split: {table: table.csv, case: id, column: set}
attributes: {table: table.csv, case: id, columns: [stage, age]}
"""
TABLE = "id,set,stage,age\np1,train,II,71\np2,Test,III,64.5\np3,,I,\np5,test,I,80\n"


@pytest.fixture
def folder(tmp_path, make_chest):
    """Five patients: four with a mask, one without; one is not in the table."""
    place = tmp_path / "images"
    for name in ("p1", "p2", "p3", "p4", "p5", "p6"):
        case = make_chest(name)
        (place / name).mkdir(parents=True)
        io.write_image(case.volume, place / name / "ct.nii.gz")
        array = np.where(case.reference.array == 3, 7, case.reference.array).astype(np.uint8)
        if name != "p5":
            mask = LabelMap(array, case.volume.geometry)
            io.write_label_map(mask, place / name / f"{name}_drawn.nii.gz")
    (tmp_path / "table.csv").write_text(TABLE)
    (tmp_path / "clinic.yaml").write_text(MASKS)
    return place


def test_a_folder_becomes_a_cohort(folder, tmp_path):
    config = load_import_config(tmp_path / "clinic.yaml")
    assert config.lung_source == "own"
    cases, plan = import_cases(folder, config, tmp_path)
    result = prepare_cohort(cases, tmp_path / "out", plan, lung_source(config.lung_source))
    assert {each.name: each.reason for each in result.of("excluded")} == {
        "p4": "biopsy missing",
        "p5": "no files fit the mask 'p5/p5_*.nii.gz'",
        "p6": "'table.csv' does not say which part it is in",
    }
    assert (result.split.test, result.split.train, result.split.spare) == (
        ("p2",),
        ("p1",),
        ("p3",),
    )
    cohort = read_cohort(tmp_path / "out").build(tmp_path)
    case = cohort.test[0].load()
    assert case.reference.present() == (1, 2, 3)
    assert (case.attributes["stage"], case.attributes["age"]) == ("III", 64.5)
    assert result.split.seed is None


def test_contours_and_lungs_by_a_model(tmp_path, make_chest):
    place = tmp_path / "images"
    for name in ("a", "b"):
        case = make_chest(name)
        ct = place / name / "ct"
        io.write_series(case.volume, ct, patient_id=name)
        io.write_rtstruct(case.reference, ct, place / name / "rs.dcm", {3: "Tumour"})
    config = tmp_path / "c.yaml"
    config.write_text(
        'name: c\nimage: "{case}/ct"\nrtstruct: "{case}/rs.dcm"\nrois: {Tumour: tumour}\n'
        "lungs: lungs-classical\nsplit: {test: 0.5, seed: 3}\n"
    )
    loaded = load_import_config(config)
    cases, plan = import_cases(place, loaded, tmp_path)
    result = prepare_cohort(cases, tmp_path / "out", plan, lung_source(loaded.lung_source))
    assert len(result.split.test) == len(result.split.train) == 1
    reference = io.read_label_map(tmp_path / "out" / "cases" / "a" / "reference.nii.gz")
    assert reference.present() == (1, 2, 3)
    assert np.array_equal(reference.array == 3, make_chest("a").reference.array == 3)


@pytest.mark.parametrize("mask", ["{case}_seg.nii.gz", "{case}_s*.nii.gz"])
def test_masks_beside_the_images_are_no_cases(tmp_path, make_chest, mask):
    place = tmp_path / "images"
    place.mkdir()
    for name in ("p1", "p_2"):
        case = make_chest(name)
        io.write_image(case.volume, place / f"{name}.nii.gz")
        io.write_label_map(case.reference, place / f"{name}_seg.nii.gz")
    text = f'name: c\nimage: "{{case}}.nii.gz"\nmask: "{mask}"\n'
    text += "values: {3: tumour, 1: ignore, 2: ignore}\n"
    config = tmp_path / "c.yaml"
    config.write_text(text)
    cases, plan = import_cases(place, load_import_config(config), tmp_path)
    assert [case.name for case in cases] == ["p1", "p_2"]
    result = prepare_cohort(cases, tmp_path / "out", plan, lung_source("none"))
    assert len(result.of("prepared")) == 2
    config.write_text(text + "exclude: {nobody: gone}\n")
    with pytest.raises(ConfigError, match=r"'exclude' names nobody.*there are 2, p1 to p_2"):
        import_cases(place, load_import_config(config), tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: c\nimage: ct.nii.gz\nmask: '{case}.nii'", "'ct.nii.gz' has no {case}"),
        ("name: c\nimage: '/{case}'\nmask: '{case}.nii'", "must be a path within the folder"),
        ("name: c\nimage: '../{case}'\nmask: '{case}.nii'", "must be a path within the folder"),
        ("name: c\nimage: '{case}'", "exactly one of mask, rtstruct and seg is needed"),
        ("name: c\nimage: '{case}'\nmask: '{case}m'\nvalues: {1: nose}", "no structure 'nose'"),
        (
            "name: c\nimage: '{case}'\nmask: '{case}m'\nmaks: x",
            "no key 'maks'; did you mean 'mask'?",
        ),
        ("[1", "is not valid YAML"),
        ("- 1", "a mapping of keys to values is expected"),
    ],
)
def test_configurations_that_cannot_be_used(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_import_config(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_and_tables_that_are_not_there(folder, tmp_path):
    config = load_import_config(tmp_path / "clinic.yaml")
    with pytest.raises(InputFileError, match="no such folder"):
        import_cases(tmp_path / "none", config, tmp_path)
    with pytest.raises(InputFileError, match=r"nothing in .* fits the image"):
        import_cases(tmp_path, config, tmp_path)
    (tmp_path / "table.csv").write_text("id,set\np1,train\n")
    with pytest.raises(InputFileError, match="has no column stage, age"):
        import_cases(folder, config, tmp_path)
    (tmp_path / "table.csv").write_text(TABLE.replace("Test", "tset"))
    with pytest.raises(ConfigError, match="'tset' of 'p2' is none of"):
        import_cases(folder, config, tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("p1,test,II,71\n", "'p1' stands there twice with another 'set': 'train' in line 2 and"),
        ("p1,train,III,71\n", "'p1' stands there twice with another 'stage': 'II' in line 2 and"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(folder, tmp_path, line, words):
    config = load_import_config(tmp_path / "clinic.yaml")
    # Two rows that agree are two lesions, say.
    (tmp_path / "table.csv").write_text(TABLE + "p1,Training,II,71.0\n")
    cases, _ = import_cases(folder, config, tmp_path)
    assert {case.name: case.part for case in cases}["p1"] == "train"
    (tmp_path / "table.csv").write_text(TABLE + line)
    with pytest.raises(ConfigError) as error:
        import_cases(folder, config, tmp_path)
    assert words in str(error.value)
    assert "in line 6" in str(error.value)


def test_tables_of_european_excel_are_read(folder, tmp_path):
    config = load_import_config(tmp_path / "clinic.yaml")
    plain, _ = import_cases(folder, config, tmp_path)
    text = TABLE.replace(",", ";").replace("64.5", "64,5").replace("\n", "\r\n")
    (tmp_path / "table.csv").write_bytes(text.encode("utf-8-sig"))
    cases, _ = import_cases(folder, config, tmp_path)
    assert [(c.name, c.part, c.excluded) for c in cases] == [
        (c.name, c.part, c.excluded) for c in plain
    ]
    assert [dict(c.attributes) for c in cases] == [dict(c.attributes) for c in plain]
    assert dict(cases[1].attributes) == {"stage": "III", "age": 64.5}


def write_twins(tmp_path, make_chest, names, twin):
    """Patients of whom the last one has the CT of another, under a name of its own."""
    place = tmp_path / "images"
    place.mkdir()
    for name in (*names, "twin"):
        case = make_chest(twin if name == "twin" else name)
        io.write_image(case.volume, place / f"{name}.nii.gz")
        io.write_label_map(case.reference, place / f"{name}_seg.nii.gz")
    return place


IMAGES = (
    'name: c\nimage: "{case}.nii.gz"\nmask: "{case}_seg.nii.gz"\n'
    "values: {3: tumour, 1: left lung, 2: right lung}\n"
)


def test_one_ct_under_two_names_is_flagged_in_a_given_split(tmp_path, make_chest):
    place = write_twins(tmp_path, make_chest, ["a", "b"], "a")
    (tmp_path / "parts.csv").write_text("case,split\na,train\nb,train\ntwin,test\n")
    (tmp_path / "c.yaml").write_text(IMAGES + "split: {table: parts.csv}\n")
    cases, plan = import_cases(place, load_import_config(tmp_path / "c.yaml"), tmp_path)
    for _ in range(2):  # the second time nothing is prepared anew
        result = prepare_cohort(cases, tmp_path / "out", plan, lung_source("own"))
        flags = {each.name: each.flags for each in result.reports}
        assert flags["b"] == []
        (own,) = flags["a"]
        (theirs,) = flags["twin"]
        assert own.startswith("the same CT as 'twin' (tested), while this one is trained on")
        assert theirs.startswith("the same CT as 'a' (trained on), while this one is tested")
        assert result.split.train == ("a", "b")
        page = (tmp_path / "out" / "quality.html").read_text(encoding="utf-8")
        assert "the same CT as" in page
        assert "2 of them with something to look at" in page


def test_one_ct_under_two_names_stays_on_one_side_of_a_drawn_split(tmp_path, make_chest):
    names = ["a", "b", "c", "d"]
    (tmp_path / "c.yaml").write_text(IMAGES + "split: {test: 0.4}\n")
    config = load_import_config(tmp_path / "c.yaml")
    drawn = split_patients("c", [*names, "twin"], n_test=2, n_train=3)
    # The twin of a patient on the other side of the split.
    other = drawn.train[0] if "twin" in drawn.test else drawn.test[0]
    cases, plan = import_cases(write_twins(tmp_path, make_chest, names, other), config, tmp_path)
    result = prepare_cohort(cases, tmp_path / "out", plan, lung_source("own"))
    split = result.split
    assert split.test == drawn.test
    (moved,) = split.spare
    assert {moved} == {"twin", other} - set(drawn.test)
    assert set(split.train) == set(drawn.train) - {moved}
    (flag,) = next(each.flags for each in result.reports if each.name == moved)
    assert "so this one was taken out of the training" in flag
    cohort = read_cohort(tmp_path / "out").build(tmp_path)
    assert moved not in {source.name for source in (*cohort.train, *cohort.test)}
