import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_lungfm._core.exceptions import DataError, UsageError
from napari_lungfm._core.seeding import generator
from napari_lungfm.evaluation import parse_protocol, protocol_names
from napari_lungfm.models.prompts import Box, Click, check_prompts, from_dict, to_dict

NAMES = [
    "box-every-slice",
    "point-every-slice",
    "box-one",
    "point-one",
    "box-every-1",
    "box-every-3",
]
references = hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9)).filter(np.any)
any_name = st.builds(
    lambda base, p: base if p == 0 else f"{base}+jitter-{p}",
    st.sampled_from([*NAMES, "box-every-10"]),
    st.integers(0, 12),
)


@given(references, any_name, st.integers(0, 1000))
@settings(max_examples=200)
def test_prompts_are_usable_and_survive_json(mask: np.ndarray, name: str, seed: int) -> None:
    protocol = parse_protocol(name)
    assert protocol.name == name
    prompts = protocol.prompts(mask, generator(seed))
    check_prompts(prompts, mask.shape)
    assert prompts == protocol.prompts(mask, generator(seed))
    for prompt in prompts:
        assert from_dict(json.loads(json.dumps(to_dict(prompt)))) == prompt
        assert mask[prompt.z].any()


@given(references)
def test_exact_boxes_are_tight_on_every_slice(mask: np.ndarray) -> None:
    prompts = parse_protocol("box-every-slice").prompts(mask, generator(0))
    assert [p.z for p in prompts] == np.flatnonzero(mask.any(axis=(1, 2))).tolist()
    for box in prompts:
        assert isinstance(box, Box)
        inside = mask[box.z, box.y0 : box.y1, box.x0 : box.x1]
        assert inside.sum() == mask[box.z].sum()
        assert inside[0].any() and inside[-1].any()  # noqa: PT018
        assert inside[:, 0].any() and inside[:, -1].any()  # noqa: PT018


@given(references, st.integers(0, 100))
def test_exact_clicks_are_inside(mask: np.ndarray, seed: int) -> None:
    for name in ("point-one", "point-every-slice"):
        for click in parse_protocol(name).prompts(mask, generator(seed)):
            assert isinstance(click, Click)
            assert click.positive
            assert mask[click.z, click.y, click.x]


def test_clicks_are_uniform_over_the_mask() -> None:
    mask = np.zeros((1, 4, 5), bool)
    mask[0, 1, [0, 3]] = mask[0, 2, 2:4] = True
    protocol = parse_protocol("point-one")
    counts = np.zeros(mask.shape)
    rng = generator("uniform")
    for _ in range(4000):
        (click,) = protocol.prompts(mask, rng)
        counts[click.z, click.y, click.x] += 1  # type: ignore[union-attr]
    assert abs(counts[mask] - 1000).max() < 120


@pytest.mark.parametrize("name", ["box-one", "point-one"])
def test_one_prompt_goes_to_the_largest_slice_the_lowest_of_several(name: str) -> None:
    mask = np.zeros((6, 5, 5), bool)
    mask[1, 0, 0] = mask[3, 1:3, 1:3] = mask[4, 1:3, 2:4] = True
    (prompt,) = parse_protocol(name).prompts(mask, generator(0))
    assert prompt.z == 3


def test_every_kth_slice_counts_slices_that_have_the_structure() -> None:
    mask = np.zeros((14, 5, 5), bool)
    mask[[2, 3, 4, 7, 8, 9, 10, 11], 1, 1] = True
    prompts = parse_protocol("box-every-3").prompts(mask, generator(0))
    assert [p.z for p in prompts] == [2, 7, 10]
    assert len(parse_protocol("box-every-10").prompts(mask, generator(0))) == 1


@pytest.mark.parametrize(
    ("name", "fill"),
    [
        ("box-every-slice", False),
        ("point-every-slice+jitter-2", False),
        ("box-one", True),
        ("point-one+jitter-5", True),
        ("box-every-5", True),
    ],
)
def test_which_protocols_propagate(name: str, fill: bool) -> None:
    assert parse_protocol(name).fill is fill


@given(references, st.integers(1, 12), st.integers(0, 1000))
def test_jittered_sides_move_by_no_more_than_p(mask: np.ndarray, p: int, seed: int) -> None:
    exact = parse_protocol("box-every-slice").prompts(mask, generator(seed))
    moved = parse_protocol(f"box-every-slice+jitter-{p}").prompts(mask, generator(seed))
    for a, b in zip(exact, moved, strict=True):
        assert isinstance(a, Box) and isinstance(b, Box)  # noqa: PT018
        for side in ("y0", "x0", "y1", "x1"):
            assert abs(getattr(a, side) - getattr(b, side)) <= p
        assert a.z == b.z


def test_every_side_moves_on_its_own_and_uniformly() -> None:
    mask = np.zeros((1, 100, 100), bool)
    mask[0, 40:60, 30:70] = True
    protocol = parse_protocol("box-one+jitter-3")
    rng = generator("jitter")
    boxes = [protocol.prompts(mask, rng)[0] for _ in range(3500)]
    moves = np.array([(b.y0 - 40, b.y1 - 60, b.x0 - 30, b.x1 - 70) for b in boxes])  # type: ignore[union-attr]
    for side in moves.T:
        values, counts = np.unique(side, return_counts=True)
        assert values.tolist() == [-3, -2, -1, 0, 1, 2, 3]
        assert abs(counts - 500).max() < 100
    assert abs(np.corrcoef(moves.T) - np.eye(4)).max() < 0.08


