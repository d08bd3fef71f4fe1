"""Files that are whole or absent: atomic writes, hashes, and JSON that is always valid."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from loso.errors import BadInput, BadSettings, CannotRun, LosoError

__all__ = [
    "MOST_RECORD_BYTES",
    "blames_machine",
    "make_folder",
    "open_regular",
    "os_refusal",
    "parse_json",
    "read_file",
    "read_hashed",
    "read_json",
    "read_regular",
    "refuse_place_of",
    "remove_file",
    "sha256_of",
    "sweep_folder",
    "to_json",
    "write_atomic",
    "write_hashed",
    "write_json",
]


def refuse_place_of(
    read: Mapping[Path, str], out: Path, *, fix: str, option: str = "--out"
) -> None:
    """Refuse, as BadSettings, an output that would replace a file that is `read`, by what it is."""
    for path, what in read.items():
        if out.resolve() == path.resolve() or (
            path.exists() and out.exists() and out.samefile(path)
        ):
            raise BadSettings(
                f"would take the place of {what}", where=option, found=str(out), fix=fix
            )


def to_json(value: Any) -> str:
    """Return `value` as indented JSON with sorted keys and a final newline.

    NaN and infinity raise ValueError: they are not JSON, and not an answer.
    """
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"


@contextmanager
def write_atomic(path: Path, *, sweep: bool = True) -> Iterator[Path]:
    """Yield a sibling temporary path that becomes `path` when the block ends without an error.

    Readers see the old file or the new one, never a part. The name starts with a dot and carries
    process and thread, so that two writers never share a temporary file; those that a killed
    process left in the folder are removed, unless `sweep` is off: to look for them takes the longer
    the more files are there. BadInput where the file cannot be written, CannotRun where the machine
    is to blame: a full disk, a folder that is removed meanwhile.
    """
    make_folder(path.parent)
    if sweep:
        sweep_folder(path.parent)
    # A name may already be at the file system's 255-byte limit: the temporary one is short.
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    writer = f"{_place()}.{os.getpid()}.{threading.get_ident():x}"
    temporary = path.with_name(f".{digest}.{writer}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except LosoError:
        raise
    except Exception as error:
        failure = _os_error(error)
        if failure is None:
            raise
        if failure.errno == errno.ENOENT:  # it was there when the writing began
            raise CannotRun("its folder was removed meanwhile", where=str(path)) from None
        raise os_refusal("be written", path, failure) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


_OF_RUST: Final = re.compile(r"\(os error ([0-9]{1,5})\)")


def _os_error(error: Exception) -> OSError | None:
    """Return what the operating system said; polars has it in the text of errors of its own."""
    if isinstance(error, OSError) and error.errno:
        return error
    said = _OF_RUST.search(str(error))
    if said:
        return OSError(int(said[1]), os.strerror(int(said[1])))
    return OSError(0, str(error)) if isinstance(error, OSError) else None


_TEMPORARY: Final = re.compile(r"\.[0-9a-f]{16}\.([0-9a-f]{16})\.([0-9]+)\.[0-9a-f]+\.tmp")
_ABANDONED_S: Final = 86_400
"""Age from which a temporary file is no one's, wherever its writer ran: no file takes a day."""


@cache
def _place() -> str:
    """Return what tells apart machines, their boots and their containers, whose pids overlap."""
    known = [platform.node()]
    with suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        known.append(f"{Path('/proc/self/ns/pid').stat().st_ino}")
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]


def sweep_folder(folder: Path) -> None:
    """Remove temporary files whose writer is dead, as far as that can be known and done."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            named = _TEMPORARY.fullmatch(entry.name)
            if named is None:
                continue
            here = named[1] == _place() and os.name == "posix"
            with suppress(OSError):
                old = time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED_S
                if old or (here and not _is_alive(int(named[2]))):
                    Path(entry.path).unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True


def remove_file(path: Path) -> None:
    """Remove a file where it is there; BadInput where that fails, CannotRun on a failing disk."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise os_refusal("be removed", path, error) from None


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
        content = read_file(path)
    except FileNotFoundError:
        raise BadInput("file not found", where=str(path)) from None
    except OSError as error:
        raise os_refusal("be read", path, error) from None
    return parse_json(content, str(path))


