"""What the commands that code clips share: their options, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from loso.cli.clips import rates_of, whole_numbers
from loso.cli.options import presets
from loso.errors import BadSettings
from loso.machine import cores
from loso.video.clips import ClipSettings
from loso.video.measure import VmafModel

__all__ = [
    "USUAL_VMAF",
    "EncoderArgsOption",
    "FfmpegOption",
    "FpsOption",
    "HeightOption",
    "JobsOption",
    "PixFmtOption",
    "PresetOption",
    "QsvOption",
    "ThreadsOption",
    "TimeoutOption",
    "VaapiOption",
    "VmafModelOption",
    "WidthOption",
    "clip_settings",
    "jobs_of",
]

USUAL_VMAF: Final = str(VmafModel())

_RAW: Final = "Raw YUV clips"

PresetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--preset",
        help="Presets, medium for all encoders or libsvtav1=8 for one; the default unless given.",
        autocompletion=presets,
    ),
]
EncoderArgsOption = Annotated[
    list[str] | None, typer.Option("--encoder-args", help="More options, libx265='-tune grain'.")
]
HeightOption = Annotated[
    list[str] | None,
    typer.Option("--height", help="Heights to code at, 720,540; scored at the clip's own size."),
]
WidthOption = Annotated[
    int | None,
    typer.Option(
        "--width",
        help="Of raw YUV clips; the first --height is then theirs.",
        rich_help_panel=_RAW,
    ),
]
PixFmtOption = Annotated[
    str, typer.Option("--pix-fmt", help="Of raw YUV clips.", rich_help_panel=_RAW)
]
FpsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--fps",
        help="Of raw YUV and of streams that carry none: 30, 30000/1001, STEM=25.",
        rich_help_panel=_RAW,
    ),
]
VmafModelOption = Annotated[
    str, typer.Option("--vmaf-model", help="version=NAME of a model in libvmaf, or path=FILE.")
]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", help="Encodes at a time; one for each core unless given."),
]
ThreadsOption = Annotated[
    int,
    typer.Option("--threads", help="Threads of each encoder; they change what x264 writes."),
]
TimeoutOption = Annotated[float, typer.Option("--timeout", help="Seconds one encode may take.")]
FfmpegOption = Annotated[str, typer.Option("--ffmpeg", help="The ffmpeg to use, with libvmaf.")]
QsvOption = Annotated[str, typer.Option("--qsv-device", help="Render node for Quick Sync.")]
VaapiOption = Annotated[str, typer.Option("--vaapi-device", help="Render node for VA-API.")]


def clip_settings(
    clips: list[Path],
    *,
    width: int | None,
    height: list[str] | None,
    pix_fmt: str,
    fps: list[str] | None,
    start_s: float = ClipSettings.start_s,
    frames: int | None = None,
    scale: tuple[int, int] | None = None,
) -> tuple[ClipSettings, tuple[int, ...]]:
    """Return how clips are opened, and the heights to code at: of raw clips the first is theirs."""
    heights = whole_numbers("--height", ",".join(height or []))
    if width is not None and not heights:
        raise BadSettings("--width needs --height", fix="give both, or neither")
    says_raw = width is not None or pix_fmt != ClipSettings.raw_pixel_format
    if says_raw and not any(clip.suffix.lower() == ".yuv" for clip in clips):
        raise BadSettings(
            "--width and --pix-fmt are for raw YUV clips, and none of these is one",
            expected="a clip that ends in .yuv",
            fix="leave them out; --height says what to code at",
        )
    fps_of_all, fps_of = rates_of(fps or [], clips)
    settings = ClipSettings(
        start_s=start_s,
        frames=frames,
        scale=scale,
        raw_size=None if width is None else (width, heights[0]),
        raw_pixel_format=pix_fmt,
        fps=fps_of_all,
        fps_of=fps_of,
    )
    return settings, heights if width is None else heights[1:]


def jobs_of(jobs: int | None, scheduler: str | None) -> int:
    """Return how many encodes this machine makes at a time; BadSettings beside a scheduler."""
    if jobs is not None and scheduler is not None:
        raise BadSettings(
            "--jobs is for this machine alone, and --scheduler was given",
            fix="leave it out: a worker takes as many encodes at a time as it has threads",
        )
    return cores().usable if jobs is None else jobs
