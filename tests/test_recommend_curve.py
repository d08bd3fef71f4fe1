"""The curve through probes: isotonic, then PCHIP, each held to SciPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression

from loso.recommend.curve import Curve, falling, isotonic

ROUNDING = 1e-9  # relative, of sums of a few dozen float64

points = st.lists(
    st.tuples(st.integers(0, 200), st.floats(-100, 100).map(lambda v: round(v, 3))),
    min_size=2,
    max_size=12,
    unique_by=lambda point: point[0],
)


def curves(given_points):
    x, y = np.array(sorted(given_points), dtype=float).T
    return Curve(x, y), PchipInterpolator(x, y)


@given(points)
def test_between_points_it_is_scipys_pchip(given_points):
    own, theirs = curves(given_points)
    at = np.linspace(own.x[0], own.x[-1], 101)
    np.testing.assert_allclose(own(at), theirs(at), rtol=ROUNDING, atol=1e-7)


@given(points, st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_its_integral_is_scipys(given_points, ends):
    own, theirs = curves(given_points)
    low, high = own.x[0] + np.sort(ends) * (own.x[-1] - own.x[0])
    assert own.integral(low, high) == pytest.approx(
        float(theirs.integrate(low, high)), rel=ROUNDING, abs=1e-6
    )


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=20))
def test_pooling_is_scipys_isotonic_regression(values):
    theirs = isotonic_regression(values, increasing=False).x
    np.testing.assert_allclose(isotonic(values), theirs, atol=1e-9)


@given(points)
def test_a_falling_curve_never_rises_whatever_was_measured(given_points):
    curve = falling(given_points)
    at = np.linspace(curve.x[0], curve.x[-1], 301)
    assert (np.diff(curve(at)) <= 1e-9).all()


@given(points)
def test_the_order_of_points_is_irrelevant(given_points):
    at = np.linspace(0, 200, 50)
    np.testing.assert_array_equal(falling(given_points)(at), falling(given_points[::-1])(at))


def test_points_that_fall_already_stay_as_they_are():
    curve = falling([(20, 96.0), (30, 84.0), (40, 60.0)])
    assert curve([20, 30, 40]).tolist() == [96.0, 84.0, 60.0]


def test_beyond_its_ends_it_stays_as_it_is_there():
    assert falling([(20, 96.0), (40, 60.0)])([0, 60]).tolist() == [96.0, 60.0]
    assert falling([(20, 96.0)])([0, 20, 60]).tolist() == [96.0] * 3
