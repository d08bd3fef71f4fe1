"""Answers from real encodes of small clips, and the files that they leave."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from clips import write_picture
from loso.corpus.build import build_corpus
from loso.corpus.choices import read_choices
from loso.corpus.load import load_corpus
from loso.corpus.plan import BuildSettings
from loso.errors import BadClip, BadSettings, Busy, CannotRun
from loso.recommend.answer import Aim, Subject, Way, answer
from loso.recommend.apply import apply_answer, file_of
from loso.recommend.ask import ask
from loso.recommend.bound import Bound
from loso.recommend.desk import at_desk
from loso.recommend.judge import MetricJudge
from loso.recommend.question import Question
from loso.recommend.record import lower_of, record_of
from loso.recommend.segments import cut_out
from loso.recommend.work import carry_out
from loso.video.encoders import ENCODERS
from loso.video.ffmpeg import find_ffmpeg
from loso.video.pair import measure_pair

FRAMES = 6
HEADERS = 100
"""Bytes, and more than x264 has."""


@pytest.fixture(scope="module")
def ffmpeg():
    return find_ffmpeg()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "ant.mkv"
    write_picture(path, "mandelbrot=size=192x108:rate=25", FRAMES)
    return path


def settings_of(encoder="libx264", quality="30", preset="ultrafast", **options):
    choices = read_choices([encoder], quality=[quality], preset=[preset])
    return BuildSettings(choices=choices, **options)


@pytest.fixture(name="ask")
def asking(clip, ffmpeg, tmp_path):
    """Ask a question of the clip; what is coded is kept between calls."""

    def call(*targets, settings=None, parts="parts", apply=None, path=clip, **asked):
        settings = settings or settings_of()
        question = Question(targets=targets, **({"step": 3.0} | asked))
        judge = MetricJudge("vmaf", question.pool)
        with at_desk([path], settings, ffmpeg, parts=tmp_path / parts, jobs=2) as desk:
            (found,) = ask(desk, desk.clips, judge, question)
            for failure in found.failures:
                raise failure
            (coding,) = found.codings
            applied = None
            if apply is not None:
                applied = apply_answer(desk, coding, coding.answers[0], judge, apply)
        return coding, record_of(found, judge, question, applied)

    return call


@pytest.fixture(scope="module")
def truth(clip, ffmpeg, tmp_path_factory):
    """What the clip scores at every third setting, as a corpus has it, and that corpus's parts."""
    folder = tmp_path_factory.mktemp("truth")
    every = ",".join(str(q) for q in range(0, 52, 3))
    report = build_corpus(
        [clip], settings_of(quality=every), ffmpeg, out=folder / "c.jsonl", jobs=2
    )
    rows = load_corpus(report.corpus).rows
    scores = rows.group_by("cq").agg(pl.col("vmaf").mean()).sort("cq")
    return scores["cq"].to_list(), scores["vmaf"].to_list(), folder / "c.jsonl.parts"


@pytest.mark.parametrize("target", [95.0, 80.0, 55.0])
def test_the_answer_is_that_of_an_exhaustive_search(ask, truth, target):
    cq, scores, _ = truth
    cheapest = max(at for at, score in enumerate(scores) if score >= target)
    coding, _ = ask(target)
    (found,) = coding.answers
    assert (found.verdict, found.settled) == ("met", True)
    assert found.chosen.rate.value == cq[cheapest]
    assert found.chosen.score.value == pytest.approx(scores[cheapest], abs=1e-9)
    assert found.beyond.score.value == pytest.approx(scores[cheapest + 1], abs=1e-9)
    assert coding.encodes == len(coding.tried) <= 6


def test_a_second_question_finds_the_probes_of_the_first(ask):
    first, _ = ask(80.0)
    again, record = ask(80.0)
    assert again.answers[0].chosen.score == first.answers[0].chosen.score
    assert (first.encodes, again.encodes) == (len(again.tried), 0)
    assert all(probe["stored"] for probe in record["codings"][0]["probes"])


def test_what_a_build_has_measured_is_not_coded_again(ask, truth, tmp_path):
    (tmp_path / "built").symlink_to(truth[2])
    coding, _ = ask(80.0, parts="built")
    assert coding.encodes == 0
    assert len(coding.tried) == len(truth[0])


def test_several_targets_share_their_probes(ask):
    coding, record = ask(90.0, 85.0, parts="ladder", step=1.0)
    apart = [ask(target, parts=f"{target}", step=1.0)[0] for target in (90.0, 85.0)]
    for found, alone in zip(coding.answers, apart, strict=True):
        assert found.chosen.rate == alone.answers[0].chosen.rate
    assert coding.encodes == len(coding.tried)
    assert [answer["target"] for answer in record["codings"][0]["answers"]] == [90.0, 85.0]


