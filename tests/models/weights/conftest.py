import dataclasses

import pytest

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Never touch the weights of the person who runs the tests."""
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def thin_state(architecture, seed=0):
    """All tensors of a stock network with real names and shapes, one number of storage each.

    A file of it is small, and everything about it but its values is real.
    """
    from napari_lungfm.models.weights.reference import reference_shapes

    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(1, generator=generator).expand(shape) if shape else torch.tensor(0)
        for name, shape in reference_shapes(architecture).items()
    }


@pytest.fixture
def thin():
    return thin_state


@pytest.fixture
def write(tmp_path):
    """Save something as a PyTorch file."""

    def save(content, name="file.pth", **options):
        path = tmp_path / name
        torch.save(content, path, **options)
        return path

    return save


@pytest.fixture
def catalogue(monkeypatch):
    """Change what the catalogue says of a published file."""
    from napari_lungfm.models import catalogue as module

    def change(name, **values):
        card, variant = module.resolve(name)
        files = tuple(
            dataclasses.replace(file, **values) if file.variant == variant else file
            for file in card.files
        )
        changed = dataclasses.replace(card, files=files)
        monkeypatch.setitem(module._CARDS, card.name, changed)
        return changed

    return change
