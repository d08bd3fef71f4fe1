"""A file becomes a reference: which frames, their size, format and rate, how ffmpeg reads them.

One treatment each, all said in `Clip.remarks`: odd sizes lose their last column or row, full range
becomes limited, rotated clips are turned upright, frames of a variable rate are taken as they are
and re-timed at their average rate.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final

from loso.errors import BadClip, BadSettings, CannotRun
from loso.files import open_regular
from loso.video.allowed import guard, refuse_no_file, refuse_playlist
from loso.video.ffmpeg import FfmpegSession
from loso.video.said import remark_of
from loso.video.seen import Seen, Watch

__all__ = ["Clip", "ClipSettings", "identity_of", "open_clip"]

_RGB: Final = ("rgb24", "bgr24", "rgb0", "bgr0", "rgba", "bgra", "gbrp", "gbrap", "pal8")
_REFERENCE_FORMATS: Final[Mapping[str, str]] = {
    **{f"yuv{c}p{d}": f"yuv{c}p{d}" for c in (420, 422, 444) for d in ("", "10le")},
    **{f"yuvj{c}p": f"yuv{c}p" for c in (420, 422, 444)},
    "nv12": "yuv420p",
    "nv16": "yuv422p",
    "p010le": "yuv420p10le",
    "p210le": "yuv422p10le",
    "gray": "yuv420p",
    "gray10le": "yuv420p10le",
    **dict.fromkeys(_RGB, "yuv444p"),
    "gbrp10le": "yuv444p10le",
}
"""Decoded pixel format -> the planar one that libvmaf scores."""

_RAW_STREAMS: Final = re.compile(
    r"adf|alias_pix|apv|av1|avs2|avs3|bin|bitpacked|brender_pix|cavsvideo|cdxl|dirac|dnxhd|evc|fits"
    r"|h261|h263|h264|hevc|idf|image2pipe|ingenient|m4v|mjpeg|mjpeg_2000|mpegvideo|mpjpeg|obu"
    r"|rawvideo|ser|tty|v210|v210x|vc1|vvc|xbin|\w+_pipe"
)
"""Demuxers of streams outside a container: no timestamps, and ffmpeg invents a rate."""

_FROM_OUTSIDE: Final = re.compile(r"ffmpeg (was killed by signal (9|15)|did not start .*)")
"""Failures of the machine, such as want of memory. By other signals a program crashes on what it
reads."""

_BLOCK: Final = 2**20


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """What of a clip becomes the reference, and what a file without a header cannot say."""

    start_s: float = 0.0
    frames: int | None = None
    scale: tuple[int, int] | None = None
    raw_size: tuple[int, int] | None = None
    raw_pixel_format: str = "yuv420p"
    fps: Fraction | None = None
    """For raw YUV and streams without a rate; `fps_of` says it for one clip, by its stem."""
    fps_of: Mapping[str, Fraction] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.start_s < math.inf:
            raise BadSettings("--start must not be negative", found=f"{self.start_s:g}")
        if self.frames is not None and self.frames < 1:
            raise BadSettings("--frames must be at least 1", found=f"{self.frames}")
        if self.scale is not None and (min(self.scale) < 2 or any(n % 2 for n in self.scale)):
            raise BadSettings(
                "--scale must be positive and even both ways: 4:2:0 halves it",
                found=f"{self.scale[0]}x{self.scale[1]}",
            )
        if self.raw_size is not None and min(self.raw_size) < 1:
            size = f"{self.raw_size[0]}x{self.raw_size[1]}"
            raise BadSettings("--width and --height must be positive", found=size)
        known = [name for name in _REFERENCE_FORMATS if re.fullmatch(r"yuv\d{3}p(10le)?", name)]
        if self.raw_pixel_format not in known:
            raise BadSettings(
                "raw YUV of this pixel format is not read",
                where="--pix-fmt",
                expected=f"one of {' '.join(known)}",
                found=repr(self.raw_pixel_format),
            )


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip that was decoded once: its content, and the reference that is made of it."""

    src: str
    path: Path
    sha256: str
    frames: int
    fps: Fraction
    width: int
    height: int
    pixel_format: str
    decoded: str
    """Size and pixel format before any treatment, such as 1921x1080 yuvj420p."""
    input: tuple[str, ...]
    """ffmpeg's arguments that open the clip."""
    filters: tuple[str, ...]
    """The chain from decoded frames to the reference, without its timing."""
    remarks: tuple[str, ...]
    identity: tuple[int, ...] = ()
    """Of the file before it was decoded: device, inode, bytes, time of its last change in ns."""

    def unchanged(self) -> bool:
        """Whether the file at `path` is still the one that was decoded and hashed."""
        return identity_of(self.path) == self.identity

    @property
    def timing(self) -> tuple[str, ...]:
        """The filters that give every frame its place by number, at the clip's rate."""
        return f"settb={self.fps.denominator}/{self.fps.numerator}", "setpts=N"


