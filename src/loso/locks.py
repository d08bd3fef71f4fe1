"""A folder for one process at a time: a lock that dies with its owner."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loso.errors import BadInput, Busy, CannotRun
from loso.files import make_folder, os_refusal

__all__ = ["folder_lock"]


@contextmanager
def folder_lock(folder: Path, purpose: str) -> Iterator[None]:
    """Hold `folder` for one process; Busy if another one has it.

    The operating system drops the lock with its owner, so a killed run leaves none behind.
    CannotRun where the folder is no longer the same in the end: somebody removed it meanwhile, its
    lock with it, and what was written before.
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
    except NotImplementedError as error:  # flock is missing, and another lock outlives its owner
        raise CannotRun(f"cannot be locked ({error})", where=str(folder)) from None
    except OSError as error:
        raise os_refusal("be locked", folder, error) from None
    try:
        with _same_in_the_end(folder, purpose):
            yield
    finally:
        lock.release()


@contextmanager
def _same_in_the_end(folder: Path, purpose: str) -> Iterator[None]:
    opened = None
    with suppress(OSError):  # Windows opens no folders, and removes none that holds an open lock
        # An open folder keeps its number: one that is made in its place has another.
        opened = os.open(folder, os.O_RDONLY)
    try:
        yield
        if opened is not None and not _is(folder, opened):
            raise CannotRun(
                f"the folder was removed or replaced while it was used for {purpose}",
                where=str(folder),
                fix="run the command again",
            )
    finally:
        if opened is not None:
            os.close(opened)


def _is(folder: Path, opened: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(opened))
    except OSError:
        return False
