"""Files that are whole or absent: atomic writes, locks, hashes, and JSON that is always valid."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from loso.errors import BadInput, Busy, CannotRun, LosoError

__all__ = [
    "folder_lock",
    "make_folder",
    "parse_json",
    "read_json",
    "read_regular",
    "sha256_of",
    "to_json",
    "write_atomic",
    "write_json",
]


def to_json(value: Any) -> str:
    """Return `value` as indented JSON with sorted keys and a final newline.

    NaN and infinity raise ValueError: they are not JSON, and not an answer.
    """
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"


@contextmanager
def write_atomic(path: Path) -> Iterator[Path]:
    """Yield a sibling temporary path that becomes `path` when the block ends without an error.

    Readers see the old file or the new one, never a part. The name starts with a dot and carries
    process and thread, so that two writers never share a temporary file.
    """
    make_folder(path.parent)
    # A name may already be at the file system's 255-byte limit: the temporary one is short.
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    temporary = path.with_name(f".{digest}.{os.getpid()}.{threading.get_ident():x}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _cannot("be written", path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically, as `to_json` renders it."""
    text = to_json(value)
    with write_atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Return the parsed content of a JSON file; BadInput where it is missing or not JSON.

    NaN and infinity, which Python takes for JSON, are not.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadInput("file not found", where=str(path)) from None
    except OSError as error:
        raise _cannot("be read", path, error) from None
    return parse_json(content, str(path))


def parse_json(content: bytes, where: str) -> Any:
    """Return what JSON says; BadInput, which names `where`, as `read_json` raises it."""
    try:
        return json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not valid JSON ({error})", where=where) from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Return the content of a file that others may have made.

    BadInput unless it is a regular file, no link, of at most `most_bytes`: a pipe would never end,
    and a link could lead anywhere. What was looked at is what is read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with os.fdopen(os.open(path, flags), "rb") as stream:
            status = os.fstat(stream.fileno())
            content = b""
            if stat.S_ISREG(status.st_mode) and status.st_size <= most_bytes:
                content = stream.read(most_bytes + 1)
                if len(content) <= most_bytes:
                    return content
    except FileNotFoundError:
        raise BadInput("file not found", where=str(path)) from None
    except OSError as error:
        if not path.is_symlink():
            raise _cannot("be read", path, error) from None
    raise BadInput(
        "not opened",
        where=str(path),
        expected=f"a regular file of at most {most_bytes} bytes, no link",
    )


def sha256_of(path: Path) -> str:
    """Return the hexadecimal sha256 of a file's bytes; BadInput where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _cannot("be read", path, error) from None


def make_folder(path: Path) -> None:
    """Make a folder and those above it where they are missing; BadInput where that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot("be used as a folder", path, error) from None


_OF_THE_MACHINE: Final = {errno.EDQUOT, errno.EIO, errno.ENOSPC, errno.EROFS}
"""A full, failing or locked disk: nothing is wrong with what was given."""


def _cannot(verb: str, path: Path, error: OSError) -> LosoError:
    kind = CannotRun if error.errno in _OF_THE_MACHINE else BadInput
    return kind(f"cannot {verb} ({error.strerror})", where=str(path))


@contextmanager
def folder_lock(folder: Path, purpose: str) -> Iterator[None]:
    """Hold `folder` for one process; Busy if another one has it.

    The operating system drops the lock with its owner, so a killed run leaves none behind.
    """
    from filelock import FileLock, Timeout

    make_folder(folder)
    if (folder / ".lock").is_symlink():
        raise BadInput("a link, not a lock", where=str(folder / ".lock"), fix="remove it")
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Busy(
            f"another process is using this folder for {purpose}",
            where=str(folder),
            fix="wait for it to end, or choose another folder",
        ) from None
    except OSError as error:
        raise _cannot("be locked", folder, error) from None
    try:
        yield
    finally:
        lock.release()