def open_clip(
    path: Path, settings: ClipSettings, session: FfmpegSession, *, timeout_s: float
) -> Clip:
    """Return the clip at `path` after decoding the frames that are asked for.

    BadClip where it is missing, no video or a list of files, has too few frames, changes its size
    or colour tags, comes in a pixel format that cannot be scored, or changed while it was read;
    CannotRun where the machine lets no ffmpeg look at it. What could lead elsewhere is refused
    before ffmpeg opens it.
    """
    refuse_no_file(path)
    identity = identity_of(path)

    watch = Watch()

    def run(*arguments: str, listen: Callable[[str], bool] = watch) -> str:
        try:
            return session.run(
                arguments,
                folder=Path(),
                timeout_s=timeout_s,
                verbose=True,
                listen=listen,
                again=watch.forget,
            )
        except CannotRun as failure:
            if _FROM_OUTSIDE.fullmatch(failure.problem):
                problem = f"cannot be looked at here ({failure.problem})"
                raise CannotRun(problem, where=str(path)) from None
            problem = f"cannot be decoded as video ({failure.problem})"
            raise BadClip(problem, where=str(path)) from None

    opening, given_fps = _opening(path, settings, session, run)
    start = _skipped(settings.start_s, given_fps)
    end = () if settings.frames is None else (f"trim=end_frame={settings.frames}",)
    look = ",".join((*start, *end, "showinfo=checksum=0"))
    to_nowhere = ("-map", "0:V:0", "-vf", look, "-fps_mode", "passthrough", "-f", "null", "-")
    log = run(*guard(session), *opening, *to_nowhere)
    seen = watch.seen()
    if not seen.whole:
        raise BadClip("not every frame was heard of", where=str(path), fix="run this again")
    if seen.frames < (settings.frames or 1):
        raise BadClip(
            "too few frames",
            where=str(path),
            expected=f"{settings.frames or 1} from {settings.start_s:g} s on",
            found=f"{seen.frames}",
            fix="ask for fewer with --frames, or start earlier with --start",
        )
    decoded = _one_shape(seen, path)
    size, decoded_format = decoded.split(" ")
    decoded_width, decoded_height = map(int, size.split("x"))
    fps = given_fps or seen.average_fps
    if not fps:
        raise BadClip("carries no frame rate", where=str(path), fix="put it into a container")
    width, height = settings.scale or (decoded_width // 2 * 2, decoded_height // 2 * 2)
    cropped = settings.scale is None and (width, height) != (decoded_width, decoded_height)
    pixel_format = _REFERENCE_FORMATS[decoded_format]
    compressed = seen.full_range and decoded_format not in _RGB
    converted = decoded_format.replace("yuvj", "yuv") != pixel_format
    complaint = remark_of(log)
    re_timed = not given_fps and not seen.has_constant_rate
    average = f"{float(fps):.6g}"
    clip = Clip(
        src=path.stem,
        path=path,
        sha256=_sha256(path, timeout_s),
        frames=seen.frames,
        fps=fps,
        width=width,
        height=height,
        pixel_format=pixel_format,
        decoded=decoded,
        input=opening,
        filters=(
            *start,
            f"trim=end_frame={seen.frames}",
            *([f"crop={width}:{height}:0:0"] if cropped else []),
            f"scale={width}:{height}:flags=bicubic:out_range=tv",
            f"format={pixel_format}",
        ),
        remarks=tuple(
            remark
            for applies, remark in (
                (cropped, f"odd size {size} cropped to {width}x{height}"),
                (compressed, "full range converted to limited range"),
                (converted, f"{decoded_format} converted to {pixel_format}"),
                (seen.rotated, "turned upright as its display matrix says"),
                (re_timed, f"variable frame rate re-timed at its average, {average} a second"),
                (complaint, f"while decoding ffmpeg said: {complaint}"),
            )
            if applies
        ),
        identity=identity,
    )
    if not clip.unchanged():
        raise BadClip("changed while it was read", where=str(path), fix="run this again")
    return clip


def _sha256(path: Path, timeout_s: float) -> str:
    """Return the sha256 of a clip; BadClip where it has no end within the time."""
    end = time.monotonic() + timeout_s
    digest = hashlib.sha256()
    try:
        with open_regular(path) as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
                if time.monotonic() > end:
                    raise BadClip(
                        f"not read to its end in {timeout_s:g} s",
                        where=str(path),
                        fix="cut it, or give it more time with --timeout",
                    )
    except OSError as error:
        raise BadClip(f"cannot be read ({error.strerror})", where=str(path)) from None
    return digest.hexdigest()


def identity_of(path: Path) -> tuple[int, ...]:
    """Return what differs once a file was written to or replaced, nothing where it is gone."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _opening(
    path: Path, settings: ClipSettings, session: FfmpegSession, run: Callable[..., str]
) -> tuple[tuple[str, ...], Fraction | None]:
    """Return how ffmpeg opens a clip, and its rate where the clip itself carries none."""
    name = ("-protocol_whitelist", "file", "-i", f"file:{path.absolute()}")
    if path.suffix.lower() == ".yuv":
        fps = _given_fps(path, settings)
        return (*_raw_video(path, settings), "-framerate", str(fps), *name), fps
    to_nowhere = ("-map", "0:V:0?", "-t", "0", "-f", "null", "-")
    try:
        header = run(*guard(session), *name, *to_nowhere)
    except BadClip as refusal:
        refuse_playlist(refusal, name, run)
        raise
    opened = re.search(r"^\[info\] Input #0, (\S+), from ", header, re.MULTILINE)
    demuxer = opened[1] if opened else ""
    if not re.search(r"^\[info\] +Stream #0:\d+.*: Video: ", header, re.MULTILINE):
        raise BadClip("has no video stream", where=str(path))
    if _RAW_STREAMS.fullmatch(demuxer):
        return name, _given_fps(path, settings)
    if path.stem in settings.fps_of:
        raise BadClip(
            "carries its own frame rate", where=str(path), fix=f"leave out --fps {path.stem}=..."
        )
    return name, None


def _skipped(start_s: float, fps: Fraction | None) -> tuple[str, ...]:
    """Return the filters that drop the frames before `start_s`: seeking is not exact everywhere."""
    if not start_s:
        return ()
    if fps is not None:
        # As it was typed: 0.28 s is frame 7 of 25 a second, its nearest float lies behind that.
        return (f"trim=start_frame={math.ceil(Fraction(str(start_s)) * fps)}",)
    # From the first frame on: a container may start before it.
    return "setpts=PTS-STARTPTS", f"trim=start={start_s:.6f}"


def _given_fps(path: Path, settings: ClipSettings) -> Fraction:
    fps = settings.fps_of.get(path.stem, settings.fps)
    if fps is None:
        raise BadClip(
            "carries no frame rate",
            where=str(path),
            fix=f"give --fps 25, or --fps {path.stem}=25 for this clip alone",
        )
    return fps


def _raw_video(path: Path, settings: ClipSettings) -> tuple[str, ...]:
    if settings.raw_size is None:
        raise BadClip(
            "raw YUV carries no size",
            where=str(path),
            fix="give --width and --height, and --pix-fmt if it is not yuv420p",
        )
    width, height = settings.raw_size
    sampling, deep = settings.raw_pixel_format[3:6], settings.raw_pixel_format.endswith("10le")
    # Half sizes round up: a 4:2:0 picture of odd width still has chroma for its last column.
    across = width if sampling == "444" else (width + 1) // 2
    down = (height + 1) // 2 if sampling == "420" else height
    frame_bytes = (width * height + 2 * across * down) * (2 if deep else 1)
    size = path.stat().st_size
    if size == 0 or size % frame_bytes:
        raise BadClip(
            f"is no whole number of {width}x{height} {settings.raw_pixel_format} frames",
            where=str(path),
            expected=f"a multiple of {frame_bytes} bytes",
            found=f"{size}",
            fix="check --width, --height and --pix-fmt",
        )
    pixel_format = ("-pixel_format", settings.raw_pixel_format)
    return ("-f", "rawvideo", *pixel_format, "-video_size", f"{width}x{height}")


def _one_shape(seen: Seen, path: Path) -> str:
    """Return the size and pixel format that all frames have; BadClip where they change."""
    if len(seen.shapes) > 1:
        raise BadClip(
            "changes its size or format",
            where=str(path),
            found=", ".join(seen.shapes),
            fix="cut it up",
        )
    if seen.restarts:
        # ffmpeg builds its filters anew, and they count frames from 0 again.
        raise BadClip("changes its colour tags or its rotation", where=str(path), fix="cut it up")
    pixel_format = seen.shapes[0].partition(" ")[2]
    if pixel_format not in _REFERENCE_FORMATS:
        raise BadClip(
            "comes in a pixel format that is not scored",
            where=str(path),
            expected="8 or 10 bit, 4:2:0 to 4:4:4",
            found=pixel_format,
            fix="convert it first, ffmpeg -i ... -pix_fmt yuv420p10le",
        )
    return seen.shapes[0]
