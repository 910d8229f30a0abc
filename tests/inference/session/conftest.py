"""Models at the boundary: quick, and as dependent on their past as a model can be."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.inference import AnnotationSession
from napari_lungfm.models.prompts import Prompt, is_conditioning, says_absent, to_dict
from napari_lungfm.models.protocols import Prior, SlicePrediction
from napari_lungfm.preprocessing.windowing import Window

SHAPE = (9, 12, 14)
GRID = VolumeGeometry(SHAPE, (2.5, 1.0, 1.5), (-10.0, 5.0, 30.0))


def chance(*facts: Any) -> np.random.Generator:
    """Random numbers that depend on the facts to the last bit."""
    return np.random.default_rng(
        int.from_bytes(hashlib.blake2b(repr(facts).encode(), digest_size=8).digest())
    )


def blob(*facts: Any) -> np.ndarray:
    """A rectangle with noise in it; its place depends on the facts."""
    random = chance(*facts)
    mask = np.zeros(SHAPE[1:], bool)
    y, x = random.integers(0, 8, 2)
    mask[y : y + 4, x : x + 5] = random.random((4, 5)) > 0.3
    return mask


def digest(mask: np.ndarray) -> str:
    return hashlib.blake2b(mask.tobytes(), digest_size=8).hexdigest()


def prompt_facts(prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    return [to_dict(prompt) for prompt in prompts]


@dataclass(frozen=True, eq=False)
class FakeState:
    conditioning: Mapping[int, np.ndarray] = field(default_factory=dict)
    tracked: Mapping[int, np.ndarray] = field(default_factory=dict)
    start: str = ""


@dataclass
class FakeTracker:
    """A tracker with a memory: corrections start from the last mask, walks see all prompts."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    fail_at: int | None = None

    def start(self, prompts: Sequence[Prompt] = ()) -> FakeState:
        return FakeState(start=repr(prompt_facts(prompts)))

    def prompt(
        self, state: FakeState, z: int, prompts: Sequence[Prompt]
    ) -> tuple[FakeState, SlicePrediction]:
        self.calls.append(("prompt", z))
        if any(says_absent(prompt) for prompt in prompts):
            mask = np.zeros(SHAPE[1:], bool)
        else:
            before = state.conditioning.get(z, state.tracked.get(z))
            known = "nothing" if before is None else digest(before)
            mask = blob("prompt", state.start, z, prompt_facts(prompts), known)
        conditioning = {**state.conditioning, z: mask}
        return replace(state, conditioning=conditioning), SlicePrediction(mask)

    def forget(self, state: FakeState, z: int) -> FakeState:
        conditioning = {i: m for i, m in state.conditioning.items() if i != z}
        return replace(state, conditioning=conditioning)

    def walk(
        self, state: FakeState, slices: range, part: range | None = None
    ) -> Iterator[tuple[FakeState, int, SlicePrediction]]:
        part = slices if part is None else part
        assert set(state.conditioning) <= set(slices)
        state = replace(state, tracked={z: m for z, m in state.tracked.items() if z in slices})
        seen = sorted((z, digest(mask)) for z, mask in state.conditioning.items())
        first, last = seen[0][0], seen[-1][0]
        inner = [z for z in range(first, last) if z not in state.conditioning]
        for way in (inner, range(first - 1, part.start - 1, -1), range(last + 1, part.stop)):
            for z in way:
                self.calls.append(("walk", z))
                if self.fail_at == z:
                    raise RuntimeError("the model broke")
                ended = chance("end", seen, z).random() < 0.25
                mask = np.zeros(SHAPE[1:], bool) if ended else blob("walk", seen, z)
                tracked = {**state.tracked, z: mask}
                over = ended and way is not inner
                if over:
                    tracked = {i: m for i, m in tracked.items() if (i < z) == (z > last)}
                state = replace(state, tracked=tracked)
                yield state, z, SlicePrediction(mask)
                if over:
                    break


@dataclass
class FakePredictor:
    """A slice predictor whose answer depends on all that it is told."""

    calls: list[int] = field(default_factory=list)

    def predict_slice(
        self, z: int, prompts: Sequence[Prompt], prior: Prior | None = None
    ) -> SlicePrediction:
        self.calls.append(z)
        known: tuple[Any, ...] = ("nothing",)
        if prior is not None:
            areas = sorted(prior.prompted_areas.items())
            known = (prior.z, digest(prior.mask), prior.memory, prior.between, areas)
            if not prompts and chance("end", z, known).random() < 0.2:
                return SlicePrediction(np.zeros(SHAPE[1:], bool))
        mask = blob("slice", z, prompt_facts(prompts), known)
        return SlicePrediction(mask, 0.5, memory=digest(mask))


@dataclass
class FakeVolumePredictor:
    """A volume predictor whose every slice depends on all prompts."""

    def propagate(
        self, prompts: Sequence[Prompt], slices: range, *, fill: bool
    ) -> Iterator[tuple[int, SlicePrediction]]:
        facts = prompt_facts(prompts)
        prompted = {prompt.z for prompt in prompts if is_conditioning(prompt)}
        for z in sorted(prompted):
            own = prompt_facts([p for p in prompts if p.z == z])
            yield z, SlicePrediction(blob("volume", z, own))
        for z in slices if fill else ():
            if z not in prompted and chance("there", z, facts).random() < 0.8:
                yield z, SlicePrediction(blob("volume", z, facts))


@dataclass
class FakeModel:
    """Opens volumes with one of the fakes."""

    predictor: Any = field(default_factory=FakeTracker)
    name: str = "fake"
    weight_hash: str = "w0"
    window: Window = field(default_factory=lambda: Window(-600, 1500))

    def open(self, volume: Volume) -> Any:
        return self.predictor


FAKES: dict[str, Callable[[], Any]] = {
    "tracker": FakeTracker,
    "slices": FakePredictor,
    "volume": FakeVolumePredictor,
}


@pytest.fixture
def grid() -> VolumeGeometry:
    return GRID


@pytest.fixture(scope="session")
def volume() -> Volume:
    random = np.random.default_rng(3)
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    ball = (2.5 * (z - 4)) ** 2 + (y - 6.0) ** 2 + (1.5 * (x - 7)) ** 2 <= 30.0
    hu = np.where(ball, 40, -850) + random.normal(0, 20, SHAPE)
    return Volume(hu.astype(np.int16), GRID)


@pytest.fixture
def fake_model() -> Callable[..., FakeModel]:
    """Factory of models by kind: tracker, slices, volume."""

    def make(kind: str = "tracker", **options: Any) -> FakeModel:
        return FakeModel(FAKES[kind](), **options)

    return make


@pytest.fixture
def opened(volume: Volume, fake_model: Any) -> Callable[..., AnnotationSession]:
    """Factory of sessions with a fake model and one object, number 3."""

    def make(kind: str = "tracker", **options: Any) -> AnnotationSession:
        session = AnnotationSession(volume, fake_model(kind), **options)
        session.add_object(3)
        return session

    return make


@pytest.fixture
def masks_of() -> Callable[[AnnotationSession], dict[int, Any]]:
    """All that can be seen of the objects of a session."""

    def look(session: AnnotationSession) -> dict[int, Any]:
        return {
            label: (each.name, each.locked, dict(each.prompts), dict(each.masks), each.stale)
            for label, each in session.objects.items()
        }

    return look


@pytest.fixture
def run_all() -> Callable[..., list[Any]]:
    return lambda session, label=3, *args, **options: list(
        session.propagate(label, *args, **options)
    )
