import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import optimize

from loso.metrics import CubicMapping, map_in_sample, map_out_of_fold

# Least squares of 40 points in float64, on a variable between -1 and 1.
FLOAT64 = 1e-9

FALLING = "y_true does not rise with y_pred"


@st.composite
def points(draw):
    """Predictions of three shapes with scores that may rise, bend or fall, and noise."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(4, 40))
    pred = draw(st.sampled_from([rng.normal, rng.standard_cauchy, rng.exponential]))(size=n)
    if draw(st.booleans()):
        pred = np.round(pred * 3) / 3
    assume(len(np.unique(pred)) >= 4)
    place = 2 * (pred - pred.min()) / np.ptp(pred) - 1
    bend = rng.normal(size=4) @ np.array([place, place**2, place**3, np.sign(place)])
    return pred, bend + draw(st.sampled_from([0.01, 0.3, 3.0])) * rng.normal(size=n)


def rss(true, mapped):
    return float(np.square(mapped - true).sum()) / float(np.square(true - true.mean()).sum())


def free_cubic(pred, true):
    place = 2 * (pred - pred.min()) / np.ptp(pred) - 1
    return place, np.polyfit(place, true, 3)


# -- The cubic ------------------------------------------------------------------------------------


@given(points())
def test_it_never_falls_within_the_range_or_beyond(data):
    pred, true = data
    mapping = CubicMapping.fit(pred, true)
    around = np.linspace(pred.min() - np.ptp(pred), pred.max() + np.ptp(pred), 3001)
    assert np.diff(mapping.apply(around)).min() >= -FLOAT64 * np.ptp(true)


@given(points())
def test_no_rising_line_fits_better_and_no_cubic_worse_than_the_free_one(data):
    pred, true = data
    own = rss(true, CubicMapping.fit(pred, true).apply(pred))
    place, free = free_cubic(pred, true)
    slope, start = np.polyfit(place, true, 1)
    line = slope * place + start if slope > 0 else np.full_like(true, true.mean())
    assert own <= rss(true, line) + FLOAT64
    assert own >= rss(true, np.polyval(free, place)) - FLOAT64


@given(points())
def test_no_mixture_of_rising_cubics_fits_better(data):
    # Every rising cubic is a mixture of those with the derivatives 1 - t^2 and (t - s)^2.
    pred, true = data
    place, _ = free_cubic(pred, true)
    rays = [place - place**3 / 3, *((place - s) ** 3 / 3 for s in np.linspace(-1, 1, 201))]
    rays = np.array([ray - ray.mean() for ray in rays])
    weight, _ = optimize.nnls(rays.T, true - true.mean(), maxiter=10_000)
    mixture = rss(true, weight @ rays + true.mean())
    assert rss(true, CubicMapping.fit(pred, true).apply(pred)) <= mixture + FLOAT64


@given(st.integers(0, 2**32 - 1), st.integers(6, 40))
def test_it_is_the_free_cubic_where_that_rises(seed, n):
    rng = np.random.default_rng(seed)
    pred = 5 + 90 * np.concatenate([[0, 1], rng.uniform(0, 1, n)])
    place = pred / 45 - 10 / 9
    true = 0.4 * place + (place - rng.uniform(-1, 1)) ** 3 / 3 + rng.normal(0, 0.02, n + 2)
    _, free = free_cubic(pred, true)
    assume(np.polyval(np.polyder(free), np.linspace(-1, 1, 2001)).min() > 1e-6)
    mapping = CubicMapping.fit(pred, true)
    assert mapping.reason is None
    assert mapping.coefficients == pytest.approx(free[::-1], abs=FLOAT64)


def test_the_free_cubic_often_rises_and_often_does_not():
    # Else one of the tests above would say nothing.
    rng = np.random.default_rng(0)
    rises = []
    for _ in range(200):
        pred = rng.uniform(1, 5, 30)
        _, free = free_cubic(pred, pred + rng.normal(size=30))
        rises.append(np.polyval(np.polyder(free), np.linspace(-1, 1, 201)).min() > 0)
    assert 50 < sum(rises) < 150


@pytest.mark.parametrize(
    "cubic",
    [
        lambda t: 3 + t + 0.2 * t**2 + 0.5 * t**3,
        lambda t: 2 * (t - 0.3) ** 3,  # flat inside
        lambda t: t - t**3 / 3,  # flat at both ends
        lambda t: (1 + t) ** 2 / 2 + (1 + t) ** 3,  # flat at the lower end
        lambda t: -((1 - t) ** 2) / 2 - (1 - t) ** 3,  # and at the upper
    ],
)
def test_a_rising_cubic_is_recovered(cubic):
    place = np.linspace(-1, 1, 23)
    mapping = CubicMapping.fit(40 + 30 * place, cubic(place))
    unseen = np.linspace(-1, 1, 101)
    assert mapping.apply(40 + 30 * unseen) == pytest.approx(cubic(unseen), abs=FLOAT64)
    assert mapping.reason is None


@given(points())
def test_scores_that_fall_give_their_mean(data):
    # Chebyshev's sum inequality: no rising function fits falling scores better than a constant.
    pred, _ = data
    true = -np.arctan(pred)
    mapping = CubicMapping.fit(pred, true)
    assert mapping.coefficients == (pytest.approx(true.mean()), 0.0, 0.0, 0.0)
    assert mapping.reason == FALLING


@given(points(), st.floats(1e-3, 1e3), st.floats(-10, 10))
def test_scale_and_shift_of_predictions_do_not_matter(data, scale, shift):
    pred, true = data
    moved = scale * (pred + shift * np.ptp(pred))
    mapped = CubicMapping.fit(moved, true).apply(moved)
    # Near the rim of what rises, a last digit decides between two cubics of almost one fit.
    assert mapped == pytest.approx(CubicMapping.fit(pred, true).apply(pred), abs=1e-5)


def test_beyond_the_range_it_is_a_line_with_the_slope_of_the_end():
    place = np.linspace(-1, 1, 21)
    mapping = CubicMapping.fit(place, place**3 + place**2 + 3 * place)
    assert mapping.apply([-2.0, -1.0, 1.0, 3.0]) == pytest.approx([-7, -3, 5, 21])


@pytest.mark.parametrize(
    ("pred", "true", "mapped", "reason"),
    [
        ([5.0, 5.0, 5.0, 5.0], [1, 2, 3, 6], [3, 3, 3, 3], "y_pred is constant"),
        ([0.3, 0.1 + 0.2, 0.3, 0.3], [1, 2, 3, 6], [3, 3, 3, 3], "y_pred is constant"),
        ([7.0], [2.0], [2.0], "y_pred is constant"),
        ([1, 2, 3], [1, 2, 6], [0.5, 3, 5.5], "3 distinct predictions, four are needed"),
        ([1, 1, 2, 2], [1, 3, 4, 6], [2, 2, 5, 5], "2 distinct predictions, four are needed"),
        ([1, 2, 3], [6, 2, 1], [3, 3, 3], FALLING),
        ([1, 2, 3, 4], [2, 2, 2, 2], [2, 2, 2, 2], FALLING),
    ],
)
def test_what_allows_no_cubic_is_named(pred, true, mapped, reason):
    mapping = CubicMapping.fit(pred, true)
    assert mapping.reason == reason
    assert mapping.apply(pred) == pytest.approx(mapped)


@pytest.mark.parametrize("pred", [[0, 1e-9, 2e-9, 1], [0, 1e-15, 2e-15, 1, 1 + 1e-15]])
def test_predictions_in_two_heaps_stay_between_their_scores(pred):
    true = np.linspace(1, 5, len(pred))
    mapped = CubicMapping.fit(pred, true).apply(np.linspace(0, 1, 101))
    # A heap is 2e-9 wide, and the best cubic leans a little on that.
    assert mapped.min() >= 1 - 1e-7
    assert mapped.max() <= 5 + 1e-7


def test_what_cannot_be_mapped_is_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        CubicMapping.fit([], [])
    with pytest.raises(ValueError, match="must be finite"):
        CubicMapping.fit([1.0, np.nan], [1.0, 2.0])
    with pytest.raises(ValueError, match="y_pred must be finite"):
        CubicMapping.fit([1.0, 2.0], [1.0, 2.0]).apply([np.inf])


# -- Without the held-out source ------------------------------------------------------------------

SOURCE = np.repeat(["a", "b", "c", "d"], 9)


@pytest.fixture
def scores():
    rng = np.random.default_rng(3)
    pred = rng.uniform(20, 95, len(SOURCE))
    return 1 + 4 * (pred / 100) ** 2 + rng.normal(0, 0.3, len(SOURCE)), pred


@pytest.mark.parametrize("held_out", "abcd")
def test_a_sources_scores_have_no_part_in_its_own_mapping(scores, held_out):
    true, pred = scores
    own = held_out == SOURCE
    changed = np.where(own, 100 - true, true)
    before, after = (map_out_of_fold(y, pred, SOURCE) for y in (true, changed))
    assert before[own].tobytes() == after[own].tobytes()
    assert not np.isclose(before[~own], after[~own]).all()


def test_each_source_is_mapped_by_a_cubic_of_the_others(scores):
    true, pred = scores
    mapped = map_out_of_fold(true, pred, SOURCE)
    own = SOURCE == "c"
    assert (
        mapped[own].tolist() == CubicMapping.fit(pred[~own], true[~own]).apply(pred[own]).tolist()
    )


@given(st.integers(0, 2**32 - 1))
def test_in_sample_flatters_every_source(seed):
    # With one range of predictions, f the best on all and g on the others leave the source with
    # B(f) <= B(g), since A(f) + B(f) <= A(g) + B(g) and A(g) <= A(f).
    rng = np.random.default_rng(seed)
    pred = np.tile(np.linspace(0, 1, 9), 4)
    true = pred + rng.normal(size=36) + rng.normal(size=4).repeat(9)
    square = [
        np.square(mapped - true).reshape(4, 9).sum(axis=1)
        for mapped in (map_in_sample(true, pred), map_out_of_fold(true, pred, SOURCE))
    ]
    assert (square[0] <= square[1] + FLOAT64).all()


def test_out_of_fold_needs_a_second_source_and_a_name_for_each_row():
    with pytest.raises(ValueError, match="needs two, got 1"):
        map_out_of_fold([1, 2], [1, 2], ["a", "a"])
    with pytest.raises(ValueError, match=r"as long as y_true, got \(1,\) and \(2,\)"):
        map_out_of_fold([1, 2], [1, 2], ["a"])
