"""`loso corpus`: build, import, join and check corpora of measured frames."""

from __future__ import annotations

import os
import re
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loso.cli.console import hint, print_json, show_progress
from loso.cli.logs import import_, join
from loso.cli.options import JsonOption, KeyOption
from loso.cli.settings import with_settings
from loso.corpus.plan import BuildSettings
from loso.errors import BadSettings, Incomplete
from loso.recipe import TrainingNeeds
from loso.video.clips import ClipSettings
from loso.video.measure import VmafModel

if TYPE_CHECKING:
    from loso.corpus.build import BuildReport
    from loso.corpus.check import CorpusSummary

__all__ = ["app"]

app = typer.Typer(
    help="Corpora of measured frames: build, import, join, check.",
    no_args_is_help=True,
    add_completion=False,
)
app.command("import")(import_)
app.command()(join)

_RAW = "Raw YUV clips"


@app.command()
def build(
    clips: Annotated[list[Path], typer.Argument(metavar="CLIP...", help="Source clips.")],
    encoder: Annotated[list[str], typer.Option(help="ffmpeg's name of an encoder; repeat it.")],
    quality: Annotated[
        list[str] | None,
        typer.Option(help="Qualities, 19,25,31 for all encoders, libsvtav1=25,35 for one."),
    ] = None,
    bitrate: Annotated[
        list[str] | None, typer.Option(help="Target bitrates, 800k,2M; the same forms.")
    ] = None,
    preset: Annotated[
        list[str] | None, typer.Option(help="Presets, medium or libsvtav1=8; the same forms.")
    ] = None,
    encoder_args: Annotated[
        list[str] | None, typer.Option(help="More options, libx265='-tune grain'.")
    ] = None,
    start: Annotated[
        float, typer.Option(help="Seconds of each clip to skip.")
    ] = ClipSettings.start_s,
    frames: Annotated[
        int | None, typer.Option(help="Frames to take of each clip; all unless given.")
    ] = None,
    scale: Annotated[
        str | None, typer.Option(metavar="WxH", help="Resize the reference itself (bicubic).")
    ] = None,
    height: Annotated[
        list[str] | None,
        typer.Option(help="Heights to code at, 720,540; scored at the reference's size."),
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
        list[str] | None,
        typer.Option(
            help="Of raw YUV and of streams that carry none: 30, 30000/1001, STEM=25.",
            rich_help_panel=_RAW,
        ),
    ] = None,
    vmaf_model: Annotated[
        str, typer.Option(help="version=NAME of a model in libvmaf, or path=FILE.")
    ] = str(VmafModel()),
    jobs: Annotated[
        int | None, typer.Option(help="Cells at a time; one for each core unless given.")
    ] = None,
    threads: Annotated[
        int, typer.Option(help="Threads of each encoder; they change what x264 writes.")
    ] = BuildSettings.threads,
    timeout: Annotated[
        float, typer.Option(help="Seconds one cell may take.")
    ] = BuildSettings.timeout_s,
    out: Annotated[Path, typer.Option(help="The corpus, .jsonl or .jsonl.gz.")] = Path(
        "corpus.jsonl"
    ),
    parts: Annotated[
        Path | None, typer.Option(help="Folder of finished cells; OUT.parts unless given.")
    ] = None,
    ffmpeg: Annotated[str, typer.Option(help="The ffmpeg to use, with libvmaf.")] = "",
    qsv_device: Annotated[
        str, typer.Option(help="Render node for Quick Sync.")
    ] = BuildSettings.qsv_device,
    vaapi_device: Annotated[
        str, typer.Option(help="Render node for VA-API.")
    ] = BuildSettings.vaapi_device,
    json: JsonOption = False,
) -> None:
    """Code every clip with every encoder, preset and quality, and score each frame.

    Finished cells are kept in a folder: a second call measures only what is missing.
    """
    from loso.corpus.build import build_corpus
    from loso.corpus.choices import read_choices
    from loso.video.ffmpeg import find_ffmpeg

    heights = _whole_numbers("--height", ",".join(height or []))
    if width is not None and not heights:
        raise BadSettings("--width needs --height", fix="give both, or neither")
    says_raw = width is not None or pix_fmt != ClipSettings.raw_pixel_format
    if says_raw and not any(clip.suffix.lower() == ".yuv" for clip in clips):
        raise BadSettings(
            "--width and --pix-fmt are for raw YUV clips, and none of these is one",
            expected="a clip that ends in .yuv",
            fix="leave them out; --scale resizes references, --height says what to code at",
        )
    fps_of_all, fps_of = _rates(fps or [], clips)
    settings = BuildSettings(
        choices=read_choices(
            encoder,
            quality=quality or [],
            bitrate=bitrate or [],
            preset=preset or [],
            encoder_args=encoder_args or [],
        ),
        clips=ClipSettings(
            start_s=start,
            frames=frames,
            scale=_size("--scale", scale),
            raw_size=None if width is None else (width, heights[0]),
            raw_pixel_format=pix_fmt,
            fps=fps_of_all,
            fps_of=fps_of,
        ),
        heights=heights if width is None else heights[1:],
        model=VmafModel.parse(vmaf_model),
        threads=threads,
        timeout_s=timeout,
        qsv_device=qsv_device,
        vaapi_device=vaapi_device,
    )
    try:
        with show_progress("corpus") as progress:
            report = build_corpus(
                clips,
                settings,
                find_ffmpeg(ffmpeg),
                out=out,
                parts=parts,
                jobs=os.cpu_count() or 1 if jobs is None else jobs,
                command=["loso", *sys.argv[1:]],
                progress=progress,
                say=hint,
            )
    except KeyboardInterrupt:
        hint("loso: stopped; finished cells are kept, the same command goes on from them")
        raise
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


