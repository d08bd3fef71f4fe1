"""docs/reliability.md has a row for every fault, every target of the fuzzers and the soak."""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "bench"), str(ROOT / "fuzz")]

import reliability  # noqa: E402 (stands in a folder that was just named)
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
    lost = sum("aborted in polars" in outcome for _, _, outcome in rows)  # known, and said below
    assert f"{len(rows) - lost} of {len(rows)} rows held" in block
