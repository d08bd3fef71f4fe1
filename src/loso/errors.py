"""Every refusal that loso makes, and the exit code a shell sees.

LosoError
|-- BadInput            2  something given cannot be used
|   |-- BadSettings     2  a recipe, a threshold or an option out of its range
|   |-- BadCorpus       2  a corpus file, or rows in it
|   |-- BadClip         2  a clip that cannot serve as a reference
|   `-- BadEvidence     2  a run that cannot be judged
|-- Refused             1  the work was done or judged, and the answer is no
|   |-- Incomplete      1  some of the work failed; what succeeded is kept
|   `-- Diverged        1  training left the finite numbers
`-- CannotRun           3  the machine or the installation lacks something
    |-- MissingTool     3  ffmpeg, an encoder, a device
    |-- MissingExtra    3  an optional dependency
    `-- Busy            3  another process holds the folder
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BadClip",
    "BadCorpus",
    "BadEvidence",
    "BadInput",
    "BadSettings",
    "Busy",
    "CannotRun",
    "Diverged",
    "Incomplete",
    "LosoError",
    "MissingExtra",
    "MissingTool",
    "Refused",
]


class LosoError(Exception):
    """One sentence: where, what is wrong, what was expected and found, what to do.

    The parts stay available as fields, so that text, JSON and reports print the same facts.

    >>> print(LosoError("vmaf must lie in 0..100", where="c.jsonl line 41", found="104.2",
    ...                 fix="re-measure or drop the row"))
    c.jsonl line 41: vmaf must lie in 0..100, found 104.2; re-measure or drop the row
    """

    exit_code: ClassVar[int] = 2

    def __init__(
        self, problem: str, *, where: str = "", expected: str = "", found: str = "", fix: str = ""
    ) -> None:
        self.problem = problem
        self.where = where
        self.expected = expected
        self.found = found
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.problem}" if self.where else self.problem
        if self.expected:
            text += f", expected {self.expected}"
        if self.found:
            text += f", found {self.found}"
        return f"{text}; {self.fix}" if self.fix else text

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the fields: the sentence itself is derived (worker processes raise these)."""
        parts = {k: getattr(self, k) for k in ("where", "expected", "found", "fix")}
        return _rebuild, (type(self), self.problem, parts)

    def to_dict(self) -> dict[str, str]:
        """Return the refusal as one JSON object."""
        return {
            "error": type(self).__name__,
            "message": str(self),
            "where": self.where,
            "problem": self.problem,
            "expected": self.expected,
            "found": self.found,
            "fix": self.fix,
        }


def _rebuild(kind: type[LosoError], problem: str, parts: dict[str, str]) -> LosoError:
    return kind(problem, **parts)


class BadInput(LosoError):
    """Something given cannot be used."""


class BadSettings(BadInput):
    """A recipe, a threshold or an option lies outside its range."""


class BadCorpus(BadInput):
    """A corpus file, or rows in it, cannot be used."""


class BadClip(BadInput):
    """A clip cannot serve as a reference."""


class BadEvidence(BadInput):
    """A run cannot be judged by what it left behind."""


class Refused(LosoError):
    """The work was done or judged, and the answer is no."""

    exit_code = 1


class Incomplete(Refused):
    """Some of the work failed; what succeeded is kept."""


class Diverged(Refused):
    """Training left the finite numbers."""


class CannotRun(LosoError):
    """The machine or the installation lacks something."""

    exit_code = 3


class MissingTool(CannotRun):
    """A program, an encoder or a device is not there or does not work."""


class MissingExtra(CannotRun):
    """An optional dependency is not installed."""


class Busy(CannotRun):
    """Another process holds the folder."""