@app.command()
@with_settings
def check(
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="A .jsonl, .jsonl.gz or .parquet file.")
    ],
    needs: TrainingNeeds,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is in a corpus, and what is wrong with it.

    Exit 0 where it can be trained on, 1 where it is too small, 2 where it cannot be used.
    """
    from loso.corpus.check import describe_corpus
    from loso.corpus.load import load_corpus

    summary = describe_corpus(load_corpus(corpus, key=key or ()), needs)
    if as_json:
        print_json(summary.to_dict())
    else:
        _print_summary(summary)
    if not summary.trainable:
        raise typer.Exit(1)


def _print_summary(summary: CorpusSummary) -> None:
    rows, frames, vmaf = summary.rows_per_source, summary.frames_per_clip, summary.vmaf
    typer.echo(
        f"{summary.path}: {summary.rows} rows, {summary.clips} clips, "
        f"{len(summary.sources)} sources\n"
        f"sha256           {summary.sha256}\n"
        f"rows a source    {rows.min:g}..{rows.max:g}, median {rows.median:g}\n"
        f"frames a clip    {frames.min:g}..{frames.max:g}, median {frames.median:g}\n"
        f"vmaf             {vmaf.min:.4g}..{vmaf.max:.4g}, median {vmaf.median:.4g}, "
        f"{summary.saturated_share:.1%} at 100\n"
    )
    _print_table(
        ("encoder", "rows", "presets", "cq"),
        [
            (e.encoder, str(e.rows), " ".join(e.presets) or "-", _brief(e.cq))
            for e in summary.encoders
        ],
    )
    _print_table(
        ("source", "rows", "clips", "encoders", "mean vmaf"),
        [
            (s.source, str(s.rows), str(s.clips), str(len(s.encoders)), f"{s.vmaf_mean:.2f}")
            for s in summary.sources
        ],
    )
    for note in summary.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"not trainable: {summary.shortfall}" if summary.shortfall else "can be trained on")


def _brief(numbers: tuple[float, ...], most: int = 8) -> str:
    if len(numbers) > most:
        return f"{numbers[0]:g}..{numbers[-1]:g}, {len(numbers)} values"
    return " ".join(f"{number:g}" for number in numbers)


def _print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table that fits a terminal, or columns of plain text elsewhere; then a blank line."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*header, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)
    else:
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        for row in (header, *rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            typer.echo("  ".join(cells).rstrip())
    typer.echo()


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
        typer.echo(
            f"{report.corpus}: {report.rows} rows from {report.cells - len(report.missing)} of "
            f"{report.cells} cells, {report.reused} of them measured before"
        )


def _whole_numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(item) for item in text.split(",") if item.strip())
    except ValueError:
        raise BadSettings(
            "not a list of whole numbers",
            where=option,
            expected="such as 720,540",
            found=repr(text),
        ) from None


def _size(option: str, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    size = re.fullmatch(r"(\d+)x(\d+)", text)
    if size is None:
        raise BadSettings("not a size", where=option, expected="such as 640x360", found=repr(text))
    return int(size[1]), int(size[2])


def _rates(texts: list[str], clips: list[Path]) -> tuple[Fraction | None, dict[str, Fraction]]:
    """Return the rate for all clips that carry none, and those said for one clip by its stem."""
    from loso.video.encoders import closest

    for_all, for_one = None, {}
    stems = [clip.stem for clip in clips]
    for text in texts:
        stem, equals, rate = text.rpartition("=")
        if equals and stem not in stems:
            raise BadSettings(
                "names no clip of this build",
                where="--fps",
                found=repr(stem),
                fix=closest(stem, stems) or "give the clip's file name without its ending",
            )
        try:
            value = Fraction(rate)
        except (ValueError, ZeroDivisionError):
            value = Fraction(0)
        if value <= 0:
            raise BadSettings(
                "not a frame rate", where="--fps", expected="such as 25 or 30000/1001", found=text
            )
        if equals:
            for_one[stem] = value
        else:
            for_all = value
    return for_all, for_one
