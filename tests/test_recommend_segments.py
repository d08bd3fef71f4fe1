"""Segments: which, and that coding one is coding that part of the clip."""

import subprocess
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from loso.corpus.choices import read_choices
from loso.corpus.plan import BuildSettings
from loso.errors import CannotRun
from loso.recommend.desk import at_desk
from loso.recommend.judge import MetricJudge
from loso.recommend.segments import Sampling, choose_segments, cut_out, seek_to
from loso.recommend.work import carry_out
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
def test_segments_follow_each_other_and_have_the_length_that_was_asked_for(scan, number, length):
    frames = len(scan.activity)
    windows = choose_segments(scan, number, length)
    assert len(windows) == number
    ends = [0, *(first + count for first, count in windows)]
    assert all(end <= window.first for end, window in zip(ends, windows, strict=False))
    assert ends[-1] <= frames
    assert min(count for _, count in windows) >= 2
    assert sum(count for _, count in windows) == pytest.approx(number * length, abs=2 * number)


def test_without_cuts_each_even_part_of_the_clip_has_its_segment():
    scan = Scan(np.random.default_rng(1).uniform(0, 50, 100), np.zeros(100, dtype=bool))
    for part, (first, count) in enumerate(choose_segments(scan, 4, 8)):
        assert count == 8
        assert 25 * part <= first <= first + count <= 25 * (part + 1)


@given(st.lists(st.integers(30, 90), min_size=1, max_size=4), st.integers(4, 6))
def test_scenes_are_sampled_in_proportion_and_no_segment_lies_in_two(scenes, number):
    edges = np.cumsum([0, *scenes])
    cuts = np.isin(np.arange(edges[-1]), edges[1:])
    length = max(int(edges[-1]) // (2 * number), 8)
    assume(2 * number * length <= edges[-1])
    windows = choose_segments(Scan(np.ones(edges[-1]), cuts), number, length)
    share = number * length / edges[-1]
    for begin, end in pairwise(edges.tolist()):
        own = [count for first, count in windows if begin <= first < end]
        assert own
        assert sum(own) == pytest.approx(share * (end - begin), abs=len(own) / 2)
        assert all(first + count <= end for first, count in windows if begin <= first < end)


def test_a_flash_has_no_segment_of_its_own_and_of_many_scenes_the_shortest_are_joined():
    flash = np.isin(np.arange(200), [90, 93])
    windows = choose_segments(Scan(np.ones(200), flash), 4, 10)
    assert [count for _, count in windows] == [9, 9, 11, 11]
    many = np.arange(200) % 10 == 0
    windows = choose_segments(Scan(np.ones(200), many), 4, 10)
    assert len(windows) == 4
    assert all(window.first % 10 == 0 for window in windows)


def test_the_segment_moves_as_its_stretch_does():
    activity = np.repeat([0.0, 9.0, 3.0, 0.5], 10)
    still = np.zeros(40, dtype=bool)
    ((first, count),) = choose_segments(Scan(activity, still), 1, 10)
    inside = np.log1p(activity[first : first + count]).mean()
    assert inside == pytest.approx(np.log1p(activity).mean(), abs=0.06)


def test_of_equals_one_that_starts_with_a_cut_is_taken():
    cuts = np.arange(60) == 23
    assert choose_segments(Scan(np.ones(60), cuts), 1, 10) == ((23, 10),)


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
    assert [len(set(scan.frames[:20])), len(set(scan.frames))] == [1, 21]
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
    (segment,) = cut_out(whole, [(17, 8)])
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


def long_clip(path, *coding):
    """Two seconds that move, coded with key frames far apart."""
    source = ["-f", "lavfi", "-i", "mandelbrot=size=128x96:rate=25", "-frames:v", "50"]
    words = ["-vf", "format=yuv420p", "-c:v", "libx264", "-g", "20", *coding, f"{path}"]
    subprocess.run([find_ffmpeg().path, "-loglevel", "error", *source, *words], check=True)
    return path


def desk_for(path, folder):
    choices = read_choices(["libx264"], quality=["30"], preset=["ultrafast"])
    settings = BuildSettings(choices=choices, clips=ClipSettings(fps=Fraction(25)))
    return at_desk([path], settings, find_ffmpeg(), parts=folder / "parts")


def windows_of(segments):
    return [(segment.first, segment.clip.frames) for segment in segments]


def measured(desk, segments):
    """What a desk measures of segments that are coded in turn."""
    cells = [
        desk.cell(each.clip, desk.settings.choices[0], Rate("quality", 30)) for each in segments
    ]

    def work():
        return (yield cells)

    (probes,) = carry_out(desk, [work()])
    return [(probe.measured.vmaf, probe.measured.packet_bytes) for probe in probes]


def test_a_segment_that_a_seek_reaches_exactly_is_reached_so_and_measures_the_same(tmp_path):
    path = long_clip(tmp_path / "ant.mkv")
    with desk_for(path, tmp_path) as desk:
        (segments,) = desk.cut(desk.clips, Sampling(seconds=0.3, number=3))
        assert all(segment.clip.input[0] == "-ss" for segment in segments if segment.first)
        assert segments[-1].first > 20
        decoded = cut_out(desk.clips[0], windows_of(segments))
        assert segments != decoded
        assert measured(desk, segments) == measured(desk, decoded)


def a_frame_later(segment):
    """A seek that misses by one frame."""
    there = seek_to(segment)
    return there and replace(
        there,
        clip=replace(
            there.clip, input=("-ss", f"{float(there.clip.input[1]) + 0.04}", *there.clip.input[2:])
        ),
    )


@pytest.mark.parametrize(
    ("name", "seek"),
    [("ant.264", seek_to), ("ant.mkv", a_frame_later)],
    ids=["a bare stream has no times to seek by", "missed by a frame"],
)
def test_where_a_seek_leads_elsewhere_every_frame_before_is_decoded(
    tmp_path, monkeypatch, name, seek
):
    path = long_clip(tmp_path / name)
    monkeypatch.setattr("loso.recommend.desk.seek_to", seek)
    with desk_for(path, tmp_path) as desk:
        (segments,) = desk.cut(desk.clips, Sampling(seconds=0.3, number=3))
        assert segments == cut_out(desk.clips[0], windows_of(segments))


def test_no_frame_is_sought_in_a_clip_that_begins_late_nor_the_first_one(two_scenes, session):
    whole = open_clip(two_scenes, ClipSettings(), session, timeout_s=60)
    late = open_clip(two_scenes, ClipSettings(start_s=0.2, frames=30), session, timeout_s=60)
    first, second = cut_out(whole, [(0, 8), (17, 8)])
    assert seek_to(first) is None
    assert seek_to(second).clip.input[:2] == ("-ss", "0.660000")
    assert seek_to(cut_out(late, [(17, 8)])[0]) is None


def test_the_first_frame_of_a_segment_does_not_count():
    one, other = (SimpleNamespace(vmaf=scores) for scores in ((1.0, 90.0), (2.0, 80.0)))
    judge = MetricJudge("vmaf", "mean")
    assert judge.score([(None, one), (None, other)], is_cut=True).value == 85.0
    assert judge.score([(None, one)], is_cut=True).value == 90.0
    assert judge.score([(None, one)], is_cut=False).value == 45.5  # whole: that frame is its own
