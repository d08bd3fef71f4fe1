"""Work on other machines through Dask, behind the interface of concurrent.futures; its only door.

Here, work runs in a ThreadPoolExecutor; on a cluster in a `Crew`, which is an Executor too.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from loso.cluster.crew import Crew
from loso.cluster.roster import ClosingWorker, Lacks, UnfitWorker
from loso.errors import BadSettings, CannotRun, MissingExtra
from loso.recipe import ClusterLimits

__all__ = [
    "ClosingWorker",
    "Cluster",
    "Crew",
    "UnfitWorker",
    "connect",
    "ended",
    "resources_here",
    "scratch_here",
    "stopped_when_unwanted",
]

_T = TypeVar("_T")


def ended(futures: Collection[Future[_T]], *, every_s: float = 1.0) -> Iterator[Future[_T] | None]:
    """Yield each future as it ends, and None whenever `every_s` seconds pass without one.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(1) as pool:
    ...     [future.result() for future in ended([pool.submit(abs, -3)]) if future]
    [3]
    """
    queue: SimpleQueue[Future[_T]] = SimpleQueue()
    for future in futures:
        future.add_done_callback(queue.put)
    left = len(futures)
    while left:
        try:
            future = queue.get(timeout=every_s)
        except Empty:
            yield None
        else:
            left -= 1
            yield future


class Cluster:
    """A connection to a Dask scheduler; `crew` makes an executor of its workers."""

    def __init__(self, client: Any, address: str, limits: ClusterLimits) -> None:
        self.address = address
        self._client = client
        self._limits = limits

    def crew(
        self,
        inspect: Callable[..., Any],
        *arguments: Any,
        shared: Any = None,
        lacks: Lacks = lambda _: {},
    ) -> Crew:
        """Return an executor for one piece of work.

        Every worker calls `inspect(*arguments)` first, which raises UnfitWorker or returns the
        report that it is judged by. `shared` is sent to each fit worker once, and is the first
        argument of every task. `lacks` says of some reports what none of those workers can do, and
        why: in the beginning others are waited for, which may.
        """
        look = (_look, inspect, *arguments)
        return Crew(self._client, self.address, self._limits, look, shared=shared, lacks=lacks)


_ADDRESS: Final = re.compile(r"(tcp|tls)://(\[[0-9a-fA-F:.%\w]+\]|[^\s:/\[\]]+):\d{1,5}")


@contextmanager
def connect(address: str, limits: ClusterLimits | None = None) -> Iterator[Cluster]:
    """Yield the cluster of the scheduler at `address`; leaving it cancels what is not done.

    MissingExtra without dask's `distributed`, BadSettings for an address of another form, CannotRun
    where no scheduler answers in time. What Dask itself logs meanwhile does not reach the terminal.
    """
    limits = limits or ClusterLimits()
    if not _ADDRESS.fullmatch(address):
        raise BadSettings(
            "not the address of a scheduler",
            where="--scheduler",
            expected="tcp://HOST:PORT or tls://HOST:PORT",
            found=repr(address),
        )
    try:
        from distributed import Client
    except ImportError:
        raise MissingExtra(
            "a cluster needs dask's distributed", fix="pip install 'loso[dask]'"
        ) from None
    limit_s = limits.connect_s
    with _quiet():
        try:
            client = _in_time(
                lambda: Client(address, timeout=limit_s, set_as_default=False, name="loso"),
                limit_s + 1.0,
                too_late=lambda client: client.close(),
            )
        except Exception as error:  # noqa: BLE001 (dask's own, of many kinds)
            said = str(error).strip().partition("\n")[0] or f"no answer within {limit_s:g} s"
            raise CannotRun(
                f"no scheduler can be reached ({said})",
                where=f"--scheduler {address}",
                fix="start one with: dask scheduler",
            ) from None
        try:
            yield Cluster(client, address, limits)
        finally:
            with suppress(Exception):  # a scheduler that is gone cannot be left politely
                client.close()


def _in_time(call: Callable[[], _T], limit_s: float, *, too_late: Callable[[_T], object]) -> _T:
    """Return what `call` returns; TimeoutError after so many seconds, what comes then is given up.

    Dask waits for ever for the greeting of a scheduler that is stopped, or of what is none.
    """
    outcome: Future[_T] = Future()

    def work() -> None:
        try:
            value = call()
        except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
            with suppress(InvalidStateError):
                outcome.set_exception(error)
            return
        try:
            outcome.set_result(value)
        except InvalidStateError:  # nobody waits any longer
            with suppress(Exception):
                too_late(value)

    threading.Thread(target=work, name="loso-connect", daemon=True).start()
    try:
        wait([outcome], limit_s)
    finally:
        unanswered = outcome.cancel()
    if unanswered:
        raise TimeoutError
    return outcome.result()


_LOGS: Final = ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's log and warnings off the terminal: what matters is said in a refusal."""
    before = {name: logging.getLogger(name).level for name in _LOGS}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"distributed\b.*")
        try:
            for name in _LOGS:
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


# -- What a worker calls about itself --------------------------------------------------------------


def _look(inspect: Callable[..., Any], *arguments: Any) -> tuple[dict[str, float], Any]:
    return resources_here(), inspect(*arguments)


def _worker() -> Any:
    """Return the Dask worker that this call runs in, None where it runs in no worker."""
    try:
        from distributed import get_worker

        return get_worker()
    except (ImportError, ValueError):
        return None


def resources_here() -> dict[str, float]:
    """Return what this worker was started with as --resources, nothing outside of a worker.

    >>> resources_here()
    {}
    """
    worker = _worker()
    return {} if worker is None else dict(worker.state.total_resources)


def scratch_here() -> Path | None:
    """Return this worker's own folder, which Dask clears after a worker that was killed."""
    worker = _worker()
    return None if worker is None else Path(worker.local_directory)


@contextmanager
def stopped_when_unwanted(stop: Callable[[], None], *, every_s: float = 0.25) -> Iterator[None]:
    """Call `stop` once nobody waits for this task: it was cancelled, or its worker is closing.

    Dask ends no thread; what a task has started, such as a child process, must be ended by this.
    An error that follows from that becomes ClosingWorker, so that the task goes elsewhere.
    """
    worker = _worker()
    if worker is None:
        yield
        return
    from distributed.worker import thread_state  # type: ignore[attr-defined]  # not in its __all__

    key = thread_state.key
    done, stopped = threading.Event(), threading.Event()

    def watch() -> None:
        while not done.wait(every_s):
            state = worker.state.tasks.get(key)
            closing = worker.status.name in {"closing", "closed", "failed"}
            if closing or state is None or state.state == "cancelled":
                stopped.set()
                stop()
                return

    watcher = threading.Thread(target=watch, name="loso-watch", daemon=True)
    watcher.start()
    try:
        yield
    except Exception:
        if stopped.is_set():
            raise ClosingWorker("the worker is closing") from None
        raise
    finally:
        done.set()
        watcher.join()
