"""How `loso recommend` answers, beside the truth by exhaustive search and beside bisection.

Each question (a clip, an encoder, a target) is put in turn to bisection over whole encodes and to
loso: of short clips whole encodes, of long ones segments, with and without a bound that the other
long clips support. All of them measure alike, from an empty part store. Bisection makes one encode
at a time, as each follows from the one before; loso codes segments side by side, one for each core,
as it does for a user. Seconds count from opening the clips to the answer. Then every setting near a
target is measured.
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
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from loso.corpus.choices import read_choices
from loso.corpus.plan import BuildSettings
from loso.errors import LosoError
from loso.machine import cores
from loso.recommend.answer import Subject, Way
from loso.recommend.ask import ask
from loso.recommend.calibrate import Grounds
from loso.recommend.desk import Desk, at_desk
from loso.recommend.question import Question
from loso.recommend.scale import scale_of
from loso.recommend.segments import Segment
from loso.recommend.work import Work, carry_out
from loso.video.clips import Clip, ClipSettings
from loso.video.ffmpeg import Ffmpeg, find_ffmpeg
from recommend_answers import Asked, judged, print_answers, summary
from recommend_promises import all_promises, curves_of, print_promises
from recommend_truth import JUDGE, Kind, Truth, cut_up, print_truths, tell, truths_of

FPS = 25
USUAL = {"libx264": (10, 46), "libx265": (10, 46), "libsvtav1": (10, 55)}
"""Where bisection begins: CRF of everyday use. It looks beyond where an end is the answer."""
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
CONFIDENCE = 0.8
"""Of the answers that have a bound."""


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
    jobs: int,
    known: Sequence[Path] = (),
    confidence: float | None = None,
) -> dict[str, Any]:
    """Return what loso answers, as `loso recommend` would."""
    with at_desk([path, *known], kind.settings, ffmpeg, parts=parts, jobs=jobs) as desk:
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
    kind: Kind,
    targets: Sequence[float],
    ffmpeg: Ffmpeg,
    work: Path,
    *,
    jobs: int,
    calibrated: Path | None = None,
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
        ways: dict[str, Callable[..., dict[str, Any]]]
        ways = {"bisection": ask_bisection, loso: partial(ask_loso, jobs=jobs)}
        if calibrated:
            known = [other for other in kind.paths if other != path]
            ways["segments, bound"] = partial(
                ask_loso, jobs=jobs, known=known, confidence=CONFIDENCE
            )
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
    kind: Kind, targets: Sequence[float], ffmpeg: Ffmpeg, parts: Path, *, jobs: int
) -> dict[str, float]:
    """Measure what every clip needs into an empty store; return what that took."""
    started, spent = time.perf_counter(), core_seconds()
    question = Question(targets=tuple(targets), step=1.0)
    with at_desk(kind.paths, kind.settings, ffmpeg, parts=parts, jobs=jobs) as desk:
        grounds = Grounds(desk, desk.clips, JUDGE, question, confidence=CONFIDENCE, say=tell)
        grounds.measure(desk.clips, [Way(choice=choice) for choice in kind.settings.choices])
    tell("calibrated")
    return {
        "clips": len(kind.paths),
        "seconds": time.perf_counter() - started,
        "core_seconds": core_seconds() - spent,
    }


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


# -- The command ----------------------------------------------------------------------------------


def main() -> None:
    """Measure, print, and keep the figures where asked."""
    parser = argparse.ArgumentParser(description="Answers beside the truth and beside bisection.")
    parser.add_argument("clips", nargs="*", type=Path, help="real clips; streams play at 25 fps")
    parser.add_argument("--frames", type=int, default=30, help="of each of them, from its start")
    parser.add_argument("--scale", default="480x270", help="that they are brought to")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the long clips")
    parser.add_argument("--size", default="640x360", help="of the long clips")
    parser.add_argument("--encoder", action="append", metavar="NAME=PRESET", help="for real clips")
    parser.add_argument("--long-encoder", action="append", metavar="NAME=PRESET")
    parser.add_argument("--target", action="append", type=float, help="95, 90, 80 unless given")
    parser.add_argument("--jobs", type=int, default=cores().usable, help="of all but bisection")
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
    folder = work / f"clips-{options.size}-{options.seconds:g}s"
    made = make_clips(ffmpeg, real.paths, folder, options.size, options.seconds)
    encoders = options.long_encoder or ["libx264=veryfast"]
    long = Kind("long", made, settings_of(encoders, ClipSettings()))
    result: dict[str, Any] = {"targets": targets, "size": options.size, "jobs": options.jobs}
    asked: list[Asked] = []
    with tempfile.TemporaryDirectory(dir=work) as name:
        result["calibration"] = calibrate(long, targets, ffmpeg, Path(name), jobs=options.jobs)
        asked += ask_all(*(long, targets, ffmpeg, work), jobs=options.jobs, calibrated=Path(name))
    if real.paths:
        asked += ask_all(real, targets, ffmpeg, work, jobs=options.jobs)
    answered: dict[tuple[str, str], set[int]] = {}
    for one in asked:
        if one.place >= 0:
            answered.setdefault((one.clip, one.encoder), set()).add(one.place)
    truths: dict[tuple[str, str], Truth] = {}
    for kind in [long, *([real] if real.paths else [])]:
        truths |= truths_of(
            *(kind, targets, ffmpeg, work / "truth"), jobs=options.jobs, also=answered
        )
    rows = judged(asked, truths)
    of_long = long.settings.choices[0].encoder.name
    known = [
        curves_of(truth, encoder)
        for (_, encoder), truth in truths.items()
        if truth.segments and encoder == of_long
    ]
    result |= {
        "answers": rows,
        "summary": summary(rows, SYNTHETIC),
        "truth": [
            {"clip": clip, "encoder": encoder, **asdict(truth), "rises": truth.rises()}
            for (clip, encoder), truth in truths.items()
        ],
        "promises": all_promises(known, targets),
    }
    spent = result["calibration"]
    print(f"calibrating on {spent['clips']} long clips, once: {spent['seconds']:.0f} s")
    print_answers(result["summary"])
    print()
    print_truths(truths)
    print()
    print_promises(result["promises"])
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
