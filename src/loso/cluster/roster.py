"""Who is there, looked at before anything is given to them, and what each is fit for."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from loso.cluster.dispatch import Hand
from loso.errors import CannotRun, LosoError, LostCluster

__all__ = [
    "ClosingWorker",
    "Judge",
    "Lacks",
    "Roster",
    "UnfitWorker",
    "Wait",
    "ask_in_time",
    "broke_off",
    "lost_scheduler",
    "lost_workers",
]


class UnfitWorker(Exception):
    """Raised by a call whose worker is at fault: it gets no more, and the task goes elsewhere.

    No refusal by itself: others may be fit.
    """

    def __init__(self, problem: str, **parts: str) -> None:
        super().__init__(str(CannotRun(problem, **parts)))


class ClosingWorker(UnfitWorker):
    """Raised where a worker is about to end: no task is to blame for that."""


Judge = Callable[[Any], frozenset[str]]
"""Returns the skills that a worker's report shows; UnfitWorker where there are none."""

Lacks = Callable[[Collection[Any]], Mapping[str, str]]
"""Returns what none of the workers can do that gave these reports, with the reason."""

_Then = Callable[[str, Any], None]


@dataclass(kw_only=True)
class _Known:
    """What is known of a worker that is there."""

    threads: int
    asked: Future[Any] | None = None
    asked_at: float = 0.0
    report: tuple[Mapping[str, float], Any] | None = None
    unfit: str = ""


@dataclass
class Roster:
    """The workers that are there. A new one is asked for its version of loso, then for a report.

    `call_on` makes a call on one worker, `post` brings an answer back into the caller's thread. Of
    each fit worker `joined` gets the hand, of each that had joined `gone` gets the address.
    """

    call_on: Callable[[str, tuple[Any, ...]], Future[Any]]
    post: Callable[[Callable[[], None]], object]
    look: tuple[Any, ...]
    """A function and its arguments: a worker's resources and its report."""
    look_s: float
    """The longest that a worker may take for it."""
    joined: Callable[[Hand], None]
    gone: Callable[[str], None]
    judge: Judge | None = None
    _known: dict[str, _Known] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def update(self, there: Mapping[str, int]) -> None:
        """Take note of all workers that are there now, with their threads."""
        for address in self._known.keys() - there.keys():
            self.forget(address)
        for address in there.keys() - self._known.keys():
            self._known[address] = _Known(threads=there[address])
            self._ask(address, (importlib.metadata.version, "loso"), self._compare)
        for address, known in self._known.items():
            if known.asked and time.monotonic() - known.asked_at > self.look_s:
                known.asked.cancel()
                self.leave_out(address, f"no answer within {self.look_s:g} s")

    def admit(self, judge: Judge) -> None:
        """Judge those who have reported, and from now on whoever reports."""
        self.judge = judge
        for address, known in list(self._known.items()):
            if known.report:
                self._join(address, known)

    def forget(self, address: str) -> None:
        """Know nothing of a worker: where it is still there, it is looked at anew."""
        self._known.pop(address, None)
        self.gone(address)

    def leave_out(self, address: str, reason: str) -> None:
        """Give a worker nothing as long as it is there."""
        known = self._known[address]
        known.asked, known.report, known.unfit = None, None, reason
        self.gone(address)

    @property
    def empty(self) -> bool:
        """Whether nobody is there."""
        return not self._known

    @property
    def left_out(self) -> str:
        """How to say that all who are there are left out, nothing where that is not so."""
        if not self._known or not all(known.unfit for known in self._known.values()):
            return ""
        count = len(self._known)
        return f"all {count} workers are left out" if count > 1 else "the only worker is left out"

    @property
    def looking(self) -> int:
        """How many are being looked at."""
        return sum(known.asked is not None for known in self._known.values())

    @property
    def reports(self) -> dict[str, Any]:
        """The reports of all who are not left out, by address."""
        return {at: known.report[1] for at, known in self._known.items() if known.report}

    def reasons(self) -> list[str]:
        """Return who is left out and why, a line each reason."""
        whom: dict[str, list[str]] = {}
        for address, known in sorted(self._known.items()):
            if known.unfit:
                whom.setdefault(known.unfit, []).append(address)
        return [f"{_some(addresses)}: {reason}" for reason, addresses in whom.items()]

    def _ask(self, address: str, call: tuple[Any, ...], then: _Then) -> None:
        known = self._known[address]
        known.asked, known.asked_at = self.call_on(address, call), time.monotonic()
        known.asked.add_done_callback(
            lambda future: self.post(partial(self._answer, address, future, then)) and None
        )

    def _answer(self, address: str, future: Future[Any], then: _Then) -> None:
        known = self._known.get(address)
        if known is None or known.asked is not future:
            return
        known.asked = None
        if broke_off(future):
            self.forget(address)
            return
        try:
            then(address, future.result())
        except importlib.metadata.PackageNotFoundError:
            self.leave_out(address, "loso is not installed there")
        except (LosoError, UnfitWorker) as refusal:
            self.leave_out(address, str(refusal))
        except Exception as error:  # noqa: BLE001 (what a worker cannot do is its own matter)
            self.leave_out(address, f"{type(error).__name__}: {error}")

    def _compare(self, address: str, theirs: str) -> None:
        ours = importlib.metadata.version("loso")
        if theirs != ours:
            raise UnfitWorker("another version of loso", expected=ours, found=theirs)
        self._ask(address, self.look, self._take)

    def _take(self, address: str, report: tuple[Mapping[str, float], Any]) -> None:
        known = self._known[address]
        known.report = report
        if self.judge:
            self._join(address, known)

    def _join(self, address: str, known: _Known) -> None:
        if known.report is None or self.judge is None:
            return
        units, report = known.report
        try:
            skills = self.judge(report)
            self.joined(Hand(address=address, threads=known.threads, skills=skills, units=units))
        except UnfitWorker as unfit:
            self.leave_out(address, str(unfit))


