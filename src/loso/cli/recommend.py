"""The command that finds the cheapest setting that meets a target: `recommend`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loso.cli.answers import hold, print_answers, refuse_no_answer
from loso.cli.clips import rates_of, whole_numbers
from loso.cli.console import print_json, relay, show_progress
from loso.cli.options import JsonOption, one_of, presets
from loso.corpus.plan import BuildSettings
from loso.errors import BadSettings
from loso.machine import cores
from loso.metrics.pooling import CLIP_POOLS
from loso.recommend.question import MAX_ENCODES, Question
from loso.recommend.segments import Sampling
from loso.video.clips import ClipSettings
from loso.video.measure import VmafModel

if TYPE_CHECKING:
    from loso.corpus.choices import Choice
    from loso.corpus.plan import Cell

__all__ = ["recommend"]

_RAW = "Raw YUV clips"
_KEPT = "finished encodes are kept, the same command goes on from them"


def recommend(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="Source clip.")],
    encoder: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="ffmpeg's name of an encoder; repeat it to compare.",
            autocompletion=one_of("loso.video.encoders:ENCODERS"),
        ),
    ],
    target: Annotated[float | None, typer.Option(help="VMAF that the clip is to reach.")] = None,
    ladder: Annotated[
        str | None, typer.Option(help="Several such targets, 95,90,80, from one set of encodes.")
    ] = None,
    pool: Annotated[
        str,
        typer.Option(
            metavar="POOL",
            help="How the frames' scores are pooled: mean, hmean, p1, p5.",
            autocompletion=lambda: list(CLIP_POOLS),
        ),
    ] = Question.pool,
    max_encodes: Annotated[
        int, typer.Option(help="Settings that may be coded; stored ones cost nothing.")
    ] = MAX_ENCODES,
    step: Annotated[
        float | None,
        typer.Option(help="Between settings; 1, or 0.25 where fractions are taken."),
    ] = None,
    segments: Annotated[
        int | None,
        typer.Option(
            help="Parts to code of a long clip; by its length unless given, 0 codes all of it."
        ),
    ] = None,
    segment_seconds: Annotated[
        float, typer.Option(help="Length of such a part.")
    ] = Sampling.seconds,
    calibrate_on: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="CLIP",
            help="Other clips, coded whole too: how far their parts were off; repeat it.",
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(help="That an answer from parts keeps its promise; needs --calibrate-on."),
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            help="Presets, medium or libsvtav1=8; the default unless given.", autocompletion=presets
        ),
    ] = None,
    encoder_args: Annotated[
        list[str] | None, typer.Option(help="More options, libx265='-tune grain'.")
    ] = None,
    height: Annotated[
        list[str] | None,
        typer.Option(help="Height to code at, scored at the clip's size; its own unless given."),
    ] = None,
    apply: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT", help="Code the whole clip with the answer: .mkv, .mov, .mp4, .webm."
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(
            help="Of raw YUV clips; the first --height is then theirs.", rich_help_panel=_RAW
        ),
    ] = None,
    pix_fmt: Annotated[
        str, typer.Option(help="Of raw YUV clips.", rich_help_panel=_RAW)
    ] = ClipSettings.raw_pixel_format,
    fps: Annotated[
        str | None,
        typer.Option(
            help="Of raw YUV and of streams that carry none: 30, 30000/1001.", rich_help_panel=_RAW
        ),
    ] = None,
    vmaf_model: Annotated[
        str, typer.Option(help="version=NAME of a model in libvmaf, or path=FILE.")
    ] = str(VmafModel()),
    jobs: Annotated[
        int | None, typer.Option(help="Encodes at a time; one for each core unless given.")
    ] = None,
    threads: Annotated[
        int, typer.Option(help="Threads of the encoder; they change what x264 writes.")
    ] = BuildSettings.threads,
    timeout: Annotated[
        float, typer.Option(help="Seconds one encode may take.")
    ] = BuildSettings.timeout_s,
    parts: Annotated[Path, typer.Option(help="Folder of finished encodes.")] = Path(
        "recommend.parts"
    ),
    ffmpeg: Annotated[str, typer.Option(help="The ffmpeg to use, with libvmaf.")] = "",
    qsv_device: Annotated[
        str, typer.Option(help="Render node for Quick Sync.")
    ] = BuildSettings.qsv_device,
    vaapi_device: Annotated[
        str, typer.Option(help="Render node for VA-API.")
    ] = BuildSettings.vaapi_device,
    as_json: JsonOption = False,
) -> None:
    """Find the cheapest quality setting with which a clip meets a target.

    Codes and scores the clip at a few settings, each chosen by the ones before, and keeps them.
    Several encoders or presets are compared at equal quality.

    Example: loso recommend clip.mp4 --encoder libx265 --target 92
    """
    from loso.recommend.answer import Subject, answer
    from loso.recommend.apply import apply_answer, refuse_file
    from loso.recommend.calibrate import Grounds
    from loso.recommend.desk import at_desk
    from loso.recommend.judge import VmafJudge
    from loso.recommend.record import record_of
    from loso.video.ffmpeg import find_ffmpeg

    others = calibrate_on or []
    question = Question(
        targets=_targets(target, ladder, apply),
        pool=pool,
        max_encodes=max_encodes,
        step=step,
        sampling=Sampling(seconds=segment_seconds, number=segments),
        confidence=confidence,
    )
    judge = VmafJudge(pool)
    for aim in question.targets:
        judge.refuse_target(aim)
    if apply is not None:
        refuse_file(apply, clip)
    heights = whole_numbers("--height", ",".join(height or []))
    settings = BuildSettings(
        choices=_choices(encoder, preset, encoder_args),
        clips=_clip_settings([clip, *others], width, heights, pix_fmt, fps),
        heights=heights if width is None else heights[1:],
        model=VmafModel.parse(vmaf_model),
        threads=threads,
        timeout_s=timeout,
        qsv_device=qsv_device,
        vaapi_device=vaapi_device,
    )
    if len(settings.heights) > 1:
        raise BadSettings("--height takes one height to code at", found=f"{settings.heights}")
    at_once = cores().usable if jobs is None else jobs
    applied = None
    with (
        show_progress("recommend", kept=_KEPT) as progress,
        at_desk(
            *([clip, *others], settings, find_ffmpeg(ffmpeg)),
            parts=parts,
            jobs=at_once,
            progress=progress,
            say=relay,
        ) as desk,
    ):
        opened, *known = desk.clips
        coded_at = settings.heights[0] if settings.heights else None
        cut = desk.cut(opened, question.sampling)
        grounds = Grounds(desk, known if cut else [], judge, question, say=relay)
        codings = []
        best: tuple[float, Cell] | None = None
        for choice in settings.choices:
            subject = Subject.of(
                desk, opened, choice, judge, question, segments=cut, height=coded_at
            )
            coding = answer(
                subject, question, bound_of=partial(grounds.bound, opened, choice, height=coded_at)
            )
            codings.append(coding)
            chosen = coding.answers[0].chosen
            if chosen is not None and (best is None or chosen.bitrate_kbps < best[0]):
                best = chosen.bitrate_kbps, subject.whole(chosen.place)
        if best is not None and apply is not None:
            applied = apply_answer(desk, best[1], judge, question.targets[0], apply)
    if as_json:
        print_json(record_of(codings, judge, question, applied))
    refuse_no_answer(codings, question)
    if not as_json:
        print_answers(codings, judge, question)
    if applied is not None:
        hold(applied, judge, question.targets[0], as_json=as_json)


def _targets(target: float | None, ladder: str | None, apply: Path | None) -> tuple[float, ...]:
    """Return the targets, from the highest to the lowest."""
    if (target is None) == (ladder is None):
        raise BadSettings("no target, or too many", expected="--target, or --ladder for several")
    if target is not None:
        return (target,)
    if apply is not None:
        raise BadSettings("--apply takes one answer", fix="give --target in the place of --ladder")
    try:
        found = {float(word) for word in (ladder or "").split(",")}
    except ValueError:
        raise BadSettings(
            "not a list of numbers",
            where="--ladder",
            expected="such as 95,90,80",
            found=f"{ladder}",
        ) from None
    return tuple(sorted(found, reverse=True))


def _choices(
    encoders: list[str], preset: list[str] | None, encoder_args: list[str] | None
) -> tuple[Choice, ...]:
    """Return the ways of coding that were asked for, at a rate that stands for all."""
    from loso.corpus.choices import read_choices
    from loso.video.encoders import encoder_named

    middles = {name: sum(encoder_named(name).quality_range) // 2 for name in encoders}
    return read_choices(
        encoders,
        quality=[f"{name}={middle}" for name, middle in middles.items()],
        preset=preset or [],
        encoder_args=encoder_args or [],
    )


def _clip_settings(
    clips: list[Path], width: int | None, heights: tuple[int, ...], pix_fmt: str, fps: str | None
) -> ClipSettings:
    if width is not None and not heights:
        raise BadSettings("--width needs --height", fix="give both, or neither")
    if not any(clip.suffix.lower() == ".yuv" for clip in clips) and (
        width is not None or pix_fmt != ClipSettings.raw_pixel_format
    ):
        raise BadSettings(
            "--width and --pix-fmt are for raw YUV clips, and none of these is one",
            expected="a clip that ends in .yuv",
            fix="leave them out; --height says what to code at",
        )
    fps_of_all, _ = rates_of([] if fps is None else [fps], clips)
    return ClipSettings(
        raw_size=None if width is None else (width, heights[0]),
        raw_pixel_format=pix_fmt,
        fps=fps_of_all,
    )
