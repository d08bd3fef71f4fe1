"""How `loso recommend` answers, beside the truth by exhaustive search and beside bisection.

Each question (a clip, an encoder, a target) is put in turn to bisection over whole encodes and to
loso: of short clips whole encodes, of long ones segments, with and without a bound that the other
long clips support. All of them measure alike, one encode at a time, from an empty part store;
seconds count from opening the clips to the answer. Then every setting near a target is measured.
Long clips are made here, of scenes of the given clips and of ffmpeg's sources.
Last, sources are simulated from what was measured: how often the bound keeps its promise.

    python bench/recommend.py CLIP... --work recommend.bench --json recommend.json

A second run finds the truth in the working folder; what is timed is always coded anew.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from loso.corpus.choices import read_choices
from loso.corpus.plan import BuildSettings
from loso.errors import CannotRun, LosoError
from loso.intervals import supports
from loso.recommend.answer import Subject, Tried, Way
from loso.recommend.ask import ask
from loso.recommend.bound import fit_bound, need_of
from loso.recommend.calibrate import Grounds
from loso.recommend.desk import Desk, at_desk
from loso.recommend.judge import MetricJudge
from loso.recommend.question import Question
from loso.recommend.scale import scale_of
from loso.recommend.search import bracket_of, next_setting, predicted
from loso.recommend.segments import Sampling, Segment
from loso.recommend.work import Work, carry_out
from loso.video.clips import Clip, ClipSettings
from loso.video.encoders import ENCODERS
from loso.video.ffmpeg import Ffmpeg, find_ffmpeg

Vector = NDArray[np.float64]

JUDGE = MetricJudge("vmaf", "mean")
FPS = 25
USUAL = {"libx264": (10, 46), "libx265": (10, 46), "libsvtav1": (10, 55)}
"""Where bisection begins: CRF of everyday use. It looks beyond where an end is the answer."""
STRIDE = 5
"""The truth is sampled so far apart first; between the settings about the targets all are coded."""
ABOVE, BELOW = 2.0, 6.0
"""So many points beyond the highest and the lowest target count as near."""
N_SCENES, N_LONG = 3, 6
SYNTHETIC = {
    "mandelbrot": "mandelbrot=size={size}:rate=25,noise=alls=4:allf=t",
    "gradients": "gradients=size={size}:rate=25:speed=0.02:nb_colors=6:seed=3,noise=alls=8:allf=t",
    "testsrc2": "testsrc2=size={size}:rate=25,noise=alls=12:allf=t",
    "life": "life=size={size}:rate=25:mold=10:seed=5:death_color=gray:mold_color=green,gblur=2",
    "cellauto": "cellauto=size={size}:rate=25:rule=110:seed=9:scroll=1,gblur=1.5",
}
"""As many of them as make the long clips up to `N_LONG`, two at least."""
MEZZANINE = ("-c:v", "libx264", "-crf", "10", "-preset", "veryfast", "-pix_fmt", "yuv420p")
LEVELS, N_KNOWN, TRIALS = (0.8, 0.9, 0.95), (4, 9, 19), 1000
SHIFT, SPREAD = 3.0, 0.5
"""Of simulated sources: how far in settings curves are moved, and by what errors are scaled (both
standard deviations, that of the scale in the logarithm)."""
ERRORS = {"as measured": (1,), "of either sign": (1, -1)}
SURE = 1e-3
"""The chance that a bound which holds is reported as broken."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question, answered in one way; `place` is on the encoder's scale, -1 for no answer."""

    kind: str
    clip: str
    encoder: str
    target: float
    way: str
    place: int
    settled: bool
    encodes: int
    frames: int
    seconds: float
    core_seconds: float
    margin: float = 0.0
    failure: str = ""


