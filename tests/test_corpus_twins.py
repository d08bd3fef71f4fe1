import json
from itertools import combinations

import numpy as np
import polars as pl
import pytest

from loso.corpus import twins
from loso.corpus.check import describe_corpus
from loso.corpus.load import load_corpus
from loso.corpus.twins import find_twins, twin_warnings
from loso.data import demo_corpus_path
from loso.pipeline import open_for_training
from loso.recipe import InputSpec, Recipe, TrainingNeeds

FLOAT64 = 1e-9
"""Error of a correlation computed from sums, of numbers whose mean was taken out before."""


def film(seed, frames=60):
    """Motion of a content of its own: a smooth course with noise and a cut; frame 0 is still."""
    random = np.random.default_rng(seed)
    course = np.exp(np.cumsum(random.normal(0, 0.15, frames)) + random.normal(0, 0.1, frames))
    course[random.integers(5, frames)] *= 4
    course[0] = 0.0
    return course


def rows_of(motions, **columns):
    """Rows of sources by name, each with its motion from frame 0 on."""
    return pl.concat(
        pl.DataFrame({"src": src, "motion2": motion}, schema_overrides={"motion2": pl.Float64})
        .with_row_index("frame_index")
        .with_columns(pl.col("frame_index").cast(pl.Int64), **columns)
        for src, motion in motions.items()
    )


def noisy(motion, spread=0.03, seed=9):
    return motion * np.exp(np.random.default_rng(seed).normal(0, spread, len(motion)))


def pairs(rows):
    return [(found.one, found.other) for found in find_twins(rows)]


# -- What is found --------------------------------------------------------------------------------


def test_the_correlation_is_that_of_numpy_over_the_frames_that_both_have():
    cat = film(1)
    rows = rows_of({"cat": cat, "dog": film(2), "katze": noisy(cat), "owl": film(3)})
    rows = rows.filter(
        ~((pl.col("src") == "cat") & pl.col("frame_index").is_in([7, 30]))
        & ~((pl.col("src") == "katze") & (pl.col("frame_index") > 50))
    )
    (found,) = find_twins(rows)
    both = [at for at in range(1, 51) if at not in (7, 30)]
    one, other = (np.log(motion[both] + 0.1) for motion in (cat, noisy(cat)))
    assert (found.one, found.other, found.frames) == ("cat", "katze", len(both))
    assert found.correlation == pytest.approx(np.corrcoef(one, other)[0, 1], abs=FLOAT64)


def test_every_pair_agrees_with_numpy_whatever_the_blocks(monkeypatch):
    monkeypatch.setattr(twins, "_BLOCK", 3)
    films = {f"{seed}": film(seed) for seed in range(6)}
    for seed in range(4):
        # From copies that differ in nothing to copies that nobody would take for one.
        films[f"{seed} again"] = noisy(films[f"{seed}"] * 2, spread=[0, 0.05, 0.19, 0.4][seed])
    expected = []
    for a, b in combinations(sorted(films), 2):
        one, other = (np.log(films[name][1:] + 0.1) for name in (a, b))
        if np.corrcoef(one, other)[0, 1] >= 0.95 and np.std(one - other) <= 0.2:
            expected.append((a, b))
    found = pairs(rows_of(films))
    assert found == expected
    assert {("0", "0 again"), ("1", "1 again")} <= set(found)
    assert ("3", "3 again") not in found


def test_another_resolution_multiplies_motion_and_is_found():
    rows = rows_of({"big": film(1), "small": 0.6 * noisy(film(1)), "dog": film(2)})
    assert pairs(rows) == [("big", "small")]


def test_three_names_of_one_film_are_three_pairs():
    rows = rows_of({name: noisy(film(1), seed=at) for at, name in enumerate("cab")})
    assert pairs(rows) == [("a", "b"), ("a", "c"), ("b", "c")]


def test_motion_is_the_mean_over_the_encodes_of_a_source():
    low, high = (
        rows_of({"cat": film(1) * by, "katze": film(1)}, cq=pl.lit(cq))
        for by, cq in ((0.5, 1), (1.5, 2))
    )
    (found,) = find_twins(pl.concat([low, high]))
    assert found.correlation == pytest.approx(1, abs=FLOAT64)


# -- What is not ----------------------------------------------------------------------------------


def test_different_contents_are_not_twins():
    assert find_twins(rows_of({str(seed): film(seed) for seed in range(40)})) == ()


def test_the_sources_of_the_demo_corpus_are_not_twins():
    assert find_twins(load_corpus(demo_corpus_path()).rows) == ()


def test_one_cut_at_the_same_frame_makes_no_twins():
    random = np.random.default_rng(0)
    one, other = np.exp(random.normal(0, 0.3, (2, 60)))
    one[30] = other[30] = 100.0
    assert np.corrcoef(one, other)[0, 1] > 0.99  # what motion itself would have said
    assert find_twins(rows_of({"one": one, "other": other})) == ()


def test_motion_together_of_another_size_is_no_twin():
    # A correlation of 1 alone: the same course, but twice as lively.
    course = film(1) + 0.1
    assert find_twins(rows_of({"one": course, "other": course**2})) == ()


