"""Everything that can be refused is refused here, before a build writes anything."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Final

from loso.corpus.choices import Choice
from loso.corpus.plan import BuildSettings, Plan, fingerprint, plan_cells
from loso.errors import BadClip
from loso.video.clips import Clip, open_clip
from loso.video.encoders import Rate
from loso.video.ffmpeg import FfmpegSession
from loso.video.measure import Encode, probe_libvmaf, try_encoder

__all__ = ["prepare"]

TRIAL_SIZE: Final = (320, 240)
"""Of the frames an encoder is tried on: above every hardware encoder's least size."""
TRIAL_KBPS: Final = 500.0
TRIAL_TIMEOUT_S: Final = 60.0
"""Of three small frames: far above any sane encoder, and not the user's limit for a cell."""
VMAF_SIZE: Final = (1920, 1080)


def prepare(
    paths: Sequence[Path],
    settings: BuildSettings,
    session: FfmpegSession,
    *,
    jobs: int,
    two_step: bool,
) -> Plan:
    """Return what is to be measured, after the model, each encoder and each clip were tried.

    Clips of one stem are refused: a stem is the row's source, and a source is one content. What
    libvmaf, an encoder or a clip refuses comes from where they are tried.
    """
    _refuse_names(paths)
    with TemporaryDirectory(prefix="loso-") as name, session.pool(jobs) as pool:
        folder = Path(name)

        def attempt(encode: Encode) -> str:
            own = Path(mkdtemp(dir=folder))
            return try_encoder(encode, session, folder=own, timeout_s=TRIAL_TIMEOUT_S)

        def look(path: Path) -> Clip:
            return open_clip(path, settings.clips, session, timeout_s=settings.timeout_s)

        libvmaf = probe_libvmaf(settings.model, session, folder=folder, timeout_s=TRIAL_TIMEOUT_S)
        trials = _trials(settings)
        hashes = dict(zip(trials, pool.map(attempt, trials.values()), strict=True))
        clips = sorted(pool.map(look, paths), key=lambda clip: clip.src)
    cells = plan_cells(clips, settings)
    tools = {
        "ffmpeg": session.ffmpeg.version,
        "ffmpeg_configuration": session.ffmpeg.configuration,
        "libvmaf": libvmaf,
        "vmaf_model": settings.model.identity(),
    }
    return Plan(
        settings=settings,
        clips=clips,
        cells=cells,
        marks={
            cell.name: fingerprint(
                cell,
                settings.model,
                {**tools, "trial": hashes[_kind(cell.encode)]},
                two_step=two_step,
            )
            for cell in cells
        },
        tools=tools,
        two_step=two_step,
        warnings=_warnings(clips, settings),
    )


def _refuse_names(paths: Sequence[Path]) -> None:
    """Refuse stems that cannot be a row's source: not text, or those of two clips."""
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


_Kind = tuple[str, str, str]


def _kind(way: Choice | Encode) -> _Kind:
    return way.encoder.name, way.preset, way.rate.control


def _trials(settings: BuildSettings) -> dict[_Kind, Encode]:
    """Return one encode for each kind of command line: other rates differ by a number alone.

    The rate tried is always the same, as the frames that come of it name the encoder's library.
    """
    width, height = TRIAL_SIZE
    return {
        _kind(choice): Encode(
            encoder=choice.encoder,
            preset=choice.preset,
            rate=Rate("bitrate", TRIAL_KBPS)
            if choice.rate.control == "bitrate"
            else Rate("quality", sum(choice.encoder.quality_range) // 2),
            width=width,
            height=height,
            threads=settings.threads,
            extra=choice.extra,
            device=settings.device(choice.encoder),
        )
        for choice in settings.choices
    }


def _warnings(clips: Sequence[Clip], settings: BuildSettings) -> list[str]:
    """Return what a user should know before trusting the numbers."""
    warnings = [f"{clip.src}: {remark}" for clip in clips for remark in clip.remarks]
    warnings += [
        f"{one.src} and {other.src} are the same file: as two sources they leak into each other"
        for one, other in combinations(clips, 2)
        if one.sha256 == other.sha256
    ]
    sizes = sorted({(clip.width, clip.height) for clip in clips} - {VMAF_SIZE})
    if settings.model.version.startswith("vmaf_v0.6.1") and sizes:
        listed = ", ".join(f"{width}x{height}" for width, height in sizes)
        warnings.append(f"VMAF v0.6.1 assumes 1920x1080 on a screen; scored here: {listed}")
    if len({choice.rate.control for choice in settings.choices}) > 1:
        warnings.append(
            "quality and bitrate cells in one corpus: cq, and crf_norm with it, spans two scales"
        )
    return warnings
