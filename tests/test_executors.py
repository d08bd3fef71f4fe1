"""Who gets which task, and what becomes of it, on a cluster that the test plays itself."""

import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from loso.cluster.crew import Crew
from loso.cluster.dispatch import Dispatch, Hand, Task
from loso.errors import BadSettings, CannotRun, LostCluster, MissingExtra
from loso.executors import (
    ClosingWorker,
    UnfitWorker,
    connect,
    ended,
    resources_here,
    scratch_here,
    stopped_when_unwanted,
)
from loso.recipe import ClusterLimits

# -- Who gets what --------------------------------------------------------------------------------


def task(skill="", *, suspect=False, **units):
    return Task(call=print, arguments=(), skill=skill, units=units, suspect=suspect)


def given(dispatch):
    return [(task, hand.address) for task, hand in dispatch.give()]


def test_a_worker_gets_as_many_tasks_as_it_has_threads_and_the_idlest_comes_first():
    dispatch = Dispatch()
    dispatch.join(Hand(address="one", threads=1))
    dispatch.join(Hand(address="four", threads=4))
    tasks = [task() for _ in range(7)]
    for each in tasks:
        dispatch.put(each)
    assert sorted(at for _, at in given(dispatch)) == ["four"] * 4 + ["one"]
    assert dispatch.waiting
    assert dispatch.hands["one"].tasks <= set(tasks[:2])
    dispatch.hands["one"].tasks.clear()
    assert given(dispatch) == [(tasks[5], "one")]


def test_what_few_workers_can_do_goes_out_first():
    dispatch = Dispatch()
    dispatch.join(Hand(address="plain", skills=frozenset({"x264"})))
    dispatch.join(Hand(address="gpu", skills=frozenset({"x264", "nvenc"})))
    common, rare = [task("x264") for _ in range(2)], task("nvenc")
    for each in (*common, rare):
        dispatch.put(each)
    assert given(dispatch) == [(rare, "gpu"), (common[0], "plain")]


def test_a_resource_limits_how_many_tasks_run_beside_each_other():
    dispatch = Dispatch()
    dispatch.join(Hand(address="gpu", threads=4, units={"nvenc": 2}))
    for each in [task(nvenc=1) for _ in range(3)]:
        dispatch.put(each)
    assert len(given(dispatch)) == 2
    dispatch.put(task("other"))
    assert dispatch.lacking == ["other"]


def test_a_suspect_comes_last_and_alone():
    dispatch = Dispatch()
    suspect, first, second = task(suspect=True), task(), task()
    for each in (suspect, first, second):
        dispatch.put(each)
    dispatch.join(Hand(address="w", threads=2))
    assert given(dispatch) == [(first, "w"), (second, "w")]
    dispatch.hands["w"].tasks.remove(first)
    assert given(dispatch) == []
    dispatch.hands["w"].tasks.remove(second)
    dispatch.put(third := task())
    assert given(dispatch) == [(third, "w")]
    dispatch.hands["w"].tasks.remove(third)
    assert given(dispatch) == [(suspect, "w")]
    dispatch.put(task())
    assert given(dispatch) == []
    assert dispatch.leave("w") == {suspect}
    assert dispatch.leave("w") == set()


# -- A crew whose cluster is played ---------------------------------------------------------------


class Played:
    """What a Crew asks of Dask's client, with workers that the test brings and takes away."""

    status = "running"
    version = None
    hangs = False
    scatter_s = 0.0

    def __init__(self, **threads):
        self.threads, self.calls, self.sent = dict(threads), [], []
        self.version = self.version or Crew_version()
        self.reports = {}
        self.lock = threading.Lock()

    def sync(self, ask, *, callback_timeout):
        if self.hangs:
            time.sleep(callback_timeout)
            raise TimeoutError
        return ask()

    def nthreads(self, *, asynchronous):
        assert asynchronous
        if self.status != "running":
            raise OSError("gone")
        return dict(self.threads)

    def scatter(self, value, workers, **_):
        time.sleep(self.scatter_s)
        self.sent.append((value, *workers))
        return SimpleNamespace(copy_of=value)

    def get_executor(self, workers, allow_other_workers, pure, resources):
        assert not allow_other_workers
        assert not pure
        (address,) = workers

        def submit(call, *arguments):
            future = Future()
            if arguments == ("loso",):
                future.set_result(self.version)
            elif call is look:
                answer = self.reports.get(address, ({}, address))
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                elif answer is not None:
                    future.set_result(answer)
            else:
                with self.lock:
                    self.calls.append((address, call, arguments, resources, future))
            return future

        return SimpleNamespace(submit=submit)

    def wait_for(self, count):
        wait_for(lambda: len(self.calls) >= count)
        return self.calls[:count]


