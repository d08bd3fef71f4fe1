"""The workers of a cluster as one executor: each is looked at first, then takes what it is fit for.

Tasks are handed out one by one, as many as a worker has threads. So machines may differ and join
late, and a worker that dies is blamed for its own tasks alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Executor, Future, InvalidStateError
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, TypeVar

from loso.cluster.dispatch import Dispatch, Hand, Skilled, Task, workers
from loso.cluster.roster import (
    ClosingWorker,
    Judge,
    Lacks,
    Roster,
    UnfitWorker,
    Wait,
    ask_in_time,
    broke_off,
    lost_scheduler,
    lost_workers,
)
from loso.errors import CannotRun, LosoError
from loso.recipe import ClusterLimits

__all__ = ["Crew"]

_T = TypeVar("_T")
_LOOK_ROUND_S: Final = 0.5
"""How often the scheduler is asked who is there; the question takes it about a millisecond."""


class Crew(Executor):
    """The workers of a cluster as an executor, for one piece of work.

    `muster` gives the reports of those that are there, `admit` says what each is fit for; then
    tasks go out. A task whose worker dies or is found unfit goes to another one, until
    `ClusterLimits.deaths` have. Where nobody is left, all that waits ends with LostCluster.
    """

    def __init__(
        self,
        client: Any,
        address: str,
        limits: ClusterLimits,
        look: tuple[Any, ...],
        *,
        shared: Any = None,
        lacks: Lacks = lambda _: {},
    ) -> None:
        """Begin to look at the workers of Dask's `client`.

        `look` is a function and its arguments. Each worker calls it; it raises UnfitWorker or gives
        the worker's resources and a report. `shared` is sent to every fit worker once, and is then
        the first argument of each task. For what the first workers lack others are waited for.
        """
        self._client, self._where, self._limits, self._shared = client, address, limits, shared
        self._lacks = lacks
        self._mustered: Future[dict[str, Any]] = Future()
        self._news: SimpleQueue[str] = SimpleQueue()
        self.remark = ""
        """What a user should see of the workers just now."""
        self.most_workers = self.most_tasks = 0
        """The most that took tasks, and the most that they took at a time."""
        self._gate = threading.Lock()
        self._over: BaseException | None = None
        # What follows is touched by the crew's own thread alone; others send it calls.
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._dispatch = Dispatch()
        self._roster = Roster(
            call_on=self._call_on,
            post=self._post,
            look=look,
            look_s=limits.look_s,
            joined=self._welcome,
            gone=self._reassign,
        )
        self._copies: dict[str, Any] = {}
        self._running: dict[Task, Future[Any]] = {}
        self._told: set[str] = set()
        self._silent_since: float | None = None
        self._for_anybody = Wait(limits.worker_s, self._news.put)
        self._for_others = Wait(limits.worker_s, self._news.put)
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="loso-crew", daemon=True)
        self._thread.start()

    # -- For the caller ----------------------------------------------------------------------------

    def muster(self) -> Future[dict[str, Any]]:
        """Return the reports by address, due once all workers that are there were looked at.

        Where they lack something, it is due when a worker comes that does not, or after the time
        for that. CannotRun where none of them is fit, LostCluster where none comes in time.
        """
        return self._mustered

    def admit(self, judge: Judge) -> None:
        """Let workers, late ones too, take tasks of the skills that `judge` sees in a report."""
        begun: Future[None] = Future()

        def begin() -> None:
            try:
                self._roster.admit(judge)
            finally:
                begun.set_result(None)

        if self._post(begin):
            begun.result()

    def get_executor(
        self, *, skill: str = "", units: Mapping[str, float] | None = None
    ) -> Executor:
        """Return the executor for tasks that take a skill, and resources by name and amount."""
        return Skilled(self.assign, skill, units or {})

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Return the future of a call that any fit worker may take."""
        return self.get_executor().submit(fn, *args, **kwargs)

    def assign(self, task: Task) -> None:
        """Let a task wait for its worker."""
        if not self._post(partial(self._dispatch.put, task)):
            task.future.set_exception(self._over)

    def tell(self, line: str) -> None:
        """Add a line to the news."""
        self._news.put(line)

    def news(self) -> list[str]:
        """Return what there is to tell the user since the last call, a line each."""
        lines = []
        with suppress(Empty):
            while True:
                lines.append(self._news.get_nowait())
        return lines

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 (Executor's own signature)
        """End: after all that was submitted, or at once with `cancel_futures`.

        At once is when a scheduler that answers no more has had its time, at the latest.
        """

        def close() -> None:
            self._closing = True
            if cancel_futures:
                self._end_all(CancelledError())

        self._post(close)
        if wait:
            self._thread.join(self._limits.connect_s if cancel_futures else None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End after all that was submitted; after an error or Ctrl-C, at once."""
        self.shutdown(cancel_futures=kind is not None)

    def _post(self, call: Callable[[], object]) -> bool:
        """Let the crew's thread make a call; False where it has ended."""
        with self._gate:
            if self._over is None:
                self._calls.put(call)
            return self._over is None

    # -- The crew's own thread ---------------------------------------------------------------------

    def _work(self) -> None:
        end: BaseException = RuntimeError("the crew was dismissed")
        due = 0.0
        try:
            while not (self._closing and not self._dispatch.waiting and not self._dispatch.working):
                self._take_calls(wait_s=max(0.0, due - time.monotonic()))
                if time.monotonic() >= due:
                    self._look_round()
                    due = time.monotonic() + _LOOK_ROUND_S
                self._hand_out()
                self._muster_if_due()
                self._mind_that_work_goes_on()
        except BaseException as error:  # noqa: BLE001 (whatever it is, nobody may wait for ever)
            cut = self._client.status != "running" and not isinstance(error, LosoError)
            end = lost_scheduler(self._where) if cut else error
        with self._gate:
            self._over = end
        self._take_calls()  # tasks of the last moment
        self._end_all(end)
        if not self._mustered.done():
            self._mustered.set_exception(end)
        self._copies.clear()

    def _take_calls(self, wait_s: float = 0.0) -> None:
        with suppress(Empty):
            self._calls.get(timeout=wait_s)()
            while True:
                self._calls.get_nowait()()

    def _end_all(self, error: BaseException) -> None:
        for task in list(self._dispatch.drain()):
            self._drop(task)
            with suppress(InvalidStateError):  # its owner has cancelled it
                task.future.set_exception(error)

    def _drop(self, task: Task) -> None:
        future = self._running.pop(task, None)
        if future is not None:
            future.cancel()

    def _look_round(self) -> None:
        if self._client.status != "running":
            raise lost_scheduler(self._where)
        asked = time.monotonic()
        try:
            there = dict(ask_in_time(self._client, "nthreads", self._limits.connect_s))
        except Exception:  # noqa: BLE001 (dask's own, of many kinds)
            self._silent_since = self._silent_since or asked
            silent_s = time.monotonic() - self._silent_since
            if self._client.status != "running" or silent_s >= self._limits.connect_s:
                raise lost_scheduler(self._where) from None
        else:
            self._silent_since = None
            self._roster.update(there)

    def _call_on(
        self, address: str, call: tuple[Any, ...], units: Mapping[str, float] | None = None
    ) -> Future[Any]:
        """Let one worker make a call."""
        executor: Executor = self._client.get_executor(
            workers=[address], allow_other_workers=False, pure=False, resources=dict(units or {})
        )
        return executor.submit(*call)

    def _welcome(self, hand: Hand) -> None:
        if self._shared is not None:
            try:
                to = {"workers": [hand.address], "hash": False}
                copy = ask_in_time(self._client, "scatter", self._limits.look_s, self._shared, **to)
            except Exception as error:  # noqa: BLE001 (dask's own, of many kinds)
                raise UnfitWorker(f"it could not be sent the data ({error})") from None
            self._copies[hand.address] = copy
        self._dispatch.join(hand)
        hands = self._dispatch.hands.values()
        self.most_workers = max(self.most_workers, len(hands))
        self.most_tasks = max(self.most_tasks, sum(hand.threads for hand in hands))

    def _reassign(self, address: str, *, unfit: str = "", after: Task | None = None) -> None:
        """Give a worker's tasks to others: it died, or is `unfit`, found after one of them."""
        self._copies.pop(address, None)
        for task in self._dispatch.leave(address):
            self._drop(task)
            if not unfit or task is after:
                task.deaths, task.reason = task.deaths + 1, unfit or task.reason
            if task.deaths < self._limits.deaths:
                task.suspect = 0 < task.deaths == self._limits.deaths - 1
                self._dispatch.put(task)
            else:
                task.future.set_exception(task.failure(address))

    def _hand_out(self) -> None:
        for task, hand in self._dispatch.give():
            if not task.future.running() and not task.future.set_running_or_notify_cancel():
                hand.tasks.remove(task)
                continue
            copy = self._copies.get(hand.address)
            call = (task.call, *(() if copy is None else (copy,)), *task.arguments)
            future = self._call_on(hand.address, call, task.units)
            self._running[task] = future
            future.add_done_callback(partial(self._report_end, task, hand.address))

    def _report_end(self, task: Task, address: str, future: Future[Any]) -> None:
        self._post(partial(self._end, task, address, future))

    def _end(self, task: Task, address: str, future: Future[Any]) -> None:
        if self._running.get(task) is not future:
            return  # it went to another worker meanwhile
        if broke_off(future):
            self._roster.forget(address)
            return
        error = future.exception()
        if isinstance(error, UnfitWorker):
            after = None if isinstance(error, ClosingWorker) else task
            self._reassign(address, unfit=str(error), after=after)
            self._roster.leave_out(address, str(error))
            return
        del self._running[task]
        self._dispatch.hands[address].tasks.remove(task)
        if error is None:
            task.future.set_result(future.result())
        elif isinstance(error, (LosoError, OSError)):
            task.future.set_exception(error)
        else:
            task.future.set_exception(CannotRun(f"{type(error).__name__}: {error}", where=address))

    def _muster_if_due(self) -> None:
        """Once everybody was looked at, tell who is left out, and end the muster."""
        roster = self._roster
        if roster.looking or roster.empty:
            return
        reasons = roster.reasons()
        if not self._mustered.done():
            if not roster.reports:
                found = "; ".join(reasons)
                raise CannotRun("no worker can be used", where=self._where, found=found)
            if not self._waits_for_others():
                self._mustered.set_result(roster.reports)
        for reason in reasons:
            if reason not in self._told:
                self._news.put(f"left out: {reason}")
                self._told.add(reason)

    def _waits_for_others(self) -> bool:
        """Whether those that are there lack something, and there is time left to wait for it."""
        lacking = self._lacks(self._roster.reports.values())
        if not lacking:
            return False
        reasons = "; ".join(dict.fromkeys(lacking.values()))
        self.remark = self._for_others.go_on(
            f"no worker for {', '.join(lacking)} is there", reasons
        )
        return not self._for_others.over

    def _mind_that_work_goes_on(self) -> None:
        """Say where nobody is there who could go on, and give up in the end."""
        dispatch, looking = self._dispatch, self._roster.looking
        mustering = not self._mustered.done()
        if mustering and not looking and not self._roster.empty:
            self._for_anybody.end()
            return  # others are waited for
        if looking or dispatch.working or not (dispatch.waiting or mustering):
            self._for_anybody.end()
            there = workers(len(dispatch.hands))
            self.remark = f"looking at {workers(looking)}" if looking else there
            return
        whom = f"no worker for {', '.join(dispatch.lacking)}" if dispatch.hands else "no worker"
        left_out = self._roster.left_out
        self.remark = self._for_anybody.go_on(left_out or f"{whom} is there")
        if self._for_anybody.over:
            lost = f"{left_out}, and no other came" if left_out else f"{whom} was there"
            raise lost_workers(self._where, f"{lost} for {self._limits.worker_s:g} s")
