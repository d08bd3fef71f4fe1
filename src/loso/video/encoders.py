"""What loso knows about each encoder: its scales, its presets, and how ffmpeg is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from loso.errors import BadSettings
from loso.spelling import did_you_mean

__all__ = ["ENCODERS", "Encoder", "Rate", "encoder_named", "preset_rank"]


@dataclass(frozen=True)
class Rate:
    """What an encode aims at: the encoder's own quality number, or a bitrate in kbit/s."""

    control: Literal["quality", "bitrate"]
    value: float

    @property
    def label(self) -> str:
        """The rate as it stands in a clip's name: q28, b800k."""
        return f"q{self.number}" if self.control == "quality" else f"b{self.number}k"

    @property
    def number(self) -> str:
        """The value in full, as it stands in names and command lines."""
        return f"{self.value:.12g}"


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """One encoder of ffmpeg. Texts in `threads` and `pinned` may hold "{threads}"."""

    name: str
    codec: str
    quality: tuple[str, ...]
    """Arguments of constant quality; the quality number follows the last one."""
    quality_range: tuple[int, int]
    whole_quality: bool = True
    reversed_quality: bool = False
    """A larger number is better: such a scale is turned round to become `cq`."""
    bitrate: tuple[str, ...] = ()
    """Arguments beside `-b:v` that make a bitrate the target."""
    preset_option: str = "-preset"
    presets: tuple[str, ...]
    """Fastest first."""
    default_preset: str
    fixed: tuple[str, ...] = ()
    threads: tuple[str, ...] = ("-threads", "{threads}")
    params_option: str = ""
    pinned: str = ""
    """Part of `params_option` that keeps the output independent of the machine's cores."""
    reserved: frozenset[str] = frozenset()
    """Keys of ffmpeg's dictionary options for this library that would undo what a row records."""
    pixel_formats: tuple[str, ...] = ("yuv420p",)
    device: str = ""
    """Hardware that needs a set-up: "qsv" or "vaapi"."""

    def check(self, *, preset: str, rate: Rate) -> None:
        """Refuse a preset or a rate that this encoder does not have, naming what it has."""
        if preset not in self.presets:
            raise BadSettings(
                "no such preset",
                where=self.name,
                expected=f"one of {' '.join(self.presets)}",
                found=repr(preset),
                fix=did_you_mean(preset, self.presets) or f"give --preset {self.name}=PRESET",
            )
        low, high = self.quality_range
        if rate.control == "quality" and not (
            low <= rate.value <= high and (not self.whole_quality or rate.value == int(rate.value))
        ):
            raise BadSettings(
                "quality is out of this encoder's range",
                where=self.name,
                expected=f"{'a whole number' if self.whole_quality else 'a number'} "
                f"in {low}..{high}",
                found=f"{rate.value:g}",
                fix=f"give --quality {self.name}=...",
            )

    def cq(self, rate: Rate) -> float:
        """Return the number that stands in a corpus: larger is cheaper, whatever the scale.

        >>> ENCODERS["libx264"].cq(Rate("bitrate", 800))
        -800
        """
        if rate.control == "bitrate":
            value = -rate.value
        elif self.reversed_quality:
            value = self.quality_range[1] - rate.value
        else:
            value = rate.value
        return int(value) if value == int(value) else value

    def arguments(
        self, *, preset: str, rate: Rate, threads: int, extra: tuple[str, ...] = ()
    ) -> list[str]:
        """Return ffmpeg's output options for one encode.

        >>> x264 = ENCODERS["libx264"]
        >>> " ".join(x264.arguments(preset="fast", rate=Rate("quality", 23), threads=1))
        '-c:v libx264 -crf 23 -preset fast -threads 1'
        """
        if rate.control == "quality":
            target = [*self.quality, rate.number]
        else:
            target = [*self.bitrate, "-b:v", f"{rate.number}k"]
        arguments = ["-c:v", self.name, *target]
        if self.preset_option:
            arguments += [self.preset_option, preset]
        arguments += [*self.fixed, *(text.format(threads=threads) for text in self.threads)]
        pairs = list(zip(extra[::2], extra[1::2], strict=True))
        if self.pinned:
            # The last value of an option wins in ffmpeg: what the user adds must not unpin.
            own = [value for option, value in pairs if option == self.params_option]
            pinned = self.pinned.format(threads=threads)
            arguments += [self.params_option, ":".join([*own, pinned])]
            pairs = [pair for pair in pairs if pair[0] != self.params_option]
        return arguments + [text for pair in pairs for text in pair]

    def device_arguments(self, device: str) -> list[str]:
        """Return ffmpeg's global options that open the hardware at path `device`."""
        if self.device == "qsv":
            opened = f"qsv=hw,child_device={device}"
        elif self.device == "vaapi":
            opened = f"vaapi=hw:{device}"
        else:
            return []
        return ["-init_hw_device", opened, "-filter_hw_device", "hw"]

    @property
    def upload(self) -> str:
        """The filter that moves frames to the device, empty for encoders that take them as is."""
        return {"": "", "qsv": "hwupload=extra_hw_frames=64", "vaapi": "hwupload"}[self.device]

    def coding_format(self, reference: str) -> str:
        """Return the pixel format to code a reference in: the nearest this encoder takes.

        Chroma sampling counts before depth, and more depth is nearer than less.

        >>> ENCODERS["libvvenc"].coding_format("yuv420p")
        'yuv420p10le'
        """
        chroma, depth = _SHAPES[reference]

        def distance(candidate: str) -> tuple[bool, bool, bool]:
            its_chroma, its_depth = _SHAPES[candidate]
            return its_chroma != chroma, its_depth < depth, its_depth != depth

        return min(self.pixel_formats, key=distance)