def look():
    """What workers are asked for."""


def Crew_version():  # noqa: N802
    from importlib.metadata import version

    return version("loso")


def wait_for(question, limit_s=60.0):
    end = time.monotonic() + limit_s
    while not question():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("loso.cluster.crew._LOOK_ROUND_S", 0.02)


def crew_of(client, shared=None, lacks=lambda _: {}, **limits):
    return Crew(client, "tcp://s:1", ClusterLimits(**limits), (look,), shared=shared, lacks=lacks)


def take_all(_):
    return frozenset({""})


def test_a_crew_is_an_executor():
    client = Played(a=1)
    with crew_of(client) as crew:
        assert crew.muster().result(60) == {"a": "a"}
        crew.admit(take_all)
        assert (crew.most_workers, crew.most_tasks) == (1, 1)
        futures = [crew.submit(divmod, 7, 2), crew.submit(sorted, [2, 1], reverse=True)]
        ((_, call, arguments, _, done),) = client.wait_for(1)
        assert (call, arguments) == (divmod, (7, 2))
        done.set_result(call(*arguments))
        _, (_, call, arguments, _, done) = client.wait_for(2)
        done.set_result(call(*arguments))
        assert [future.result(60) for future in futures] == [(3, 1), [2, 1]]
        failing = crew.submit(divmod, 1, 0)
        client.wait_for(3)[2][-1].set_exception(ZeroDivisionError("by zero"))
        assert str(failing.exception(60)) == "a: ZeroDivisionError: by zero"
        refused = crew.submit(print)
        client.wait_for(4)[3][-1].set_exception(BadSettings("no", found="x"))
        assert isinstance(refused.exception(60), BadSettings)
    with pytest.raises(RuntimeError, match="dismissed"):
        crew.submit(print).result(60)


def test_a_worker_gets_what_is_shared_once_and_its_resources_are_booked():
    client = Played(a=2)
    client.reports["a"] = {"nvenc": 1.0}, None
    with crew_of(client, shared={"much": 1}) as crew:
        crew.admit(take_all)
        executor = crew.get_executor(units={"nvenc": 1})
        futures = [executor.submit(print, "x") for _ in range(2)]
        (first,) = client.wait_for(1)
        time.sleep(0.1)
        assert len(client.calls) == 1
        assert first[2][0].copy_of == {"much": 1}
        assert first[2][1:] == ("x",)
        assert first[3] == {"nvenc": 1}
        first[-1].set_result(None)
        client.wait_for(2)[1][-1].set_result(None)
        assert [future.result(60) for future in futures] == [None, None]
        assert client.sent == [({"much": 1}, "a")]


def test_what_a_dead_worker_had_is_done_elsewhere():
    client = Played(a=1)
    with crew_of(client) as crew:
        crew.admit(take_all)
        future = crew.submit(print, "x")
        ((address, *_, lost),) = client.wait_for(1)
        assert address == "a"
        client.threads = {"b": 1}
        _, (address, *_, done) = client.wait_for(2)
        assert address == "b"
        assert lost.cancelled()
        done.set_result("here")
        assert future.result(60) == "here"


def test_a_task_that_kills_its_workers_fails_with_a_reason():
    client = Played(a=1)
    with crew_of(client, deaths=2) as crew:
        crew.admit(take_all)
        future = crew.submit(print, "kills")
        for number, name in enumerate("ab", start=1):
            client.threads = {name: 1}
            assert client.wait_for(number)[-1][0] == name
            client.threads = {}
        assert str(future.exception(60)) == "2 workers died while they had it, the last was b"
        client.threads = {"c": 1}
        other = crew.submit(print, "harmless")
        client.wait_for(3)[-1][-1].set_result("done")
        assert other.result(60) == "done"