@dataclass(kw_only=True)
class Truth:
    """What whole encodes of a clip score, by place on the scale; every one in `near` is there."""

    scores: dict[int, float]
    kbps: dict[int, float]
    near: tuple[int, int]
    segments: dict[int, float] = field(default_factory=dict)
    failed: list[int] = field(default_factory=list)
    """Settings whose encode did not decode."""

    def cheapest(self, target: float) -> int:
        """Return the cheapest setting that meets a target, -1 where none does."""
        return bracket_of(self.scores, target, max(self.scores) + 1).meets

    def rises(self) -> list[float]:
        """Return by how much the score rises to the next cheaper setting, wherever it does."""
        low, high = self.near
        near = [score for at, score in sorted(self.scores.items()) if low <= at <= high]
        steps = [after - before for before, after in pairwise(near)]
        return [step for step in steps if step > 0]


@dataclass(frozen=True)
class Kind:
    """Clips of one kind, and how they are opened and coded."""

    name: str
    paths: Sequence[Path]
    settings: BuildSettings


# -- Clips ----------------------------------------------------------------------------------------


def make_clips(
    ffmpeg: Ffmpeg, real: Sequence[Path], folder: Path, size: str, seconds: float
) -> list[Path]:
    """Return clips of `seconds`: scenes of real clips, no clip in two of them, and synthetic."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = round(seconds * FPS)
    n_spliced = len(real) // N_SCENES
    made: dict[Path, list[str]] = {}
    for at in range(n_spliced):
        scenes = real[at::n_spliced][:N_SCENES]
        inputs = [word for scene in scenes for word in ("-i", str(scene))]
        length = -(-frames // len(scenes))
        width, height = size.split("x")
        fit = f"scale={width}:{height}:force_original_aspect_ratio=increase,crop={width}:{height}"
        # What is too short is looped.
        chains = [
            f"[{n}:V:0]setpts=N/{FPS}/TB,fps={FPS},{fit},setsar=1,format=yuv420p,"
            f"loop=-1:size={length},trim=end_frame={length},setpts=N/{FPS}/TB[{n}]"
            for n in range(len(scenes))
        ]
        joined = "".join(f"[{n}]" for n in range(len(scenes)))
        graph = ";".join([*chains, f"{joined}concat=n={len(scenes)}[all]"])
        made[folder / f"spliced{at}.mkv"] = [*inputs, "-filter_complex", graph, "-map", "[all]"]
    for name, source in [*SYNTHETIC.items()][: max(N_LONG - n_spliced, 2)]:
        made[folder / f"{name}.mkv"] = ["-f", "lavfi", "-i", source.format(size=size)]
    for path, words in made.items():
        if path.exists():
            continue
        whole = path.with_suffix(".new.mkv")
        command = [ffmpeg.path, "-nostdin", "-y", "-loglevel", "error", *words]
        command += ["-frames:v", f"{frames}", "-an", *MEZZANINE, str(whole)]
        subprocess.run(command, check=True)
        whole.rename(path)
    return list(made)


def settings_of(encoders: Sequence[str], clips: ClipSettings) -> BuildSettings:
    """Return how clips are opened and coded, for encoders named NAME=PRESET."""
    names = [text.split("=")[0] for text in encoders]
    presets = [text for text in encoders if "=" in text]
    return BuildSettings(
        choices=read_choices(names, quality=["30"], preset=presets), clips=clips, threads=1
    )


# -- Questions ------------------------------------------------------------------------------------


def bisect(subject: Subject, target: float, low: int, high: int) -> Work[tuple[int, int]]:
    """Return the setting that meets `target`, whose neighbour misses it, and the encodes made.

    Begins in `low`..`high` and goes on beyond an end that is the answer, or misses.
    """
    meets, misses, made = low - 1, high + 1, 0
    while True:
        while misses - meets > 1:
            middle = (meets + misses) // 2
            tried = yield from subject.probe(middle)
            made += 1
            if tried.score.lower >= target:
                meets = middle
            else:
                misses = middle
        if misses == high + 1 < len(subject.scale):
            misses = len(subject.scale)
        elif meets == low - 1 >= 0:
            meets = -1
        else:
            return meets, made
        low, high = 0, len(subject.scale) - 1


def ask_bisection(
    kind: Kind, path: Path, target: float, parts: Path, ffmpeg: Ffmpeg
) -> dict[str, Any]:
    """Return what bisection over whole encodes answers."""
    with at_desk([path], kind.settings, ffmpeg, parts=parts) as desk:
        (clip,), (choice,) = desk.clips, kind.settings.choices
        subject = Subject.of(desk, clip, Way(choice=choice), JUDGE, question_of(target))
        low, high = USUAL.get(choice.encoder.name, choice.encoder.quality_range)
        first = int(subject.scale.cq[0])
        (found,) = carry_out(desk, [bisect(subject, target, low - first, high - first)])
        if isinstance(found, LosoError):
            raise found
        meets, made = found
        return {"place": meets, "settled": True, "encodes": made, "frames": made * clip.frames}


def ask_loso(
    kind: Kind,
    path: Path,
    target: float,
    parts: Path,
    ffmpeg: Ffmpeg,
    *,
    known: Sequence[Path] = (),
    confidence: float | None = None,
) -> dict[str, Any]:
    """Return what loso answers, as `loso recommend --jobs 1` would."""
    with at_desk([path, *known], kind.settings, ffmpeg, parts=parts) as desk:
        question = question_of(target, confidence)
        (found,) = ask(desk, desk.clips[:1], JUDGE, question, known=desk.clips[1:])
        if found.failures:
            raise found.failures[0]
        (coding,) = found.codings
        (answer,) = coding.answers
        frames = sum(segment.clip.frames for segment in coding.segments) or coding.clip.frames
        return {
            "place": -1 if answer.chosen is None else answer.chosen.place,
            "settled": answer.settled,
            "encodes": coding.encodes,
            "frames": coding.encodes * frames,
            "margin": answer.bound.margin if answer.bound else 0.0,
        }


def question_of(target: float, confidence: float | None = None) -> Question:
    """Return the question of whole settings."""
    return Question(targets=(target,), step=1.0, confidence=confidence)


def ask_all(
    kind: Kind, targets: Sequence[float], ffmpeg: Ffmpeg, work: Path, calibrated: Path | None
) -> list[Asked]:
    """Put every question in every way, the ways in turn; `calibrated` holds the others' parts.

    Scans are kept with those, the clip's own as well.
    """
    own: dict[Path, set[str]] = {}
    if calibrated:
        with at_desk(kind.paths, kind.settings, ffmpeg, parts=calibrated) as desk:
            own = {clip.path: marks_of(desk, clip, segments) for clip, segments in cut_up(desk)}
    asked = []
    questions = list(product(kind.paths, kind.settings.choices, targets))
    for at, (path, choice, target) in enumerate(questions):
        one = Kind(kind.name, kind.paths, replace(kind.settings, choices=(choice,)))
        loso = "segments" if calibrated else "whole clip"
        ways = {"bisection": ask_bisection, loso: ask_loso}
        if calibrated:
            known = [other for other in kind.paths if other != path]
            ways["segments, bound"] = partial(ask_loso, known=known, confidence=LEVELS[0])
        order = list(ways)
        for way in order[at % len(ways) :] + order[: at % len(ways)]:
            with tempfile.TemporaryDirectory(dir=work) as name:
                parts = Path(name)
                if calibrated and way == "segments, bound":
                    for part in calibrated.iterdir():
                        if part.suffix in {".part", ".scan"} and part.stem not in own[path]:
                            os.link(part, parts / part.name)
                started, spent = time.perf_counter(), core_seconds()
                try:
                    found = ways[way](one, path, target, parts, ffmpeg)
                except LosoError as failure:
                    tell(f"{path.stem}, {choice.encoder.name}, {target:g}, {way}: {failure}")
                    found = {"place": -1, "settled": False, "encodes": 0, "frames": 0}
                    found["failure"] = str(failure)
                asked.append(
                    Asked(
                        kind=kind.name,
                        clip=path.stem,
                        encoder=choice.encoder.name,
                        target=target,
                        way=way,
                        seconds=time.perf_counter() - started,
                        core_seconds=core_seconds() - spent,
                        **found,
                    )
                )
        tell(f"{kind.name}: {at + 1} of {len(questions)} questions")
    return asked


def calibrate(
    kind: Kind, targets: Sequence[float], ffmpeg: Ffmpeg, parts: Path
) -> dict[str, float]:
    """Measure what every clip needs into an empty store; return what that took."""
    started, spent = time.perf_counter(), core_seconds()
    question = Question(targets=tuple(targets), step=1.0)
    with at_desk(kind.paths, kind.settings, ffmpeg, parts=parts) as desk:
        grounds = Grounds(desk, desk.clips, JUDGE, question, confidence=LEVELS[0], say=tell)
        grounds.measure(desk.clips, [Way(choice=choice) for choice in kind.settings.choices])
    tell("calibrated")
    return {
        "clips": len(kind.paths),
        "seconds": time.perf_counter() - started,
        "core_seconds": core_seconds() - spent,
    }


def cut_up(desk: Desk) -> list[tuple[Clip, tuple[Segment, ...]]]:
    """Return each clip of a desk with the segments that stand for it."""
    return list(zip(desk.clips, desk.cut(desk.clips, Sampling()), strict=True))


def marks_of(desk: Desk, clip: Clip, segments: Sequence[Segment]) -> set[str]:
    """Return the names of all parts of a clip, whole and cut up, of every way of coding."""
    coded = [clip, *(segment.clip for segment in segments)]
    return {
        desk.mark(desk.cell(one, choice, rate))
        for choice in desk.settings.choices
        for rate in scale_of(choice.encoder, 1.0).rates
        for one in coded
    }


def core_seconds() -> float:
    """Return what ended children of this process have used of cores."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# -- Truth ----------------------------------------------------------------------------------------


