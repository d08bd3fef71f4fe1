"""The store of finished cells: what makes a build resumable."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile, mkdtemp
from typing import Any

from loso.errors import BadSettings, CannotRun
from loso.files import blames_machine, read_hashed, write_hashed
from loso.locks import folder_lock
from loso.video.measure import Measurement

__all__ = ["Parts", "folder_for"]


@contextmanager
def folder_for(purpose: str, folder: Path) -> Iterator[None]:
    """Make a folder that can be written to; what was made and stays empty goes again.

    BadSettings where that fails, CannotRun on a full disk; `purpose` is the start of its sentence.
    """
    try:
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise (CannotRun if blames_machine(error) else BadSettings)(
            f"{purpose} cannot be kept here ({error.strerror})",
            where=str(folder),
            fix="choose another --out or --parts",
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):
            for each in made:
                each.rmdir()


@dataclass(frozen=True)
class Parts:
    """A folder with one file for each finished cell, named by the cell's fingerprint.

    A file has two lines: the sha256 of the second, and a JSON object. What does not match its
    hash or its name, or cannot be read, counts as not there, and the cell is measured again.
    """

    folder: Path
    scratch: Path | None = None
    """Where cells work: a disk of this machine, where `folder` is on a shared one."""
    trial: str = ""
    """Noted in what is saved: the hash of what the encoder makes of its trial frames."""

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other builds out, and sweep away what a killed one left; Busy if one is at work.

        A folder that was made for this and holds no part in the end is removed.
        """
        with folder_for("finished cells", self.folder), folder_lock(self.folder, "a build"):
            self._sweep()
            try:
                yield
            finally:
                self._sweep()
                lock = self.folder / ".lock"
                with suppress(OSError):
                    if list(self.folder.iterdir()) == [lock]:
                        lock.unlink()

    def _sweep(self) -> None:
        # Nobody else is at work here while the lock is held: every temporary file is stale.
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        for leftover in self.folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    @contextmanager
    def work_folder(self) -> Iterator[Path]:
        """Yield an empty folder for one cell, gone afterwards."""
        parent = self.scratch or self.folder / "work"
        parent.mkdir(exist_ok=True)
        folder = Path(mkdtemp(dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def load(self, fingerprint: str, *, patience_s: float = 0.0) -> Measurement | None:
        """Return a finished cell, None if it is not there or not whole after that time."""
        end = time.monotonic() + patience_s
        found = self._load(fingerprint)
        while found is None and time.monotonic() < end:
            time.sleep(0.2)
            found = self._load(fingerprint)
        return found

    def _load(self, fingerprint: str) -> Measurement | None:
        content = read_hashed(self._path(fingerprint))
        try:
            return _measurement(content) if content["fingerprint"] == fingerprint else None
        except (ValueError, LookupError, TypeError, AttributeError):  # JSON of another shape
            return None

    def save(self, fingerprint: str, measured: Measurement) -> None:
        """Write a finished cell; a reader sees all of it or nothing."""
        content = {"fingerprint": fingerprint, "trial": self.trial, **asdict(measured)}
        write_hashed(self._path(fingerprint), json.dumps(content))

    def trials(self) -> Counter[str]:
        """Return how many finished cells note each trial; none for those that note nothing."""
        parts = (read_hashed(path) for path in self.folder.glob("*.part"))
        noted = (part.get("trial") for part in parts if isinstance(part, dict))
        return Counter(trial for trial in noted if trial and isinstance(trial, str))

    def _path(self, fingerprint: str) -> Path:
        return self.folder / f"{fingerprint}.part"


def _measurement(content: dict[str, Any]) -> Measurement:
    return Measurement(
        vmaf=tuple(content["vmaf"]),
        features={name: tuple(values) for name, values in content["features"].items()},
        packet_bytes=tuple(content["packet_bytes"]),
        libvmaf=content["libvmaf"],
        seconds=content["seconds"],
    )
