import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from napari_lungfm.models.cards import CheckValue

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def unet(tmp_path):
    """A file of lungmask's build with zeros for weights."""
    from napari_lungfm.models.weights.reference import reference_shapes

    path = tmp_path / "unet.pth"
    shapes = reference_shapes("lungmask-3")
    state = {n: torch.zeros(1).expand(s) if s else torch.tensor(0) for n, s in shapes.items()}
    torch.save(state, path)
    return path


@pytest.mark.parametrize("command", ["list", "show", "fetch", "import", "verify"])
def test_every_subcommand_has_help(bench, command):
    result = bench("models", command, "--help")
    assert result.code == 0
    assert command in result.out


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["show", "medsam2-ma"]])
def test_help_list_and_show_need_no_torch(arguments):
    code = (
        "import sys; from napari_lungfm.cli.app import run; "
        f"assert run(['models', *{arguments!r}]) == 0; "
        "print([m for m in ('torch', 'sam2', 'napari', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_list_shows_every_model_and_what_is_here(bench, unet):
    assert bench("models", "import", unet, "--as", "lungmask:mine").code == 0
    listed = bench("models", "list", "--json")
    models = {row["name"]: row for row in listed.json["models"]}
    assert models["lungmask"]["weights"] == ["lungmask:mine"]
    assert models["medsam"]["weights"] == []
    assert models["medsam2-ma"]["commercial"] == "no"
    assert models["litemedsam"]["runnable"] is True
    assert models["classical"]["needs_weights"] is False
    table = bench("models", "list")
    assert "lungmask:mine" in table.out
    assert "medsam2-zhu" in table.out
    assert "weights are in" in table.err


def test_show_tells_licence_leakage_and_addresses(bench):
    result = bench("models", "show", "medsam2-ma:CTLesion")
    assert result.code == 0
    for text in ("CC-BY-SA-4.0", "DeepLesion", "MedSAM2_CTLesion.pt", "not confirmed", "512"):
        assert text in result.out
    facts = bench("models", "show", "medsam", "--json").json
    assert facts["parameters"] == 93_735_472
    assert facts["weights"]["medsam"] == {"here": False}


def test_show_tells_options_and_the_window_that_is_used(bench):
    shown = bench("models", "show", "medsam2-zhu")
    assert "-600/1500 HU" in shown.out
    assert "the lung preset" in shown.out
    for name in ("zoom_mm", "memory_bank", "patience", "min_area_mm2"):
        assert f"option {name}" in shown.out
    facts = bench("models", "show", "medsam2-ma", "--json").json
    assert (facts["window"]["level"], facts["window"]["width"]) == (-750, 1500)
    options = {option["name"]: option for option in facts["options"]}
    assert options["memory_bank"]["default"] == "recent"
    assert options["memory_bank"]["choices"] == ["recent", "self-sorting"]
    assert options["patience"]["default"] == 2
    assert all(option["text"] for option in options.values())
    assert "carry" not in options
    lungs = bench("models", "show", "lungmask", "--json").json
    assert lungs["options"] == []
    assert lungs["window"] is None


@pytest.mark.parametrize("command", ["show", "fetch", "verify"])
def test_unknown_and_ambiguous_names_are_wrong_calls(bench, command):
    for name in ("medsam2", "nonsense"):
        result = bench("models", command, name)
        assert result.code == 2
        assert len(result.err.strip().splitlines()) == 1


def test_import_verify_and_spoil(bench, unet):
    done = bench("models", "import", unet, "--as", "lungmask:mine", "--json")
    assert done.code == 0
    assert done.json["sha256"] == hashlib.sha256(unet.read_bytes()).hexdigest()
    good = bench("models", "verify", "--json")
    assert good.code == 0
    assert good.json["weights"]["lungmask:mine"]["good"] is True
    assert "good (lungmask-3" in bench("models", "verify", "lungmask:mine").out
    with Path(done.json["path"]).open("r+b") as stream:
        stream.seek(2000)
        stream.write(b"spoilt")
    bad = bench("models", "verify", "--json")
    assert bad.code == 1
    assert "has changed" in bad.json["weights"]["lungmask:mine"]["error"]
    assert bench("models", "verify", "lungmask:mine").code == 1


def test_an_empty_store_verifies_and_says_so(bench):
    result = bench("models", "verify")
    assert result.code == 0
    assert "no weights" in result.err
    missing = bench("models", "verify", "medsam")
    assert missing.code == 1
    assert "models fetch medsam" in missing.err


def test_import_of_what_cannot_be_told_asks_for_a_name(bench, unet, tmp_path):
    result = bench("models", "import", unet)
    assert result.code == 2
    assert "--as" in result.err
    assert bench("models", "import", tmp_path / "none.pth").code == 1


def test_fetch_wants_a_yes_to_the_licence(bench):
    result = bench("models", "fetch", "medsam2-ma")
    assert result.code == 2
    assert "commercial use is NOT allowed" in result.err
    assert "--yes" in result.err


def test_fetch_from_a_mirror(bench, unet, monkeypatch, own_folder):
    import dataclasses
    import functools
    import http.server
    import threading

    from napari_lungfm.models import catalogue
    from napari_lungfm.models.weights import fetch

    monkeypatch.setattr(fetch, "SMALLEST", 1)
    check = CheckValue("sha256", hashlib.sha256(unet.read_bytes()).hexdigest())
    card = catalogue.checkpoint_card("lungmask")
    file = dataclasses.replace(card.default, checks=(check,), size=None)
    changed = dataclasses.replace(card, files=(file, *card.files[1:]))
    monkeypatch.setitem(catalogue._CARDS, "lungmask", changed)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(unet.parent))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/unet.pth"
        result = bench("models", "fetch", "lungmask", "--yes", "--url", url, "--json")
        server.shutdown()
    assert result.code == 0, result.err
    assert result.json["checked"] == [str(check)]
    assert result.json["licence_accepted"] is True
    assert (own_folder / "lungmask" / "R231" / file.filename).is_file()