def parse_json(content: bytes, where: str) -> Any:
    """Return what JSON says; BadInput, which names `where`, as `read_json` raises it."""
    try:
        return json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not valid JSON ({error})", where=where) from None


def write_hashed(path: Path, text: str) -> None:
    """Write one line of JSON below the sha256 of that line.

    Nothing is swept up: where such files are kept there are many, and whoever holds the folder has.
    """
    line = text.encode() + b"\n"
    with write_atomic(path, sweep=False) as temporary:
        temporary.write_bytes(hashlib.sha256(line).hexdigest().encode() + b"\n" + line)


def read_hashed(path: Path) -> Any:
    """Return what `write_hashed` wrote, or None where that is not there, not whole or not JSON."""
    try:
        digest, _, line = path.read_bytes().partition(b"\n")
        whole = digest == hashlib.sha256(line).hexdigest().encode()
        return json.loads(line) if whole else None
    except (OSError, ValueError, RecursionError):
        return None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


MOST_RECORD_BYTES: Final = 64 * 2**20
"""The largest record that is read: a hundred times that of a run over thousands of sources."""


def read_file(path: Path, most_bytes: int = MOST_RECORD_BYTES) -> bytes:
    """Return the content of a regular file of at most `most_bytes`, links followed.

    OSError says what it is instead: a pipe or a device, which may never end, is not read.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        content = stream.read(size + 1) if size <= most_bytes else b""
        if len(content) == size:
            return content
    grown = size <= most_bytes
    problem = "it grows while it is read" if grown else f"{size} bytes, {most_bytes} are read"
    raise OSError(errno.EINVAL, problem, str(path))


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Return the content of a file that others may have made.

    BadInput unless it is a regular file, no link, of at most `most_bytes`: a pipe would never end,
    and a link could lead anywhere. What was looked at is what is read.
    """
    try:
        with open_regular(path, links=False) as stream:
            if os.fstat(stream.fileno()).st_size <= most_bytes:
                content = stream.read(most_bytes + 1)
                if len(content) <= most_bytes:
                    return content
    except FileNotFoundError:
        raise BadInput("file not found", where=str(path)) from None
    except OSError as error:
        if error.errno != errno.EINVAL and not path.is_symlink():
            raise os_refusal("be read", path, error) from None
    raise BadInput(
        "not opened",
        where=str(path),
        expected=f"a regular file of at most {most_bytes} bytes, no link",
    )


def open_regular(path: Path, *, links: bool = True) -> BufferedReader:
    """Open a regular file for reading; OSError where it is anything else."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    number = os.open(path, flags if links else flags | getattr(os, "O_NOFOLLOW", 0))
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(number, "rb")
    os.close(number)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "neither a file nor a folder", str(path))


def sha256_of(path: Path) -> str:
    """Return the hexadecimal sha256 of a file's bytes; BadInput where it cannot be read."""
    try:
        with open_regular(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise os_refusal("be read", path, error) from None


def make_folder(path: Path) -> None:
    """Make a folder and those above it where they are missing; BadInput where that fails.

    BadInput too for a name that is no text: JSON and polars could not name what lies in it.
    """
    try:
        str(path).encode()
        path.mkdir(parents=True, exist_ok=True)
    except UnicodeEncodeError:
        raise BadInput(
            "its name is not UTF-8, and records name their files",
            where=repr(str(path)),
            fix="rename it",
        ) from None
    except OSError as error:
        raise os_refusal("be used as a folder", path, error) from None


_OF_THE_MACHINE: Final = {
    *(errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EROFS),
    *(errno.EMFILE, errno.ENFILE, errno.ENOLCK, errno.ENOMEM),
}
"""Nothing is wrong with what was given."""


def blames_machine(error: OSError) -> bool:
    """Tell whether a full, failing or locked disk or a limit of the system is behind `error`."""
    return error.errno in _OF_THE_MACHINE


def os_refusal(verb: str, path: Path, error: OSError) -> LosoError:
    """Return the refusal for what the operating system said of `path`, which cannot `verb`.

    BadInput, or CannotRun where the machine is to blame: a full disk, a limit.

    >>> os_refusal("be read", Path("a"), OSError(errno.ENOSPC, "No space left on device")).exit_code
    3
    """
    kind = CannotRun if blames_machine(error) else BadInput
    return kind(f"cannot {verb} ({error.strerror})", where=str(path))
