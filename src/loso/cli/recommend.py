"""The command that finds the cheapest setting that meets a target: `recommend`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loso.cli import coding
from loso.cli.answers import conclude
from loso.cli.console import relay, show_progress
from loso.cli.options import JsonOption, SchedulerOption, cluster_at, one_of
from loso.corpus.plan import BuildSettings
from loso.errors import BadInput, BadSettings, CannotRun
from loso.metrics.pooling import CLIP_POOLS
from loso.recommend.question import MAX_ENCODES, Question
from loso.recommend.segments import Sampling
from loso.video.clips import ClipSettings
from loso.video.measure import VmafModel

if TYPE_CHECKING:
    from loso.corpus.choices import Choice
    from loso.recommend.apply import Applied
    from loso.recommend.judge import Judge

__all__ = ["recommend"]

_MODEL = "A model in the place of a metric"
_KEPT = "finished encodes are kept, the same command goes on from them"


def recommend(
    clips: Annotated[
        list[Path], typer.Argument(metavar="CLIP...", help="Source clips, each by itself.")
    ],
    encoder: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="ffmpeg's name of an encoder; repeat it to compare.",
            autocompletion=one_of("loso.video.encoders:ENCODERS"),
        ),
    ],
    target: Annotated[float | None, typer.Option(help="Score that the clip is to reach.")] = None,
    ladder: Annotated[
        str | None, typer.Option(help="Several such targets, 95,90,80, from one set of encodes.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What is measured and held to the target: vmaf, psnr, ssim; vmaf unless given.",
            autocompletion=one_of("loso.recommend.judge:METRICS"),
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A model folder: its score is held to the target, such as MOS.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="STEM",
            help="Which model, where several share the folder.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN_DIR",
            help="The run that it was exported from: how its choices went on unseen sources.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The corpus of that run.", rich_help_panel=_MODEL),
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
        typer.Option(help="That an estimated answer keeps its promise: from parts, or by a model."),
    ] = None,
    preset: coding.PresetOption = None,
    encoder_args: coding.EncoderArgsOption = None,
    height: coding.HeightOption = None,
    apply: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="Code the whole clip with the answer: .mkv, .mov, .mp4, .webm; of several clips a "
            "folder, for one .mkv each.",
        ),
    ] = None,
    width: coding.WidthOption = None,
    pix_fmt: coding.PixFmtOption = ClipSettings.raw_pixel_format,
    fps: coding.FpsOption = None,
    vmaf_model: coding.VmafModelOption = coding.USUAL_VMAF,
    jobs: coding.JobsOption = None,
    scheduler: SchedulerOption = None,
    threads: coding.ThreadsOption = BuildSettings.threads,
    timeout: coding.TimeoutOption = BuildSettings.timeout_s,
    parts: Annotated[Path, typer.Option(help="Folder of finished encodes.")] = Path(
        "recommend.parts"
    ),
    ffmpeg: coding.FfmpegOption = "",
    qsv_device: coding.QsvOption = BuildSettings.qsv_device,
    vaapi_device: coding.VaapiOption = BuildSettings.vaapi_device,
    as_json: JsonOption = False,
) -> None:
    """Find the cheapest quality setting with which a clip meets a target.

    Codes and scores the clip at a few settings, each chosen by the ones before, and keeps them.
    Several encoders, presets or heights are compared at equal quality; several clips are worked on
    side by side, and --json prints a line for each.

    Example: loso recommend clip.mp4 --encoder libx265 --target 92
    """
    from loso.recommend.apply import apply_answer, file_of
    from loso.recommend.ask import ask
    from loso.recommend.desk import at_desk
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
    judge = _judge(metric, model, name, run, corpus, question)
    for aim in question.targets:
        judge.refuse_target(aim)
    choices = _choices(encoder, preset, encoder_args)
    coders = [choice.encoder for choice in choices]
    files = [
        file_of(apply, clip, [*clips, *others], coders, alone=len(clips) == 1)
        for clip in clips
        if apply is not None
    ]
    opening, heights = coding.clip_settings(
        [*clips, *others], width=width, height=height, pix_fmt=pix_fmt, fps=fps
    )
    at_once = coding.jobs_of(jobs, scheduler)
    settings = BuildSettings(
        choices=choices,
        clips=opening,
        heights=heights,
        model=replace(VmafModel.parse(vmaf_model), beside=judge.beside),
        threads=threads,
        timeout_s=timeout,
        qsv_device=qsv_device,
        vaapi_device=vaapi_device,
    )
    applied: list[Applied | None] = [None] * len(clips)
    with (
        cluster_at(scheduler) as cluster,
        show_progress("recommend", kept=_KEPT) as progress,
        at_desk(
            *([*clips, *others], settings, find_ffmpeg(ffmpeg)),
            parts=parts,
            jobs=at_once,
            cluster=cluster,
            progress=progress,
            say=relay,
        ) as desk,
    ):
        opened, known = desk.clips[: len(clips)], desk.clips[len(clips) :]
        found = ask(desk, opened, judge, question, known=known, say=relay)
        for at, out in enumerate(files):
            best = found[at].cheapest(0)
            if best is not None:
                try:
                    applied[at] = apply_answer(desk, *best, judge, out, confidence=confidence)
                except (BadInput, CannotRun) as refusal:
                    failures = (*found[at].failures, refusal)
                    found[at] = replace(found[at], failures=failures)
    conclude(found, applied, judge, question, as_json=as_json)


def _judge(
    metric: str | None,
    model: Path | None,
    name: str | None,
    run: Path | None,
    corpus: Path | None,
    question: Question,
) -> Judge:
    """Return what scores: a metric that is measured, or a model."""
    from loso.recommend.judge import MetricJudge

    if model is None:
        if {name, run, corpus} != {None}:
            raise BadSettings("--name, --run and --corpus are about a --model, and none was given")
        return MetricJudge((metric or "vmaf").lower(), question.pool)
    if metric is not None:
        raise BadSettings(
            "--metric is measured, a --model estimates what cannot be",
            expected="one of the two",
            found="both",
        )
    if (run is None) != (corpus is None):
        raise BadSettings("--run needs --corpus", fix="give both, or neither")
    from loso.corpus.load import load_corpus
    from loso.predict import Predictor
    from loso.recommend.grids import RunGrounds
    from loso.recommend.opinion import ModelJudge

    predictor = Predictor.load(model, name)
    if run is None or corpus is None:
        return ModelJudge(predictor, question.pool, asked_level=question.confidence)
    grounds = RunGrounds.of(predictor, run, load_corpus(corpus), question.pool)
    return ModelJudge(predictor, question.pool, grounds=grounds)


def _targets(target: float | None, ladder: str | None, apply: Path | None) -> tuple[float, ...]:
    """Return the targets, from the highest to the lowest."""
    if target is None and ladder is None:
        raise BadSettings("no target", fix="give --target, or --ladder for several")
    if target is not None and ladder is not None:
        raise BadSettings("--target and --ladder are both targets", fix="give one of the two")
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
    """Return the ways of coding that were asked for, at a rate that stands for all.

    The encoder that was named first comes first: the others are compared with it.
    """
    from loso.corpus.choices import read_choices
    from loso.video.encoders import encoder_named

    middles = {name: sum(encoder_named(name).quality_range) // 2 for name in encoders}
    choices = read_choices(
        encoders,
        quality=[f"{name}={middle}" for name, middle in middles.items()],
        preset=preset or [],
        encoder_args=encoder_args or [],
    )
    return tuple(sorted(choices, key=lambda choice: encoders.index(choice.encoder.name)))
