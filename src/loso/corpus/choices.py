"""What a user asks for in words becomes a list of ways of coding."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from loso.errors import BadSettings
from loso.spelling import did_you_mean
from loso.video.encoders import ENCODERS, Encoder, Rate, encoder_named

__all__ = ["Choice", "read_choices"]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way of coding that every clip goes through."""

    encoder: Encoder
    preset: str
    rate: Rate
    extra: tuple[str, ...] = ()


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
    ("libsvtav1=25,35"); what is said for one counts there instead of what is said for all. Lists
    for the same encoders are joined; encoder arguments, whose order counts, are given once.

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
        presets = _items(texts["--preset"][encoder.name]) or [encoder.default_preset]
        rates = [
            Rate("quality", _number("--quality", text, such_as="19,25,31"))
            for text in _items(texts["--quality"][encoder.name])
        ] + [Rate("bitrate", _kbps(text)) for text in _items(texts["--bitrate"][encoder.name])]
        if not rates:
            raise BadSettings(
                "no quality and no bitrate",
                where=encoder.name,
                fix=f"give --quality {encoder.name}=... or --bitrate {encoder.name}=...",
            )
        extra = _extra(encoder, texts["--encoder-args"][encoder.name])
        for one_preset, rate in product(presets, rates):
            encoder.check(preset=one_preset, rate=rate)
        choices += [
            Choice(encoder=encoder, preset=one_preset, rate=rate, extra=extra)
            for one_preset in sorted(presets, key=encoder.presets.index)
            for rate in sorted(rates, key=lambda rate: (rate.control != "quality", rate.value))
        ]
    return tuple(dict.fromkeys(choices))


def _by_encoder(option: str, values: Sequence[str], named: Iterable[str]) -> dict[str, list[str]]:
    """Return the texts that count for each encoder."""
    for_all: list[str] = []
    for_one: dict[str, list[str]] = {}
    for value in values:
        name, equals, text = value.partition("=")
        # An option's value may hold "=" itself: only a bare word before it is a name.
        if not (equals and re.fullmatch(r"(?!-)[\w-]*\w", name)):
            for_all.append(value)
        elif name in named:
            for_one.setdefault(name, []).append(text)
        else:
            raise BadSettings(
                "not among the encoders that were given",
                where=option,
                expected=" ".join(named),
                found=repr(name),
                fix=did_you_mean(name, named) or f"add --encoder {name}",
            )
    return {name: for_one.get(name, for_all) for name in named}


def _items(texts: Iterable[str]) -> list[str]:
    return [item.strip() for text in texts for item in text.split(",") if item.strip()]


def _number(option: str, text: str, *, such_as: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadSettings("not a number", where=option, expected=f"such as {such_as}", found=text)
    return number


def _kbps(text: str) -> float:
    """Return kbit/s of ffmpeg's notation: 800k, 2M, 1500000.

    >>> _kbps("2M"), _kbps("800k")
    (2000.0, 800.0)
    """
    digits, unit = (text[:-1], text[-1]) if text[-1] in "kKM" else (text, "")
    per = {"": 0.001, "k": 1.0, "K": 1.0, "M": 1000.0}[unit]
    kbps = _number("--bitrate", digits, such_as="800k,2M") * per
    if kbps <= 0:
        raise BadSettings("must be above 0", where="--bitrate", found=text)
    return kbps


_OURS: Final = frozenset(
    {
        *("-b", "-crf", "-cq", "-global_quality", "-lossless", "-q", "-qp", "-qscale", "-rc"),
        *("-rc_mode", "-rc_override", "-preset", "-cpu-used", "-speed", "-compression_level"),
        *("-deadline", "-quality", "-threads", "-row-mt", "-pass", "-passlogfile", "-stats"),
        *("-x265-stats", "-qsv_params", "-c", "-codec", "-vcodec", "-target", "-pre", "-vpre"),
        *("-fpre", "-dec", "-f", "-i", "-map", "-n", "-y", "-filter", "-filter_script", "-vf"),
        *("-filter_complex", "-filter_complex_script", "-lavfi", "-autoscale", "-pix_fmt", "-r"),
        *("-fpsmax", "-enc_time_base", "-s", "-bsf", "-fps_mode", "-vsync", "-frames", "-fs"),
        *("-vframes", "-shortest", "-ss", "-t", "-to", "-vstats_file", "-stats_enc_post"),
        *("-stats_enc_post_fmt", "-stats_enc_pre", "-stats_mux_pre"),
    }
)
"""Options whose values the corpus records or the measurement relies on."""


def _extra(encoder: Encoder, texts: Sequence[str]) -> tuple[str, ...]:
    where = f"--encoder-args {encoder.name}"
    if len(texts) > 1:
        raise BadSettings(
            "given twice",
            where=where,
            found=" and ".join(map(repr, texts)),
            fix="put all arguments into one text",
        )
    text = "".join(texts)
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
    # There is one stream: what names it (-crf:v) changes nothing but the option's looks.
    pairs = [
        (name.partition(":")[0], value) for name, value in zip(words[::2], words[1::2], strict=True)
    ]
    taken = sorted({name for name, _ in pairs} & _OURS) + [
        f"{name} {key}"
        for name, value in pairs
        if name.endswith(("-params", "opts"))
        for key in _keys(value)
        if key.lower().replace("_", "-") in encoder.reserved
    ]
    if taken:
        raise BadSettings(
            f"{', '.join(taken)} cannot be set here",
            where=where,
            fix="use the options of loso for what a row records",
        )
    return tuple(word for pair in pairs for word in pair)


def _keys(text: str) -> list[str]:
    r"""Return the keys of a dictionary in ffmpeg's notation, whose quotes hide nothing.

    >>> _keys(r"aq-mode=2:cr\f=3")
    ['aq-mode', 'crf']
    """
    plain = re.sub(r"[\\'\s]", "", text)
    return [item.partition("=")[0] for item in plain.split(":")]
