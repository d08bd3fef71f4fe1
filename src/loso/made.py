"""What was made from a run's predictions and lies beside them: of these very ones, or refused."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol, TypeVar

from loso.errors import BadEvidence
from loso.evidence import Evidence
from loso.files import read_file
from loso.run_folder import BASELINES_FILE, INTERVALS_FILE

__all__ = ["Made", "read_made"]

_MAKERS: Final = {INTERVALS_FILE: "calibrate", BASELINES_FILE: "ablate"}
"""The command that makes each file again."""


class Made(Protocol):
    """A record that knows from which predictions it was made."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds they are of."""

    def speaks_of(self, corpus_sha256: str | None, predictions: Mapping[int, str]) -> bool:
        """Tell whether it was made from just these, by hash, of that corpus."""


_AnyMade = TypeVar("_AnyMade", bound=Made)


def read_made(
    evidence: Evidence, name: str, parse: Callable[[bytes, Path], _AnyMade]
) -> tuple[_AnyMade | None, str | None]:
    """Return the record in file `name` of the run's folder and the file's sha256, or two None.

    BadEvidence where it is damaged, or not of the seeds that are judged.
    """
    path = evidence.loso_dir / name
    try:
        content = read_file(path)
    except FileNotFoundError:
        return None, None
    except OSError as error:
        raise BadEvidence(f"cannot be read ({error.strerror})", where=str(path)) from None
    record = parse(content, path)
    corpus_sha256 = next(iter(evidence.seed_files.values())).corpus_sha256
    if not record.speaks_of(corpus_sha256, evidence.predictions_sha256):
        verb = _MAKERS[name]
        words = ["loso", verb, str(evidence.loso_dir), "--corpus", "CORPUS", "--seeds"]
        seeds = ",".join(map(str, evidence.seed_files))
        raise BadEvidence(
            "not made from the predictions of the seeds that are judged",
            where=str(path),
            expected=f"seeds {seeds} as they stand in the folder",
            found=f"seeds {','.join(map(str, record.seeds))} as they stood",
            fix=f"{verb} again with {shlex.join([*words, seeds])}",
        )
    return record, hashlib.sha256(content).hexdigest()
