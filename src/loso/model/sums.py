"""SHA256SUMS of a model folder: one line for every other file, as `sha256sum -c` reads it."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

from loso.errors import BadInput
from loso.files import read_regular, sha256_of, write_atomic
from loso.model.files import MOST_RECORD_BYTES, SIGNATURE_FILE, SUMS_FILE

__all__ = ["files_to_sum", "read_sums", "refresh_sums"]

_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def files_to_sum(folder: Path) -> tuple[str, ...]:
    """Return the names, with / between folders, of the files that SHA256SUMS speaks of, sorted.

    Left out: the file itself and the signature, which is made over it; links; names with a part
    that starts with a dot, which are private; names that do not fit on a line.
    """
    names = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        private = any(part.startswith(".") for part in name.split("/"))
        fits = name.isprintable() and "\\" not in name
        if private or not fits or name in {SUMS_FILE, SIGNATURE_FILE}:
            continue
        if path.is_file() and not path.is_symlink():
            names.append(name)
    return tuple(sorted(names))


def read_sums(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file that SHA256SUMS names; BadInput unless every line fits."""
    path = folder / SUMS_FILE
    try:
        lines = read_regular(path, MOST_RECORD_BYTES).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise BadInput(f"cannot be read ({error})", where=str(path)) from None
    sums = {}
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, start=1):
        found = _LINE.fullmatch(line)
        if not found:
            raise BadInput(
                "not a line of sha256sum", where=f"{path} line {number}", found=line[:80]
            )
        sums[found[2]] = found[1]
    return sums


def refresh_sums(folder: Path, changed: Collection[str]) -> None:
    """Write SHA256SUMS anew: `changed` and new files are read, other lines stay as they are.

    So a file that somebody else damaged in the meantime does not pass for whole. A file that is
    gone loses its line.
    """
    known = read_sums(folder) if (folder / SUMS_FILE).is_file() else {}
    sums = {
        name: known[name] if name in known and name not in changed else sha256_of(folder / name)
        for name in files_to_sum(folder)
    }
    with write_atomic(folder / SUMS_FILE) as temporary:
        lines = [f"{sha256}  {name}\n" for name, sha256 in sums.items()]
        temporary.write_text("".join(lines), encoding="utf-8", newline="\n")