def test_the_best_setting_settles_that_a_target_is_out_of_reach(ask):
    coding, record = ask(99.99)
    (found,) = coding.answers
    assert (found.verdict, found.settled, found.chosen) == ("out_of_reach", True, None)
    assert coding.tried[0].rate.value == 0
    told = record["codings"][0]["answers"][0]
    assert {told[key] for key in ("quality", "score", "lower", "bitrate_kbps")} == {None}


def test_where_even_the_cheapest_setting_will_do_it_is_the_answer(ask):
    coding, _ = ask(1.0)
    (found,) = coding.answers
    assert (found.verdict, found.settled) == ("met_by_the_cheapest", True)
    assert (found.chosen.rate.value, found.beyond) == (51, None)


def test_without_the_encodes_to_settle_it_nothing_is_said_that_was_not_seen(ask):
    coding, _ = ask(95.0, max_encodes=1)
    (found,) = coding.answers
    assert (found.verdict, found.settled, found.chosen) == ("undecided", False, None)
    assert coding.encodes == 1


def test_pools_are_those_of_the_library(ask):
    scores = {}
    for pool in ("mean", "hmean", "p1", "p5"):
        coding, _ = ask(70.0, pool=pool)
        chosen = coding.answers[0].chosen
        frames = chosen.probes[0].measured.vmaf
        scores[pool] = chosen.score.value, np.percentile(frames, 5), np.mean(frames)
    assert scores["p5"][0] == pytest.approx(scores["p5"][1], abs=1e-9)
    assert scores["mean"][0] == pytest.approx(scores["mean"][2], abs=1e-9)
    assert len({score for score, *_ in scores.values()}) > 1


def test_the_record_holds_every_probe(ask):
    coding, record = ask(80.0)
    (told,) = record["codings"]
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert [probe["quality"] for probe in told["probes"]] == [t.rate.value for t in coding.tried]
    (chosen,) = (p for p in told["probes"] if p["quality"] == told["answers"][0]["quality"])
    seconds = FRAMES / 25
    assert chosen["bitrate_kbps"] == pytest.approx(
        chosen["enc_bytes"] * 8 / seconds / 1000, abs=1e-3
    )
    assert len(chosen["part"]) == 64
    assert told["answers"][0]["lower"] == told["answers"][0]["score"] == chosen["score"]


def test_the_choice_stays_above_the_target_by_the_margin(clip, ffmpeg, tmp_path):
    settings = settings_of()
    question = Question(targets=(80.0,), step=1.0)
    bound = Bound(level=0.8, margin=6.0, n_sources=4)
    with at_desk([clip], settings, ffmpeg, parts=tmp_path / "parts", jobs=2) as desk:
        cut = cut_out(desk.clips[0], [(0, 3), (3, 3)])
        subject = Subject.of(
            desk,
            desk.clips[0],
            Way(choice=settings.choices[0]),
            MetricJudge("vmaf", "mean"),
            question,
            segments=cut,
        )
        (coding,) = carry_out(
            desk, [answer(subject, question, aim_at={80.0: Aim(margin=6.0, bound=bound)}.get)]
        )
    (found,) = coding.answers
    assert found.settled
    assert found.chosen.score.lower >= 86.0 > found.beyond.score.lower
    assert lower_of(coding, found, MetricJudge("vmaf", "mean")) == found.chosen.score.value - 6.0


# -- The whole clip -------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".mkv", ".mp4"])
def test_the_coded_clip_keeps_the_promise_to_the_last_digit(ask, clip, ffmpeg, tmp_path, ending):
    out = tmp_path / f"coded{ending}"
    coding, record = ask(80.0, apply=out)
    applied = record["applied"]
    assert applied["held"]
    assert applied["score"] == pytest.approx(coding.answers[0].chosen.score.value, abs=1e-9)
    # A container has the headers once, beside the packets.
    promised = record["codings"][0]["answers"][0]["bitrate_kbps"]
    assert promised - HEADERS * 8 * 25 / FRAMES / 1000 <= applied["bitrate_kbps"] <= promised
    pair = measure_pair(clip, out, ffmpeg)  # another way to the same features
    chosen = coding.answers[0].chosen.probes[0].measured
    assert pair.features["adm2"] == pytest.approx(chosen.features["adm2"], abs=1e-9)
    assert pair.frames == FRAMES
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([out.name, "parts"])


