"""An encoder tried on three small frames: the only way to know that it works here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Final, Literal

from loso.errors import BadSettings, CannotRun, MissingTool
from loso.progress import Progress, silent
from loso.video.encoders import ENCODERS, Encoder, Rate
from loso.video.ffmpeg import FfmpegSession
from loso.video.measure import Encode

__all__ = [
    "TRIAL_TIMEOUT_S",
    "EncoderTrial",
    "code_trial",
    "trial_encode",
    "try_encoder",
    "try_every_encoder",
]

TRIAL_TIMEOUT_S: Final = 60.0
"""Of three small frames: far above any sane encoder, and not the user's limit for a cell."""

_SIZE: Final = (320, 240)
"""Above every hardware encoder's least size."""
_KBPS: Final = 500.0
_HASH: Final = "trial.txt"


@dataclass(frozen=True)
class EncoderTrial:
    """Whether an encoder works here, and if not, why: where it fails, in ffmpeg's own words."""

    encoder: str
    state: Literal["works", "missing", "fails"]
    reason: str = ""


def trial_encode(
    encoder: Encoder,
    *,
    preset: str,
    control: Literal["quality", "bitrate"] = "quality",
    threads: int = 1,
    extra: tuple[str, ...] = (),
    device: str = "",
) -> Encode:
    """Return what `encoder` is tried with.

    The rate is always the same, as the frames that come of it name the encoder's library.
    """
    low, high = encoder.quality_range
    rate = Rate(control, _KBPS if control == "bitrate" else (low + high) // 2)
    width, height = _SIZE
    return Encode(
        encoder=encoder,
        preset=preset,
        rate=rate,
        width=width,
        height=height,
        threads=threads,
        extra=extra,
        device=device,
    )


def try_encoder(encode: Encode, session: FfmpegSession, *, folder: Path, timeout_s: float) -> str:
    """Return the hash of three small frames coded as `encode` says; MissingTool if that fails.

    BadSettings where it fails for the extra arguments alone, and where they are ignored: a corpus
    would claim a setting that was never in force.
    """
    name, program = encode.encoder.name, session.ffmpeg
    if name not in program.encoders:
        raise MissingTool(
            f"this ffmpeg (version {program.version}) was built without it",
            where=name,
            fix="leave this encoder out, or give another --ffmpeg",
        )
    try:
        log = code_trial(encode, session, folder=folder, timeout_s=timeout_s)
    except CannotRun as failure:
        reason = failure.problem
        if not encode.extra:
            raise MissingTool(
                f"does not work here ({reason})",
                where=name,
                fix="leave this encoder out",
            ) from None
        # The arguments are to blame only if it works without them.
        plain = replace(encode, extra=())
        try_encoder(plain, session, folder=folder, timeout_s=timeout_s)
    else:
        ignored = re.search(r"\[warning\] (.*(?:Unknown|parsing) option.*|.*not been used)", log)
        reason = ignored[1] if ignored and encode.extra else ""
    if reason:
        raise BadSettings(
            f"{name} does not take these arguments ({reason})",
            where="--encoder-args",
            found=" ".join(encode.extra),
        )
    try:
        return (folder / _HASH).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        raise MissingTool(
            "does not work here (it ended well and wrote nothing)",
            where=name,
            fix="leave this encoder out",
        ) from None


def code_trial(encode: Encode, session: FfmpegSession, *, folder: Path, timeout_s: float) -> str:
    """Return ffmpeg's log of three generated frames coded to their hash; CannotRun says why not."""
    encoder = encode.encoder
    upload = f",{encoder.upload}" if encoder.upload else ""
    chain = f"format={encoder.coding_format('yuv420p')}{upload}"
    arguments = encoder.arguments(
        preset=encode.preset, rate=encode.rate, threads=encode.threads, extra=encode.extra
    )
    source = ("-f", "lavfi", "-i", f"testsrc2=size={encode.width}x{encode.height}:rate=25")
    return session.run(
        (
            *(*encoder.device_arguments(encode.device), *source, "-frames:v", "3", "-vf", chain),
            *(*arguments, "-f", "streamhash", "-hash", "sha256", _HASH),
        ),
        folder=folder,
        timeout_s=timeout_s,
        verbose=True,
        again=lambda: None,
    )


def try_every_encoder(
    session: FfmpegSession,
    *,
    devices: Mapping[str, str],
    folder: Path,
    timeout_s: float = TRIAL_TIMEOUT_S,
    progress: Progress = silent,
) -> tuple[EncoderTrial, ...]:
    """Return how each encoder does that loso can drive, in the order in which corpora list them.

    `devices` are the paths of the render nodes, by kind: `qsv`, `vaapi`. Encoders of one piece of
    hardware are tried one after the other, as drivers limit how many encodes run at once.
    """
    groups: dict[str, list[Encoder]] = {}
    for encoder in ENCODERS.values():
        hardware = encoder.name.partition("_")[2]
        groups.setdefault(hardware or encoder.name, []).append(encoder)

    def attempt(group: Sequence[Encoder]) -> list[EncoderTrial]:
        own = Path(mkdtemp(dir=folder))
        return [_attempt(encoder, session, devices, own, timeout_s) for encoder in group]

    found: dict[str, EncoderTrial] = {}
    with session.pool(len(groups)) as pool:
        for done in as_completed([pool.submit(attempt, group) for group in groups.values()]):
            found |= {trial.encoder: trial for trial in done.result()}
            progress(len(found), len(ENCODERS), "trying encoders")
    return tuple(found[name] for name in ENCODERS)


def _attempt(
    encoder: Encoder,
    session: FfmpegSession,
    devices: Mapping[str, str],
    folder: Path,
    timeout_s: float,
) -> EncoderTrial:
    if encoder.name not in session.ffmpeg.encoders:
        return EncoderTrial(encoder.name, "missing", "this ffmpeg was built without it")
    device = devices.get(encoder.device, "")
    encode = trial_encode(encoder, preset=encoder.default_preset, device=device)
    try:
        code_trial(encode, session, folder=folder, timeout_s=timeout_s)
    except CannotRun as failure:
        return EncoderTrial(encoder.name, "fails", failure.problem)
    return EncoderTrial(encoder.name, "works")
