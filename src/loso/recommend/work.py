"""Questions side by side: each asks for probes, and goes on as soon as it has them.

A piece of work is a generator. It yields the cells that it needs, is sent their probes, and returns
what it found. So a search reads as if it were alone, while encodes of many are made at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeAlias, TypeVar

from loso.corpus.plan import Cell
from loso.errors import BadInput, BadSettings, CannotRun, LosoError, LostCluster
from loso.recommend.desk import Desk, Probe

__all__ = ["Work", "carry_out"]

_T = TypeVar("_T")

Work: TypeAlias = Generator[Sequence[Cell], tuple[Probe, ...], _T]

_AT_ONCE: Final = 8
"""Pieces of work for each encode that runs at a time: enough that none is waited for, and few
enough that the first are finished early."""

_USUAL_ENCODES: Final = 3
"""Of one piece of work, until the first has ended and says how many it took."""

_ENDS_ONE: Final = (BadInput, CannotRun)
"""A clip that changed, an encode that failed: the others go on."""

_ENDS_ALL: Final = (BadSettings, LostCluster)
"""Of an encode, though of those kinds: a VMAF model that changed serves no other either."""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a piece of work waits for."""

    cells: Sequence[Cell]
    marks: Sequence[str]
    missing: frozenset[str]
    """Of those, what was not stored when it was asked for."""


def carry_out(desk: Desk, works: Sequence[Work[_T]]) -> list[_T | LosoError]:
    """Return what each piece of work found, or the refusal that ended it, in their order.

    A cell that several ask for is coded once. LostCluster where nobody is left to code, BadSettings
    where the VMAF model changed.
    """
    return _Round(desk, works).outcomes()


class _Round(Generic[_T]):
    def __init__(self, desk: Desk, works: Sequence[Work[_T]]) -> None:
        self._desk, self._works = desk, works
        self._outcomes: dict[int, _T | LosoError] = {}
        self._asked: dict[int, _Asked] = {}
        self._futures: dict[str, Future[None]] = {}
        self._coded = 0
        self._note = ""

    def outcomes(self) -> list[_T | LosoError]:
        waiting = list(range(len(self._works)))[::-1]
        most = max(_AT_ONCE * self._desk.place.size[1], 1)
        while waiting or self._asked:
            while waiting and len(self._asked) < most:
                at = waiting.pop()
                self._go_on(at, partial(next, self._works[at]))
            if self._asked:
                self._wait()
        self._tell()
        return [self._outcomes[at] for at in range(len(self._works))]

    def _wait(self) -> None:
        """Let everything go on that some encode held up, once one has ended."""
        self._tell()
        for ended in self._desk.place.follow(list(self._futures.values())):
            if ended is None:
                self._tell()
                continue
            (mark,) = (mark for mark, future in self._futures.items() if future is ended)
            del self._futures[mark]
            failure = ended.exception()
            if failure is not None and (
                isinstance(failure, _ENDS_ALL) or not isinstance(failure, _ENDS_ONE)
            ):
                raise failure
            self._coded += failure is None
            for at, asked in list(self._asked.items()):
                if mark not in asked.missing:
                    continue
                if failure is not None:
                    self._go_on(at, partial(self._works[at].throw, failure))
                elif not asked.missing & self._futures.keys():
                    self._go_on(at, partial(self._answer, at, asked))
            return

    def _go_on(self, at: int, step: Callable[[], Sequence[Cell]]) -> None:
        """Let a piece of work go on until it waits for an encode, or has ended."""
        self._asked.pop(at, None)
        try:
            while True:
                cells = step()
                marks = [self._desk.mark(cell) for cell in cells]
                missing = frozenset(self._begin(cells, marks))
                asked = _Asked(cells=cells, marks=marks, missing=missing)
                if missing:
                    self._asked[at] = asked
                    return
                step = partial(self._answer, at, asked)
        except StopIteration as end:
            self._outcomes[at] = end.value
        except _ENDS_ONE as refusal:
            self._outcomes[at] = refusal

    def _answer(self, at: int, asked: _Asked) -> Sequence[Cell]:
        """Send a piece of work its probes; return what it asks for next."""
        probes = tuple(
            self._desk.kept(cell, mark, stored=mark not in asked.missing)
            for cell, mark in zip(asked.cells, asked.marks, strict=True)
        )
        return self._works[at].send(probes)

    def _begin(self, cells: Sequence[Cell], marks: Sequence[str]) -> list[str]:
        """Return the marks of those cells that are not stored, all of them at work now."""
        missing = []
        for cell, mark in zip(cells, marks, strict=True):
            if mark not in self._futures:
                if self._desk.store.load(mark) is not None:
                    continue
                self._futures[mark] = self._desk.place.measure(mark, cell)
                encoder, rate = cell.encode.encoder, cell.encode.rate
                self._note = f"{cell.clip.src}, {encoder.name} at {rate.number}"
            missing.append(mark)
        return missing

    def _tell(self) -> None:
        if not self._note:  # nothing had to be coded
            return
        done, n_works = len(self._outcomes), len(self._works)
        note = f"{done} of {n_works}, {self._note}" if n_works > 1 else self._note
        if self._desk.place.remark:
            note += f", {self._desk.place.remark}"
        each = self._coded / done if done else _USUAL_ENCODES
        total = max(self._coded + len(self._futures), n_works * each)
        self._desk.progress(self._coded, total, note)
