"""BD-rate and bitrate at a score: closed forms, and SciPy's interpolator."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from loso.errors import BadInput
from loso.recommend.bdrate import bd_rate, bitrate_at

rising = st.lists(st.tuples(st.integers(1, 400), st.integers(1, 900)), min_size=4, max_size=9).map(
    lambda steps: [
        (float(20 + score / 10), float(kbps)) for score, kbps in np.cumsum(steps, axis=0).tolist()
    ]
)


@given(rising, st.floats(0.1, 5))
def test_a_constant_factor_of_bitrate_is_exactly_that_bd_rate(points, factor):
    found = bd_rate(points, [(score, factor * kbps) for score, kbps in points])
    assert found.percent == pytest.approx(100 * (factor - 1), abs=1e-6)
    assert (found.low, found.high, found.overlap) == (points[0][0], points[-1][0], 1.0)


@given(rising, rising)
def test_it_is_what_scipys_pchip_gives(one, other):
    low, high = max(one[0][0], other[0][0]), min(one[-1][0], other[-1][0])
    if low >= high:
        with pytest.raises(BadInput, match=r"no score that both reach, and so no BD-rate, found "):
            bd_rate(one, other)
        return
    means = []
    for points in (one, other):
        scores, kbps = np.array(points).T
        curve = PchipInterpolator(scores, np.log(kbps))
        means.append(float(curve.integrate(low, high)) / (high - low))
    assert np.log1p(bd_rate(one, other).percent / 100) == pytest.approx(
        means[1] - means[0], rel=1e-6, abs=1e-6
    )


@given(rising, rising)
def test_the_other_way_round_it_is_the_inverse(one, other):
    try:
        there, back = bd_rate(one, other), bd_rate(other, one)
    except BadInput:
        return
    assert (1 + there.percent / 100) * (1 + back.percent / 100) == pytest.approx(1.0, rel=1e-9)


@given(rising, st.permutations(range(4)))
def test_the_order_of_points_is_irrelevant(points, order):
    shuffled = [points[at] for at in order] + points[4:]
    assert bd_rate(points, shuffled).percent == pytest.approx(0.0, abs=1e-9)


POINTS = [(60.0, 500.0), (75.0, 900.0), (88.0, 2000.0), (95.0, 5000.0)]


def test_a_point_that_a_cheaper_one_reaches_is_left_out():
    worse = [*POINTS, (74.0, 1000.0), (95.0, 6000.0)]
    assert bd_rate(POINTS, worse).percent == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(BadInput, match=r"too few points for a BD-rate, expected at least 4 .* 3"):
        bd_rate(POINTS, [*POINTS[:3], (80.0, 2500.0)])


def test_the_overlap_is_told():
    moved = [(score + 14, kbps) for score, kbps in POINTS]
    found = bd_rate(POINTS, moved)
    assert (found.low, found.high) == (74.0, 95.0)
    assert found.overlap == pytest.approx(21 / 49)


def test_the_bitrate_at_a_score_is_that_of_the_curve_and_none_beyond_it():
    assert bitrate_at(POINTS, 88.0) == pytest.approx(2000.0)
    scores, kbps = np.array(POINTS).T
    theirs = np.exp(PchipInterpolator(scores, np.log(kbps))(80.0))
    assert bitrate_at(POINTS, 80.0) == pytest.approx(float(theirs))
    assert bitrate_at(POINTS, 59.9) is None
    assert bitrate_at(POINTS, 95.1) is None
    assert bitrate_at([], 80.0) is None