def test_a_clip_that_changes_while_it_is_coded_leaves_no_file(ask, clip, tmp_path, monkeypatch):
    ask(80.0)
    own = tmp_path / "ant.mkv"
    own.write_bytes(clip.read_bytes())
    from loso.recommend import apply

    def measure(*args, **options):
        measured = whole(*args, **options)
        own.write_bytes(clip.read_bytes() + b"more")
        return measured

    whole = apply.measure
    monkeypatch.setattr("loso.recommend.apply.measure", measure)
    with pytest.raises(BadClip, match="changed while it was coded; run this again"):
        ask(80.0, path=own, apply=tmp_path / "out.mkv")
    assert not (tmp_path / "out.mkv").exists()


def test_a_promise_that_is_not_kept_is_told(ask, tmp_path, monkeypatch):
    from dataclasses import replace

    from loso.recommend import apply

    def measure(*args, **options):
        measured = whole(*args, **options)
        return replace(measured, vmaf=tuple(score - 30 for score in measured.vmaf))

    whole = apply.measure
    monkeypatch.setattr("loso.recommend.apply.measure", measure)
    _, record = ask(80.0, apply=tmp_path / "out.mkv")
    assert record["applied"]["held"] is False


def test_a_name_that_cannot_be_coded_to_is_refused(clip, tmp_path):
    refused = {
        "out.avi": "not the name of a video file, expected a name that ends in .mkv, .mov, .mp4",
        "folder.mkv": "is a folder, expected a file",
        "same.mkv": "would take the place of the clip",
    }
    (tmp_path / "folder.mkv").mkdir()
    (tmp_path / "same.mkv").symlink_to(clip)
    for name, text in refused.items():
        with pytest.raises(BadSettings, match=text):
            file_of(tmp_path / name, clip, [clip], [], alone=True)
    assert file_of(tmp_path / "new.MKV", clip, [clip], [], alone=True) == tmp_path / "new.MKV"


@pytest.mark.parametrize(
    ("name", "encoder"), [("o.webm", "libx264"), ("o.mov", "libsvtav1"), ("o.MOV", "libvpx-vp9")]
)
def test_a_container_that_does_not_take_the_codec_is_refused(clip, name, encoder):
    coders = (
        [ENCODERS["libx265"], ENCODERS[encoder]] if "mov" in name.lower() else [ENCODERS[encoder]]
    )
    with pytest.raises(BadSettings, match=f"does not take what {encoder} writes, found {name}"):
        file_of(Path(name), clip, [clip], coders, alone=True)


@pytest.mark.parametrize(
    ("ending", "encoder"), [(".webm", "libsvtav1"), (".mov", "libx265"), (".mp4", "libsvtav1")]
)
def test_containers_take_what_is_not_refused(ask, tmp_path, ending, encoder):
    out = tmp_path / f"out{ending}"
    settings = BuildSettings(choices=read_choices([encoder], quality=["30"]))
    ask(20.0, settings=settings, step=20.0, apply=out)
    assert out.stat().st_size > 0


# -- What refuses ---------------------------------------------------------------------------------


def test_what_is_no_clip_is_refused(ask, tmp_path):
    path = tmp_path / "ant.mkv"
    path.write_text("nothing", encoding="utf-8")
    with pytest.raises(BadClip, match=r"ant\.mkv: cannot be decoded as video"):
        ask(80.0, path=path)
    with pytest.raises(BadClip, match="no such file"):
        ask(80.0, path=Path("nowhere.mkv"))


def test_a_probe_that_fails_ends_the_search_and_the_others_stay(ask, monkeypatch, tmp_path):
    ask(80.0, max_encodes=1)
    kept = list((tmp_path / "parts").glob("*.part"))

    def fail(*_, **__):
        raise CannotRun("the driver had a bad moment")

    monkeypatch.setattr("loso.corpus.cells.measure", fail)
    with pytest.raises(CannotRun, match="the driver had a bad moment"):
        ask(80.0)
    assert list((tmp_path / "parts").glob("*.part")) == kept


def test_two_at_one_folder_do_not_meet(clip, ffmpeg, tmp_path):
    with (
        at_desk([clip], settings_of(), ffmpeg, parts=tmp_path / "parts"),
        pytest.raises(Busy, match="a build"),
        at_desk([clip], settings_of(), ffmpeg, parts=tmp_path / "parts"),
    ):
        pass


def test_no_jobs_are_refused(clip, ffmpeg, tmp_path):
    with (
        pytest.raises(BadSettings, match="--jobs must be at least 1, found 0"),
        at_desk([clip], settings_of(), ffmpeg, parts=tmp_path / "parts", jobs=0),
    ):
        pass