def test_the_neighbours_of_a_task_that_kills_stay_together_until_one_more_death_is_the_last():
    client = Played(a=2)
    with crew_of(client, deaths=3) as crew:
        crew.admit(take_all)
        futures = [crew.submit(print, number) for number in range(2)]
        client.wait_for(2)
        client.threads = {"b": 2}
        assert [call[0] for call in client.wait_for(4)[2:]] == ["b", "b"]
        client.threads = {"c": 2}
        ((address, *_, alone),) = client.wait_for(5)[4:]
        time.sleep(0.1)
        assert (address, len(client.calls)) == ("c", 5)
        alone.set_result(None)
        client.wait_for(6)[5][-1].set_result(None)
        assert [future.result(60) for future in futures] == [None, None]


def lacks_gpu(reports):
    return {} if "gpu" in reports else {"nvenc": "no device", "qsv": "no device"}


def test_who_can_do_what_the_first_lack_is_waited_for():
    client = Played(a=1)
    with crew_of(client, lacks=lacks_gpu, worker_s=30.0) as crew:
        wait_for(lambda: crew.remark.endswith(" more"))
        assert crew.remark.startswith("no worker for nvenc, qsv is there: waiting ")
        assert crew.news() == [
            "no worker for nvenc, qsv is there (no device): waiting for one, 30 s at most"
        ]
        client.reports["b"] = {}, "neither"
        client.threads = {"a": 1, "b": 1}
        client.reports["c"] = None  # it takes its time
        client.threads = {"a": 1, "b": 1, "c": 1}
        wait_for(lambda: crew.remark == "looking at 1 worker")
        assert not crew.muster().done()
        client.reports["d"] = {}, "gpu"
        client.threads = {"a": 1, "b": 1, "d": 1}
        assert crew.muster().result(60) == {"a": "a", "b": "neither", "d": "gpu"}
        assert crew.news() == []


def test_those_who_lack_something_are_told_after_the_time_for_others():
    client = Played(a=1)
    with crew_of(client, lacks=lacks_gpu, worker_s=0.3) as crew:
        assert crew.muster().result(60) == {"a": "a"}
        crew.admit(take_all)
        future = crew.submit(print)
        client.wait_for(1)[0][-1].set_result("done")
        assert future.result(60) == "done"


def test_where_the_one_who_lacks_something_goes_nobody_is_left():
    client = Played(a=1)
    with crew_of(client, lacks=lacks_gpu, worker_s=0.5) as crew:
        wait_for(lambda: "nvenc" in crew.remark)
        client.threads = {}
        with pytest.raises(LostCluster, match=r"no worker was there for 0\.5 s"):
            crew.muster().result(60)


def test_a_long_pause_of_the_crew_is_no_silence_of_the_scheduler():
    client = Played(a=1)
    client.scatter_s = 0.5
    with crew_of(client, shared=1, connect_s=0.2) as crew:
        crew.admit(take_all)
        future = crew.submit(print)
        client.wait_for(1)[0][-1].set_result("done")
        assert future.result(60) == "done"
        time.sleep(0.1)
        assert crew.muster().result(60) == {"a": "a"}
        another = crew.submit(print)
        client.wait_for(2)[1][-1].set_result("too")
        assert another.result(60) == "too"


def test_a_scheduler_that_answers_no_more_is_lost_in_time():
    client = Played(a=1)
    with crew_of(client, connect_s=0.3) as crew:
        crew.admit(take_all)
        future = crew.submit(print)
        client.wait_for(1)
        client.hangs = True
        with pytest.raises(LostCluster, match="the scheduler was lost"):
            future.result(60)


def test_an_error_in_the_block_is_not_kept_back_by_a_call_that_hangs():
    client = Played(a=1)
    client.scatter_s = 8.0
    crew = crew_of(client, shared=1, connect_s=0.2)
    crew.muster().result(60)
    threading.Thread(target=crew.admit, args=(take_all,), daemon=True).start()
    time.sleep(0.2)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), crew:
        raise KeyboardInterrupt
    assert time.monotonic() - started < 6