def test_jittered_clicks_scatter_by_half_of_p() -> None:
    mask = np.zeros((1, 101, 101), bool)
    mask[0, 50, 50] = True
    protocol = parse_protocol("point-one+jitter-8")
    rng = generator("scatter")
    clicks = [protocol.prompts(mask, rng)[0] for _ in range(3000)]
    places = np.array([(c.y - 50, c.x - 50) for c in clicks])  # type: ignore[union-attr]
    np.testing.assert_allclose(places.std(axis=0), 4.0, rtol=0.06)
    assert abs(places.mean(axis=0)).max() < 0.3


@pytest.mark.parametrize(
    "name",
    [
        "",
        "box",
        "box-every-0",
        "box-every-03",
        "box-every--3",
        "box-every-k",
        "box-one+jitter-0",
        "box-one+jitter-",
        "box-one+wobble-3",
        "box-one+jitter-3+jitter-3",
        "jitter-3",
        "box-one+",
        " box-one",
        "box-every-3\n",
    ],
)
def test_unknown_names_are_refused_and_the_known_listed(name: str) -> None:
    with pytest.raises(UsageError, match="known: box-every-slice, point-every-slice"):
        parse_protocol(name)


def test_all_listed_names_can_be_parsed() -> None:
    for name in protocol_names():
        filled = name.replace("<any of the above>", "box-one").replace(
            "<with propagation>", "point-one"
        )
        filled = filled.replace("<any but jitter>", "point-one+corrections-3")
        for letter in ("-k", "-p", "-n"):
            filled = filled.replace(letter, "-3") if filled.endswith(letter) else filled
        assert parse_protocol(filled).name == filled


def test_prompts_from_an_automatic_mask() -> None:
    protocol = parse_protocol("auto-box-one+corrections-2:lungmask:R231 (mine)")
    assert protocol.name == "auto-box-one+corrections-2:lungmask:R231 (mine)"
    assert protocol.prompted_by == "lungmask:R231 (mine)"
    assert (protocol.fill, protocol.corrections, protocol.jitter_px) == (True, 2, 0)
    mask = np.zeros((3, 6, 7), bool)
    mask[1:, 2:4, 3:6] = True
    for name in ("auto:unet", "auto-box-every-slice:unet"):
        auto, hand = parse_protocol(name), parse_protocol("box-every-slice")
        assert (auto.prompted_by, auto.fill) == ("unet", False)
        assert auto.prompts(mask, generator(0)) == hand.prompts(mask, generator(0))
    assert parse_protocol("box-one").prompted_by is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("auto-box-one", "no prompt protocol 'auto-box-one'"),
        ("auto-box-one:", "no prompt protocol"),
        ("auto-:unet", "no prompt protocol"),
        ("box-one:unet", "no prompt protocol 'box-one:unet'"),
        ("auto-box-one+jitter-3:unet", "cannot jitter"),
        ("auto-zhu-validation:unet", "cannot be a published validation"),
        ("auto-box-every-slice+corrections-2:unet", "carried on by propagation"),
        ("none", "for automatic models"),
    ],
)
def test_what_no_automatic_mask_can_prompt(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        parse_protocol(name)


def test_nothing_to_prompt() -> None:
    with pytest.raises(DataError, match="nothing to prompt"):
        parse_protocol("box-one").prompts(np.zeros((3, 4, 5), bool), generator(0))
    with pytest.raises(DataError, match="shape"):
        parse_protocol("box-one").prompts(np.zeros((4, 5), bool), generator(0))


def test_corrections_are_named_and_combined() -> None:
    plain = parse_protocol("corrections-5")
    assert (plain.name, plain.corrections, plain.fill) == ("corrections-5", 5, True)
    full = parse_protocol("point-one+corrections-3+jitter-2")
    assert (full.corrections, full.jitter_px) == (3, 2)
    mask = np.zeros((4, 9, 9), bool)
    mask[1:3, 2:7, 2:7] = True
    assert plain.prompts(mask, generator(0)) == parse_protocol("box-one").prompts(
        mask, generator(0)
    )


@pytest.mark.parametrize(
    "name",
    ["box-one+corrections-0", "box-one+corrections-2+corrections-3", "corrections-2+corrections-2"],
)
def test_wrong_corrections_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no prompt protocol"):
        parse_protocol(name)


def test_corrections_need_propagation() -> None:
    with pytest.raises(UsageError, match="carried on by propagation"):
        parse_protocol("box-every-slice+corrections-2")


@given(references, st.integers(0, 50))
@settings(max_examples=60)
def test_the_user_corrects_until_content(mask: np.ndarray, seed: int) -> None:
    protocol = parse_protocol("point-one+corrections-4+jitter-3")
    rng = generator(seed)
    given_prompts = list(protocol.prompts(mask, rng))
    empty = np.zeros_like(mask)
    for _ in range(4):
        click = protocol.correction(empty, mask, (1.0, 1.0), given_prompts, rng)
        if click is None:
            break
        given_prompts.append(click)
        check_prompts(given_prompts, mask.shape)
    assert protocol.correction(mask, mask, (1.0, 1.0), given_prompts, rng) is None
