import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from napari_lungfm.geometry import Structure, reorient, to_axial
from napari_lungfm.training.automatic.cohort_check import CohortError
from napari_lungfm.training.finetune.samples import ClipSource, FixedClips, cut_clip, refuse_short

BOTH = ("tumour", "right lung")


def drawn(source, epoch=0):
    return [source[epoch, number] for number in range(len(source))]


def places(clips):
    return [(clip.case, clip.structure, clip.slices.start) for clip in clips]


def test_a_clip_is_a_part_of_its_case(stored, make_source):
    cases = stored("a", "b")
    for clip in drawn(ClipSource(cases, BOTH, 3, seed=0, per_epoch=12)):
        case = make_source(clip.case).load()
        part = slice(clip.slices.start, clip.slices.stop)
        assert clip.image.dtype == np.int16
        assert np.array_equal(clip.image, case.volume.array[part])
        label = int(Structure.from_title(clip.structure))
        assert np.array_equal(clip.mask, case.reference.mask(label)[part])
        assert clip.mask.any()
        assert clip.spacing == (3.0, 1.0, 1.5)
        assert len(clip.slices) == 3


def test_cases_with_other_axes_are_turned_to_axial_slices(make_source, stored):
    def swapped(name, **changes):
        from dataclasses import replace

        case = make_source(name).load()
        turned = [reorient(image, "RAI") for image in (case.volume, case.reference)]
        return replace(case, volume=turned[0], reference=turned[1])

    plain, turned = stored("a", make_source("b"))[0], stored("c", make_source("a", swapped))[1]
    case = to_axial(make_source("a").load().volume)
    for each in (plain, turned):
        assert np.array_equal(each.voxels, case.array)
        assert each.spacing == case.spacing
    assert plain.image == turned.image
    clips = [cut_clip(each, "tumour", range(1, 4)) for each in (plain, turned)]
    assert np.array_equal(clips[0].mask, clips[1].mask)


def test_cases_are_read_once_and_mapped(stored, make_cohort, tmp_path, monkeypatch):
    first = stored("a", "b")
    monkeypatch.setattr(type(make_cohort("a").train[0]), "load", lambda self: 1 / 0)
    assert stored("a", "b") == first
    assert isinstance(first[0].voxels, np.memmap)
    assert isinstance(first[0].labels, np.memmap)


def test_clips_depend_on_seed_epoch_and_number_alone(stored):
    cases = stored("a", "b")
    source, again = (ClipSource(cases, BOTH, 2, seed=3, per_epoch=8) for _ in range(2))
    backwards = [again[1, number] for number in reversed(range(8))][::-1]
    assert places(drawn(source, 1)) == places(backwards)
    assert places(drawn(source, 0)) != places(drawn(source, 1))
    other = ClipSource(cases, BOTH, 2, seed=4, per_epoch=8)
    assert places(drawn(other)) != places(drawn(source))
    # Workers get a copy.
    assert places(drawn(pickle.loads(pickle.dumps(source)))) == places(drawn(source))


def test_every_case_comes_up_once_before_any_comes_up_twice(stored):
    source = ClipSource(stored("a", "b", "c"), ("tumour",), 2, seed=0, per_epoch=5)
    names = [clip.case for epoch in range(6) for clip in drawn(source, epoch)]
    for turn in range(0, 30, 3):
        assert sorted(names[turn : turn + 3]) == ["a", "b", "c"]


def test_every_slice_with_a_structure_comes_up_once_an_epoch(stored, make_source):
    cases = stored("a", "b")
    source = ClipSource(cases, ("tumour",), 1, seed=0, turn="slices")
    wanted = {
        (name, int(z))
        for name in ("a", "b")
        for z in np.flatnonzero(make_source(name).load().reference.mask(3).any(axis=(1, 2)))
    }
    for epoch in range(2):
        clips = drawn(source, epoch)
        assert sorted((c.case, c.slices.start) for c in clips) == sorted(wanted)
    # With two structures each slice still comes up once, with one of them.
    both = drawn(ClipSource(cases, BOTH, 1, seed=0, turn="slices"))
    assert len(both) == sum(case.depth for case in cases)
    assert {clip.structure for clip in both} == set(BOTH)


