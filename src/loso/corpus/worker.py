"""What a cluster's worker does for a build: compare its tools, open clips, measure cells.

Each function is called by the worker itself, and trusts nothing that the worker said before: it may
be another process by now. What is found and tried is kept for the build, in the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Final, NoReturn

from loso.corpus.cells import Method, measure_cell
from loso.corpus.parts import Parts
from loso.corpus.plan import Cell
from loso.errors import BadClip, BadSettings, CannotRun, LosoError, MissingTool
from loso.executors import UnfitWorker, resources_here, scratch_here, stopped_when_unwanted
from loso.files import open_regular, sha256_of
from loso.video.clips import Clip, ClipSettings, identity_of, open_clip
from loso.video.encoders import Encoder
from loso.video.ffmpeg import Ffmpeg, FfmpegSession, find_ffmpeg
from loso.video.measure import Encode, VmafModel, probe_libvmaf
from loso.video.scan import Scan, scan_clip
from loso.video.trial import TRIAL_TIMEOUT_S, try_encoder

__all__ = [
    "Errand",
    "Survey",
    "look_at_clip",
    "measure_for",
    "resource_of",
    "scan_for",
    "survey",
]

_SIGN_DELAY_S: Final = 2.0
"""How long a file that one machine has written may be hidden from another: NFS caches folders."""


@dataclass(frozen=True, kw_only=True)
class Errand:
    """What a worker is told of a build, and compares itself with."""

    parts: Path
    sign: str
    """Name of a file in `parts` that tells this build from any other."""
    ffmpeg: str
    """Where it lies on the client; a worker may have the same one elsewhere."""
    version: str
    configuration: str
    libvmaf: str
    scores: str
    """The hash of what libvmaf gives a few frames on the client."""
    method: Method


@dataclass(frozen=True)
class Survey:
    """What a worker can do: the hash of each trial, or why it failed."""

    hashes: Mapping[str, str]
    refusals: Mapping[str, LosoError]


def resource_of(encoder: Encoder) -> str:
    """Return the hardware that an encoder runs on, by the name of a worker's resource.

    >>> from loso.video.encoders import encoder_named
    >>> resource_of(encoder_named("av1_nvenc")), resource_of(encoder_named("libvpx-vp9"))
    ('nvenc', '')
    """
    return encoder.name.partition("_")[2]


def survey(errand: Errand, clips: Sequence[Path], trials: Mapping[str, Encode]) -> Survey:
    """Return which `trials` succeed here; UnfitWorker where nothing could be measured here at all.

    An encoder of some hardware is tried only where the worker offers that hardware.
    """
    _see_parts(errand)
    unseen = [path for path in clips if not path.is_file()]
    if unseen:
        raise UnfitWorker(
            f"does not see {len(unseen)} of {len(clips)} clips",
            found=f"nothing at {unseen[0]}",
            fix="clips must lie under the same path on all machines",
        )
    _own_ffmpeg(errand)
    offered = resources_here()
    hashes: dict[str, str] = {}
    refusals: dict[str, LosoError] = {}
    for skill, encode in trials.items():
        resource = resource_of(encode.encoder)
        if resource and offered.get(resource, 0) < 1:  # a cell takes one
            text = f"the worker does not offer {resource}: start it with --resources {resource}=1"
            refusals[skill] = MissingTool(text, where=encode.encoder.name)
            continue
        try:
            hashes[skill] = _tried(errand, encode)
        except LosoError as refusal:
            refusals[skill] = refusal
    return Survey(hashes, refusals)


def look_at_clip(
    errand: Errand, path: Path, settings: ClipSettings, size: int | None = None
) -> Clip:
    """Return the clip at `path`, as `open_clip` does; `size` is that of the client's own file.

    What is found is held against all other workers. So where this one is at fault it is
    UnfitWorker: it loses sight of the clip, sees another, or cannot let ffmpeg look at it.
    """
    with suppress(OSError), open_regular(path):
        pass  # NFS asks its server anew
    if size not in {None, _see(path)[2]}:
        _refuse_other(errand, path)
    try:
        with _session(errand) as session:
            return open_clip(path, settings, session, timeout_s=errand.method.timeout_s)
    except BadClip:
        _see(path)
        raise
    except CannotRun as failure:
        raise UnfitWorker(str(failure)) from None


def scan_for(errand: Errand, clip: Clip) -> Scan:
    """Return what a look at every frame of a clip shows."""
    seen = _as_seen_here(errand, clip)
    try:
        with _session(errand) as session, _folder() as folder:
            return scan_clip(seen, session, folder=folder, timeout_s=errand.method.timeout_s)
    except CannotRun:
        _as_seen_here(errand, clip)
        raise


def measure_for(errand: Errand, trial: Encode, expected: str, mark: str, cell: Cell) -> None:
    """Measure a cell and keep it as `mark`; `expected` is the hash that `trial` must give here.

    After a failure the worker is looked at once more: where it is at fault it is UnfitWorker, and
    takes no other cells down. So it is where the folder of parts is another by now, such as the one
    that a share was mounted on: what it keeps there nobody else will see.
    """
    _see_sign(errand)
    _see_trial(_tried, errand, trial, expected)
    clip = _as_seen_here(errand, cell.clip)
    store = Parts(errand.parts, scratch=scratch_here(), trial=expected)
    try:
        with _session(errand) as session:
            measure_cell(mark, replace(cell, clip=clip), errand.method, session, store)
    except BadClip:
        _as_seen_here(errand, cell.clip)
        raise
    except BadSettings:  # the model: another for all, unless it is gone here
        _see_model(errand.method.model)
        raise
    except (CannotRun, OSError):
        _see_parts(errand)
        _see_trial(_try, errand, trial, expected)
        raise
    _see_sign(errand)


@contextmanager
def _session(errand: Errand) -> Iterator[FfmpegSession]:
    """Yield a session that ends when nobody waits for this task any longer."""
    with FfmpegSession(_own_ffmpeg(errand)) as session, stopped_when_unwanted(session.stop):
        yield session


def _see_sign(errand: Errand) -> None:
    fix = "all machines must see one folder under one path: give --parts on a shared disk"
    end = time.monotonic() + _SIGN_DELAY_S
    while not identity_of(errand.parts / errand.sign):
        if time.monotonic() > end:
            raise UnfitWorker(
                "does not see the folder of finished cells", found=str(errand.parts), fix=fix
            )
        time.sleep(0.1)


def _see_parts(errand: Errand) -> None:
    _see_sign(errand)
    try:
        with NamedTemporaryFile(dir=errand.parts, prefix=".", suffix=".tmp"):
            pass
    except OSError as error:
        text = f"cannot write to the folder of finished cells ({error.strerror})"
        raise UnfitWorker(text, found=str(errand.parts)) from None


@lru_cache(maxsize=4)
def _own_ffmpeg(errand: Errand) -> Ffmpeg:
    """Return this machine's ffmpeg that is the client's; UnfitWorker where there is none."""
    found = []
    for path in (errand.ffmpeg, ""):
        try:
            ffmpeg = find_ffmpeg(path)
        except MissingTool:
            continue
        if (ffmpeg.version, ffmpeg.configuration) == (errand.version, errand.configuration):
            break
        found.append(f"{ffmpeg.version}, built otherwise" * (ffmpeg.version == errand.version))
        found[-1] = found[-1] or ffmpeg.version
    else:
        raise UnfitWorker(
            "another ffmpeg: one corpus is measured by one",
            expected=errand.version,
            found=" and ".join(dict.fromkeys(found)) or "none with libvmaf",
        )
    model = errand.method.model
    _see_model(model)
    if model.path and sha256_of(model.path) != model.sha256:
        raise UnfitWorker("the VMAF model file is another", found=str(model.path))
    with FfmpegSession(ffmpeg) as session, _folder() as folder:
        try:
            libvmaf, scores = probe_libvmaf(
                model, session, folder=folder, timeout_s=TRIAL_TIMEOUT_S
            )
        except LosoError as refusal:
            raise UnfitWorker(str(refusal)) from None
    if libvmaf != errand.libvmaf:
        raise UnfitWorker("another libvmaf", expected=errand.libvmaf, found=libvmaf)
    if scores != errand.scores:
        raise UnfitWorker("scores otherwise than the client: its processor or a library differs")
    return ffmpeg


def _see_model(model: VmafModel) -> None:
    if model.path and not model.path.is_file():
        raise UnfitWorker("does not see the VMAF model file", found=f"nothing at {model.path}")


def _see_trial(
    look: Callable[[Errand, Encode], str], errand: Errand, trial: Encode, expected: str
) -> None:
    name = trial.encoder.name
    try:
        found = look(errand, trial)
    except (LosoError, OSError) as failure:
        raise UnfitWorker(f"can code no {name} any longer ({failure})") from None
    if found != expected:
        raise UnfitWorker(f"{name} codes otherwise here than where it was planned")


def _try(errand: Errand, encode: Encode) -> str:
    with _session(errand) as session, _folder() as folder:
        return try_encoder(encode, session, folder=folder, timeout_s=TRIAL_TIMEOUT_S)


@lru_cache(maxsize=1024)
def _tried(errand: Errand, encode: Encode) -> str:
    return _try(errand, encode)


@contextmanager
def _folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="loso-", dir=scratch_here()) as name:
        yield Path(name)


def _as_seen_here(errand: Errand, clip: Clip) -> Clip:
    """Return a clip that another machine has opened, with the identity of the file that lies here.

    Device and inode differ between machines. Where size or time differ too, the content decides.
    BadClip where it was written to or replaced since the build began, as it is another for all
    then; other content, or none, is this worker's own: UnfitWorker.
    """
    own = _see(clip.path)
    if own[2:] != clip.identity[2:] and _hash(clip.path, own) != clip.sha256:
        _refuse_other(errand, clip.path)
    return replace(clip, identity=own)


def _refuse_other(errand: Errand, path: Path) -> NoReturn:
    """Refuse what is not the clip: BadClip where it came to be since the build began."""
    begun = identity_of(errand.parts / errand.sign)
    if not begun or _came_to_be_ns(path) <= begun[3]:
        raise UnfitWorker("sees another file than the clip", found=str(path))
    raise BadClip(
        "is not the file that was looked at before",
        where=str(path),
        fix="leave it alone, give all machines the same, and run this again; what was finished "
        "before is kept",
    )


def _see(path: Path) -> tuple[int, ...]:
    own = identity_of(path)
    if not own:
        raise UnfitWorker("does not see a clip", found=f"nothing at {path}")
    return own


def _came_to_be_ns(path: Path) -> int:
    """Return when a file came to be what it is and where it is, whatever its own time says."""
    try:
        return max(path.stat().st_ctime_ns, path.lstat().st_ctime_ns)
    except OSError:
        return 0


@lru_cache(maxsize=1024)
def _hash(path: Path, identity: tuple[int, ...]) -> str:  # noqa: ARG001 (identity is of the cache's key)
    try:
        return sha256_of(path)
    except LosoError as refusal:
        raise UnfitWorker(str(refusal)) from None
