import numpy as np
import pytest
from sklearn.linear_model import Ridge

from loso.ridge import PENALTIES, ridge_out_of_fold

EQUAL = 1e-8
"""Two ways to solve one ill-conditioned system: 1e-16 x its condition, at most 1e-5 of penalty."""


def made_up(n_sources=5, seed=0):
    """Inputs of unlike scale, two of them nearly one, a one-hot of which one source has its own."""
    random = np.random.default_rng(seed)
    source = np.repeat([f"s{i}" for i in range(n_sources)], random.integers(9, 20, n_sources))
    n = len(source)
    x = random.normal([0.9, 30.0, -4.0], [0.02, 10.0, 1.0], (n, 3))
    one_hot = np.eye(3)[np.where(source == "s1", 2, random.integers(0, 2, n))]
    matrix = np.column_stack([x, x[:, 0] + 1e-4 * random.normal(size=n), one_hot, np.full(n, 0.1)])
    of_source = random.normal(0, 0.3, n_sources)[np.unique(source, return_inverse=True)[1]]
    target = 20 * x[:, 0] + 0.05 * x[:, 1] + one_hot[:, 0] + of_source + random.normal(0, 0.3, n)
    return matrix, target, source


def by_sklearn(matrix, target, train, held_out, penalty):
    mean, std = matrix[train].mean(axis=0), matrix[train].std(axis=0)
    std[std < 1e-8] = 1.0
    model = Ridge(alpha=penalty * train.sum(), solver="svd")
    model.fit((matrix[train] - mean) / std, target[train])
    return model.predict((matrix[held_out] - mean) / std)


def nested(matrix, target, source):
    """Predictions and penalties by plain loops over rows."""
    y_pred, chosen = np.empty(len(target)), []
    for own in np.unique(source):
        squares = []
        for penalty in PENALTIES:
            errors = []
            for inner in set(source) - {own}:
                train = ~np.isin(source, (own, inner))
                held_out = source == inner
                found = by_sklearn(matrix, target, train, held_out, penalty)
                errors.append(np.square(found - target[held_out]).sum())
            squares.append(sum(errors))
        chosen.append(PENALTIES[int(np.argmin(squares))])
        of_own = source == own
        y_pred[of_own] = by_sklearn(matrix, target, ~of_own, of_own, chosen[-1])
    return y_pred, tuple(chosen)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_ridge_of_a_nested_loop(seed):
    data = made_up(seed=seed)
    y_pred, penalty = nested(*data)
    found = ridge_out_of_fold(*data)
    assert found.penalty == penalty
    assert found.y_pred == pytest.approx(y_pred, rel=EQUAL, abs=EQUAL)


def test_penalties_differ_between_folds_and_corpora():
    chosen = {ridge_out_of_fold(*made_up(seed=seed)).penalty for seed in range(6)}
    assert len({penalty for of_folds in chosen for penalty in of_folds}) > 2
    assert any(len(set(of_folds)) > 1 for of_folds in chosen)


def test_with_two_sources_the_penalty_is_a_constant():
    matrix, target, source = made_up(2)
    found = ridge_out_of_fold(matrix, target, source)
    assert found.penalty == (0.01, 0.01)
    for own in ("s0", "s1"):
        of_own = source == own
        expected = by_sklearn(matrix, target, ~of_own, of_own, 0.01)
        assert found.y_pred[of_own] == pytest.approx(expected, rel=EQUAL)


def test_a_held_out_source_has_no_part_in_its_predictions():
    """Not even in their last digit; those of the others change."""
    matrix, target, source = made_up()
    before = ridge_out_of_fold(matrix, target, source)
    for own in np.unique(source):
        of_own = source == own
        changed = np.where(of_own, 1e3 - target**2, target)
        after = ridge_out_of_fold(matrix, changed, source)
        assert np.array_equal(after.y_pred[of_own], before.y_pred[of_own])
        assert not (after.y_pred[~of_own] == before.y_pred[~of_own]).any()
        moved = np.where(of_own[:, None], 7.0 * matrix + 3.0, matrix)
        moved[np.flatnonzero(of_own)[0]] = matrix[of_own][0]
        first = np.flatnonzero(of_own)[0]
        assert ridge_out_of_fold(moved, target, source).y_pred[first] == before.y_pred[first]


def test_large_offsets_do_not_cost_digits():
    matrix, target, source = made_up()
    before = ridge_out_of_fold(matrix, target, source)
    after = ridge_out_of_fold(matrix + 1e4, target + 1e4, source)
    assert after.y_pred - 1e4 == pytest.approx(before.y_pred, abs=1e-5)


def test_one_source_is_refused():
    with pytest.raises(ValueError, match="ridge without the held-out source needs two, got 1"):
        ridge_out_of_fold(np.ones((3, 1)), [1, 2, 3], ["a"] * 3)
