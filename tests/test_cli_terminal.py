"""Commands at a real terminal: widths, colours, bars, and what is typed."""

import re

import pytest

from screen import ESCAPE, STYLED, at_terminal


@pytest.fixture
def shard(make_corpus):
    """A corpus whose file and one of whose sources have names longer than any column."""
    sources = ["a_short_walk_beside_the_river_in_1080p_at_50_frames", "bee", "cat"]
    return make_corpus(f"{'a_long_name' * 12}.jsonl", sources=sources, frames=6)


@pytest.fixture
def merge(shard, tmp_path):
    """The words of a command that draws a bar, for as long as a file takes to read."""
    return ["corpus", "merge", shard, "--out", tmp_path / "merged.jsonl"]


@pytest.mark.parametrize("width", [40, 60, 100])
def test_results_keep_to_a_terminal_of_any_width_and_say_the_same(loso, shard, width):
    seen = at_terminal("corpus", "check", shard, width=width)
    code, piped, _ = loso("corpus", "check", shard)
    assert seen.code == code == 0
    assert max(map(len, seen.lines)) <= width
    # Folded text goes on below, so what is said is compared by its characters.
    assert sorted(re.sub(r"\s", "", "".join(seen.lines))) == sorted(re.sub(r"\s", "", piped))
    figures = re.findall(r"^\S+ +(36 .*)$", piped, re.MULTILINE)
    assert len(figures) == 3
    for of_source in figures:
        assert any(line.split()[-4:] == of_source.split() for line in seen.lines)


@pytest.mark.parametrize("width", [40, 60, 100])
def test_progress_is_one_line_of_any_terminal(merge, width):
    seen = at_terminal(*merge, width=width)
    assert seen.code == 0
    bars = [line for line in seen.drawn if line.startswith("merge ")]
    assert len(bars) >= 2
    assert max(map(len, bars)) <= width
    elapsed = r" 0:\d\d:\d\d" if width >= 80 else ""  # what is being done needs the room
    assert re.fullmatch(rf"merge ━+ 100%{elapsed} left 0:00:00", bars[-1])
    assert sum(line.startswith("merge ") for line in seen.lines) == 1
    assert seen.raw.index("\x1b[?25l") < seen.raw.rindex("\x1b[?25h")  # the cursor is back


@pytest.mark.parametrize(
    ("variables", "escapes", "colours"),
    [
        ({}, True, True),
        ({"NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_what_a_terminal_cannot_or_shall_not_show_is_left_out(merge, variables, escapes, colours):
    seen = at_terminal(*merge, **variables)
    assert seen.code == 0
    assert bool(ESCAPE.search(seen.raw)) == escapes
    assert bool(STYLED.search(seen.raw)) == colours
    assert "merged.jsonl:" in "".join(seen.lines)  # a line longer than the terminal is broken
    said = [line for line in seen.drawn if line.startswith("merge: 100% in ")]
    assert bool(said) != escapes  # where nothing can be drawn, lines say it


def test_quiet_draws_no_bar_and_the_log_file_has_it_all(merge, tmp_path):
    log = tmp_path / "a.log"
    seen = at_terminal(*merge, "--quiet", "--log-file", log)
    assert seen.code == 0
    assert "\x1b[?25l" not in seen.raw
    assert not any(line.startswith("merge") for line in seen.drawn if "merged" not in line)
    assert re.search("INFO merge: 100% in ", log.read_text())


def test_a_refusal_takes_the_place_of_the_bar(merge):
    merge[2].write_text(merge[2].read_text() + "{\n")
    seen = at_terminal(*merge)
    assert seen.code == 2
    assert any(line.startswith("merge ") for line in seen.drawn)
    assert "\x1b[31mloso: \x1b[0m" in seen.raw
    assert "\n".join(seen.lines).startswith("loso: ")


def test_ctrl_c_leaves_one_line_and_work_that_goes_on(loso, make_corpus, tmp_path):
    corpus, run = make_corpus(sources=["ant", "bee", "cat", "dog"], frames=20), tmp_path / "run"
    words = ["train", "--corpus", corpus, "--out-dir", run, "--epochs", "400", "--seeds"]
    assert loso(*words, "0")[0] == 0
    kept = (run / "loso_seed0.json").read_bytes()
    seen = at_terminal(*words, ",".join(map(str, range(100))), keys=("%", "\x03"))
    assert seen.code == 130
    assert seen.lines == [
        "loso: stopped; what was finished is kept, the same command goes on from it"
    ]
    assert seen.raw.endswith("\n")
    assert seen.raw.rindex("\x1b[?25h") > seen.raw.rindex("\x1b[?25l")
    assert not (run / "loso_seed99.json").exists()
    assert loso(*words, "0")[0] == 0  # nothing is in the way of who goes on
    assert (run / "loso_seed0.json").read_bytes() == kept
