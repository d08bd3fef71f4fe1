"""Settings become a list of cells: one clip, one encoder, one preset, one rate, one size each."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any, Final

from loso.errors import BadClip, BadSettings
from loso.files import sha256_of
from loso.video.clips import Clip, ClipSettings
from loso.video.encoders import ENCODERS, Encoder, Rate, closest, encoder_named
from loso.video.ffmpeg import Ffmpeg
from loso.video.measure import Encode, Measurement, VmafModel, commands

__all__ = [
    "BuildSettings",
    "Cell",
    "Choice",
    "fingerprint",
    "plan_cells",
    "read_choices",
    "rows_of",
]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way of coding that every clip goes through."""

    encoder: Encoder
    preset: str
    rate: Rate
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """Everything that decides what a corpus holds, and how long one cell may take."""

    choices: tuple[Choice, ...]
    clips: ClipSettings = field(default_factory=ClipSettings)
    heights: tuple[int, ...] = ()
    """Heights to code at, as a ladder does; none means the reference's own."""
    model: VmafModel = field(default_factory=VmafModel)
    threads: int = 1
    """Of each encoder: x264 changes its output with them, so they never follow the machine."""
    timeout_s: float = 3600.0
    """An hour is far above any sane cell; a hung driver would otherwise hold the build for ever."""
    qsv_device: str = "/dev/dri/renderD128"
    vaapi_device: str = "/dev/dri/renderD128"

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise BadSettings("--threads must be at least 1", found=f"{self.threads}")
        if not 0 < self.timeout_s < math.inf:
            raise BadSettings("--timeout must be above 0 seconds", found=f"{self.timeout_s:g}")
        for height in self.heights:
            if height < 2 or height % 2:
                raise BadSettings("--height must be positive and even", found=f"{height}")

    def device(self, encoder: Encoder) -> str:
        """Return the path of the device that `encoder` needs, if it needs one."""
        return {"qsv": self.qsv_device, "vaapi": self.vaapi_device}.get(encoder.device, "")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One encode of one clip; its name stands in the corpus column `clip`."""

    name: str
    clip: Clip
    encode: Encode


def read_choices(
    encoders: Sequence[str],
    *,
    quality: Sequence[str] = (),
    bitrate: Sequence[str] = (),
    preset: Sequence[str] = (),
    encoder_args: Sequence[str] = (),
) -> tuple[Choice, ...]:
    """Return every encoder x preset x rate in a fixed order; BadSettings names what is wrong.

    A text is a list for all encoders ("19,25") or, with a name before it, for one
    ("libsvtav1=25,35"); what is said for one counts there instead of what is said for all.

    >>> [c.rate.value for c in read_choices(["libx264"], quality=["31,19"])]
    [19.0, 31.0]
    """
    named = {name: encoder_named(name) for name in encoders}
    if not named:
        raise BadSettings("no encoder", fix="give --encoder libx264")
    texts = {
        option: _by_encoder(option, values, named)
        for option, values in (
            ("--quality", quality),
            ("--bitrate", bitrate),
            ("--preset", preset),
            ("--encoder-args", encoder_args),
        )
    }
    choices = []
    for encoder in sorted(named.values(), key=list(ENCODERS.values()).index):
        presets = _items(texts["--preset"].get(encoder.name, encoder.default_preset))
        rates = [
            Rate("quality", _number("--quality", text))
            for text in _items(texts["--quality"].get(encoder.name, ""))
        ] + [
            Rate("bitrate", _kbps(text))
            for text in _items(texts["--bitrate"].get(encoder.name, ""))
        ]
        if not rates:
            raise BadSettings(
                "no quality and no bitrate",
                where=encoder.name,
                fix=f"give --quality {encoder.name}=... or --bitrate {encoder.name}=...",
            )
        extra = _extra(encoder, texts["--encoder-args"].get(encoder.name, ""))
        for one_preset, rate in product(presets, rates):
            encoder.check(preset=one_preset, rate=rate)
        choices += [
            Choice(encoder=encoder, preset=one_preset, rate=rate, extra=extra)
            for one_preset in sorted(presets, key=encoder.presets.index)
            for rate in sorted(rates, key=lambda rate: (rate.control != "quality", rate.value))
        ]
    return tuple(dict.fromkeys(choices))


def _by_encoder(option: str, values: Sequence[str], named: Iterable[str]) -> dict[str, str]:
    """Return the text that counts for each encoder."""
    texts: dict[str, str] = {}
    for special in (False, True):
        for value in values:
            name, equals, text = value.partition("=")
            # An option's value may hold "=" itself: only a bare word before it is a name.
            is_special = bool(equals) and re.fullmatch(r"[\w-]*\w", name) is not None
            is_special = is_special and not name.startswith("-")
            if is_special and name not in named:
                raise BadSettings(
                    "not among the encoders of this build",
                    where=option,
                    expected=" ".join(named),
                    found=repr(name),
                    fix=closest(name, named) or f"add --encoder {name}",
                )
            if is_special == special:
                texts |= {name: text} if special else dict.fromkeys(named, value)
    return texts


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _number(option: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadSettings("not a number", where=option, expected="such as 19,25,31", found=text)
    return number


def _kbps(text: str) -> float:
    """Return kbit/s of ffmpeg's notation: 800k, 2M, 1500000.

    >>> _kbps("2M"), _kbps("800k")
    (2000.0, 800.0)
    """
    digits, unit = (text[:-1], text[-1]) if text[-1] in "kKM" else (text, "")
    kbps = _number("--bitrate", digits) * {"": 0.001, "k": 1.0, "K": 1.0, "M": 1000.0}[unit]
    if kbps <= 0:
        raise BadSettings("must be above 0", where="--bitrate", found=text)
    return kbps


_OURS: Final = frozenset(
    {
        *("-b", "-b:v", "-crf", "-cq", "-global_quality", "-q", "-q:v", "-qp", "-qscale", "-rc"),
        *("-rc_mode", "-preset", "-cpu-used", "-compression_level", "-deadline", "-threads"),
        *("-row-mt", "-c", "-c:v", "-codec", "-vcodec", "-dec", "-f", "-i", "-map", "-n", "-y"),
        *("-filter", "-filter:v", "-vf", "-filter_complex", "-pix_fmt", "-r", "-s", "-fps_mode"),
        *("-vsync", "-frames", "-frames:v", "-vframes", "-ss", "-t", "-to", "-vstats_file"),
    }
)
"""Options whose values the corpus records or the measurement relies on."""


def _extra(encoder: Encoder, text: str) -> tuple[str, ...]:
    where = f"--encoder-args {encoder.name}"
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise BadSettings(f"unreadable ({error})", where=where, found=repr(text)) from None
    if len(words) % 2 or not all(re.fullmatch(r"-[A-Za-z][\w:-]*", name) for name in words[::2]):
        raise BadSettings(
            "must be pairs of an option and its value",
            where=where,
            expected="such as '-tune grain'",
            found=repr(text),
        )
    taken = sorted(_OURS & set(words[::2]))
    if taken:
        raise BadSettings(
            f"{' '.join(taken)} cannot be set here",
            where=where,
            fix="use the options of loso for what a row records",
        )
    return words


def plan_cells(clips: Sequence[Clip], settings: BuildSettings) -> list[Cell]:
    """Return every cell in the order of the corpus: source, encoder, preset, height, rate.

    BadClip for two clips of one name, and for a height above the reference's.
    """
    by_src = sorted(clips, key=lambda clip: clip.src)
    for one, other in pairwise(by_src):
        if one.src == other.src:
            raise BadClip(
                f"two clips are named {one.src}, and the name is the source",
                where=f"{one.path} and {other.path}",
                fix="rename one",
            )
    cells = []
    for clip in by_src:
        for height in settings.heights:
            if height > clip.height:
                raise BadClip(
                    "--height is above the reference's",
                    where=str(clip.path),
                    expected=f"at most {clip.height}",
                    found=f"{height}",
                )
        heights = sorted(set(settings.heights)) or [clip.height]
        # Rates come last in the order, whatever order the choices came in.
        ways = dict.fromkeys((c.encoder.name, c.preset) for c in settings.choices)
        cells += [
            _cell(clip, choice, height, settings)
            for way, height in product(ways, heights)
            for choice in settings.choices
            if (choice.encoder.name, choice.preset) == way
        ]
    return cells


def _cell(clip: Clip, choice: Choice, height: int, settings: BuildSettings) -> Cell:
    name = f"{clip.src}_{choice.encoder.name}_{choice.preset}_{choice.rate.label}_{height}p"
    if settings.clips.start_s:
        name += f"_from{settings.clips.start_s:g}s"
    if choice.extra:
        name += "_" + hashlib.sha256("\0".join(choice.extra).encode()).hexdigest()[:8]
    encode = Encode(
        encoder=choice.encoder,
        preset=choice.preset,
        rate=choice.rate,
        width=2 * round(clip.width * height / clip.height / 2),
        height=height,
        threads=settings.threads,
        extra=choice.extra,
        device=settings.device(choice.encoder),
    )
    return Cell(name=name, clip=clip, encode=encode)


def fingerprint(
    cell: Cell, model: VmafModel, ffmpeg: Ffmpeg, libvmaf: str, *, two_step: bool
) -> str:
    """Return the name of a cell's part: it changes with whatever can change the measurement."""
    lines = commands(cell.clip, cell.encode, model, two_step=two_step)
    content = {
        "commands": portable(lines, cell.clip, cell.clip.sha256),
        "clip": cell.clip.sha256,
        "model": model.version if model.path is None else sha256_of(model.path),
        "ffmpeg": [ffmpeg.version, ffmpeg.configuration],
        "libvmaf": libvmaf,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def portable(lines: Iterable[Sequence[str]], clip: Clip, name: str) -> list[list[str]]:
    """Return command lines with `name` in the place of the clip's path on this machine."""
    opened = f"file:{clip.path.absolute()}"
    return [[f"file:{name}" if word == opened else word for word in line] for line in lines]


def rows_of(cell: Cell, measured: Measurement) -> list[dict[str, Any]]:
    """Return the corpus rows of a measured cell, in the order of its frames."""
    clip, encode = cell.clip, cell.encode
    encoder, rate = encode.encoder, encode.rate
    coded_bytes = sum(measured.packet_bytes)
    own = {"quality_setting": rate.value} if encoder.reversed_quality else {}
    constant = {
        "clip": cell.name,
        "rate_control": rate.control,
        **(own if rate.control == "quality" else {}),
        "enc_bytes": coded_bytes,
        "bitrate_kbps": round(float(coded_bytes * 8 * clip.fps / clip.frames) / 1000, 3),
        "width": encode.width,
        "height": encode.height,
        "fps": float(clip.fps),
    }
    return [
        {
            "src": clip.src,
            "encoder": encoder.name,
            "preset": encode.preset,
            "cq": encoder.cq(rate),
            "frame_index": index,
            "vmaf": vmaf,
            **{name: values[index] for name, values in measured.features.items()},
            **constant,
        }
        for index, vmaf in enumerate(measured.vmaf)
    ]