class Wait:
    """A wait for a worker, of so many seconds; `say` is told when it begins."""

    def __init__(self, limit_s: float, say: Callable[[str], object]) -> None:
        self._limit_s, self._say = limit_s, say
        self._end: float | None = None

    def go_on(self, whom: str, reason: str = "") -> str:
        """Begin to wait if that has not begun; return a remark: `whom`, and the time left."""
        if self._end is None:
            self._end = time.monotonic() + self._limit_s
            because = f" ({reason})" if reason else ""
            self._say(f"{whom}{because}: waiting for one, {self._limit_s:g} s at most")
        return f"{whom}: waiting {max(self._end - time.monotonic(), 0.0):.0f} s more"

    @property
    def over(self) -> bool:
        """Whether the time has passed."""
        return self._end is not None and time.monotonic() >= self._end

    def end(self) -> None:
        """Wait no longer: the next time begins anew."""
        self._end = None


def ask_in_time(client: Any, question: str, limit_s: float, *given: Any, **named: Any) -> Any:
    """Return what a method of Dask's client answers, an error of Dask's own after that time.

    By itself it waits for ever for a scheduler that is stopped.
    """
    ask = partial(getattr(client, question), *given, **named, asynchronous=True)
    return client.sync(ask, callback_timeout=limit_s)


def lost_scheduler(address: str) -> LostCluster:
    """Return the refusal where a scheduler answers no more."""
    return LostCluster(
        "the scheduler was lost",
        where=address,
        fix="start it and its workers again, then give the same command",
    )


def lost_workers(address: str, problem: str) -> LostCluster:
    """Return the refusal where nobody is left to go on."""
    fix = f"start one with: dask worker {address}; then give the same command"
    return LostCluster(problem, where=address, fix=fix)


def broke_off(future: Future[Any]) -> bool:
    """Tell whether a call ended without an answer: cancelled, or its worker died.

    Dask says so by errors of its own, which no function here raises.
    """
    if future.cancelled():
        return True
    error = future.exception()
    return error is not None and type(error).__module__.partition(".")[0] == "distributed"


def _some(addresses: list[str], most: int = 3) -> str:
    shown = ", ".join(addresses[:most])
    more = len(addresses) - most
    return f"{shown} and {more} more" if more > 0 else shown
