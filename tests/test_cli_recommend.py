import json
import re
import subprocess
from functools import partial

import pytest

from clips import write_picture
from loso.recommend.bdrate import bd_rate
from loso.video.ffmpeg import find_ffmpeg


@pytest.fixture
def clip(tmp_path):
    return write_picture(tmp_path / "ant.mkv", "mandelbrot=size=128x72:rate=25", 4)


@pytest.fixture
def loso(loso, tmp_path, monkeypatch):
    """Ask in an empty folder; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return partial(loso, "recommend")


@pytest.fixture
def failing(monkeypatch):
    """Let the encodes fail for which `is_hit(clip, encode)` holds."""
    from loso.corpus import cells
    from loso.errors import CannotRun

    measure = cells.measure

    def use(is_hit):
        def fail(clip, encode, *args, **options):
            if is_hit(clip, encode):
                raise CannotRun("the driver had a bad moment")
            return measure(clip, encode, *args, **options)

        monkeypatch.setattr("loso.corpus.cells.measure", fail)

    return use


FAST = ("--encoder", "libx264", "--preset", "ultrafast", "--step", "1")


def test_the_whole_way(loso, clip, tmp_path):
    command = (clip, *FAST, "--target", "80", "--apply", "out.mkv")
    code, out, err = loso(*command)
    assert code == 0
    first, basis, second, third = out.splitlines()
    found = re.fullmatch(
        r"ant, libx264 ultrafast: quality (\d+) scores (8\d\.\d\d) \(vmaf, mean\) at \d+ kbit/s",
        first,
    )
    assert found, first
    assert basis == "measured on the whole clip"
    assert re.fullmatch(rf"the next cheaper, {int(found[1]) + 1}, scores 7\d\.\d\d", second)
    kept = rf"out\.mkv: scores {found[2]} \(vmaf\) at \d+ kbit/s, the target of 80 is met"
    assert re.fullmatch(kept, third)
    assert "warning: VMAF v0.6.1 assumes 1920x1080 on a screen; scored here: 128x72\n" in err
    assert re.search(r"recommend: 100% in \d+ s, ant, libx264 at \d+\n", err)
    assert (tmp_path / "out.mkv").stat().st_size > 0

    code, out, _ = loso(*command, "--json")
    record = json.loads(out)
    (coding,) = record["codings"]
    assert (code, coding["encodes"], record["applied"]["held"]) == (0, 0, True)
    assert f"{coding['answers'][0]['quality']:g}" == found[1]


def test_a_target_out_of_reach_is_refused_with_the_best_there_is(loso, clip):
    code, out, err = loso(clip, *FAST, "--target", "100", "--json")
    assert code == 1
    record, refusal = map(json.loads, out.splitlines())
    assert record["codings"][0]["answers"][0]["verdict"] == "out_of_reach"
    assert refusal["error"] == "Refused"
    assert re.search(
        r"loso: ant: no setting of libx264 can reach 100: the best, 0, scores 9\d\.\d\d; lower the "
        r"--target\n",
        err,
    )


def test_too_few_encodes_are_told(loso, clip):
    code, out, err = loso(clip, *FAST, "--target", "97", "--max-encodes", "1")
    assert (code, out) == (1, "")
    assert "ant: 1 encode showed no setting that can reach 97 yet: the best tried, " in err
    assert "; allow more with --max-encodes: these are kept\n" in err
    code, out, _ = loso(clip, *FAST, "--target", "40", "--max-encodes", "1")
    assert code == 0
    assert out.splitlines()[2].startswith("cheaper settings between it and the end of the scale")


def test_even_the_cheapest_setting_may_do(loso, clip):
    code, out, _ = loso(clip, *FAST, "--target", "1")
    assert code == 0
    told = "it is the cheapest setting there is, and even that reaches 1"
    assert out.splitlines()[2] == told


def test_every_option_arrives(loso, clip, tmp_path):
    raw = tmp_path / "raw.yuv"
    decode = ["-i", clip, "-pix_fmt", "yuv420p", "-f", "rawvideo", raw]
    subprocess.run([find_ffmpeg().path, "-loglevel", "error", *decode], check=True)
    code, out, _ = loso(
        *(raw, "--width", 128, "--height", "72,36", "--pix-fmt", "yuv420p", "--fps", 30),
        *("--encoder", "libx265", "--preset", "ultrafast", "--encoder-args", "-tune grain"),
        *("--target", 30, "--pool", "p5", "--max-encodes", 3, "--step", 0.5, "--jobs", 1),
        *("--threads", 2, "--timeout", 60, "--parts", "kept", "--ffmpeg", find_ffmpeg().path),
        *("--vmaf-model", "version=vmaf_v0.6.1neg", "--json", "--quiet"),
    )
    record = json.loads(out.splitlines()[0])
    (coding,) = record["codings"]
    assert code in {0, 1}
    assert (record["pool"], record["max_encodes"], record["clip"]["fps"]) == ("p5", 3, 30.0)
    assert (coding["encoder"], coding["extra"]) == ("libx265", ["-tune", "grain"])
    assert (coding["height"], record["clip"]["height"]) == (36, 72)
    assert len(list((tmp_path / "kept").glob("*.part"))) == coding["encodes"]


def test_a_promise_that_is_not_kept_ends_with_1_and_leaves_the_file(
    loso, clip, tmp_path, monkeypatch
):
    from dataclasses import replace

    from loso.recommend import apply

    def measure(*args, **options):
        measured = whole(*args, **options)
        return replace(measured, vmaf=tuple(score - 30 for score in measured.vmaf))

    whole = apply.measure
    monkeypatch.setattr("loso.recommend.apply.measure", measure)
    code, _, err = loso(clip, *FAST, "--target", "80", "--apply", "out.mkv")
    assert code == 1
    assert re.search(r"out\.mkv: the target of 80 is missed: it scores 5\d\.", err)
    assert (tmp_path / "out.mkv").exists()


def test_a_broken_promise_is_told_where_another_encoder_failed(loso, clip, failing, monkeypatch):
    from dataclasses import replace

    from loso.recommend import apply

    def flatter(*args, **options):
        measured = whole(*args, **options)
        return replace(measured, vmaf=tuple(score - 30 for score in measured.vmaf))

    whole = apply.measure
    monkeypatch.setattr("loso.recommend.apply.measure", flatter)
    failing(lambda _, encode: encode.encoder.name == "libx265")
    words = (*FAST, "--encoder", "libx265", "--target", "80", "--apply", "out.mkv")
    code, _, err = loso(clip, *words)
    assert code == 1
    assert re.search(r"failed: ant, libx265 ultrafast at \d+: the driver had a bad moment\n", err)
    assert re.search(r"out\.mkv: the target of 80 is missed: it scores 5\d\.\d\d ", err)
    assert "--segments 0" not in err


def test_an_encode_of_apply_that_fails_is_named(loso, clip, monkeypatch):
    from loso.errors import CannotRun

    def fail(*_, **__):
        raise CannotRun("ffmpeg was stopped after 1 s")

    monkeypatch.setattr("loso.recommend.apply.measure", fail)
    code, _, err = loso(clip, *FAST, "--target", "80", "--apply", "out.mkv")
    assert code == 3
    assert re.search(r"loso: ant, libx264 ultrafast at \d+: ffmpeg was stopped after 1 s\n", err)


def test_the_encoder_that_was_named_first_is_what_the_others_are_compared_with(loso, clip):
    coders = ("--encoder", "libx265", "--encoder", "libx264", "--preset", "ultrafast")
    code, out, _ = loso(clip, *coders, "--step", "10", "--target", "80", "--json")
    assert code == 0
    record = json.loads(out)
    assert [coding["encoder"] for coding in record["codings"]] == ["libx265", "libx264"]
    assert record["comparison"][0]["encoder"] == "libx265"


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ((), 2, "no target; give --target, or --ladder for several"),
        (("--target", "80", "--ladder", "80,70"), 2, "--target and --ladder are both targets"),
        (("--ladder", "80,seventy"), 2, "--ladder: not a list of numbers, expected such as 95,90"),
        (("--ladder", "80,170"), 2, "--target: no clip can be held to that vmaf"),
        (("--ladder", "80,70", "--apply", "o.mkv"), 2, "--apply takes one answer"),
        (("--target", "101"), 2, "--target: no clip can be held to that vmaf"),
        (("--target", "80", "--encoder", "libx266"), 2, "no such encoder"),
        (("--target", "80", "--preset", "warp"), 2, "libx264: no such preset"),
        (("--target", "80", "--apply", "o.avi"), 2, "--apply: not the name of a video file"),
        (("--target", "80", "--width", "64"), 2, "--width needs --height"),
        (
            ("--target", "80", "--pix-fmt", "yuv422p"),
            2,
            "for raw YUV clips, and none of these is one",
        ),
        (("--target", "80", "--height", "144"), 2, "--height is above the reference's"),
        (("--target", "80", "--fps", "fast"), 2, "--fps: not a frame rate"),
        (("--target", "80", "--fps", "ant2=25"), 2, "--fps: names none of the clips"),
        (("--target", "80", "--scheduler", "x", "--jobs", "1"), 2, "--jobs is for this machine"),
        (("--target", "80", "--ffmpeg", "nowhere"), 3, "--ffmpeg nowhere: this ffmpeg"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_coded(
    loso, clip, tmp_path, words, code, text
):
    ended, out, err = loso(clip, *FAST, *words)
    assert (ended, out) == (code, "")
    assert text in err
    assert not list(tmp_path.glob("recommend.parts/*.part"))


def test_encoders_are_compared_at_equal_quality(loso, clip):
    coders = ("--encoder", "libx264", "--encoder", "libx265", "--preset", "ultrafast")
    command = (clip, *coders, "--step", "1", "--ladder", "95,85,60")
    code, out, _ = loso(*command)
    assert code == 0
    first, _, titles, *rows = out.splitlines()
    assert first == "ant: vmaf, mean"
    assert titles.split() == "encoder preset target quality score at least kbit/s at target".split()
    cells = [row.split() for row in rows[:6]]
    assert [cell[:3] for cell in cells] == [
        [encoder, "ultrafast", target]
        for encoder in ("libx264", "libx265")
        for target in ("95", "85", "60")
    ]
    assert re.fullmatch(
        r"libx265 ultrafast against the first: [+-]\d+\.\d % bitrate at equal quality \(BD-rate, "
        r"\d+\.\d\d to \d+\.\d\d, \d+ % of the range of both\)",
        rows[7],
    )
    assert rows[8] == "scores: measured on the whole clip"

    code, out, _ = loso(*command, "--json")
    record = json.loads(out)
    codings = record["codings"]
    assert [coding["encodes"] for coding in codings] == [0, 0]
    for coding, beside in zip(codings, record["comparison"], strict=True):
        for answer, exact in zip(
            coding["answers"], beside["bitrates_at_targets_kbps"], strict=True
        ):
            # Between the answer and its neighbour, and so no dearer than the answer.
            assert answer["settled"]
            assert exact <= answer["bitrate_kbps"]
    points = [[(p["score"], p["bitrate_kbps"]) for p in coding["probes"]] for coding in codings]
    expected = bd_rate(*points).percent
    assert record["comparison"][1]["bd_rate_percent"] == pytest.approx(expected, abs=0.01)
    assert record["comparison"][0]["bd_rate_reason"] == "the others are held against it"


def test_the_cheaper_of_two_is_applied(loso, clip):
    coders = ("--encoder", "libx264", "--preset", "ultrafast", "--preset", "veryslow")
    words = ("--step", "1", "--target", "80", "--apply", "out.mkv", "--json")
    code, out, _ = loso(clip, *coders, *words)
    record = json.loads(out)
    costs = {c["preset"]: c["answers"][0]["bitrate_kbps"] for c in record["codings"]}
    assert code == 0
    assert record["applied"]["bitrate_kbps"] == pytest.approx(min(costs.values()), rel=0.05)
    assert record["comparison"][1]["bd_rate_percent"] is None
    assert record["comparison"][1]["bd_rate_reason"].startswith("too few points for a BD-rate")


def test_a_target_that_no_encoder_reaches_is_refused_after_all_is_told(loso, clip):
    coders = ("--encoder", "libx264", "--encoder", "libx265", "--preset", "ultrafast")
    code, out, err = loso(clip, *coders, "--step", "17", "--ladder", "100,50", "--json")
    assert code == 1
    assert len(json.loads(out.splitlines()[0])["codings"]) == 2
    assert "ant: no setting of libx264, nor of the others, can reach 100: the best, 0, " in err


@pytest.fixture
def long_clips(tmp_path):
    """Clips of 64 frames, twice as long as two segments of half a second or more."""
    paths = []
    for number in range(6):
        path = tmp_path / f"c{number}.mkv"
        picture = f"mandelbrot=size=64x48:rate=25:start_x=-0.7{number}:end_pts=50"
        write_picture(path, picture, 64)
        paths.append(path)
    return paths


PARTS = ("--segments", "2", "--segment-seconds", "0.6")


def test_a_long_clip_is_estimated_and_bounded_by_others(loso, long_clips):
    first, *others = long_clips
    known = [word for path in others for word in ("--calibrate-on", path)]
    command = (first, *FAST, *PARTS, "--target", "85", *known, "--apply", "out.mkv")
    code, out, _ = loso(*command, "--confidence", "0.8", "--json")
    record = json.loads(out.splitlines()[0])
    (coding,) = record["codings"]
    (answer,) = coding["answers"]
    assert code == int(not record["applied"]["held"])
    assert [s["frames"] for s in coding["segments"]] == [15, 15]
    assert (answer["level"], answer["n_calibration_sources"]) == (0.8, 5)
    assert answer["evidence"] == "estimated from segments, bound supported by 5 sources"
    assert 85 <= answer["lower"] <= answer["score"]
    assert [one["src"] for one in record["calibrated_on"]] == ["c1", "c2", "c3", "c4", "c5"]
    assert len(coding["probes"]) == 2 * coding["encodes"]
    firsts = {probe["first_frame"] for probe in coding["probes"]}
    assert firsts == {segment["first_frame"] for segment in coding["segments"]}

    code, out, _ = loso(*command)  # nothing is coded again, but for the whole clip
    assert f"at least {answer['lower']:.2f} with 80 %: {answer['evidence']}" in out.splitlines()


def test_an_estimate_without_others_says_that_it_has_no_bound(loso, long_clips):
    code, out, _ = loso(long_clips[0], *FAST, *PARTS, "--target", "85")
    assert code == 0
    first, basis, *_ = out.splitlines()
    assert re.search(r" at about \d+ kbit/s$", first)
    assert basis == (
        "estimated from segments without a bound: --calibrate-on other clips gives one, "
        "--segments 0 codes all"
    )


@pytest.mark.parametrize(
    ("others", "words", "text"),
    [
        (0, ("--confidence", "0.8"), "--calibrate-on: too few other clips to calibrate a bound on"),
        (3, (), "expected at least 4 that are long enough to be cut up, found 3"),
        (5, ("--confidence", "0.95"), "5 sources do not support an interval at that level"),
        (5, ("--confidence", "1.5"), "--confidence must lie between 0 and 1, found 1.5"),
        (0, ("--segments", "-1"), "--segments must not be negative, found -1"),
        (0, ("--segment-seconds", "0.1"), "--segment-seconds is out of its range"),
    ],
)
def test_a_bound_that_cannot_be_had_is_refused_before_anything_is_coded(
    loso, long_clips, tmp_path, others, words, text
):
    known = [word for path in long_clips[1 : 1 + others] for word in ("--calibrate-on", path)]
    code, out, err = loso(long_clips[0], *FAST, *PARTS, "--target", "85", *known, *words)
    assert (code, out) == (2, "")
    assert text in err
    assert not list(tmp_path.glob("recommend.parts/*.part"))


def test_the_clip_itself_under_another_name_says_nothing_of_it(loso, long_clips, tmp_path):
    first, *others = long_clips[:5]
    (tmp_path / "same.mkv").write_bytes(first.read_bytes())
    known = [w for path in (*others, tmp_path / "same.mkv") for w in ("--calibrate-on", path)]
    _, out, _ = loso(first, *FAST, *PARTS, "--target", "85", *known, "--json")
    (answer,) = json.loads(out.splitlines()[0])["codings"][0]["answers"]
    assert answer["n_calibration_sources"] == 4


def test_other_clips_that_are_too_short_to_cut_up_say_nothing(loso, long_clips, clip):
    known = [word for path in (clip, *long_clips[1:5]) for word in ("--calibrate-on", path)]
    code, out, err = loso(long_clips[0], *FAST, *PARTS, "--target", "85", *known, "--json")
    assert code == 0
    assert "warning: ant is too short to be cut up, and says nothing of segments\n" in err
    record = json.loads(out)
    assert record["codings"][0]["answers"][0]["n_calibration_sources"] == 4


def test_a_second_question_decodes_nothing_to_choose_its_segments_again(
    loso, long_clips, monkeypatch
):
    words = (long_clips[0], *FAST, *PARTS, "--target", "85", "--json")
    _, first, _ = loso(*words)
    monkeypatch.setattr("loso.corpus.place.scan_clip", lambda *_, **__: pytest.fail("looked again"))
    code, second, _ = loso(*words)
    assert code == 0
    one, other = (json.loads(text)["codings"][0]["segments"] for text in (first, second))
    assert one == other


@pytest.fixture
def unseen(monkeypatch):
    """Let the look for cuts and motion fail for the clips of these sources."""
    from loso.corpus import place
    from loso.errors import CannotRun

    look = place.scan_clip

    def use(*sources):
        def scan(clip, *args, **options):
            if clip.src in sources:
                raise CannotRun("ffmpeg was killed by signal 11")
            return look(clip, *args, **options)

        monkeypatch.setattr(place, "scan_clip", scan)

    return use


def test_a_clip_that_cannot_be_looked_at_does_not_take_the_others_with_it(loso, long_clips, unseen):
    unseen("c0")
    code, out, err = loso(*long_clips[:2], *FAST, *PARTS, "--target", "85", "--json")
    failed, answered, refusal = map(json.loads, out.splitlines())
    assert (code, refusal["error"]) == (1, "Incomplete")
    assert failed["failures"] == ["c0: ffmpeg was killed by signal 11"]
    assert "failed: c0: ffmpeg was killed by signal 11\n" in err
    assert answered["cheapest"] == [0]


def test_another_clip_that_cannot_be_looked_at_is_left_out(loso, long_clips, unseen):
    unseen("c1")
    known = [word for path in long_clips[1:] for word in ("--calibrate-on", path)]
    code, out, err = loso(long_clips[0], *FAST, *PARTS, "--target", "85", *known, "--json")
    assert code == 0
    told = "warning: left out of --calibrate-on: c1: ffmpeg was killed by signal 11\n"
    assert told in err
    record = json.loads(out)
    assert [one["src"] for one in record["calibrated_on"]] == ["c2", "c3", "c4", "c5"]


def test_another_clip_whose_encodes_fail_is_left_out(loso, long_clips, failing):
    failing(lambda clip, _: clip.src == "c1")
    known = [word for path in long_clips[1:] for word in ("--calibrate-on", path)]
    code, out, err = loso(long_clips[0], *FAST, *PARTS, "--target", "85", *known, "--json")
    assert code == 0
    told = r"warning: left out of --calibrate-on: c1, libx264 ultrafast at \d+: the driver had"
    assert re.search(told, err)
    record = json.loads(out)
    assert [one["src"] for one in record["calibrated_on"]] == ["c2", "c3", "c4", "c5"]
    assert record["codings"][0]["answers"][0]["n_calibration_sources"] == 4


def test_a_height_above_a_clip_is_refused_before_others_are_coded(loso, long_clips, tmp_path):
    known = [word for path in long_clips[1:] for word in ("--calibrate-on", path)]
    code, out, err = loso(
        *(long_clips[0], *FAST, *PARTS, "--target", "85", *known, "--height", "96")
    )
    assert (code, out) == (2, "")
    assert "--height is above the reference's" in err
    assert [path.name for path in (tmp_path / "recommend.parts").glob("*.*")] == []


def test_looks_at_clips_are_kept_where_a_later_one_stops_everything(
    loso, long_clips, tmp_path, monkeypatch
):
    from loso.corpus import place
    from loso.errors import LostCluster

    def scan(clip, *args, **options):
        if clip.src == "c1":
            raise LostCluster("the scheduler is gone")
        return look(clip, *args, **options)

    look = place.scan_clip
    monkeypatch.setattr(place, "scan_clip", scan)
    code, _, err = loso(*long_clips[:2], *FAST, *PARTS, "--target", "85", "--jobs", "1")
    assert (code, "the scheduler is gone" in err) == (3, True)
    assert len(list((tmp_path / "recommend.parts").glob("*.scan"))) == 1


# -- Several heights, several clips, other metrics ------------------------------------------------


def test_heights_are_compared_and_their_hull_told(loso, clip):
    words = (clip, *FAST, "--step", "3", "--height", "72,36", "--ladder", "85,40")
    code, out, _ = loso(*words)
    assert code == 0
    titles, *rows = out.splitlines()[2:]
    assert titles.split()[2] == "height"
    assert [row.split()[2:4] for row in rows[:4]] == [
        ["72", "85"],
        ["72", "40"],
        ["36", "85"],
        ["36", "40"],
    ]
    assert "out of reach" in rows[2]
    (told,) = [row for row in rows if row.startswith("libx264 ultrafast, convex hull: ")]
    assert re.search(r"72 from \d+ kbit/s \(\d+\.\d\d\)$", told)

    _, out, _ = loso(*words, "--json")
    record = json.loads(out)
    (hull,) = record["hulls"]
    points = [(point["bitrate_kbps"], point["score"]) for point in hull["points"]]
    assert points == sorted(points)
    assert record["cheapest"][0] == 0  # only the whole height reaches 85
    for at, best in enumerate(record["cheapest"]):
        costs = [coding["answers"][at]["bitrate_kbps"] for coding in record["codings"]]
        assert costs[best] == min(cost for cost in costs if cost is not None)


def test_heights_above_a_clip_are_left_out_unless_all_are(loso, clip):
    code, out, err = loso(clip, *FAST, "--step", "3", "--height", "144,36", "--target", "30")
    assert code == 0
    assert "warning: ant is 72 high: not coded at 144\n" in err
    assert out.startswith("ant, libx264 ultrafast at height 36: quality ")


@pytest.fixture
def second(tmp_path):
    return write_picture(tmp_path / "bee.mkv", "testsrc2=size=128x72:rate=25", 4)


def test_several_clips_are_answered_each_by_itself(loso, clip, second, tmp_path):
    words = (*FAST, "--step", "3", "--target", "80")
    code, out, _ = loso(clip, second, *words, "--apply", "coded", "--json")
    assert code == 0
    together = [json.loads(line) for line in out.splitlines()]
    assert [record["clip"]["src"] for record in together] == ["ant", "bee"]
    assert sorted(path.name for path in (tmp_path / "coded").iterdir()) == ["ant.mkv", "bee.mkv"]
    for path, record in zip((clip, second), together, strict=True):
        code, out, _ = loso(path, *words, "--json", "--parts", f"{path}.parts")
        alone = json.loads(out)
        assert code == 0
        assert alone["codings"][0]["answers"] == record["codings"][0]["answers"]
    code, out, _ = loso(second, clip, *words)
    assert code == 0
    assert [line.split(",")[0] for line in out.splitlines() if ": quality" in line] == [
        "bee",
        "ant",
    ]


def test_a_clip_without_an_answer_does_not_take_the_others_with_it(loso, clip, second):
    code, out, err = loso(clip, second, *FAST, "--step", "17", "--ladder", "99.9,30", "--json")
    records = [json.loads(line) for line in out.splitlines()]
    missing = [record["cheapest"][0] is None for record in records[:2]]
    assert (code, records[2]["error"]) == (1, "Incomplete")
    assert f"{sum(missing)} of 2 clips have no answer that holds; their reasons stand above" in err
    assert err.count("failed: ") == sum(missing) > 0
    assert all(record["cheapest"][1] is not None for record in records[:2])


def test_a_clip_whose_encodes_fail_does_not_take_the_others_with_it(loso, clip, second, failing):
    failing(lambda own, _: own.src == "ant")
    code, out, err = loso(clip, second, *FAST, "--step", "3", "--target", "80", "--json")
    failed, answered, refusal = map(json.loads, out.splitlines())
    assert (code, refusal["error"]) == (1, "Incomplete")
    (reason,) = failed["failures"]
    assert re.fullmatch(r"ant, libx264 ultrafast at \d+: the driver had a bad moment", reason)
    assert (failed["codings"], failed["cheapest"]) == ([], [None])
    assert answered["cheapest"] == [0]
    assert f"failed: {reason}\n" in err


def test_every_way_of_coding_that_fails_is_told(loso, clip, failing):
    failing(lambda *_: True)
    coders = ("--encoder", "libx264", "--encoder", "libx265", "--preset", "ultrafast")
    code, out, err = loso(clip, *coders, "--target", "80")
    assert (code, out) == (3, "")
    for name in ("libx264", "libx265"):
        assert re.search(rf"ant, {name} ultrafast at [0-9.]+: the driver had a bad moment\n", err)


@pytest.mark.parametrize("name", ["out.mkv", "file"])
def test_of_several_clips_the_coded_ones_go_into_a_folder(loso, clip, second, tmp_path, name):
    (tmp_path / "file").touch()
    code, _, err = loso(clip, second, *FAST, "--target", "80", "--apply", name)
    assert code == 2
    assert "--apply: of several clips it is a folder" in err


def test_a_coded_clip_that_would_replace_its_source_is_refused(loso, clip, second):
    code, _, err = loso(clip, second, *FAST, "--target", "80", "--apply", ".")
    assert code == 2
    assert "--apply: would take the place of the clip" in err


@pytest.mark.parametrize(
    ("metric", "target", "pattern"),
    [("psnr", "36", r"psnr_avg:([\d.]+)"), ("ssim", "0.95", r"Y:([\d.]+)")],
)
def test_other_metrics_are_those_of_ffmpeg_s_own_filters(loso, clip, metric, target, pattern):
    words = (*FAST, "--metric", metric, "--target", target, "--apply", "out.mkv", "--json")
    code, out, _ = loso(clip, *words)
    record = json.loads(out)
    applied = record["applied"]
    assert (code, record["metric"], applied["held"]) == (0, metric, True)
    assert applied["score"] >= float(target)
    gray = "[0:v]extractplanes=y[a];[1:v]extractplanes=y[b]"  # the luma alone, as libvmaf has it
    graph = f"{gray};[a][b]{metric}=stats_file=-"
    done = subprocess.run(
        [
            *(find_ffmpeg().path, "-loglevel", "error", "-i", "out.mkv", "-i", clip),
            *("-filter_complex", graph, "-f", "null", "-"),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    frames = [float(value) for value in re.findall(pattern, done.stdout)]
    assert len(frames) == 4
    # ffmpeg's SSIM takes blocks of 8 with steps of 4, libvmaf's a Gaussian window.
    tolerance = 0.01 if metric == "psnr" else 0.03
    assert applied["score"] == pytest.approx(sum(frames) / 4, abs=tolerance)


def test_a_score_of_ssim_is_told_to_four_digits(loso, clip):
    code, out, _ = loso(clip, *FAST, "--metric", "ssim", "--target", "0.9")
    assert code == 0
    assert re.search(r"scores 0\.9\d{3} \(ssim, mean\)", out)


def test_an_unreadable_clip_is_refused(loso, tmp_path):
    path = tmp_path / "noise.mp4"
    path.write_bytes(b"noise")
    code, _, err = loso(path, *FAST, "--target", "80")
    assert code == 2
    assert "noise.mp4: cannot be decoded as video" in err
    assert not (tmp_path / "recommend.parts").exists()