def test_slices_with_too_few_pixels_do_not_count(stored):
    cases = stored("a", "b", b={"radius": 3})
    areas = cases[0].areas["tumour"]
    assert areas == tuple(int((cases[0].labels[z] == 3).sum()) for z in range(cases[0].depth))
    source = ClipSource(cases, ("tumour",), 1, seed=0, turn="slices", least_pixels=60)
    assert source.left_out == ("b",)
    assert {c.slices.start for c in drawn(source)} == {
        z for z, pixels in enumerate(areas) if pixels >= 60
    }
    with pytest.raises(CohortError, match="no case has a slice with 9999 pixels of tumour"):
        ClipSource(cases, ("tumour",), 1, seed=0, least_pixels=9999)


def test_a_clip_longer_than_a_case_is_refused_by_name(stored):
    with pytest.raises(CohortError, match=r"case 'a' has 6 slices, .*a clip needs 8"):
        ClipSource(stored("a", "b"), ("tumour",), 8, seed=0)


def test_what_cannot_be_learnt_from_is_refused_by_name(stored):
    with pytest.raises(CohortError, match="case 'b': the reference has no tumour"):
        stored("a", "b", b={"without": (3,)})


def test_validation_clips_are_the_same_in_every_epoch(stored):
    cases = stored("a", "b")
    seen = []

    def prepare(clip, rng):
        seen.append(float(rng.random()))
        return clip

    clips = FixedClips(cases, BOTH, 3, seed=0, count=2, prepare=[prepare])
    assert len(clips) == 2 * 2 * 2
    assert places(drawn(clips, 0)) == places(drawn(clips, 7))
    assert seen[:8] == seen[8:]
    assert all(clip.mask.any() for clip in drawn(clips))


def test_every_validation_clip_comes_up_in_every_way_with_the_same_draws(stored):
    def one(clip, rng):
        return "one", clip.case, clip.slices.start, rng.random()

    def other(clip, rng):
        return "other", clip.case, clip.slices.start, rng.random()

    clips = FixedClips(stored("a", "b"), ("tumour",), 2, seed=0, count=2, prepare=[one, other])
    made = drawn(clips)
    assert len(made) == 2 * 2 * 2
    assert [each[0] for each in made] == ["one", "other"] * 4
    assert [each[1:] for each in made[::2]] == [each[1:] for each in made[1::2]]


@pytest.mark.parametrize("turn", ["cases", "slices"])
def test_short_epochs_have_the_samples_of_a_long_one_in_the_same_order(stored, turn):
    def made(per_epoch, epochs):
        source = ClipSource(stored("a", "b"), BOTH, 2, seed=0, per_epoch=per_epoch, turn=turn)
        return places([clip for epoch in range(epochs) for clip in drawn(source, epoch)])

    assert made(18, 1) == made(3, 6)


@pytest.mark.parametrize("length", [1, 3])
def test_it_is_known_which_slices_can_come_up(stored, length):
    cases = stored("a", "b")
    source = ClipSource(cases, ("tumour",), length, seed=0, per_epoch=40)
    seen = {
        (clip.case, z) for epoch in range(3) for clip in drawn(source, epoch) for z in clip.slices
    }
    assert seen == source.reach()
    fixed = FixedClips(cases, ("tumour",), length, seed=0, count=2)
    assert {(clip.case, z) for clip in drawn(fixed) for z in clip.slices} == fixed.reach()
    assert fixed.reach() <= source.reach()


def test_what_is_prepared_gets_a_generator_of_its_own(stored):
    draws = ClipSource(
        stored("a", "b"),
        ("tumour",),
        1,
        seed=0,
        per_epoch=6,
        prepare=lambda clip, rng: rng.random(),
    )
    values = drawn(draws)
    assert len(set(values)) == 6
    assert drawn(draws) == values


def test_every_short_case_is_named_wherever_the_split_puts_it() -> None:
    depths = {"a": 3, "b": 9, "c": 4}
    cases = [SimpleNamespace(name=name, depth=depth) for name, depth in depths.items()]
    with pytest.raises(
        CohortError, match="case 'a' has 3 slices, 'c' has 4 slices, a clip needs 5"
    ):
        refuse_short(cases, 5)
    refuse_short(cases, 3)
