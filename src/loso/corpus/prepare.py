"""Everything that can be refused is refused here, before a build writes anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Final

from loso.corpus.place import Kind, Looked, Place, kind_of
from loso.corpus.plan import BuildSettings, Cell, Plan, fingerprint, plan_cells
from loso.errors import BadClip
from loso.video.clips import Clip
from loso.video.ffmpeg import Ffmpeg
from loso.video.measure import Encode
from loso.video.trial import trial_encode

__all__ = ["mark_of", "prepare", "refuse_names", "tools_of", "trials_of", "warnings_of"]

VMAF_SIZE: Final = (1920, 1080)


def prepare(
    paths: Sequence[Path],
    settings: BuildSettings,
    ffmpeg: Ffmpeg,
    place: Place,
    *,
    two_step: bool,
) -> Plan:
    """Return what is to be measured, after the model, each encoder and each clip were tried.

    What libvmaf, an encoder or a clip refuses comes from where they are tried.
    """
    looked = place.look(paths, settings.clips)
    clips = sorted(looked.clips, key=lambda clip: clip.src)
    cells = plan_cells(clips, settings)
    tools = tools_of(ffmpeg, looked, settings)
    return Plan(
        settings=settings,
        clips=clips,
        cells=cells,
        marks={
            cell.name: mark_of(cell, settings, tools, looked, two_step=two_step) for cell in cells
        },
        tools=tools,
        two_step=two_step,
        warnings=warnings_of(clips, settings),
    )


def tools_of(ffmpeg: Ffmpeg, looked: Looked, settings: BuildSettings) -> dict[str, str]:
    """Return the version of each program and model that takes part in every cell."""
    return {
        "ffmpeg": ffmpeg.version,
        "ffmpeg_configuration": ffmpeg.configuration,
        "libvmaf": looked.libvmaf,
        "vmaf_model": settings.model.identity(),
    }


def mark_of(
    cell: Cell,
    settings: BuildSettings,
    tools: Mapping[str, str],
    looked: Looked,
    *,
    two_step: bool,
) -> str:
    """Return the fingerprint of a cell, with what its kind of command line makes of a trial."""
    tried = {**tools, "trial": looked.hashes[kind_of(cell.encode)]}
    return fingerprint(cell, settings.model, tried, two_step=two_step)


def refuse_names(paths: Sequence[Path]) -> None:
    """Refuse stems that cannot be a row's source: not text, or those of two clips.

    A stem is the row's source, and a source is one content.
    """
    for path in paths:
        try:
            path.stem.encode()
        except UnicodeEncodeError:
            raise BadClip(
                "its name is not UTF-8, and the name is the source",
                where=repr(str(path)),
                fix="rename it",
            ) from None
    for one, other in pairwise(sorted(paths, key=lambda path: path.stem)):
        if one.stem == other.stem:
            raise BadClip(
                f"two clips are named {one.stem}, and the name is the source",
                where=f"{one} and {other}",
                fix="name each once, or rename one",
            )


def trials_of(settings: BuildSettings) -> dict[Kind, Encode]:
    """Return one encode for each kind of command line: other rates differ by a number alone."""
    return {
        kind_of(choice): trial_encode(
            choice.encoder,
            preset=choice.preset,
            control=choice.rate.control,
            threads=settings.threads,
            extra=choice.extra,
            device=settings.device(choice.encoder),
        )
        for choice in settings.choices
    }


def warnings_of(clips: Sequence[Clip], settings: BuildSettings) -> list[str]:
    """Return what a user should know before trusting the numbers."""
    warnings = [f"{clip.src}: {remark}" for clip in clips for remark in clip.remarks]
    warnings += [
        f"{one.src} and {other.src} are the same file: as two sources they leak into each other"
        for one, other in combinations(clips, 2)
        if one.sha256 == other.sha256
    ]
    sizes = sorted({(clip.width, clip.height) for clip in clips} - {VMAF_SIZE})
    by_vmaf = settings.model.version.startswith("vmaf_v0.6.1") and not settings.model.beside
    if by_vmaf and sizes:
        listed = ", ".join(f"{width}x{height}" for width, height in sizes)
        warnings.append(f"VMAF v0.6.1 assumes 1920x1080 on a screen; scored here: {listed}")
    if len({choice.rate.control for choice in settings.choices}) > 1:
        warnings.append(
            "quality and bitrate cells in one corpus: cq, and crf_norm with it, spans two scales"
        )
    return warnings
