"""Findings, and the first of them: what lies in a model folder, and whether SHA256SUMS covers it.

A folder may come from anywhere. Only regular files in it are opened, links are never followed, and
what a record names is looked up among those files, so nothing outside the folder is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from reprlib import Repr
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from loso.errors import BadInput, LosoError, Refused
from loso.model.files import SIGNATURE_FILE, SUMS_FILE
from loso.model.signing import check_signature

__all__ = ["Finding", "Findings", "Folder", "check_files", "check_signed", "parse", "validated"]

R = TypeVar("R", bound=BaseModel)

_MOST_RECORD_BYTES: Final = 16 * 2**20
_MOST_FAULTS_A_RECORD: Final = 20
_LONGEST: Final = 200
_SHORT: Final = Repr()
_SHORT.maxlevel, _SHORT.maxtuple, _SHORT.maxlist, _SHORT.maxdict = 4, 20, 20, 20
_SHORT.maxstring = _SHORT.maxother = 80
_LOCK: Final = ".lock"
_SUM: Final = re.compile(r"([0-9a-f]{64})  (.+)")

_EXPORT_AGAIN: Final = "take the folder anew from where it was exported, or export it again"
_FIXES: Final = {
    "listing": "remove it, or put the file itself in its place",
    "sums": _EXPORT_AGAIN,
    "signature": "take the folder anew from who signed it",
    "weights": "export again: loso export puts all weights inside the graph",
    "smoke": "loso registry flip or unflip, so that all say the same",
    "registry": "export again into this folder, or correct the entry",
    "promotion": "loso registry flip with the verdict of the run, or loso registry unflip",
    "verdict": "judge the run again: loso validate LOSO_DIR --corpus CORPUS, then export",
    "run": "name the run that the model was exported from, or judge it again and export",
    "records": "export again, or verify with the loso and the engine that exported it",
    "refit": "export again: loso export",
    "corpus": "name the corpus that the model was trained on, or train on this one",
}
"""What to do about a finding of each check; about one of another, export again."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: in which file, what, what was expected and found, what to do.

    `check` groups findings; `file` is a name in the model folder, or a path outside it that was
    given.
    """

    file: str
    check: str
    problem: str
    expected: str
    found: str
    fix: str

    def __str__(self) -> str:
        text = self.problem
        text += f", expected {self.expected}" if self.expected else ""
        text += f", found {self.found}" if self.found else ""
        return f"{text}; {self.fix}"

    def to_dict(self) -> dict[str, str]:
        """Return the finding as a JSON object."""
        return asdict(self)


class Findings:
    """All findings, in the order in which they are made, and notes on what was not checked."""

    def __init__(self) -> None:
        self.all: list[Finding] = []
        self.notes: list[str] = []

    def add(
        self, file: str, check: str, problem: str, expected: object = "", found: object = ""
    ) -> None:
        """Add a finding; what is shown of it is short and printable, wherever it came from."""
        made = Finding(
            file=_shown(file),
            check=check,
            problem=_shown(problem),
            expected=_shown(expected),
            found=_shown(found),
            fix=_FIXES.get(check, _EXPORT_AGAIN),
        )
        if made not in self.all:
            self.all.append(made)

    def refused(self, file: str, check: str, error: LosoError) -> None:
        """Add what another part of loso refused."""
        self.add(file, check, error.problem, error.expected, error.found)

    def same(self, file: str, check: str, what: str, expected: object, found: object) -> None:
        """Add a finding unless the two are equal."""
        if expected != found:
            self.add(file, check, f"{what} does not match", expected, found)


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else _SHORT.repr(value)
    text = text.lower() if value is None or isinstance(value, bool) else text  # as JSON writes them
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class Folder:
    """The regular files of a folder by their names, with / between folders; nothing else is opened.

    `odd` names what is neither a regular file nor a folder, and why; `private` the files whose
    names have a part that starts with a dot. BadInput where there is no folder.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise BadInput("not a folder", where=str(path), fix="name the folder of an export")
        self.path = path
        self.files: dict[str, Path] = {}
        self.odd: dict[str, str] = {}
        self.private: list[str] = []
        self._content: dict[str, bytes] = {}
        for name, kind in sorted(_walk(path)):
            if kind:
                self.odd[name] = kind
            elif any(part.startswith(".") for part in name.split("/")):
                self.private.append(name)
            else:
                self.files[name] = path / name

    def read(self, name: str) -> bytes:
        """Return the content of a record; BadInput where it cannot be read or is too large."""
        if name not in self._content:
            with self._open(name) as stream:
                content = stream.read(_MOST_RECORD_BYTES + 1)
            if len(content) > _MOST_RECORD_BYTES:
                raise BadInput("too large for a record", expected=f"at most {_MOST_RECORD_BYTES}")
            self._content[name] = content
        return self._content[name]

    def json(self, name: str) -> Any:
        """Return what a JSON file holds; BadInput where it holds none."""
        try:
            return json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise BadInput(f"not valid JSON ({error})") from None

    def record(self, name: str, kind: type[R], findings: Findings, check: str) -> R | None:
        """Return the record in a file; None, with findings, where it is missing or broken."""
        if name not in self.files:
            findings.add(name, check, "missing")
            return None
        try:
            return parse(self.read(name), kind, name, findings, check)
        except BadInput as error:
            findings.refused(name, check, error)
            return None

    def sha256(self, name: str) -> str:
        """Return the hexadecimal sha256 of a file; BadInput where it cannot be read."""
        with self._open(name) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def _open(self, name: str) -> BufferedReader:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            stream = open(os.open(self.files[name], flags | getattr(os, "O_BINARY", 0)), "rb")  # noqa: PTH123, SIM115
        except OSError as error:
            raise BadInput(f"cannot be read ({error.strerror})") from None
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            stream.close()
            raise BadInput("not a regular file")
        return stream


