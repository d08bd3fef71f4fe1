"""Settings and clips become a list of cells: clip x encoder x preset x size x rate."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any

from loso.corpus.choices import Choice
from loso.errors import BadClip, BadSettings
from loso.video.clips import Clip, ClipSettings
from loso.video.encoders import Encoder
from loso.video.measure import Encode, Measurement, VmafModel, commands

__all__ = [
    "BuildSettings",
    "Cell",
    "Plan",
    "cell_of",
    "fingerprint",
    "plan_cells",
    "portable",
    "refuse_height",
    "rows_of",
]


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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a build is about to do, and with what."""

    settings: BuildSettings
    clips: Sequence[Clip]
    cells: Sequence[Cell]
    marks: Mapping[str, str]
    """Fingerprint of each cell, by the cell's name."""
    tools: Mapping[str, str]
    """Version of each program and model that takes part."""
    two_step: bool
    warnings: Sequence[str]


def plan_cells(clips: Sequence[Clip], settings: BuildSettings) -> list[Cell]:
    """Return every cell in the order of the corpus: source, encoder, preset, height, rate.

    BadClip for a height above the reference's, BadSettings for two cells that would be named alike.
    """
    cells = []
    for clip in sorted(clips, key=lambda clip: clip.src):
        for height in settings.heights:
            refuse_height(clip, height)
        heights = sorted(set(settings.heights)) or [clip.height]
        # Rates come last in the order, whatever order the choices came in.
        ways = dict.fromkeys((c.encoder.name, c.preset) for c in settings.choices)
        cells += [
            cell_of(clip, choice, height, settings)
            for way, height in product(ways, heights)
            for choice in settings.choices
            if (choice.encoder.name, choice.preset) == way
        ]
    for one, other in pairwise(sorted(cells, key=lambda cell: cell.name)):
        if one.name == other.name:
            raise BadSettings(
                f"two cells are named {one.name}", fix="give rates that differ in twelve digits"
            )
    return cells


def refuse_height(clip: Clip, height: int) -> None:
    """Refuse, as BadClip, to code above the height of the reference."""
    if height > clip.height:
        raise BadClip(
            "--height is above the reference's",
            where=str(clip.path),
            expected=f"at most {clip.height}",
            found=f"{height}",
        )


def cell_of(clip: Clip, choice: Choice, height: int, settings: BuildSettings) -> Cell:
    """Return the cell that codes a clip in one way, at a height of its own or less."""
    name = f"{clip.src}_{choice.encoder.name}_{choice.preset}_{choice.rate.label}_{height}p"
    if settings.clips.start_s:
        name += f"_from{settings.clips.start_s:.12g}s"
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


def fingerprint(cell: Cell, model: VmafModel, tools: Mapping[str, str], *, two_step: bool) -> str:
    """Return the name of a cell's part: it changes with whatever can change the measurement.

    `tools` holds the versions of all that takes part, and the hash of what the encoder makes of
    three trial frames, which a new library or driver changes. The command lines hold every setting.
    """
    lines = commands(cell.clip, cell.encode, model, two_step=two_step)
    content = {"commands": portable(lines, cell.clip, cell.clip.sha256), "tools": dict(tools)}
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
