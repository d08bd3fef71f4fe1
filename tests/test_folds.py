from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.model_selection import LeaveOneGroupOut

from loso.errors import BadCorpus
from loso.folds import leave_one_source_out, leave_two_sources_out

names = st.lists(st.sampled_from(["b", "a", "source 3", "Z", "é", "aa"]), min_size=2, max_size=60)


@given(names)
def test_folds_are_disjoint_cover_each_row_once_and_never_split_a_source(source):
    assume(len(set(source)) > 1)
    folds = leave_one_source_out(source)
    assert [fold.held_out for fold in folds] == sorted(set(source))
    assert [fold.index for fold in folds] == list(range(len(folds)))
    covered = np.concatenate([fold.test for fold in folds])
    assert sorted(covered) == list(range(len(source)))
    for fold in folds:
        assert not set(fold.train) & set(fold.test)
        assert len(fold.train) + len(fold.test) == len(source)
        assert {source[i] for i in fold.test} == {fold.held_out}
        assert fold.held_out not in {source[i] for i in fold.train}


@given(names)
def test_folds_equal_scikit_learn(source):
    assume(len(set(source)) > 1)
    theirs = list(LeaveOneGroupOut().split(source, groups=source))
    ours = leave_one_source_out(source)
    assert len(ours) == len(theirs)
    for fold, (train, test) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(fold.train, train)
        np.testing.assert_array_equal(fold.test, test)


@pytest.mark.parametrize(("source", "found"), [(["a", "a"], r"1 \(a\)"), ([], r"0 \(no rows\)")])
def test_one_source_is_refused(source, found):
    with pytest.raises(BadCorpus, match=rf"needs two sources, found {found}; add rows"):
        leave_one_source_out(source)


@given(names)
def test_a_fold_without_two_sources_has_just_their_rows_unseen(source):
    named = sorted(set(source))
    pairs = list(combinations(range(len(named)), 2))
    folds = leave_two_sources_out(source, pairs)
    for (one, two), fold in zip(pairs, folds, strict=True):
        unseen = [i for i, name in enumerate(source) if name in {named[one], named[two]}]
        assert fold.test.tolist() == unseen
        assert fold.train.tolist() == sorted(set(range(len(source))) - set(unseen))
        assert fold.held_out == f"{named[one]} and {named[two]}"


def test_a_pair_has_one_address_whoever_asks_and_none_of_a_single_fold():
    source = list("abcde")
    folds = leave_two_sources_out(source, combinations(range(5), 2))
    assert [fold.index for fold in folds] == list(range(5, 15))
    (alone,) = leave_two_sources_out(source, [(1, 3)])
    assert alone.index == next(f.index for f in folds if f.held_out == "b and d")
