"""What stands in a run's folder beside its seeds: the calls, the verdict, what was made of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from datetime import UTC
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, Strict

from loso.errors import BadEvidence
from loso.files import blames_machine, os_refusal, read_file
from loso.gate import Advice
from loso.made import Made
from loso.model.grounds import PromoteGate, VerdictFile
from loso.records import OneFault, parse_record
from loso.run_folder import RUN_FILE, VERDICT_FILES
from loso.seedfile import SeedFile

__all__ = [
    "AnyMade",
    "Call",
    "Diagnosis",
    "ShownGate",
    "ShownVerdict",
    "read_beside",
    "read_calls",
    "read_verdict",
]


class _Record(OneFault, BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Call(_Record):
    """One call that trained into the folder; what it does not say is None or empty."""

    command: tuple[str, ...] = ()
    started_at_utc: Annotated[AwareDatetime, Strict()] | None = None
    wall_time_s: float | None = None
    threads: int | None = None
    trained_seeds: tuple[int, ...] = ()
    kept_seeds: tuple[int, ...] = ()

    @property
    def started(self) -> str:
        """When it started, as files write times; empty where that is not recorded."""
        at = self.started_at_utc
        return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


class _RunFile(_Record):
    calls: tuple[Call, ...] = Field(min_length=1)


class ShownGate(PromoteGate):
    """A gate's numbers, and the figures that stand beside it."""

    advisory: tuple[Advice, ...] = ()


class Diagnosis(_Record):
    """What of the limits failed, and what to try, in sentences."""

    failed: tuple[str, ...] = ()
    try_first: tuple[str, ...] = Field(default=(), alias="try")


class ShownVerdict(VerdictFile):
    """A verdict with its sentences."""

    gate: ShownGate
    recommendation: str = ""
    diagnosis: Diagnosis = Diagnosis()


def read_calls(run_dir: Path) -> tuple[Call, ...]:
    """Return the calls that trained into `run_dir`, at least one, the latest last.

    BadEvidence where `run.json` is damaged or not there.
    """
    path = run_dir / RUN_FILE
    fix = "train again: seeds that are whole are kept"
    return parse_record(_RunFile, _read(path), path, refusal=BadEvidence, fix=fix).calls


def read_verdict(run_dir: Path) -> ShownVerdict | None:
    """Return the verdict in `run_dir`, None where there is none.

    BadEvidence where it is damaged or says something else than its name, or where there are two.
    """
    paths = [path for path in (run_dir / name for name in VERDICT_FILES) if path.is_file()]
    fix = f"judge again with {shlex.join(['loso', 'validate', str(run_dir)])}"
    if not paths:
        return None
    if len(paths) > 1:
        raise BadEvidence(
            f"both {' and '.join(VERDICT_FILES)} stand there, and only one can be true",
            where=str(run_dir),
            fix=fix,
        )
    (path,) = paths
    found = parse_record(ShownVerdict, _read(path), path, refusal=BadEvidence, fix=fix)
    if (found.verdict, found.gate.passed) != (path.stem, path.stem == "PROMOTE"):
        raise BadEvidence(
            "does not say what its name says",
            where=str(path),
            found=f"{found.verdict}, passed {found.gate.passed}",
            fix=fix,
        )
    return found


AnyMade = TypeVar("AnyMade", bound=Made)


def read_beside(
    path: Path, parse: Callable[[bytes, Path], AnyMade], seed_files: Sequence[SeedFile]
) -> AnyMade | None:
    """Return what was made of the predictions of all `seed_files`, as `parse` reads it.

    None where it is not there, or was made of other predictions.
    """
    if not path.is_file():
        return None
    found = parse(_read(path), path)
    predictions = {file.seed: file.predictions.sha256 for file in seed_files if file.predictions}
    return found if found.speaks_of(seed_files[0].corpus_sha256, predictions) else None


def _read(path: Path) -> bytes:
    try:
        return read_file(path)
    except OSError as error:
        if blames_machine(error):
            raise os_refusal("be read", path, error) from None
        raise BadEvidence(f"cannot be read ({error.strerror})", where=str(path)) from None
