import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from loso.engine.counter import (
    Purpose,
    dropout_bits,
    fold_in,
    keep_threshold,
    member_key,
    shuffled,
)

PINNED_ORDER = [2, 5, 3, 9, 4, 0, 1, 8, 7, 6]
PINNED_BITS = [35435, 7355, 63037, 9364, 26584, 6906]
SURE = 1e-6  # a fair generator fails such a test once in a million keys, and the keys are fixed


def order(seed, size, epoch=0):
    key = fold_in(member_key(seed, 0, Purpose.ORDER), epoch)
    return shuffled(key, np.array([size]), np.arange(size))


@given(st.integers(0, 2**31), st.integers(1, 3000))
def test_every_order_is_a_permutation(seed, size):
    assert np.array_equal(np.sort(order(seed, size)), np.arange(size))


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_every_permutation_is_equally_likely(size):
    keys = fold_in(member_key(0, 0, Purpose.ORDER), np.arange(20_000))[:, None]
    orders = shuffled(keys, np.array([[size]]), np.arange(size))
    codes, counts = np.unique(orders @ size ** np.arange(size), return_counts=True)
    assert len(codes) == np.prod(np.arange(1, size + 1))
    assert stats.chisquare(counts).pvalue > SURE


def test_each_place_is_equally_likely_for_each_sample():
    size, draws = 300, 3000
    keys = fold_in(member_key(1, 0, Purpose.ORDER), np.arange(draws))[:, None]
    orders = shuffled(keys, np.array([[size]]), np.arange(size))
    counts = np.stack([np.bincount(orders[:, i], minlength=size) for i in range(size)])
    statistic = np.square(counts - draws / size).sum() / (draws / size)
    assert stats.chi2.sf(statistic, (size - 1) ** 2) > SURE


def test_asking_for_one_place_gives_the_same_as_asking_for_all():
    whole = order(3, 777)
    key = fold_in(member_key(3, 0, Purpose.ORDER), 0)
    assert [int(shuffled(key, np.array([777]), np.array([i]))[0]) for i in (0, 5, 776)] == (
        whole[[0, 5, 776]].tolist()
    )


def test_seed_epoch_and_purpose_each_change_the_order():
    base = order(0, 500)
    assert (base == order(1, 500)).mean() < 0.05
    assert (base == order(0, 500, epoch=1)).mean() < 0.05
    other = shuffled(member_key(0, 0, Purpose.DROPOUT), np.array([500]), np.arange(500))
    assert (base == other).mean() < 0.05


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5, 0.9])
def test_share_kept_is_binomial(dropout):
    keys = fold_in(member_key(0, 0, Purpose.DROPOUT), np.arange(2000))
    kept = dropout_bits(keys, 64, 32) < keep_threshold(dropout)
    # The threshold itself is rounded to 1/65536: 4e6 bits could just notice, so count with it.
    expected = keep_threshold(dropout) / 65536
    assert expected == pytest.approx(1 - dropout, abs=1 / 131072)
    assert stats.binomtest(int(kept.sum()), kept.size, expected).pvalue > SURE


@pytest.mark.parametrize("shift", ["step", "unit", "sample", "half"])
def test_neighbouring_bits_are_independent(shift):
    keys = fold_in(member_key(5, 2, Purpose.DROPOUT), np.arange(2000))
    bits = dropout_bits(keys, 64, 32).astype(float)
    one, other = {
        "step": (bits[1:], bits[:-1]),
        "unit": (bits[:, 1:], bits[:, :-1]),
        "sample": (bits[:, :, 1:], bits[:, :, :-1]),
        "half": (bits[:, :, 16:], bits[:, :, :16]),
    }[shift]
    correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    assert abs(correlation) < 5 / np.sqrt(one.size)


def test_bits_of_a_sample_do_not_depend_on_how_many_are_asked():
    keys = fold_in(member_key(0, 0, Purpose.DROPOUT), np.arange(3))
    few, many = dropout_bits(keys, 5, 7), dropout_bits(keys, 5, 32)
    assert np.array_equal(few, many[:, :, :7])


def test_pinned_values():
    """What trained weights depend on: a change here changes every model."""
    assert order(0, 10).tolist() == PINNED_ORDER
    bits = dropout_bits(fold_in(member_key(0, 0, Purpose.DROPOUT), 0), 2, 3)
    assert bits.ravel().tolist() == PINNED_BITS