_SHAPES: Final = {
    "yuv420p": (420, 8),
    "yuv422p": (422, 8),
    "yuv444p": (444, 8),
    "yuv420p10le": (420, 10),
    "yuv422p10le": (422, 10),
    "yuv444p10le": (444, 10),
    "nv12": (420, 8),
    "p010le": (420, 10),
}
_PLANAR_8_TO_10: Final = (
    "yuv420p",
    "yuv422p",
    "yuv444p",
    "yuv420p10le",
    "yuv422p10le",
    "yuv444p10le",
)
_X26_PRESETS: Final = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
)

_RATE_KEYS: Final = frozenset(
    {"bitrate", "crf", "fps", "lossless", "pass", "passes", "preset", "qp", "threads", "zones"}
)


def _software() -> Iterable[Encoder]:
    yield Encoder(
        name="libx264",
        codec="h264",
        quality=("-crf",),
        quality_range=(0, 51),
        whole_quality=False,
        presets=_X26_PRESETS,
        default_preset="medium",
        reserved=_RATE_KEYS | {"qp-constant", "lookahead-threads", "sliced-threads", "stats"},
        pixel_formats=_PLANAR_8_TO_10,
    )
    yield Encoder(
        name="libx265",
        codec="hevc",
        quality=("-crf",),
        quality_range=(0, 51),
        whole_quality=False,
        presets=_X26_PRESETS,
        default_preset="medium",
        params_option="-x265-params",
        # Threads of one frame (pools) leave the picture alone, frames in parallel change it.
        pinned="log-level=error:pools={threads}:frame-threads=1",
        reserved=_RATE_KEYS
        | {"pools", "numa-pools", "frame-threads", "input-res", "output-depth", "zonefile"},
        pixel_formats=_PLANAR_8_TO_10,
    )
    yield Encoder(
        name="libsvtav1",
        codec="av1",
        quality=("-crf",),
        quality_range=(1, 63),  # ffmpeg takes 0 as "not given" and codes at 35
        presets=tuple(str(n) for n in range(13, -1, -1)),
        default_preset="8",
        params_option="-svtav1-params",
        pinned="lp={threads}",
        threads=(),
        reserved=_RATE_KEYS | {"rc", "tbr", "q", "use-q-file", "lp", "pin", "resize-mode"},
        pixel_formats=("yuv420p", "yuv420p10le"),
    )
    yield Encoder(
        name="libvvenc",
        codec="vvc",
        quality=("-qp",),
        quality_range=(0, 63),
        presets=("faster", "fast", "medium", "slow", "slower"),
        default_preset="medium",
        reserved=_RATE_KEYS | {"targetbitrate", "size", "sourcewidth", "sourceheight", "framerate"},
        pixel_formats=("yuv420p10le",),
    )
    yield Encoder(
        name="libvpx-vp9",
        codec="vp9",
        quality=("-b:v", "0", "-crf"),
        quality_range=(0, 63),
        preset_option="-cpu-used",
        presets=("5", "4", "3", "2", "1", "0"),  # above 5, "good" codes exactly as at 5
        default_preset="1",
        fixed=("-deadline", "good", "-row-mt", "0"),
        pixel_formats=_PLANAR_8_TO_10,
    )


