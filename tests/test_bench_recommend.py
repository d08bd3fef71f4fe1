"""The parts of the benchmark of `recommend` that could lie: the rival, the truth, the count."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "bench"))

from recommend import bisect  # noqa: E402 (stands in a folder that was just named)
from recommend_answers import Asked, judged, print_answers, summary  # noqa: E402 (the same)
from recommend_promises import Curves, drawn  # noqa: E402 (the same)
from recommend_truth import Truth  # noqa: E402 (the same)

N_SETTINGS = 52


class Coded:
    """A clip that scores 100 down to its last good setting and 0 beyond; remembers each probe."""

    def __init__(self, last_good):
        self.last_good, self.probed = last_good, []
        self.scale = range(N_SETTINGS)

    def probe(self, place):
        self.probed.append(place)
        yield ()
        score = 100.0 if place <= self.last_good else 0.0
        return SimpleNamespace(score=SimpleNamespace(lower=score, value=score), bitrate_kbps=1.0)


def run(work):
    """What a generator returns that needs nothing from outside."""
    try:
        while True:
            next(work)
    except StopIteration as end:
        return end.value


@pytest.mark.parametrize("last_good", range(-1, N_SETTINGS))
def test_the_rival_finds_the_answer_wherever_it_is_and_codes_nothing_twice(last_good):
    coded = Coded(last_good)
    assert run(bisect(coded, 90.0, 10, 46)) == (last_good, len(coded.probed))
    assert len(set(coded.probed)) == len(coded.probed)
    if 10 <= last_good < 46:
        assert len(coded.probed) <= 6  # of 37 settings and one more outcome, log2 is 5.2


def test_the_cheapest_setting_of_the_truth_is_the_last_that_meets_the_target():
    truth = Truth(scores={0: 99.0, 1: 95.0, 2: 89.0, 3: 91.0, 9: 50.0}, kbps={}, near=(0, 3))
    assert truth.cheapest(90.0) == 3
    assert truth.cheapest(99.5) == -1
    assert truth.rises() == [2.0]


def asked(way, place, seconds):
    return Asked(
        kind="long",
        clip="ant",
        encoder="libx264",
        target=90.0,
        way=way,
        place=place,
        settled=True,
        encodes=3,
        frames=60,
        seconds=seconds,
        core_seconds=seconds,
    )


def test_an_answer_is_counted_as_it_is_short_or_wasteful_and_by_its_time(capsys):
    truth = Truth(
        scores={20: 93.0, 21: 91.0, 22: 89.0}, kbps={20: 300.0, 21: 200.0, 22: 100.0}, near=(20, 22)
    )
    given = [asked(*one) for one in (("bisection", 21, 4.0), ("dear", 20, 1.0))]
    given += [asked("short", 22, 2.0), asked("none", -1, 3.0)]
    rows = judged(given, {("ant", "libx264"): truth})
    assert [(row["met"], row["steps"]) for row in rows] == [
        *((True, 0), (True, 1)),
        *((False, -1), (None, None)),
    ]
    assert rows[1]["percent"] == pytest.approx(50.0)
    assert [row["seconds_ratio"] for row in rows] == [1.0, 0.25, 0.5, 0.75]
    (short,) = (each for each in summary(rows) if (each["kind"], each["way"]) == ("long", "short"))
    assert (short["met"], short["answers"], short["short_by"]) == (0, 1, 1.0)
    print_answers(summary(rows))
    none, _ = (line for line in capsys.readouterr().out.splitlines() if "none" in line)
    assert none.split()[3:10] == ["0", "of", "0", "/1", "0.00", "-", "-"]


def test_simulated_sources_fall_and_err_as_the_measured_ones_at_the_same_score():
    whole = np.linspace(100.0, 20.0, N_SETTINGS)
    known = [Curves(whole, whole - 2.0, whole)]
    random = np.random.default_rng(3)
    sources = [drawn(random, known, (1,)) for _ in range(400)]
    assert all((np.diff(scores) <= 0).all() for pair in sources for scores in pair)
    errors = [float(estimates[25] - truths[25]) for truths, estimates in sources]
    assert np.median(errors) == pytest.approx(-2.0, rel=0.15)  # scaled by a factor around 1
    either = [drawn(random, known, (1, -1)) for _ in range(400)]
    flattered = np.mean([estimates[25] > truths[25] for truths, estimates in either])
    assert 0.4 < flattered < 0.6
