"""Files of what happened: the lines of the `loso` log, with UTC times."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from loso.spelling import spelt_out

__all__ = ["LOG", "Once", "journal"]

LOG: Final = logging.getLogger("loso")
"""What all of loso logs to, directly or by a logger below it."""


class Once(logging.Filter):
    """Lets a warning pass once: a step says it when it happens, a command with its results."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is to be shown."""
        if record.levelno != logging.WARNING:
            return True
        text = record.getMessage()
        new = text not in self._seen
        self._seen.add(text)
        return new


@contextmanager
def journal(path: Path) -> Iterator[None]:
    """Append the log of the block to `path`; an error that ends the block is its last line.

    BadInput where the file cannot be opened, CannotRun where the machine is to blame.
    """
    try:
        handler = _File(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        from loso.files import os_refusal

        raise os_refusal("be written", path, error) from None
    formatter = _OneLine("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    handler.addFilter(Once())
    level = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        yield
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        handler.handle(LOG.makeRecord(LOG.name, logging.ERROR, "", 0, text, (), None))
        raise
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)
        with suppress(OSError):  # lines that did not fit on the disk
            handler.close()


class _OneLine(logging.Formatter):
    """Lines that no name can break: a file of one line for each thing said can be searched."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return spelt_out(super().format(record))


class _File(logging.FileHandler):
    """A file that takes what it can: a full disk stops the step that is logged, not its log."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Leave the line out."""
