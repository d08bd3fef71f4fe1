"""Which waiting task goes to which worker: what a cluster's executor decides, without a cluster."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from loso.errors import CannotRun

__all__ = ["Dispatch", "Hand", "Skilled", "Task", "workers"]

_T = TypeVar("_T")


@dataclass(eq=False, kw_only=True)
class Task:
    """A call to make once; whoever waits for `future` gets its outcome."""

    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    skill: str = ""
    """What a worker must be able to do to take it."""
    units: Mapping[str, float] = field(default_factory=dict)
    """How much of a worker's resources it takes up while it runs."""
    future: Future[Any] = field(default_factory=Future)
    deaths: int = 0
    """How many workers died while they had it, or were found unfit then."""
    reason: str = ""
    """Why the last of those was unfit."""
    suspect: bool = False
    """Whether so many did that it is to be alone on the next one."""

    def failure(self, address: str) -> CannotRun:
        """Return why it goes to no other worker, after the one at `address`."""
        ended = "died or were unfit" if self.reason else "died"
        text = f"{self.deaths} workers {ended} while they had it, the last was {address}"
        return CannotRun(text, found=self.reason)


@dataclass(eq=False, kw_only=True)
class Hand:
    """A worker that takes tasks: `threads` of them at a time, of the skills it has."""

    address: str
    threads: int = 1
    skills: frozenset[str] = frozenset({""})
    units: Mapping[str, float] = field(default_factory=dict)
    tasks: set[Task] = field(default_factory=set)

    def takes(self, task: Task) -> bool:
        """Tell whether there is room for `task` now.

        A suspect gets a worker for itself: so one more death is its own doing, and no neighbour is
        blamed.
        """
        if task.skill not in self.skills or len(self.tasks) >= self.threads:
            return False
        if self.tasks and (task.suspect or any(other.suspect for other in self.tasks)):
            return False
        return all(
            sum(other.units.get(name, 0) for other in self.tasks) + need <= self.units.get(name, 0)
            for name, need in task.units.items()
        )


class Skilled(Executor):
    """The executor for tasks of one skill, each of which `assign` lets wait."""

    def __init__(
        self, assign: Callable[[Task], None], skill: str, units: Mapping[str, float]
    ) -> None:
        self._assign, self._skill, self._units = assign, skill, units

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Return the future of a call."""
        call = partial(fn, **kwargs) if kwargs else fn
        task = Task(call=call, arguments=args, skill=self._skill, units=self._units)
        self._assign(task)
        return task.future


class Dispatch:
    """Tasks that wait, and workers that take them; what few workers can do goes out first."""

    def __init__(self) -> None:
        self.hands: dict[str, Hand] = {}
        self._waiting: defaultdict[str, deque[Task]] = defaultdict(deque)
        self._suspects: defaultdict[str, deque[Task]] = defaultdict(deque)

    def put(self, task: Task) -> None:
        """Let a task wait: behind all others of its skill where it is a suspect."""
        (self._suspects if task.suspect else self._waiting)[task.skill].append(task)

    def join(self, hand: Hand) -> None:
        """Let a worker take tasks from now on."""
        self.hands[hand.address] = hand

    def leave(self, address: str) -> set[Task]:
        """Let a worker take no more; return the tasks that it had."""
        hand = self.hands.pop(address, None)
        return hand.tasks if hand else set()

    def give(self) -> Iterator[tuple[Task, Hand]]:
        """Yield each task that can go to a worker now, and that worker, which has it then."""
        for skill in sorted(self._skills(), key=lambda skill: (len(self._able(skill)), skill)):
            for queue in (self._waiting[skill], self._suspects[skill]):
                while queue:
                    free = [hand for hand in self._able(skill) if hand.takes(queue[0])]
                    if not free:
                        break
                    hand = min(free, key=lambda hand: len(hand.tasks) / hand.threads)
                    task = queue.popleft()
                    hand.tasks.add(task)
                    yield task, hand

    @property
    def waiting(self) -> bool:
        """Whether any task waits for a worker."""
        return bool(self._skills())

    @property
    def working(self) -> bool:
        """Whether any worker has a task."""
        return any(hand.tasks for hand in self.hands.values())

    @property
    def lacking(self) -> list[str]:
        """Skills that a waiting task needs and no worker has."""
        return sorted(skill for skill in self._skills() if not self._able(skill))

    def drain(self) -> Iterator[Task]:
        """Take out and yield every task, those that workers have too."""
        for hand in self.hands.values():
            yield from hand.tasks
            hand.tasks.clear()
        for queues in (self._waiting, self._suspects):
            for queue in queues.values():
                yield from queue
                queue.clear()

    def _skills(self) -> set[str]:
        queues = (self._waiting, self._suspects)
        return {skill for of in queues for skill, queue in of.items() if queue}

    def _able(self, skill: str) -> list[Hand]:
        return [hand for hand in self.hands.values() if skill in hand.skills]


def workers(count: int) -> str:
    """Return how many workers there are, in words."""
    return f"{count} worker" if count == 1 else f"{count} workers"