def exhaust(
    whole: Subject, segments: Sequence[Segment], targets: Sequence[float], also: Sequence[int]
) -> Work[Truth]:
    """Return the truth of a clip: every setting near the targets, and those of `also`."""
    settings = len(whole.scale)
    tried: dict[int, Tried] = {}
    failed: list[int] = []

    def measure(places: Iterable[int]) -> Work[None]:
        for place in places:
            if place not in tried:
                try:
                    tried[place] = yield from whole.probe(place)
                except CannotRun:
                    failed.append(place)

    sparse = sorted({*range(0, settings, STRIDE), settings - 1})
    yield from measure(sparse)
    sparse = [at for at in sparse if at in tried]
    above = [at for at in sparse if tried[at].score.value >= max(targets) + ABOVE]
    below = [at for at in sparse if tried[at].score.value < min(targets) - BELOW]
    near = max(above, default=0), min(below, default=settings - 1)
    yield from measure([*range(near[0], near[1] + 1), *also])
    found = Truth(
        scores={at: each.score.value for at, each in sorted(tried.items())},
        kbps={at: each.bitrate_kbps for at, each in sorted(tried.items())},
        near=near,
        failed=failed,
    )
    if segments:
        cut = replace(whole, segments=tuple(segments))
        for place in range(near[0], near[1] + 1):
            probed = yield from cut.probe(place)
            found.segments[place] = probed.score.value
    return found


