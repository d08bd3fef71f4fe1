"""One clip coded once and scored: the command lines, and what their logs say.

From ffmpeg 7 on a single process encodes, decodes its own packets (-dec) and scores; before that,
two steps with the coded file between them. Either way no raw video touches the disk, and the
scores are the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loso.errors import BadSettings, CannotRun
from loso.files import blames_machine, open_regular, sha256_of
from loso.schema import CANONICAL_6
from loso.video.allowed import guard
from loso.video.clips import Clip
from loso.video.encoders import Encoder, Rate
from loso.video.ffmpeg import FfmpegSession
from loso.video.logged import logged_names

__all__ = [
    "CODED",
    "OTHER_METRICS",
    "Encode",
    "Measurement",
    "VmafModel",
    "commands",
    "libvmaf_filter",
    "measure",
    "probe_libvmaf",
    "read_scores",
    "resize_filter",
]

_STREAM_FORMATS: Final = {"h264": "h264", "hevc": "hevc", "av1": "obu", "vvc": "vvc", "vp9": "ivf"}
"""Muxers that keep headers inside the packets, as the null muxer does: the same bytes are coded."""

CODED, _PACKETS, _SCORES = "coded.bin", "packets.txt", "scores.json"
"""Names in a cell's own folder, free of anything a filter string would have to escape."""

_PROBE_SIZE: Final = (192, 108)

_LISTED: Final = ("-stats_enc_post", _PACKETS, "-stats_enc_post_fmt", "f_size={size}")
"""Lists packets of one encoder: to -vstats_file all of a process write, and now and then into each
other's lines."""


@dataclass(frozen=True, kw_only=True)
class Encode:
    """What is done with a clip: encoder, its settings, and the size it codes."""

    encoder: Encoder
    preset: str
    rate: Rate
    width: int
    height: int
    threads: int = 1
    extra: tuple[str, ...] = ()
    device: str = ""


OTHER_METRICS: Final = {"psnr": ("psnr", "psnr_y"), "ssim": ("float_ssim", "float_ssim")}
"""What libvmaf can measure beside VMAF: the name of the feature, and of the luma's score."""