class Killed(Exception):
    """As Dask says that a worker died, under its own name."""


Killed.__module__ = "distributed.scheduler"


@pytest.mark.parametrize("how", ["cancelled", "killed"])
def test_a_worker_that_came_back_under_its_address_is_looked_at_anew(how):
    client = Played(a=1)
    with crew_of(client, shared=1) as crew:
        crew.admit(take_all)
        future = crew.submit(print)
        ((*_, lost),) = client.wait_for(1)
        if how == "killed":
            lost.set_exception(Killed())
        else:
            lost.cancel()
            lost.set_running_or_notify_cancel()
        client.wait_for(2)[1][-1].set_result("again")
        assert future.result(60) == "again"
        assert client.sent == [(1, "a")] * 2


def test_a_worker_that_finds_itself_unfit_gets_no_more():
    client = Played(a=1)
    with crew_of(client) as crew:
        crew.admit(take_all)
        future = crew.submit(print)
        client.wait_for(1)[0][-1].set_exception(UnfitWorker("its disk is gone"))
        wait_for(lambda: crew.remark.startswith("the only worker is left out: waiting "))
        client.threads["b"] = 1
        address, *_, done = client.wait_for(2)[1]
        assert address == "b"
        done.set_result("there")
        assert future.result(60) == "there"
        assert "left out: a: its disk is gone" in crew.news()


def test_a_task_after_which_each_worker_is_unfit_fails_with_a_reason():
    client = Played(a=1, b=1, c=1)
    with crew_of(client, deaths=2) as crew:
        crew.admit(take_all)
        wait_for(lambda: crew.remark == "3 workers")
        future = crew.submit(print, "wedges")
        had = []
        for number in (1, 2):
            address, *_, unfit = client.wait_for(number)[-1]
            had.append(address)
            unfit.set_exception(UnfitWorker(f"the driver of {address} is gone"))
        assert str(future.exception(60)) == (
            f"2 workers died or were unfit while they had it, the last was {had[1]}, "
            f"found the driver of {had[1]} is gone"
        )
        other = crew.submit(print, "harmless")
        address, *_, done = client.wait_for(3)[-1]
        assert {*had, address} == set("abc")
        done.set_result("done")
        assert other.result(60) == "done"


def test_the_neighbours_of_a_task_after_which_a_worker_is_unfit_are_not_blamed():
    client = Played(a=2)
    with crew_of(client, deaths=1) as crew:
        crew.admit(take_all)
        futures = [crew.submit(print, number) for number in range(2)]
        client.wait_for(2)[0][-1].set_exception(UnfitWorker("its driver is gone"))
        assert "1 workers died or were unfit" in str(futures[0].exception(60))
        client.threads = {"b": 2}
        _, _, (address, _, arguments, _, done) = client.wait_for(3)
        assert (address, arguments) == ("b", (1,))
        done.set_result("there")
        assert futures[1].result(60) == "there"


def test_a_task_is_not_blamed_for_a_worker_that_is_closing():
    client = Played(a=1)
    with crew_of(client, deaths=1) as crew:
        crew.admit(take_all)
        future = crew.submit(print)
        client.wait_for(1)[0][-1].set_exception(ClosingWorker("the worker is closing"))
        client.threads = {"b": 1}
        client.wait_for(2)[1][-1].set_result("there")
        assert future.result(60) == "there"


def test_where_all_workers_were_left_out_it_is_said():
    client = Played(a=1, b=1)
    with crew_of(client, worker_s=0.3) as crew:
        crew.admit(take_all)
        wait_for(lambda: crew.remark == "2 workers")
        futures = [crew.submit(print) for _ in range(2)]
        for *_, unfit in client.wait_for(2):
            unfit.set_exception(UnfitWorker("its disk is gone"))
        with pytest.raises(LostCluster) as refusal:
            futures[0].result(60)
        assert str(refusal.value) == (
            "tcp://s:1: all 2 workers are left out, and no other came for 0.3 s; "
            "start one with: dask worker tcp://s:1; then give the same command"
        )
        assert "all 2 workers are left out: waiting for one, 0.3 s at most" in crew.news()


