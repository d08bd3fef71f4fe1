from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loso.corpus.load import load_corpus
from loso.corpus.units import as_clips, statistic_column
from loso.errors import BadCorpus
from loso.schema import CANONICAL_6

FLOAT64 = 1e-12  # sums of a few numbers, in another order
CLIP = ("src", "encoder", "cq")


@pytest.fixture
def corpus(make_corpus):
    return load_corpus(make_corpus(sources=("ant", "bee"), frames=5))


def only(corpus, *condition):
    return replace(corpus, rows=corpus.rows.filter(*condition))


def frames_of(clip, corpus):
    return corpus.rows.filter(pl.col(name) == clip[name] for name in CLIP)


def test_a_clip_has_the_mean_of_its_frames(corpus):
    clips = as_clips(corpus, CANONICAL_6, statistics=("mean", "p5", "std")).rows
    assert clips.height == len(corpus) // 5
    assert set(clips["n_frames"]) == {5}
    for clip in clips.iter_rows(named=True):
        frames = frames_of(clip, corpus)
        for name in (*CANONICAL_6, "vmaf"):
            values = frames[name].to_numpy()
            assert clip[name] == pytest.approx(np.mean(values), rel=FLOAT64)
            if name != "vmaf":
                fifth = np.percentile(values, 5)
                assert clip[statistic_column(name, "p5")] == pytest.approx(fifth, rel=FLOAT64)
                deviation = clip[statistic_column(name, "std")]
                assert deviation == pytest.approx(np.std(values), rel=1e-9)


def test_frame_0_is_left_out_on_request(corpus):
    clips = as_clips(corpus, CANONICAL_6, drop_first_frame=True).rows
    for clip in clips.iter_rows(named=True):
        motion = frames_of(clip, corpus).filter(pl.col("frame_index") > 0)["motion2"].to_numpy()
        assert clip["motion2"] == pytest.approx(np.mean(motion), rel=FLOAT64)
        assert (clip["n_frames"], clip["frame_index"]) == (4, 1)


def test_a_clip_of_frame_0_alone_cannot_leave_it_out(corpus):
    alone = only(corpus, (pl.col("src") == "ant") | (pl.col("frame_index") == 0))
    with pytest.raises(BadCorpus, match="6 clips have no frame but frame 0; keep frame 0"):
        as_clips(alone, CANONICAL_6, drop_first_frame=True)


def test_what_is_constant_in_a_clip_stays_as_it_is(corpus):
    tenth = 0.1  # the mean of three tenths is not a tenth
    assert sum([tenth] * 3) / 3 != tenth
    rows = corpus.rows.filter(pl.col("frame_index") < 3).with_columns(
        mos=pl.lit(tenth), note=pl.col("src"), tag=pl.col("frame_index").cast(pl.String)
    )
    clips = as_clips(replace(corpus, rows=rows), CANONICAL_6).rows
    assert set(clips["mos"]) == {tenth}
    assert clips["note"].to_list() == clips["src"].to_list()
    assert "tag" not in clips.columns


def test_frames_are_counted_whatever_the_corpus_says(corpus):
    counted = replace(corpus, rows=corpus.rows.with_columns(n_frames=pl.lit(99)))
    assert set(as_clips(counted, CANONICAL_6).rows["n_frames"]) == {5}


@given(seed=st.integers(0, 2**32 - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_of_frames_does_not_matter(corpus, seed):
    mixed = replace(corpus, rows=corpus.rows.sample(fraction=1, shuffle=True, seed=seed))
    one, two = (as_clips(c, CANONICAL_6).rows.sort(CLIP) for c in (corpus, mixed))
    assert one.columns == two.columns
    for name in CANONICAL_6:
        assert one[name].to_numpy() == pytest.approx(two[name].to_numpy(), rel=FLOAT64)