@dataclass(frozen=True)
class VmafModel:
    """Which VMAF: a version that libvmaf carries, or a model file; and one other metric beside it.

    `beside`, one of `OTHER_METRICS`, becomes a feature by that name. `sha256` is of the file as
    `parse` has read it: from then on one of other bytes is refused.
    """

    version: str = "vmaf_v0.6.1"
    path: Path | None = None
    beside: str = ""
    sha256: str = ""

    @classmethod
    def parse(cls, text: str) -> VmafModel:
        """Return the model of `version=NAME` or `path=FILE`; BadSettings for anything else."""
        kind, _, value = text.partition("=")
        if kind == "version" and re.fullmatch(r"[\w.]+", value):
            return cls(version=value)
        if kind == "path" and value:
            if not Path(value).is_file():
                raise BadSettings("no such VMAF model file", where="--vmaf-model", found=value)
            path = Path(value).absolute()
            return cls(version="", path=path, sha256=sha256_of(path))
        raise BadSettings(
            "unreadable VMAF model",
            where="--vmaf-model",
            expected="version=vmaf_v0.6.1 or path=FILE",
            found=repr(text),
        )

    def __str__(self) -> str:
        return f"path={self.path}" if self.path else f"version={self.version}"

    def identity(self) -> str:
        """Return what tells this model from any other: its name, and a file's hash."""
        return f"{self.path.name} sha256:{self.sha256}" if self.path else self.version

    @property
    def option(self) -> str:
        """The option of libvmaf, for a folder in which `install` put the file."""
        return "path=model.json" if self.path else f"version={self.version}"

    def install(self, folder: Path) -> None:
        """Put a model file, if it is one, into `folder`; BadSettings where it is another by now."""
        if self.path is None:
            return
        try:
            with open_regular(self.path) as stream:
                content = stream.read()
        except OSError as error:
            if blames_machine(error):
                raise
            content = b""
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise BadSettings(
                "changed while it was used",
                where="--vmaf-model",
                found=str(self),
                fix="leave the file alone and run this again; what was finished before is kept",
            )
        (folder / "model.json").write_bytes(content)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one encode of one clip gave."""

    vmaf: tuple[float, ...]
    features: dict[str, tuple[float, ...]]
    """Each of the canonical six by frame, and the metric that was measured beside VMAF, if any."""
    packet_bytes: tuple[int, ...]
    """In the order of coding."""
    libvmaf: str
    seconds: float


def commands(
    clip: Clip, encode: Encode, model: VmafModel, *, two_step: bool, container: str = ""
) -> tuple[tuple[str, ...], ...]:
    """Return ffmpeg's argument lists that code and score a clip, one or two of them.

    Of two, the first leaves the coded clip in a file, bare unless there is a `container`.

    libvmaf takes the distorted picture first. Both sides are re-timed by frame number, so that a
    frame meets its own reference whatever timestamps coding left.
    """
    encoder, timing = encode.encoder, ",".join(clip.timing)
    coded_as = encoder.coding_format(clip.pixel_format)
    reference = f"[0:V:0]{','.join(clip.filters)},{timing}"
    # setpts keeps the rate that the container claims; fps states the true one to the encoder.
    to_coder = (
        f"fps={clip.fps.numerator}/{clip.fps.denominator}"
        f",{resize_filter(encode.width, encode.height, clip.pixel_format, coded_as)}"
        + (f",{encoder.upload}" if encoder.upload else "")
    )
    back = f"{resize_filter(clip.width, clip.height, coded_as, clip.pixel_format)},{timing}"
    vmaf = f"[distorted][reference]{libvmaf_filter(model)}[scored]"

    threads = ("-threads", f"{encode.threads}")
    # Filters would otherwise start a thread for each core, in each of the cells at work.
    opening = ("-filter_complex_threads", f"{encode.threads}", *threads, *clip.input)
    device = encoder.device_arguments(encode.device)
    arguments = encoder.arguments(
        preset=encode.preset, rate=encode.rate, threads=encode.threads, extra=encode.extra
    )
    as_they_come = ("-fps_mode", "passthrough")
    coder = ("-map", "[coder]", *arguments, *as_they_come)
    nowhere = ("-f", "null", "-")
    if two_step:
        stream = container or _STREAM_FORMATS[encoder.codec]
        one = f"{reference},{to_coder}[coder]"
        two = f"{reference}[reference];[1:V:0]{back}[distorted];{vmaf}"
        coded = ("-f", stream, "-i", CODED)
        return (
            (
                *(*device, *opening, "-filter_complex", one, *coder, "-vstats_file", _PACKETS),
                *("-f", stream, CODED),
            ),
            (*opening, *threads, *coded, "-filter_complex", two, "-map", "[scored]", *nowhere),
        )
    # The reference passes through an encoder and a decoder that hand on frames as they are: the
    # clip is decoded and converted once, and the frames that were coded are those scored against.
    one = f"{reference},split[reference][same];[same]{to_coder}[coder]"
    hand_on = ("-map", "[reference]", "-c:v", "wrapped_avframe", *as_they_come)
    two = f"[dec:0]{back}[distorted];[dec:1]{timing}[reference];{vmaf}"
    decoders = (*threads, "-dec", "0:0", *threads, "-dec", "1:0")
    return (
        (
            *(*device, *opening, "-filter_complex", one, *coder, *_LISTED, *nowhere),
            *(*hand_on, *nowhere),
            *(*decoders, "-filter_complex", two, "-map", "[scored]", *nowhere),
        ),
    )


def resize_filter(width: int, height: int, before: str, after: str) -> str:
    """Return the filters that bring frames to a size and a pixel format; fewer bits are rounded.

    By default swscale dithers what it makes 8 bits of: noise that only some encoders' cells would
    carry. It does so whatever it is told where it changes the size or the layout as well.
    """
    resize = f"scale={width}:{height}:flags=bicubic"
    planar = {"nv12": "yuv420p"}.get(after, after)
    if "10" in before and "10" not in after:
        resize += f",format={planar}10le,scale=sws_dither=none,format={planar}"
        return resize if planar == after else f"{resize},format={after}"
    return f"{resize},format={after}"


def libvmaf_filter(model: VmafModel) -> str:
    """Return the filter that writes the scores of `model` and its features to the scores file."""
    # The features are asked for by name: a model with other ones inside (NEG) still logs these.
    features = "name=adm|name=vif|name=motion"
    if model.beside:
        features += f"|name={OTHER_METRICS[model.beside][0]}"
    return (
        f"libvmaf=model={model.option}:feature={features}:log_fmt=json"
        f":log_path={_SCORES}:n_threads=1:shortest=1:repeatlast=0"
    )


def measure(
    clip: Clip,
    encode: Encode,
    model: VmafModel,
    session: FfmpegSession,
    *,
    folder: Path,
    timeout_s: float,
    two_step: bool,
    container: str = "",
) -> Measurement:
    """Return one encode's scores by frame, with `folder` (empty, existing) for ffmpeg's logs.

    In two steps the coded clip stays there as `CODED`.

    CannotRun where ffmpeg fails, and where the reference, the packets and the scores do not count
    the same frames: then some score would compare two different moments.
    """
    model.install(folder)
    lines = commands(clip, encode, model, two_step=two_step, container=container)
    only = guard(session)  # before the first input, the clip; no part of what a cell is known by
    started = time.monotonic()
    for line in lines:
        left = timeout_s - (time.monotonic() - started)
        session.run((*only, *line), folder=folder, timeout_s=max(left, 0.0))
    seconds = time.monotonic() - started
    packets = _read_packets(folder / _PACKETS)
    version, scores = read_scores(folder / _SCORES, beside=model.beside)
    if not clip.frames == len(packets) == len(scores["vmaf"]):
        raise CannotRun(
            f"frame counts differ: {clip.frames} of the reference, {len(packets)} coded, "
            f"{len(scores['vmaf'])} scored"
        )
    return Measurement(
        vmaf=scores.pop("vmaf"),
        features=scores,
        packet_bytes=packets,
        libvmaf=version,
        seconds=seconds,
    )


def _read_packets(path: Path) -> tuple[int, ...]:
    # Newer ffmpeg lists every output's frames here; the coded one is output 0.
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    coded = [line for line in text.splitlines() if not re.match(r"out= *[1-9]", line)]
    return tuple(int(size) for line in coded for size in re.findall(r"f_size= *(\d{1,18})", line))


_UNREADABLE: Final = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError),
)
"""What reading JSON of any shape as a log of libvmaf may raise."""


def read_scores(path: Path, *, beside: str = "") -> tuple[str, dict[str, tuple[float, ...]]]:
    """Return libvmaf's version; `vmaf`, the canonical six and another metric, if any, by frame."""
    try:
        log: dict[str, Any] = json.loads(path.read_bytes())
        frames: Sequence[dict[str, float]] = [frame["metrics"] for frame in log["frames"]]
        columns: dict[str, tuple[float, ...]] = {}
        names = logged_names(frames[0])
        for name in ("vmaf", *CANONICAL_6):
            columns[name] = tuple(float(frame[names[name]]) for frame in frames)
        if beside:
            logged = OTHER_METRICS[beside][1]
            columns[beside] = tuple(float(frame[logged]) for frame in frames)
        version = str(log["version"])
    except _UNREADABLE as error:
        raise CannotRun(f"libvmaf's log is not whole ({error!r})") from None
    for name, values in columns.items():
        if not all(map(math.isfinite, values)):
            raise CannotRun(f"libvmaf gave a {name} that is no finite number")
    return version, columns