def test_a_closing_worker_is_unfit_on_the_way_home_too():
    (home,) = (pickle.loads(pickle.dumps(each)) for each in [ClosingWorker("it ends", found="x")])
    assert (type(home), str(home)) == (ClosingWorker, "it ends, found x")
    assert isinstance(home, UnfitWorker)


def test_workers_that_are_unfit_are_told_of_once_by_their_reason():
    client = Played(a=1, b=1, c=1, d=1, e=1, f=1)
    for name in "abcd":
        client.reports[name] = UnfitWorker("does not see it")
    client.reports["e"] = ModuleNotFoundError("No module named 'loso'")
    with crew_of(client) as crew:
        assert crew.muster().result(60) == {"f": "f"}
        crew.admit(take_all)
        wait_for(lambda: crew.remark == "1 worker")
        assert crew.news() == [
            "left out: a, b, c and 1 more: does not see it",
            "left out: e: ModuleNotFoundError: No module named 'loso'",
        ]


def test_where_no_worker_is_fit_all_reasons_are_said_at_once():
    client = Played(a=1, b=1)
    client.reports = {"a": UnfitWorker("too old"), "b": UnfitWorker("too new")}
    with crew_of(client) as crew, pytest.raises(CannotRun) as refusal:
        crew.muster().result(60)
    assert str(refusal.value) == "tcp://s:1: no worker can be used, found a: too old; b: too new"
    with pytest.raises(CannotRun, match="no worker can be used"):
        crew.submit(print).result(60)


def test_another_version_of_loso_is_refused_with_both():
    client = Played(a=1)
    client.version = "99.0"
    with crew_of(client) as crew, pytest.raises(CannotRun) as refusal:
        crew.muster().result(60)
    ours = Crew_version()
    assert str(refusal.value) == (
        "tcp://s:1: no worker can be used, "
        f"found a: another version of loso, expected {ours}, found 99.0"
    )


def test_a_worker_that_does_not_answer_is_not_waited_for():
    client = Played(a=1, b=1)
    client.reports["b"] = None
    with crew_of(client, look_s=0.4) as crew:
        wait_for(lambda: crew.remark == "looking at 1 worker")
        assert not crew.muster().done()
        assert crew.muster().result(60) == {"a": "a"}
        crew.admit(take_all)
        wait_for(lambda: crew.news() == ["left out: b: no answer within 0.4 s"])


def test_a_late_worker_is_looked_at_and_joins():
    client = Played()
    with crew_of(client) as crew:
        crew.admit(take_all)
        future = crew.submit(print)
        wait_for(lambda: crew.remark.startswith("no worker is there: waiting "))
        assert crew.news() == ["no worker is there: waiting for one, 600 s at most"]
        client.threads["late"] = 1
        address, *_, done = client.wait_for(1)[0]
        done.set_result(address)
        assert future.result(60) == "late"


def test_where_nobody_comes_all_that_waits_is_given_up():
    client = Played(a=1)
    with crew_of(client, worker_s=0.3) as crew:
        crew.admit(lambda _: frozenset({"x264"}))
        future = crew.get_executor(skill="nvenc").submit(print)
        wait_for(lambda: crew.remark.startswith("no worker for nvenc is there: waiting 0 s"))
        with pytest.raises(LostCluster) as refusal:
            future.result(60)
    assert str(refusal.value) == (
        "tcp://s:1: no worker for nvenc was there for 0.3 s; "
        "start one with: dask worker tcp://s:1; then give the same command"
    )
    with crew_of(Played(), worker_s=0.1) as crew, pytest.raises(LostCluster):
        crew.muster().result(60)


