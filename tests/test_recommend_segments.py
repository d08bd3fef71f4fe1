"""Segments: which, and that coding one is coding that part of the clip."""

import subprocess
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loso.errors import CannotRun
from loso.recommend.judge import MetricJudge
from loso.recommend.segments import Sampling, choose_segments, cut_out
from loso.video.clips import ClipSettings, open_clip
from loso.video.encoders import ENCODERS, Rate
from loso.video.ffmpeg import FfmpegSession, find_ffmpeg
from loso.video.measure import Encode, VmafModel, measure
from loso.video.scan import Scan, scan_clip


def clip_of(frames, fps=30):
    return SimpleNamespace(frames=frames, fps=Fraction(fps))


@pytest.mark.parametrize(
    ("seconds", "number"), [(10, 0), (15, 0), (16, 4), (20, 4), (60, 8), (150, 12), (7200, 16)]
)
def test_longer_clips_get_more_segments_and_short_ones_are_coded_whole(seconds, number):
    assert Sampling().counts(clip_of(30 * seconds)) == (number, 60)


def test_a_number_that_was_asked_for_counts_unless_it_is_more_than_half_of_the_clip():
    assert Sampling(number=2).counts(clip_of(300)) == (2, 60)
    assert Sampling(number=3).counts(clip_of(300)) == (0, 60)
    assert Sampling(number=0).counts(clip_of(30_000)) == (0, 60)


scans = st.lists(st.floats(0, 50), min_size=40, max_size=120).flatmap(
    lambda activity: st.lists(st.booleans(), min_size=len(activity), max_size=len(activity)).map(
        lambda cuts: Scan(np.array(activity), np.array(cuts))
    )
)


@given(scans, st.integers(1, 4), st.integers(2, 5))
def test_each_stretch_of_the_clip_has_its_segment(scan, number, length):
    frames = len(scan.activity)
    firsts = choose_segments(scan, number, length)
    assert len(firsts) == number
    for part, first in enumerate(firsts):
        assert frames * part // number <= first
        assert first + length <= frames * (part + 1) // number


def test_the_segment_moves_as_its_stretch_does():
    activity = np.repeat([0.0, 9.0, 3.0, 0.5], 10)
    still = np.zeros(40, dtype=bool)
    (first,) = choose_segments(Scan(activity, still), 1, 10)
    inside = np.log1p(activity[first : first + 10]).mean()
    assert inside == pytest.approx(np.log1p(activity).mean(), abs=0.06)


def test_of_equals_one_that_starts_with_a_cut_is_taken():
    cuts = np.arange(60) == 23
    firsts = choose_segments(Scan(np.ones(60), cuts), 1, 10)
    assert firsts == (23,)


@pytest.fixture(scope="module")
def two_scenes(tmp_path_factory):
    """A still of 20 frames, then 20 that move."""
    path = tmp_path_factory.mktemp("clips") / "ant.mkv"
    still = "smptebars=size=128x96:rate=25,trim=end_frame=20"
    moving = "mandelbrot=size=128x96:rate=25,trim=end_frame=20"
    graph = f"{still},format=yuv420p[a];{moving},format=yuv420p[b];[a][b]concat"
    coding = ["-filter_complex", graph, "-c:v", "ffv1", f"{path}"]
    subprocess.run([find_ffmpeg().path, "-loglevel", "error", *coding], check=True)
    return path


@pytest.fixture
def session():
    with FfmpegSession(find_ffmpeg()) as session:
        yield session


def test_a_look_at_a_clip_finds_its_cuts_and_its_motion(two_scenes, session, tmp_path):
    clip = open_clip(two_scenes, ClipSettings(), session, timeout_s=60)
    scan = scan_clip(clip, session, folder=tmp_path, timeout_s=60)
    assert np.flatnonzero(scan.is_cut).tolist() == [20]
    assert scan.activity[1:20].max() == 0.0
    assert scan.activity[21:].min() > 0.0


def test_a_look_that_misses_frames_is_refused(two_scenes, session, tmp_path):
    clip = open_clip(two_scenes, ClipSettings(), session, timeout_s=60)
    longer = replace(clip, frames=41)
    with pytest.raises(CannotRun, match="not every frame was looked at, expected 41, found 40"):
        scan_clip(longer, session, folder=tmp_path, timeout_s=60)


@pytest.mark.parametrize("settings", [ClipSettings(), ClipSettings(start_s=0.2, frames=30)])
def test_a_segment_is_that_part_of_the_clip(two_scenes, session, tmp_path, settings):
    whole = open_clip(two_scenes, settings, session, timeout_s=60)
    (segment,) = cut_out(whole, [17], 8)
    begins = settings.start_s + 17 / 25
    alone = open_clip(two_scenes, ClipSettings(start_s=begins, frames=8), session, timeout_s=60)
    encode = Encode(
        encoder=ENCODERS["libx264"],
        preset="ultrafast",
        rate=Rate("quality", 30),
        width=128,
        height=96,
    )
    found = []
    for name, clip in (("one", segment.clip), ("other", alone)):
        folder = tmp_path / name
        folder.mkdir()
        found.append(
            measure(
                *(clip, encode, VmafModel(), session),
                folder=folder,
                timeout_s=60,
                two_step=False,
            )
        )
    assert segment.first == 17
    assert found[0].vmaf == found[1].vmaf
    assert found[0].packet_bytes == found[1].packet_bytes


def test_the_first_frame_of_a_segment_does_not_count():
    one, other = (SimpleNamespace(vmaf=scores) for scores in ((1.0, 90.0), (2.0, 80.0)))
    judge = MetricJudge("vmaf", "mean")
    assert judge.score([(None, one), (None, other)]).value == 85.0
    assert judge.score([(None, one)]).value == 45.5  # a whole clip, whose first frame is its own