def test_another_folder_can_be_named(bench, unet, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    assert bench("models", "import", unet, "--as", "lungmask:a", "--weights", elsewhere).code == 0
    assert (elsewhere / "lungmask" / "a" / "manifest.json").is_file()
    assert bench("models", "list", "--json").json["models"][10]["weights"] == []


def test_models_that_need_no_weights_are_shown_too(bench):
    shown = bench("models", "show", "lungfm-s", "--json")
    assert shown.code == 0, shown.err
    assert shown.json["parameters"] == 4_417_187
    assert "synthetic only" in shown.json["weights"]["training_data"]
    assert "random walker" in bench("models", "show", "classical").out


def test_every_listed_model_can_be_shown(bench):
    names = [row["name"] for row in bench("models", "list", "--json").json["models"]]
    assert {"lungs-classical", "unet", "finetuned"} <= set(names)
    for name in names:
        assert bench("models", "show", name).code == 0, name
    assert "trained by you" in bench("models", "show", "unet").out
    assert bench("models", "show", "medsam:mine", "--json").json["weights"] == {
        "medsam": {"here": False},
        "medsam:mine": {"here": False},
    }


def test_models_that_run_as_they_are_have_nothing_to_fetch(bench, unet):
    fetched = bench("models", "fetch", "lungfm-s")
    assert fetched.code == 0
    assert "nothing to fetch" in fetched.err
    for call in (["verify", "classical"], ["import", unet, "--as", "lungfm-s:mine"]):
        refused = bench("models", *call)
        assert refused.code == 2
        assert "runs as it is installed" in refused.err


def test_a_name_of_two_files_cannot_be_imported(bench, unet):
    refused = bench("models", "import", unet, "--as", "lungmask:LTRCLobes_R231")
    assert refused.code == 2
    assert "import FILE --as lungmask:LTRCLobes and models import FILE --as lungmask" in refused.err
    assert refused.err.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["1=tumour", "1=left lung"], "--label gives 1 twice, as 'tumour' and 'left lung'"),
        (["1=tumour", "01=tumour"], "--label gives 1 twice"),
        (["1=tumour", "2=Tumor"], "--label gives 'tumour' twice, to 1 and 2"),
        (["1=left_lung", "4=left lung"], "--label gives 'left lung' twice, to 1 and 4"),
        (["1=spleen", "2=spleen"], "--label gives 'spleen' twice"),
    ],
)
def test_labels_are_given_once(bench, tmp_path, labels, message):
    options = [text for label in labels for text in ("--label", label)]
    refused = bench("models", "import", tmp_path, "--trust", *options)
    assert (refused.code, message in refused.err) == (2, True), refused.err
    assert refused.err.strip().count("\n") == 0


@pytest.mark.parametrize("option", [["--trust"], ["--label", "1=tumour"]])
def test_options_of_folders_are_refused_for_files(bench, unet, option):
    refused = bench("models", "import", unet, "--as", "lungmask:mine", *option)
    assert refused.code == 2
    assert option[0] in refused.err
    assert bench("models", "verify").err.startswith("there are no weights")
