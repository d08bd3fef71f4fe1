"""Every refusal that loso makes, and the exit code a shell sees.

LosoError
|-- BadInput            2  something given cannot be used
|   |-- BadUsage        2  a command line that cannot be read
|   |-- BadSettings     2  a recipe, a threshold or an option out of its range
|   |-- BadCorpus       2  a corpus file, or rows in it
|   |-- BadClip         2  a clip that cannot serve as a reference
|   `-- BadEvidence     2  a run that cannot be judged
|-- Refused             1  the work was done or judged, and the answer is no
|   |-- Incomplete      1  some of the work failed; what succeeded is kept
|   `-- Diverged        1  training left the finite numbers
|-- CannotRun           3  the machine or the installation lacks something
|   |-- MissingTool     3  ffmpeg, an encoder, a device
|   |-- MissingExtra    3  an optional dependency
|   |-- LostCluster     3  the machines that did the work are gone; what is finished is kept
|   `-- Busy            3  another process holds the folder
`-- Interrupted       130  somebody stopped the work
"""

from __future__ import annotations

from typing import ClassVar, Final

__all__ = [
    "BadClip",
    "BadCorpus",
    "BadEvidence",
    "BadInput",
    "BadSettings",
    "BadUsage",
    "Busy",
    "CannotRun",
    "Diverged",
    "Incomplete",
    "Interrupted",
    "LosoError",
    "LostCluster",
    "MissingExtra",
    "MissingTool",
    "Refused",
]

_MOST_LETTERS: Final = 1000
"""Of one part of a sentence."""


class LosoError(Exception):
    """One sentence: where, what is wrong, what was expected and found, what to do.

    The parts stay available as fields, so that text, JSON and reports print the same facts. In the
    sentence one of more than a thousand letters, such as a name that somebody chose, lacks its
    middle.

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
        text = _short(self.problem)
        if self.where:
            text = f"{_short(self.where)}: {text}"
        if self.expected:
            text += f", expected {_short(self.expected)}"
        if self.found:
            text += f", found {_short(self.found)}"
        return f"{text}; {_short(self.fix)}" if self.fix else text

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


def _short(part: str) -> str:
    half = _MOST_LETTERS // 2
    return part if len(part) <= _MOST_LETTERS else f"{part[:half]} ... {part[-half:]}"


def _rebuild(kind: type[LosoError], problem: str, parts: dict[str, str]) -> LosoError:
    return kind(problem, **parts)


class BadInput(LosoError):
    """Something given cannot be used."""


class BadUsage(BadInput):
    """A command line cannot be read."""


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


class LostCluster(CannotRun):
    """The machines that did the work are gone; what is finished is kept."""


class Busy(CannotRun):
    """Another process holds the folder."""


class Interrupted(LosoError):
    """Somebody stopped the work: Ctrl-C, or a polite kill."""

    exit_code = 130