def truths_of(
    kind: Kind,
    targets: Sequence[float],
    ffmpeg: Ffmpeg,
    parts: Path,
    *,
    jobs: int,
    asked: Sequence[Asked],
) -> dict[tuple[str, str], Truth]:
    """Return the truth by clip and encoder; what `parts` holds is not coded again."""

    def progress(done: float, total: float, note: str = "") -> None:
        del total
        if done and done % 100 == 0:
            tell(f"{kind.name}: the truth, {done:.0f} encodes, {note}")

    question = Question(targets=tuple(targets), step=1.0)
    with at_desk(
        kind.paths, kind.settings, ffmpeg, parts=parts, jobs=jobs, progress=progress
    ) as desk:
        works, keys = [], []
        for (clip, segments), choice in product(cut_up(desk), kind.settings.choices):
            key = clip.src, choice.encoder.name
            also = [one.place for one in asked if (one.clip, one.encoder) == key and one.place >= 0]
            whole = Subject.of(desk, clip, Way(choice=choice), JUDGE, question)
            works.append(exhaust(whole, segments, targets, also))
            keys.append(key)
        found = {}
        for key, truth in zip(keys, carry_out(desk, works), strict=True):
            if isinstance(truth, LosoError):
                raise truth
            found[key] = truth
        return found