def probe_libvmaf(
    model: VmafModel, session: FfmpegSession, *, folder: Path, timeout_s: float
) -> tuple[str, str]:
    """Return libvmaf's version and a hash of what it gives a few frames; BadSettings if it cannot.

    The frames meet themselves at half their size and back, as cells of another height do, of 8 and
    of 10 bits: what differs between machines in scaling or in scoring differs here.
    """
    model.install(folder)
    width, height = _PROBE_SIZE
    digest = hashlib.sha256()
    for pixel_format in ("yuv420p", "yuv420p10le"):
        there = resize_filter(width // 2, height // 2, pixel_format, "yuv420p")
        back = resize_filter(width, height, "yuv420p", pixel_format)
        graph = (
            f"[0:v]format={pixel_format},split[reference][same];[same]{there},{back}[distorted];"
            f"[distorted][reference]{libvmaf_filter(model)}"
        )
        # Ended by the source: an option of the output lets some more frames through, now and then.
        frames = f"testsrc2=size={width}x{height}:rate=25:duration=0.12"
        source = ("-filter_complex_threads", "1", "-f", "lavfi", "-i", frames)
        try:
            session.run(
                (*source, "-filter_complex", graph, "-f", "null", "-"),
                folder=folder,
                timeout_s=timeout_s,
                again=lambda: None,
            )
        except CannotRun as failure:
            raise BadSettings(
                f"libvmaf does not score with this model ({failure.problem})",
                where="--vmaf-model",
                found=str(model),
            ) from None
        version, scores = read_scores(folder / _SCORES, beside=model.beside)
        digest.update(json.dumps(scores, sort_keys=True).encode())
    return version, digest.hexdigest()