def _walk(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of everything below a folder, folders apart, and why it is not opened."""
    failed: list[OSError] = []
    for top, folders, files in os.walk(path, onerror=failed.append, followlinks=False):
        for name in [*folders, *files]:
            place = Path(top, name)
            shown, mode = place.relative_to(path).as_posix(), place.lstat().st_mode
            if stat.S_ISLNK(mode):
                yield shown, "a link, which is not followed"
            elif not stat.S_ISDIR(mode):
                yield shown, "" if stat.S_ISREG(mode) else "neither a file nor a folder"
    for error in failed:
        yield Path(error.filename).relative_to(path).as_posix(), f"not listed ({error.strerror})"


def parse(content: bytes, kind: type[R], file: str, findings: Findings, check: str) -> R | None:
    """Return the record in the bytes of a JSON file; None, with findings, where it is none."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        findings.add(file, check, f"not valid JSON ({error})")
        return None
    return validated(value, kind, file, findings, check)


def validated(value: Any, kind: type[R], file: str, findings: Findings, check: str) -> R | None:
    """Return the record that `value` is; None, with a finding for each key that cannot be used."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        for fault in error.errors(include_url=False)[:_MOST_FAULTS_A_RECORD]:
            key = ".".join(map(str, fault["loc"])) or "the record"
            findings.add(file, check, f"{key} cannot be used: {fault['msg']}", "", fault["input"])
    return None


def check_files(folder: Folder, findings: Findings) -> None:
    """Hold every file against SHA256SUMS, and the lines of SHA256SUMS against the files."""
    for name, kind in folder.odd.items():
        findings.add(name, "listing", kind)
    private = [name for name in folder.private if name != _LOCK]
    if private:
        findings.notes.append(
            f"not checked, their names start with a dot: {', '.join(map(_shown, private))}"
        )
    if SUMS_FILE not in folder.files:
        findings.add(SUMS_FILE, "sums", "missing: no file of the folder is covered by a sha256")
        return
    try:
        sums = _read_sums(folder.read(SUMS_FILE), findings)
    except BadInput as error:
        findings.refused(SUMS_FILE, "sums", error)
        return
    for name in sorted(sums.keys() | folder.files.keys() - {SUMS_FILE, SIGNATURE_FILE}):
        if name not in folder.files:
            findings.add(name, "sums", f"named in {SUMS_FILE}, and no file of the folder")
        elif name not in sums:
            findings.add(name, "sums", f"{SUMS_FILE} has no line for it")
        else:
            _check_sum(folder, name, sums[name], findings)


def _check_sum(folder: Folder, name: str, expected: str, findings: Findings) -> None:
    try:
        found = folder.sha256(name)
    except BadInput as error:
        findings.refused(name, "sums", error)
        return
    if found != expected:
        findings.add(name, "sums", f"not as in {SUMS_FILE}", expected, found)


def _read_sums(content: bytes, findings: Findings) -> dict[str, str]:
    """Return what SHA256SUMS says of each name; every line that is not one is a finding."""
    *lines, rest = content.decode("utf-8", errors="surrogateescape").split("\n")
    sums: dict[str, str] = {}
    for number, line in enumerate([*lines, rest] if rest else lines, start=1):
        fits = _SUM.fullmatch(line)
        if not fits or not line.isprintable() or fits[2] in sums:
            findings.add(SUMS_FILE, "sums", f"line {number} is not one of sha256sum", "", line)
        else:
            sums[fits[2]] = fits[1]
    if rest:
        findings.add(SUMS_FILE, "sums", "the last line has no end")
    return sums


def check_signed(folder: Folder, public_key: Path | None, findings: Findings) -> None:
    """Hold the folder against its signature; BadInput where the key cannot be used."""
    signed = SIGNATURE_FILE in folder.files
    if public_key is None:
        if signed:
            findings.notes.append(f"{SIGNATURE_FILE} was not checked: no public key was given")
    elif folder.odd:
        findings.add(SIGNATURE_FILE, "signature", "not checked: not all that lies here is a file")
    else:
        try:
            check_signature(folder.path, public_key)
        except Refused as error:
            findings.refused(SIGNATURE_FILE, "signature", error)
