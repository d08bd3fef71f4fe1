import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loso.recommend.hull import convex_hull

points = st.lists(
    st.tuples(st.integers(1, 400), st.integers(0, 100)).map(lambda p: (float(p[0]), float(p[1]))),
    min_size=1,
    max_size=30,
)


@given(points)
def test_no_point_lies_above_the_hull_and_its_slope_falls(points):
    hull = np.array([points[at] for at in convex_hull(points)])
    x, y = hull.T
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) > 0).all()
    slopes = np.diff(y) / np.diff(x)
    assert (np.diff(slopes) < 0).all()
    for kbps, score in points:
        if kbps >= x[0]:  # beyond its end it stays level
            assert score <= np.interp(kbps, x, y) + 1e-9


@given(points)
def test_it_begins_at_the_cheapest_and_ends_at_the_best(points):
    hull = [points[at] for at in convex_hull(points)]
    assert hull[0][0] == min(kbps for kbps, _ in points)
    assert hull[-1][1] == max(score for _, score in points)


def test_scipy_finds_the_same_corners():
    from scipy.spatial import ConvexHull

    random = np.random.default_rng(3)
    cloud = np.column_stack([random.uniform(100, 900, 40), random.uniform(20, 95, 40)])
    ours = set(convex_hull([tuple(point) for point in cloud]))
    corners = set(ConvexHull(cloud).vertices.tolist())
    best, cheapest = int(cloud[:, 1].argmax()), int(cloud[:, 0].argmin())
    slope = (cloud[best, 1] - cloud[cheapest, 1]) / (cloud[best, 0] - cloud[cheapest, 0])
    line = cloud[cheapest, 1] + slope * (cloud[:, 0] - cloud[cheapest, 0])
    above = {at for at in corners if cloud[at, 1] > line[at] and cloud[at, 0] <= cloud[best, 0]}
    assert ours == above | {best, cheapest}


def test_of_one_point_it_is_that_point():
    assert convex_hull([(5.0, 1.0)]) == (0,)
    assert convex_hull([(5.0, 1.0), (5.0, 2.0)]) == (1,)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_order_of_points_is_irrelevant(order):
    made = [(100.0, 50.0), (200.0, 80.0), (300.0, 85.0)]
    assert {order[at] for at in convex_hull([made[at] for at in order])} == {0, 1, 2}