def _hardware() -> Iterable[Encoder]:
    for codec, deepest in (("h264", 51), ("hevc", 51), ("av1", 63)):
        yield Encoder(
            name=f"{codec}_nvenc",
            codec=codec,
            quality=("-rc", "vbr", "-b:v", "0", "-cq"),
            quality_range=(1, deepest),  # 0 means "automatic"
            whole_quality=False,
            bitrate=("-rc", "vbr"),
            presets=tuple(f"p{n}" for n in range(1, 8)),
            default_preset="p4",
            threads=(),
            pixel_formats={
                "h264": ("yuv420p", "yuv444p"),
                "hevc": ("yuv420p", "p010le", "yuv444p"),
                "av1": ("yuv420p", "p010le"),
            }[codec],
        )
    for codec in ("h264", "hevc", "av1"):
        yield Encoder(
            name=f"{codec}_qsv",
            codec=codec,
            quality=("-global_quality",),
            quality_range=(1, 51),
            presets=("veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"),
            default_preset="medium",
            threads=(),
            pixel_formats=("nv12",) if codec == "h264" else ("nv12", "p010le"),
            device="qsv",
        )
    for codec in ("h264", "hevc"):
        yield Encoder(
            name=f"{codec}_vaapi",
            codec=codec,
            quality=("-rc_mode", "CQP", "-qp"),
            quality_range=(1, 52),  # 0 means "the driver's default"
            bitrate=("-rc_mode", "VBR"),
            preset_option="-compression_level",
            presets=("7", "6", "5", "4", "3", "2", "1"),
            default_preset="4",
            threads=(),
            pixel_formats=("nv12",) if codec == "h264" else ("nv12", "p010le"),
            device="vaapi",
        )
    for codec in ("h264", "hevc"):
        yield Encoder(
            name=f"{codec}_videotoolbox",
            codec=codec,
            quality=("-q:v",),
            quality_range=(1, 100),
            reversed_quality=True,
            preset_option="",
            presets=("default",),
            default_preset="default",
            threads=(),
            pixel_formats=("nv12",) if codec == "h264" else ("nv12", "p010le"),
        )


ENCODERS: Final = {encoder.name: encoder for encoder in (*_software(), *_hardware())}
"""Every encoder loso can drive, in the order in which corpora list them."""


def encoder_named(name: str) -> Encoder:
    """Return an encoder; BadSettings for a name outside ENCODERS."""
    try:
        return ENCODERS[name]
    except KeyError:
        raise BadSettings(
            "no such encoder",
            expected=f"one of {' '.join(ENCODERS)}",
            found=repr(name),
            fix=did_you_mean(name, ENCODERS),
        ) from None


def preset_rank(encoder: str, preset: str) -> float | None:
    """Return a preset's place in its encoder's own list: 0 fastest, 1 slowest.

    None for an encoder or a preset that is not known, and for an encoder with one preset.

    >>> preset_rank("libvvenc", "medium"), preset_rank("libx264", "warp")
    (0.5, None)
    """
    known = ENCODERS.get(encoder)
    if known is None or preset not in known.presets or len(known.presets) == 1:
        return None
    return known.presets.index(preset) / (len(known.presets) - 1)
