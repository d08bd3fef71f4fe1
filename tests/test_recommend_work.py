"""Questions side by side, at a desk that only pretends to code."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from loso.errors import BadSettings, CannotRun, LostCluster
from loso.recommend.work import carry_out


class Desk:
    """Keeps what is "coded" in a set; `fails` says for a cell what becomes of it."""

    def __init__(self, stored=(), fails=None):
        self.done, self.coded, self.fails = set(stored), [], fails or {}
        self.store = SimpleNamespace(load=lambda mark: mark if mark in self.done else None)
        self.place = SimpleNamespace(
            measure=self.measure, follow=self.follow, size=(0, 1), remark=""
        )
        self.told, self.most = [], 0

    def progress(self, done, total, note):
        self.told.append((done, total, note))

    def mark(self, cell):
        return cell.mark

    def measure(self, mark, cell):  # noqa: ARG002
        self.coded.append(mark)
        future = Future()
        future.set_running_or_notify_cancel()
        future.mark = mark
        return future

    def follow(self, futures):
        self.most = max(self.most, len(futures))
        for future in futures:
            failure = self.fails.get(future.mark)
            if failure is None:
                self.done.add(future.mark)
                future.set_result(None)
            else:
                future.set_exception(failure)
            yield future

    def kept(self, cell, mark, *, stored):  # noqa: ARG002
        return mark, stored


def cell(mark):
    rate = SimpleNamespace(number=mark)
    encode = SimpleNamespace(encoder=SimpleNamespace(name="x"), rate=rate)
    return SimpleNamespace(mark=mark, encode=encode, clip=SimpleNamespace(src="clip"))


def work(*requests):
    """Asks for each request in turn; returns all that it was sent."""
    found = []
    for request in requests:
        probes = yield [cell(mark) for mark in request]
        found += probes
    return found


def test_each_goes_on_with_its_own_probes_and_results_keep_their_order():
    desk = Desk(stored={"c"})
    first, second = carry_out(desk, [work("ab", "c"), work("d")])
    assert first == [("a", False), ("b", False), ("c", True)]
    assert second == [("d", False)]
    assert sorted(desk.coded) == ["a", "b", "d"]


def test_a_cell_that_several_ask_for_is_coded_once():
    desk = Desk()
    outcomes = carry_out(desk, [work("ab"), work("b", "a"), work("a")])
    assert desk.coded == ["a", "b"]
    assert [len(found) for found in outcomes] == [2, 2, 1]


def test_a_failure_ends_those_that_asked_for_it_and_no_other():
    failure = CannotRun("a bad moment")
    desk = Desk(fails={"b": failure})
    outcomes = carry_out(desk, [work("ab", "c"), work("b"), work("a", "d")])
    assert outcomes[:2] == [failure, failure]
    assert outcomes[2] == [("a", False), ("d", False)]
    assert "c" not in desk.coded


def test_a_refusal_of_its_own_ends_it_alone():
    def refuse():
        yield [cell("a")]
        raise BadSettings("no")

    one, other = carry_out(Desk(), [refuse(), work("b")])
    assert isinstance(one, BadSettings)
    assert other == [("b", False)]


@pytest.mark.parametrize(
    "failure",
    [LostCluster("gone"), ZeroDivisionError("a fault"), BadSettings("changed while it was used")],
)
def test_what_stops_everything_is_raised(failure):
    with pytest.raises(type(failure)):
        carry_out(Desk(fails={"a": failure}), [work("a"), work("b")])


def test_few_are_at_work_at_a_time_so_that_the_first_are_finished_early():
    desk = Desk()
    carry_out(desk, [work(f"{number}") for number in range(10)])
    assert desk.most <= 8
    assert desk.coded == [f"{number}" for number in range(10)]


def test_no_work_says_nothing():
    desk = Desk(stored={"a"})
    assert carry_out(desk, []) == []
    assert carry_out(desk, [work("a"), work()]) == [[("a", True)], []]
    assert desk.told == []


def test_progress_ends_where_all_is_done():
    desk = Desk()
    carry_out(desk, [work("a", "b"), work("c")])
    assert desk.told[-1] == (3, 3, "2 of 2, clip, x at b")
    assert desk.told[0][:2] == (0, 6)  # three for each, until one has ended
    assert all(done < total for done, total, _ in desk.told[:-1])