# -- Tables ---------------------------------------------------------------------------------------


def judged(asked: Sequence[Asked], truths: Mapping[tuple[str, str], Truth]) -> list[dict[str, Any]]:
    """Return every answer beside the truth, and its cost beside that of bisection."""
    rival = {(one.clip, one.encoder, one.target): one for one in asked if one.way == "bisection"}
    rows = []
    for one in asked:
        truth = truths[one.clip, one.encoder]
        best = truth.cheapest(one.target)
        beside = rival[one.clip, one.encoder, one.target]
        if beside.failure:
            continue
        # The file itself: of whole encodes it is one of those, segments leave it to be coded.
        more = beside.seconds / beside.encodes if one.way.startswith("segments") else 0.0
        row = asdict(one) | {
            "best": best,
            "score": truth.scores.get(one.place),
            "met": None,
            "steps": None,
            "percent": None,
            "seconds_ratio": one.seconds / beside.seconds,
            "seconds_with_file_ratio": (one.seconds + more) / beside.seconds,
            "core_seconds_ratio": one.core_seconds / beside.core_seconds,
            "frames_ratio": one.frames / beside.frames,
        }
        if one.place >= 0:
            row["met"] = truth.scores[one.place] >= one.target
            row["steps"] = best - one.place
            if best >= 0:
                row["percent"] = 100 * (truth.kbps[one.place] / truth.kbps[best] - 1)
        rows.append(row)
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the figures of each kind of clips, encoder and way; of long ones by origin as well."""
    rows = [*rows]
    for row in [row for row in rows if row["kind"] == "long"]:
        rows.append(row | {"kind": "synthetic" if row["clip"] in SYNTHETIC else "spliced"})
    keys = dict.fromkeys((row["kind"], row["encoder"], row["way"]) for row in rows)
    found = []
    for key in sorted(keys):
        all_own = [row for row in rows if (row["kind"], row["encoder"], row["way"]) == key]
        own = [row for row in all_own if not row["failure"]]
        given = [row for row in own if row["place"] >= 0]
        kept = [row for row in given if row["met"]]
        percent = [row["percent"] for row in kept]
        figures = {
            "questions": len(all_own),
            "failed": len(all_own) - len(own),
            "answers": len(given),
            "met": len(kept),
            "settled": sum(row["settled"] for row in given),
            "short_by": max([0.0, *(row["target"] - row["score"] for row in given)]),
            "steps": statistics.median(row["steps"] for row in given) if given else None,
            "most_steps": max((row["steps"] for row in given), default=None),
            "percent": statistics.median(percent) if percent else None,
            "most_percent": max(percent, default=None),
            "encodes": statistics.mean(row["encodes"] for row in own),
            "seconds": statistics.median(row["seconds"] for row in own),
        }
        for name in (name for name in own[0] if name.endswith("_ratio")):
            by_clip: dict[str, list[float]] = {}
            for row in own:
                by_clip.setdefault(row["clip"], []).append(row[name])
            figures[name] = statistics.median(map(statistics.median, by_clip.values()))
        found.append(dict(zip(("kind", "encoder", "way"), key, strict=True)) | figures)
    return found


# -- Simulated sources ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Curves:
    """What a clip and its segments score at each setting, (settings,), both falling."""

    whole: Vector
    cut: Vector
    usual: Vector
    """Where a search begins."""


def curves_of(truth: Truth, encoder: str) -> Curves:
    """Return curves through what was measured, beyond it as such curves usually go on."""
    low, high = truth.near
    usual = JUDGE.prior(scale_of(ENCODERS[encoder], 1.0).usual_places)
    whole = predicted(truth.scores, usual)
    places = np.arange(low, high + 1)
    error = [truth.segments[at] - truth.scores[at] for at in places.tolist()]
    cut = whole + np.interp(np.arange(len(usual)), places, error)
    return Curves(whole, np.minimum.accumulate(cut), usual)


def drawn(
    random: np.random.Generator, known: Sequence[Curves], signs: Sequence[int]
) -> tuple[Vector, Vector]:
    """Return a source's truths and estimates: one clip's curve moved, another's error scaled.

    The error is that which segments had at the same score, times one of `signs`.
    """
    one, other = (known[at] for at in random.integers(len(known), size=2))
    places = np.arange(len(one.whole))
    truths = np.interp(places + random.normal(0, SHIFT), places, one.whole)
    error = np.interp(truths, other.whole[::-1], (other.cut - other.whole)[::-1])
    estimates = truths + random.choice(signs) * error * np.exp(random.normal(0, SPREAD))
    return truths, np.minimum.accumulate(np.clip(estimates, 0, 100))


def choose(estimates: Vector, aim: float, usual: Vector) -> int:
    """Return the setting that a search settles on, -1 where none meets the aim."""
    scores: dict[int, float] = {}
    while (place := next_setting(scores, aim, usual, made=len(scores))) is not None:
        scores[place] = float(estimates[place])
    return bracket_of(scores, aim, len(usual)).meets


def promises(
    random: np.random.Generator,
    known: Sequence[Curves],
    *,
    n_known: int,
    level: float,
    targets: Sequence[float],
    errors: str,
) -> dict[str, Any]:
    """Return how many promises to new sources were kept, with a bound and without, and its cost."""
    margins: list[float] = []
    kept = {True: 0, False: 0}
    steps: dict[bool, list[int]] = {True: [], False: []}
    for trial in range(TRIALS):
        target = targets[trial % len(targets)]
        sources = [drawn(random, known, ERRORS[errors]) for _ in range(n_known)]
        needs = {f"{at}": [need_of([*e], [*t], target)] for at, (t, e) in enumerate(sources)}
        bound = fit_bound(needs, level)
        truths, estimates = drawn(random, known, ERRORS[errors])
        best = int(np.sum(truths >= target)) - 1
        margins.append(bound.margin)
        for bounded in (True, False):
            at = choose(estimates, target + bounded * bound.margin, known[0].usual)
            kept[bounded] += at < 0 or bool(truths[at] >= target)
            if at >= 0:
                steps[bounded].append(best - at)
    return {
        "errors": errors,
        "sources": n_known,
        "level": level,
        "kept": kept[True] / TRIALS,
        "least": float(binom.ppf(SURE, TRIALS, level)) / TRIALS,
        "kept_without": kept[False] / TRIALS,
        "margin": statistics.median(margins),
        "steps": statistics.median(steps[True]),
        "mean_steps": statistics.mean(steps[True]),
        "mean_steps_without": statistics.mean(steps[False]),
        "no_answer": TRIALS - len(steps[True]),
    }


# -- The command ----------------------------------------------------------------------------------


def tell(text: str) -> None:
    """Say on stderr what goes on."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print, and keep the figures where asked."""
    parser = argparse.ArgumentParser(description="Answers beside the truth and beside bisection.")
    parser.add_argument("clips", nargs="*", type=Path, help="real clips; streams play at 25 fps")
    parser.add_argument("--frames", type=int, default=30, help="of each of them, from its start")
    parser.add_argument("--scale", default="480x270", help="that they are brought to")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the long clips")
    parser.add_argument("--size", default="320x180", help="of the long clips")
    parser.add_argument("--encoder", action="append", metavar="NAME=PRESET", help="for real clips")
    parser.add_argument("--long-encoder", action="append", metavar="NAME=PRESET")
    parser.add_argument("--target", action="append", type=float, help="95, 90, 80 unless given")
    parser.add_argument("--jobs", type=int, default=2, help="of what is not timed")
    parser.add_argument("--work", type=Path, default=Path("recommend.bench"))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    ffmpeg, work = find_ffmpeg(), options.work
    targets = options.target or [95.0, 90.0, 80.0]
    width, height = map(int, options.scale.split("x"))
    real = Kind(
        "short",
        options.clips,
        settings_of(
            options.encoder or ["libx264=veryfast", "libsvtav1=12"],
            ClipSettings(frames=options.frames, scale=(width, height), fps=Fraction(FPS)),
        ),
    )
    made = make_clips(ffmpeg, real.paths, work / "clips", options.size, options.seconds)
    encoders = options.long_encoder or ["libx264=veryfast"]
    long = Kind("long", made, settings_of(encoders, ClipSettings()))
    result: dict[str, Any] = {"targets": targets}
    asked: list[Asked] = []
    with tempfile.TemporaryDirectory(dir=work) as name:
        result["calibration"] = calibrate(long, targets, ffmpeg, Path(name))
        asked += ask_all(long, targets, ffmpeg, work, Path(name))
    kinds = [long, *([real] if real.paths else [])]
    if real.paths:
        asked += ask_all(real, targets, ffmpeg, work, None)
    truths: dict[tuple[str, str], Truth] = {}
    for kind in kinds:
        parts = work / "truth"
        truths |= truths_of(kind, targets, ffmpeg, parts, jobs=options.jobs, asked=asked)
    rows = judged(asked, truths)
    random = np.random.default_rng(7)
    known = [
        curves_of(truth, encoder)
        for (_, encoder), truth in truths.items()
        if truth.segments and encoder == long.settings.choices[0].encoder.name
    ]
    result |= {
        "answers": rows,
        "summary": summary(rows),
        "truth": [
            {"clip": clip, "encoder": encoder, **asdict(truth), "rises": truth.rises()}
            for (clip, encoder), truth in truths.items()
        ],
        "promises": [
            promises(random, known, n_known=count, level=level, targets=targets, errors=errors)
            for errors, count, level in product(ERRORS, N_KNOWN, LEVELS)
            if supports(count, level)
        ],
    }
    _print(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _print(result: dict[str, Any]) -> None:
    spent = result["calibration"]
    print(f"calibrating on {spent['clips']} long clips, once: {spent['seconds']:.0f} s")
    print(
        f"{'':37}{'met':>9}{'':3}{'short by':>8}{'steps':>7}{'most':>5}{'bitrate':>9}{'most':>7}"
        f"{'encodes':>9}{'seconds':>9}{'ratio':>7}{'file':>6}{'cores':>7}"
        f"{'frames':>8}"
    )
    for of in result["summary"]:
        line = f"{of['kind']:10}{of['encoder']:11}{of['way']:16}"
        line += f"{of['met']:>4} of {of['answers']:<3}/{of['questions']:<3}{of['short_by']:7.2f}"
        line += f"{of['steps']:7.1f}{of['most_steps']:5}{of['percent']:8.1f}%"
        line += f"{of['most_percent']:6.1f}%{of['encodes']:9.2f}{of['seconds']:9.2f}"
        line += f"{of['seconds_ratio']:7.2f}{of['seconds_with_file_ratio']:6.2f}"
        line += f"{of['core_seconds_ratio']:7.2f}"
        print(f"{line}{of['frames_ratio']:8.2f}")
    print()
    for of in result["truth"]:
        low, high = of["near"]
        errors = [of["segments"][at] - of["scores"][at] for at in of["segments"]]
        off = f", segments {min(errors):+.2f}..{max(errors):+.2f}" if errors else ""
        print(
            f"{of['clip']:28}{of['encoder']:11}{low:3}..{high:<3}{len(of['rises']):3} rises, "
            f"most {max(of['rises'], default=0.0):.3f}{off}"
        )
    print()
    print(
        f"{'errors':16}sources  level   kept  at least  without  margin  steps  mean  without  "
        "no answer"
    )
    for of in result["promises"]:
        print(
            f"{of['errors']:16}{of['sources']:7}{of['level']:7.2f}{of['kept']:7.3f}{of['least']:10.3f}"
            f"{of['kept_without']:9.3f}{of['margin']:8.2f}{of['steps']:7.1f}{of['mean_steps']:6.2f}"
            f"{of['mean_steps_without']:9.2f}{of['no_answer']:11}"
        )


if __name__ == "__main__":
    main()
