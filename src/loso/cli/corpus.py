"""`loso corpus`: build, import, join, merge and check corpora of measured frames."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loso.cli import coding
from loso.cli.check import check
from loso.cli.clips import size_of
from loso.cli.console import print_json, print_line, relay, show_progress
from loso.cli.lazy import Group
from loso.cli.logs import import_, join
from loso.cli.merge import merge
from loso.cli.options import JsonOption, SchedulerOption, cluster_at, one_of
from loso.corpus.plan import BuildSettings
from loso.errors import Incomplete
from loso.video.clips import ClipSettings
from loso.video.measure import VmafModel

if TYPE_CHECKING:
    from loso.corpus.build import BuildReport

__all__ = ["app"]

app = typer.Typer(
    help="Corpora of measured frames: build, import, join, merge, check.",
    cls=Group,
    add_completion=False,
)


@app.command()
def build(
    clips: Annotated[list[Path], typer.Argument(metavar="CLIP...", help="Source clips.")],
    encoder: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="ffmpeg's name of an encoder; repeat it.",
            autocompletion=one_of("loso.video.encoders:ENCODERS"),
        ),
    ],
    quality: Annotated[
        list[str] | None,
        typer.Option(help="Qualities, 19,25,31 for all encoders, libsvtav1=25,35 for one."),
    ] = None,
    bitrate: Annotated[
        list[str] | None, typer.Option(help="Target bitrates, 800k,2M; the same forms.")
    ] = None,
    preset: coding.PresetOption = None,
    encoder_args: coding.EncoderArgsOption = None,
    start: Annotated[
        float, typer.Option(help="Seconds of each clip to skip.")
    ] = ClipSettings.start_s,
    frames: Annotated[
        int | None, typer.Option(help="Frames to take of each clip; all unless given.")
    ] = None,
    scale: Annotated[
        str | None, typer.Option(metavar="WxH", help="Resize the reference itself (bicubic).")
    ] = None,
    height: coding.HeightOption = None,
    width: coding.WidthOption = None,
    pix_fmt: coding.PixFmtOption = ClipSettings.raw_pixel_format,
    fps: coding.FpsOption = None,
    vmaf_model: coding.VmafModelOption = coding.USUAL_VMAF,
    jobs: coding.JobsOption = None,
    scheduler: SchedulerOption = None,
    threads: coding.ThreadsOption = BuildSettings.threads,
    timeout: coding.TimeoutOption = BuildSettings.timeout_s,
    out: Annotated[Path, typer.Option(help="The corpus, .jsonl or .jsonl.gz.")] = Path(
        "corpus.jsonl"
    ),
    parts: Annotated[
        Path | None, typer.Option(help="Folder of finished cells; OUT.parts unless given.")
    ] = None,
    ffmpeg: coding.FfmpegOption = "",
    qsv_device: coding.QsvOption = BuildSettings.qsv_device,
    vaapi_device: coding.VaapiOption = BuildSettings.vaapi_device,
    json: JsonOption = False,
) -> None:
    """Code every clip with every encoder, preset and quality, and score each frame.

    Finished cells are kept in a folder: a second call measures only what is missing.

    Example: loso corpus build a.mp4 b.mp4 --encoder libx264 --quality 19,25,31 --out corpus.jsonl
    """
    from loso.corpus.build import build_corpus
    from loso.corpus.choices import read_choices
    from loso.video.ffmpeg import find_ffmpeg

    opening, heights = coding.clip_settings(
        clips,
        width=width,
        height=height,
        pix_fmt=pix_fmt,
        fps=fps,
        start_s=start,
        frames=frames,
        scale=size_of("--scale", scale),
    )
    at_once = coding.jobs_of(jobs, scheduler)
    settings = BuildSettings(
        choices=read_choices(
            encoder,
            quality=quality or [],
            bitrate=bitrate or [],
            preset=preset or [],
            encoder_args=encoder_args or [],
        ),
        clips=opening,
        heights=heights,
        model=VmafModel.parse(vmaf_model),
        threads=threads,
        timeout_s=timeout,
        qsv_device=qsv_device,
        vaapi_device=vaapi_device,
    )
    kept = "finished cells are kept, the same command goes on from them"
    with cluster_at(scheduler) as cluster, show_progress("corpus", kept=kept) as progress:
        report = build_corpus(
            clips,
            settings,
            find_ffmpeg(ffmpeg),
            out=out,
            parts=parts,
            jobs=at_once,
            cluster=cluster,
            command=["loso", *sys.argv[1:]],
            progress=progress,
            say=relay,
        )
    _print_report(report, as_json=json)
    if not report.rows:
        older = " and the older corpus stays" if out.exists() else ""
        raise Incomplete(
            f"none of {report.cells} cells could be measured",
            where=str(out),
            fix=f"their reasons stand above; nothing was written{older}",
        )
    if report.missing:
        raise Incomplete(
            f"{len(report.missing)} of {report.cells} cells are missing",
            where=str(out),
            fix="the same command tries them again; their reasons stand above and in "
            f"{report.manifest}",
        )


def _print_report(report: BuildReport, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "cells": report.cells,
                "corpus": str(report.corpus) if report.rows else None,
                "manifest": str(report.manifest) if report.rows else None,
                "missing": dict(report.missing),
                "reused_cells": report.reused,
                "rows": report.rows,
            }
        )
    elif report.rows:
        print_line(
            f"{report.corpus}: {report.rows} rows from {report.cells - len(report.missing)} of "
            f"{report.cells} cells, {report.reused} of them measured before"
        )


app.command("import")(import_)
app.command()(join)
app.command()(merge)
app.command()(check)
