"""docs/reliability.md has a row for every fault, every target of the fuzzers and the soak."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from test_faults import TABLE

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "bench"), str(ROOT / "fuzz")]

import reliability  # noqa: E402 (stands in a folder that was just named)
import soak  # noqa: E402 (the same)
from targets import TARGETS  # noqa: E402 (the same)


def functions(module):
    tree = ast.parse((ROOT / "tests" / f"test_{module}.py").read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_fault_in_words_is_one_that_a_test_tries():
    known = set().union(*map(functions, reliability.MODULES))
    assert {f"test_{name}" for name in reliability.WORDS} <= known


def test_every_fault_of_files_is_put_into_words():
    apart = {
        "the_table_names_every_place_that_writes_a_file",
        "the_table_says_who_writes_each_file",
    }
    apart |= {"all_is_written_under_a_temporary_name"}  # of which none is a fault
    apart |= {"every_way_to_make_a_file_is_seen"}
    tried = {name.removeprefix("test_") for name in functions("faults") if "test_" in name[:5]}
    assert tried - apart <= reliability.WORDS.keys()


def test_the_document_has_a_row_for_everything_that_was_tried():
    text = reliability.DOCUMENT.read_text(encoding="utf-8")
    block = text.partition(reliability.BEGIN)[2].partition(reliability.END)[0]
    rows = re.findall(r"^\| (.+?) \| ([\d,]+) \| (.+) \|$", block, re.MULTILINE)
    named = [fault for fault, _, _ in rows]
    assert {said.fault for said in reliability.WORDS.values()} <= {*named}
    assert {f"mangled: {name}" for name in TARGETS} <= {*named}
    assert len(named) == len(reliability.WORDS) + len(TARGETS) + 2
    not_tried = sum(tried == "0" for _, tried, _ in rows)
    said = f"{len(rows) - not_tried} of {len(rows)} rows held, {not_tried} not tried"
    assert f"\n{said} (Python" in block
    assert "**" not in block


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("full", "a_full_disk_leaves_the_old_file"),
        ("deny", "a_folder_that_may_not_be_written_to_keeps_the_old_file"),
    ],
)
def test_every_exit_code_of_a_fault_is_said(fault, test):
    said = re.findall(r"\b[0-9]\b", reliability.WORDS[test].outcome)
    assert {*map(int, said)} == {row.codes[fault] for row in TABLE}


# -- What did not hold ----------------------------------------------------------------------------


@pytest.fixture
def quiet(monkeypatch):
    """Let no program run: what it would have written is there already, or is missing."""

    def run(words, **_):
        return subprocess.CompletedProcess(words, 1)

    monkeypatch.setattr(reliability.subprocess, "run", run)


CASES = {
    "faults": '<testcase name="test_a_full_disk_leaves_the_old_file[a]"/>'
    '<testcase name="test_a_full_disk_leaves_the_old_file[b]"><failure/></testcase>'
    '<testcase name="test_a_log_that_may_not_be_written_is_refused"><skipped/></testcase>'
    '<testcase name="test_an_oracle"/>'
    '<testcase name="test_another"><skipped/></testcase>',
    "cluster": "",
    "limits": "<testcase",
    "video_hostile": "",
    "decoder": "",
}


@pytest.mark.usefixtures("quiet")
def test_a_report_that_is_missing_or_half_written_did_not_hold(tmp_path):
    for module, cases in CASES.items():
        end = "" if cases == "<testcase" else "</testsuite>"
        (tmp_path / f"{module}.xml").write_text(f"<testsuite>{cases}{end}")
    rows = {fault: rest for fault, *rest in reliability.rows_of_tests(tmp_path)}
    full = reliability.WORDS["a_full_disk_leaves_the_old_file"]
    assert rows[full.fault] == ["2", f"{full.outcome}; **1 FAILED**", False]
    skipped = rows["folder of the log not to be written to"]
    assert skipped == ["0", "not tried on this machine", None]
    assert rows["other tests of the same modules"] == ["1", "passed; 1 skipped", True]
    for fault in ("10,000 columns", "all of tests/test_fuzz.py", "all of tests/test_limits.py"):
        assert rows[fault] == ["0", "**no report**", False]
    assert "all of tests/test_faults.py" not in rows


@pytest.mark.usefixtures("quiet")
def test_fuzzers_without_a_report_did_not_hold(tmp_path):
    rows = list(reliability.rows_of_fuzzing(tmp_path, 1.0))
    assert rows == [("mangled: all targets", "0", "**no report**", False)]
    outcomes = {"outcomes": {"taken": 2, "BadInput": 3}, "faults": {}, "tried": 5}
    nothing = {"outcomes": {}, "faults": {}, "tried": 0}
    (tmp_path / "fuzz.json").write_text(json.dumps({"a": outcomes, "b": nothing}))
    said = "{} refused by name, {} read or passed over, 0 other endings"
    rows = list(reliability.rows_of_fuzzing(tmp_path, 1.0))
    assert rows == [
        ("mangled: a", "5", said.format(3, 2), True),
        ("mangled: b", "0", said.format(0, 0), None),
    ]


@pytest.mark.parametrize(
    ("held", "words", "code"),
    [
        ([True, None, None], "1 of 3 rows held, 2 not tried (", 0),
        ([True, False, None], "1 of 3 rows held, 1 not tried (", 1),
        ([None], "0 of 1 rows held, 1 not tried (", 0),
    ],
)
def test_what_was_not_tried_did_not_hold_and_fails_nothing(held, words, code):
    total, ended = reliability.total_of([reliability.Row("a", "", "b", each) for each in held])
    assert total.startswith(words)
    assert ended == code


SOAKED = {
    "kills": 9,
    "calls": 100,
    "complete": False,
    "same_bytes": False,
    "leftovers": [],
    "processes_left": 0,
    "longest_zombie_s": 0.15,
}


@pytest.mark.usefixtures("quiet")
def test_a_soak_that_ran_out_of_calls_is_not_complete(tmp_path):
    fault = "random ffmpeg children killed while 200 cells are built"
    assert reliability.row_of_soaking(tmp_path) == (fault, "0", "**no report**", False)
    (tmp_path / "soak.json").write_text(json.dumps(SOAKED))
    row = reliability.row_of_soaking(tmp_path)
    assert row == (
        fault,
        "9",
        (
            "**not complete** after 100 calls: **other bytes**, 0 temporary files and 0 processes "
            "left, the longest zombie stood for 0.15 s"
        ),
        False,
    )


@pytest.mark.parametrize(("kills", "held"), [(9, True), (0, None)])
def test_a_soak_without_a_kill_tried_nothing(tmp_path, monkeypatch, kills, held):
    whole = SOAKED | {"complete": True, "same_bytes": True, "kills": kills}
    (tmp_path / "soak.json").write_text(json.dumps(whole))
    ended = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(reliability.subprocess, "run", lambda *_, **__: ended)
    assert reliability.row_of_soaking(tmp_path).held is held


@pytest.mark.parametrize("lacks", ["complete", "same_bytes"])
def test_a_soak_holds_where_the_build_is_whole_and_nothing_is_left(lacks):
    whole = SOAKED | {"complete": True, "same_bytes": True}
    assert soak.held(whole)
    assert not soak.held(whole | {lacks: False})
    assert not soak.held(whole | {"leftovers": ["tmp/a"]})
    assert not soak.held(whole | {"processes_left": 1})
    assert soak.held(whole | {"longest_zombie_s": 0.99})
    assert not soak.held(whole | {"longest_zombie_s": 1.0})
