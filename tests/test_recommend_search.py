"""The search alone, on curves that are known: what it finds, and at what cost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loso.errors import BadSettings
from loso.recommend.judge import MetricJudge
from loso.recommend.question import Question
from loso.recommend.scale import scale_of
from loso.recommend.search import Bracket, bracket_of, next_setting, predicted
from loso.video.encoders import ENCODERS

ROUNDING = 1e-4
"""Of a step: settings have nine digits, and one that is within a millionth of the last is it."""
PRIOR = MetricJudge("vmaf", "mean").prior


def usual(settings):
    return PRIOR(np.linspace(0, 1, settings))


def search(truth, target, *, most=99, known=()):
    """The scores that a search asks for, in its order, on settings that score `truth`."""
    scores = {at: truth[at] for at in known}
    known = tuple(scores)
    while len(scores) - len(known) < most:
        made = len(scores) - len(known)
        place = next_setting(scores, target, usual(len(truth)), made=made)
        if place is None:
            break
        assert place not in scores
        scores[place] = truth[place]
    return scores


def contents(settings, count, seed=0):
    """Made-up scores of `count` contents: the usual curve moved, stretched and capped."""
    random = np.random.default_rng(seed)
    places = np.linspace(0, 1, settings)
    for _ in range(count):
        moved = (places - 0.5) * np.exp(random.normal(0, 0.25)) + 0.5 + random.normal(0, 0.12)
        yield PRIOR(np.clip(moved, 0, 1)) * random.uniform(0.96, 1.0)


falling_scores = st.lists(st.floats(0, 100), min_size=2, max_size=60).map(
    lambda scores: np.sort(scores)[::-1]
)


@given(falling_scores, st.floats(1, 99))
def test_where_scores_fall_it_finds_the_cheapest_that_meets_the_target(truth, target):
    found = bracket_of(search(truth, target), target, len(truth))
    assert found.settled
    assert found.meets == np.sum(truth >= target) - 1


@given(st.lists(st.floats(0, 100), min_size=2, max_size=60), st.floats(1, 99))
def test_whatever_the_scores_it_ends_on_a_setting_that_meets_beside_one_that_misses(truth, target):
    found = bracket_of(search(truth, target), target, len(truth))
    assert found.settled
    assert found.meets == -1 or truth[found.meets] >= target
    assert found.misses == len(truth) or truth[found.misses] < target


@given(falling_scores, st.floats(1, 99), st.data())
def test_what_is_known_already_is_never_asked_again_and_changes_no_answer(truth, target, data):
    known = data.draw(st.lists(st.integers(0, len(truth) - 1), unique=True))
    found = bracket_of(search(truth, target, known=known), target, len(truth))
    assert found == bracket_of(search(truth, target), target, len(truth))


def test_a_settled_question_asks_nothing():
    assert next_setting({30: 92.5, 31: 91.8}, 92, usual(52), made=2) is None


def test_what_other_questions_left_just_below_the_target_does_not_send_it_to_the_end():
    scores = {36: 87.0, 35: 88.1, 34: 89.0}
    assert next_setting(scores, 90.0, usual(52), made=0) in {32, 33}
    assert next_setting(scores, 90.0, usual(52), made=3) == 0
    assert next_setting({at - 30: 95.0 for at in scores}, 90.0, usual(52), made=3) == 51


def test_whole_steps_are_settled_by_fewer_encodes_than_bisection_of_the_scale_takes():
    counts = [len(search(truth, target)) for truth in contents(52, 200) for target in (95, 90, 80)]
    assert np.median(counts) <= 4  # bisection of 52 settings takes 6
    assert np.percentile(counts, 99) <= 8


def test_six_encodes_leave_a_median_waste_of_no_step_at_all():
    waste = []
    for truth in contents(205, 200):
        for target in (95, 90, 80):
            found = bracket_of(search(truth, target, most=6), target, 205)
            if found.meets >= 0:
                waste.append(np.sum(truth >= target) - 1 - found.meets)
    assert np.median(waste) == 0
    assert np.percentile(waste, 95) <= 4  # of a quarter of a step each


def test_a_target_that_nothing_reaches_is_settled_at_the_best_setting():
    scores = search(np.linspace(90, 20, 52), 95)
    assert bracket_of(scores, 95, 52) == Bracket(-1, 0)
    assert len(scores) <= 4


def test_a_target_that_everything_reaches_is_settled_at_the_cheapest():
    scores = search(np.linspace(99, 60, 52), 50)
    assert bracket_of(scores, 50, 52) == Bracket(51, 52)
    assert len(scores) <= 4


def test_beyond_the_probes_the_usual_curve_is_moved_until_it_passes_through_them():
    thought = predicted({26: 80.0}, usual(53))
    places = np.linspace(0, 1, 53)
    on_it = places + 0.15 <= 1.0
    np.testing.assert_allclose(thought[on_it], PRIOR(places[on_it] + 0.15), atol=0.5)
    assert thought[26] == pytest.approx(80.0, abs=1e-9)
    assert thought[-1] < PRIOR([1.0])[0]  # it goes on in a line
    assert (np.diff(thought) <= 0).all()


# -- Settings -------------------------------------------------------------------------------------


def test_settings_stand_a_step_apart_best_first():
    av1 = scale_of(ENCODERS["libsvtav1"])
    assert [rate.value for rate in av1.rates] == list(range(4, 64))  # not those that break
    fine = scale_of(ENCODERS["libx265"])
    assert (len(fine), fine.rates[1].number, fine.rates[-1].number) == (205, "0.25", "51")


@pytest.mark.parametrize(
    ("encoder", "step", "expected"),
    [
        ("libx264", 25, ["0", "25", "50", "51"]),
        ("libx264", 17, ["0", "17", "34", "51"]),
        ("libx264", 51 / 7 - 1e-9, ["0", *(f"{51 / 7 * n:.9g}" for n in range(1, 7)), "51"]),
        ("libsvtav1", 40, ["4", "44", "63"]),
        ("hevc_videotoolbox", 40, ["100", "60", "20", "1"]),
        ("hevc_videotoolbox", 33, ["100", "67", "34", "1"]),
        ("hevc_videotoolbox", 99, ["100", "1"]),
    ],
)
def test_a_step_that_does_not_divide_the_scale_leaves_neither_end_out(encoder, step, expected):
    scale = scale_of(ENCODERS[encoder], step)
    assert [f"{rate.value:.9g}" for rate in scale.rates] == expected


@given(st.sampled_from(sorted(ENCODERS)), st.data())
def test_whatever_the_step_a_scale_goes_from_its_best_to_its_cheapest(name, data):
    encoder, whole = ENCODERS[name], scale_of(ENCODERS[name])
    ends = [rate.value for rate in (whole.rates[0], whole.rates[-1])]
    width = abs(ends[1] - ends[0])
    step = data.draw(
        st.integers(1, int(width)) if encoder.whole_quality else st.floats(0.01, width), "step"
    )
    scale = scale_of(encoder, step)
    assert [rate.value for rate in (scale.rates[0], scale.rates[-1])] == ends
    steps = np.diff(scale.cq)
    np.testing.assert_allclose(steps[:-1], step, atol=ROUNDING)
    assert 0 < steps[-1] <= step + ROUNDING


def test_a_last_step_that_is_shorter_is_a_shorter_way_on_the_usual_curve():
    places = scale_of(ENCODERS["libx264"], 25).usual_places
    np.testing.assert_allclose(places, np.array([0, 25, 50, 51]) / 51)


def test_a_reversed_scale_is_turned_round():
    scale = scale_of(ENCODERS["hevc_videotoolbox"])
    assert (scale.rates[0].value, scale.rates[-1].value) == (100, 1)
    assert (np.diff(scale.cq) == 1).all()


@pytest.mark.parametrize(
    ("encoder", "step", "text"),
    [
        ("libsvtav1", 0.5, "libsvtav1: --step does not fit this encoder, expected a whole number"),
        ("libx264", 0.0, "expected a number in 0.01..51, found 0"),
        ("libx264", float("nan"), "found nan"),
        ("libx264", 52.0, "found 52"),
    ],
)
def test_a_step_that_does_not_fit_is_refused(encoder, step, text):
    with pytest.raises(BadSettings, match=text):
        scale_of(ENCODERS[encoder], step)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"targets": (float("inf"),)}, "--target must be a number, found inf"),
        ({"pool": "hmeen"}, "--pool: no such way to pool .* did you mean hmean?"),
        ({"max_encodes": 0}, "--max-encodes must be at least 1, found 0"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(asked, text):
    with pytest.raises(BadSettings, match=text):
        Question(**({"targets": (90.0,)} | asked))


@pytest.mark.parametrize("target", [0.0, 100.5])
def test_a_target_that_is_no_vmaf_is_refused(target):
    with pytest.raises(BadSettings, match="no clip can be held to that vmaf, expected above 0"):
        MetricJudge("vmaf", "mean").refuse_target(target)