def test_motion_of_nearly_the_same_size_that_goes_its_own_way_is_no_twin():
    calm = {name: noisy(np.full(60, 3.0), 0.08, seed) for seed, name in enumerate("ab")}
    one, other = (np.log(motion[1:] + 0.1) for motion in calm.values())
    assert np.std(one - other) < 0.2  # a spread alone would have taken them for one
    assert find_twins(rows_of(calm)) == ()


@pytest.mark.parametrize("motion", [np.full(60, 3.0), np.zeros(60), noisy(np.full(60, 3.0), 0.01)])
def test_motion_that_does_not_change_says_nothing(motion):
    assert find_twins(rows_of({"one": motion, "other": motion})) == ()


def test_too_few_common_frames_say_nothing():
    def with_frames(count):
        return rows_of({"one": film(1)[: count + 1], "other": noisy(film(1))[: count + 1]})

    assert pairs(with_frames(20)) == [("one", "other")]
    assert pairs(with_frames(19)) == []
    late = rows_of({"one": film(1)}).vstack(
        rows_of({"other": noisy(film(1))}).with_columns(pl.col("frame_index") + 41)
    )
    assert pairs(late) == []


def test_motion_that_is_the_same_needs_few_frames():
    def with_frames(count):
        return rows_of({"one": film(1)[: count + 1], "other": 2 * film(1)[: count + 1]})

    def same(count):
        return rows_of(dict.fromkeys(("one", "other"), film(1)[: count + 1]))

    assert pairs(same(5)) == [("one", "other")]
    assert pairs(same(4)) == []
    assert pairs(with_frames(5)) == []


def test_one_source_has_no_twin():
    assert find_twins(rows_of({"one": film(1)})) == ()


def test_frames_of_other_rates_are_not_compared():
    one = rows_of({"one": film(1)}, fps=pl.lit(25.0))
    assert pairs(pl.concat([one, rows_of({"other": film(1)}, fps=pl.lit(25.0))]))
    assert not pairs(pl.concat([one, rows_of({"other": film(1)}, fps=pl.lit(50.0))]))
    unknown = pl.lit(None, pl.Float64)
    assert pairs(rows_of({"one": film(1), "other": film(1)}, fps=unknown))


def test_the_rate_with_more_frames_speaks_for_a_pair():
    both = {"one": film(1), "other": film(1)}
    short = rows_of({name: motion[:30] for name, motion in both.items()}, fps=pl.lit(25.0))
    (found,) = find_twins(pl.concat([short, rows_of(both, fps=pl.lit(50.0))]))
    assert found.frames == 59


def test_long_sources_are_compared_where_most_of_them_have_frames(monkeypatch):
    monkeypatch.setattr(twins, "_MOST_FRAMES", 25)
    (found,) = find_twins(rows_of({"one": film(1), "other": noisy(film(1)), "dog": film(2, 30)}))
    assert (found.one, found.other, found.frames) == ("one", "other", 25)


# -- Who says so ----------------------------------------------------------------------------------


def test_the_warning_names_the_pairs_and_what_to_do():
    names = "abcd"
    rows = rows_of(dict.fromkeys(names, film(1)))
    (text,) = twin_warnings(rows)
    assert "a and b (correlation 1.000 over 59 frames), a and c" in text
    assert text.count("correlation") == 5
    assert " and 1 more pairs" in text
    assert "group by a column" in text
    assert twin_warnings(rows.filter(pl.col("src") == "a")) == ()


@pytest.fixture
def corpus(tmp_path):
    """Three films under four names, every one coded twice."""
    films = {"cat": film(1), "dog": film(2), "katze": film(1), "owl": film(3)}
    features = dict.fromkeys([f"vif_scale{at}" for at in range(4)], 0.5)
    path = tmp_path / "corpus.jsonl"
    path.write_text(
        "".join(
            json.dumps(
                {
                    "src": src,
                    "encoder": "libx264",
                    "cq": cq,
                    "frame_index": frame,
                    "vmaf": 90 - cq / 10,
                    "adm2": 0.9,
                    **features,
                    "motion2": motion,
                    "content": {"katze": "cat"}.get(src, src),
                }
            )
            + "\n"
            for src, course in films.items()
            for cq in (20, 30)
            for frame, motion in enumerate(course)
        )
    )
    return path


def test_check_notes_them(corpus):
    (note,) = (n for n in describe_corpus(load_corpus(corpus)).notes if "two names" in n)
    assert "cat and katze" in note


def test_training_warns_of_them_unless_they_are_grouped_or_left_out(corpus):
    (warning,) = open_for_training(corpus).warnings
    assert "cat and katze" in warning
    assert open_for_training(corpus, exclude_sources=["katze"]).warnings == ()
    grouped = Recipe(inputs=InputSpec(group_by="content"))
    assert open_for_training(corpus, recipe=grouped).warnings == ()
    of_clips = Recipe(inputs=InputSpec(), unit="clip")
    assert open_for_training(corpus, TrainingNeeds(min_rows=1), of_clips).warnings == (warning,)