def test_a_scheduler_that_is_gone_ends_all_that_waits():
    client = Played(a=1)
    with crew_of(client) as crew:
        crew.admit(take_all)
        futures = [crew.submit(print) for _ in range(3)]
        client.wait_for(1)
        client.status = "connecting"
        for future in futures:
            with pytest.raises(LostCluster) as refusal:
                future.result(60)
        assert str(refusal.value) == (
            "tcp://s:1: the scheduler was lost; "
            "start it and its workers again, then give the same command"
        )
        with pytest.raises(LostCluster):
            crew.submit(print).result(60)


def test_an_error_in_the_block_cancels_what_is_at_work():
    client = Played(a=1)
    crew = crew_of(client)
    crew.admit(take_all)
    futures = [crew.submit(print) for _ in range(3)]
    (*_, at_work), *_ = client.wait_for(1)
    with pytest.raises(KeyboardInterrupt), crew:
        raise KeyboardInterrupt
    assert at_work.cancelled()
    assert all(future.done() for future in futures)
    assert len(client.calls) == 1


def test_a_task_that_was_cancelled_in_time_is_not_sent():
    client = Played()
    with crew_of(client) as crew:
        crew.admit(take_all)
        futures = [crew.submit(print, number) for number in range(2)]
        assert futures[0].cancel()
        client.threads["a"] = 1
        ((_, _, arguments, _, done),) = client.wait_for(1)
        assert arguments == (1,)
        done.set_result(None)


# -- Waiting --------------------------------------------------------------------------------------


def test_futures_come_as_they_end_with_nothing_now_and_then():
    with ThreadPoolExecutor(1) as pool:
        hold = threading.Event()
        futures = [pool.submit(hold.wait), pool.submit(abs, -1)]
        seen = []
        for future in ended(futures, every_s=0.01):
            seen.append(future)
            hold.set()
    assert seen[0] is None
    assert [future for future in seen if future] == futures


# -- The door to Dask -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["", "localhost", "10.0.0.1:8786", "http://h:1", "tcp://h", "tcp://h:x"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(BadSettings) as refusal, connect(address):
        pass
    assert str(refusal.value) == (
        "--scheduler: not the address of a scheduler, "
        f"expected tcp://HOST:PORT or tls://HOST:PORT, found {address!r}"
    )


def test_without_distributed_pip_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtra) as refusal, connect("tcp://h:1"):
        pass
    assert str(refusal.value) == "a cluster needs dask's distributed; pip install 'loso[dask]'"


@pytest.mark.parametrize("listens", [False, True])
def test_a_scheduler_that_does_not_answer_is_refused_in_time(listens):
    pytest.importorskip("distributed")  # whose import may take as long
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        if not listens:
            server.close()
        started = time.monotonic()
        with (
            pytest.raises(CannotRun) as refusal,
            connect(address, ClusterLimits(connect_s=0.5)),
        ):
            pass
        assert time.monotonic() - started < 15
    text = str(refusal.value)
    assert text.startswith(f"--scheduler {address}: no scheduler can be reached (")
    assert text.endswith("); start one with: dask scheduler")
    assert logging.getLogger("distributed").level <= logging.CRITICAL


def test_a_client_that_connects_too_late_is_closed(monkeypatch):
    import distributed

    given_up, closed = threading.Event(), threading.Event()

    def client(*_, **__):
        given_up.wait(60)
        return SimpleNamespace(close=closed.set)

    monkeypatch.setattr(distributed, "Client", client)
    with (
        pytest.raises(CannotRun, match=r"no answer within 0\.1 s"),
        connect("tcp://h:1", ClusterLimits(connect_s=0.1)),
    ):
        pass
    given_up.set()
    assert closed.wait(60)


def test_dask_says_nothing_on_the_terminal():
    code = (
        "from loso.executors import connect\n"
        "from loso.recipe import ClusterLimits\n"
        "try:\n"
        "    with connect('tcp://127.0.0.1:9', ClusterLimits(connect_s=0.5)): pass\n"
        "except Exception as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("--scheduler tcp://127.0.0.1:9: no scheduler can be reached")
    assert run.stderr == ""


def test_outside_of_a_worker_there_is_nothing_to_know():
    assert resources_here() == {}
    assert scratch_here() is None
    with stopped_when_unwanted(lambda: pytest.fail("nobody stops this")):
        assert os.getpid()
