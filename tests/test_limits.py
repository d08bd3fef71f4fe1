"""What a file may cost: memory is measured in a process of its own, and bounded by the file's size.

Each case runs under a limit of the operating system too, so that a bound that is gone ends in a
failed test, not in a machine that swaps.
"""

import gzip
import json
import subprocess
import sys

import polars as pl
import pytest

from loso.schema import CANONICAL_6
from loso.stored import unpack

if not sys.platform.startswith("linux"):
    pytest.skip("memory as Linux counts it", allow_module_level=True)

MIB = 2**20
MOST_ADDRESSES = 12 * 2**30
"""Of address space: threads and allocators take much of it, and touch little."""

PROGRAM = """
import json, resource, sys, time
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (%(addresses)d,) * 2)
import polars, pydantic, numpy
from loso.cli.predict import _read_rows
from loso.corpus.check import describe_corpus
from loso.corpus.load import load_corpus
from loso.corpus.logs import read_log
from loso.corpus.scores import read_scores
from loso.errors import LosoError
from loso.folds import leave_one_source_out
from loso.recheck import read_table
from loso.stored import end_decoder
path = Path(sys.argv[1])

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024

Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
before, started = status("VmRSS"), time.process_time()
try:
    said, refused = %(action)s, ""
except LosoError as refusal:
    said, refused = "", str(refusal)
taken = {"peak": status("VmHWM") - before, "seconds": time.process_time() - started}
end_decoder()
taken["decoder"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(json.dumps({"said": said, "refused": refused, **taken}))
"""


def measured(action, path):
    """What `action` said or was refused with, its peak of memory in MiB, and its CPU seconds.

    The peak of the process that decodes Parquet is another one, and takes in what polars itself is.
    """
    program = PROGRAM % {"addresses": MOST_ADDRESSES, "action": action}
    command = [sys.executable, "-c", program, path]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


LOAD = "len(load_corpus(path))"
CHECK = "len(describe_corpus(load_corpus(path)).sources)"


def a_row(src="a", frame=0, **more):
    row = {"src": src, "encoder": "libx264", "cq": 20, "frame_index": frame, "vmaf": 90.0}
    return {**row, **dict.fromkeys(CANONICAL_6, 0.5), **more}


def holes(path, start, size):
    """A file of `size` bytes that takes no room on the disk."""
    with path.open("wb") as stream:
        stream.write(start)
        stream.truncate(size)
    return path


# -- Long lines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [b"", b'{"src": "'])
def test_a_line_of_a_gigabyte_is_refused_before_it_is_read(tmp_path, start):
    path = holes(tmp_path / "long.jsonl", start, 2**30)
    found = measured(LOAD, path)
    assert found["refused"] == (
        f"{path} line 1: too long to be a row, expected at most {2**22} bytes; write each row on a "
        "line of its own"
    )
    assert found["peak"] < 64


def test_a_long_line_after_others_costs_the_files_size_once(tmp_path):
    path = holes(tmp_path / "late.jsonl", json.dumps(a_row()).encode() + b"\n", 256 * MIB)
    found = measured(LOAD, path)
    assert found["refused"].startswith(f"{path} line 2: too long to be a row")
    assert found["peak"] < 256 + 64


# -- What unpacks to more than it is --------------------------------------------------------------


def bomb(path, size, start=b""):
    path.write_bytes(gzip.compress(start) + gzip.compress(bytes(MIB)) * (size // MIB))
    return path


@pytest.mark.parametrize("action", [LOAD, "len(_read_rows(str(path)))"])
def test_a_packed_gigabyte_is_refused_at_two_hundred_times_its_size(tmp_path, action):
    path = bomb(tmp_path / "bomb.jsonl.gz", 2**30, json.dumps(a_row()).encode() + b"\n")
    most = 200 * path.stat().st_size
    found = measured(action, path)
    assert f"unpacks to more than {most} bytes, as no measured rows do" in found["refused"]
    assert found["peak"] < 2 * most / MIB + 64


def test_the_rows_of_a_still_picture_are_unpacked():
    """They differ in their frame's number alone, and shrink to less than a hundredth."""
    numbers = dict.fromkeys(CANONICAL_6, 0.9876543210123456)
    more = {"bits_per_pixel": 0.0123456789012345, "preset": "medium", "height": 1080, "width": 1920}
    rows = (a_row(frame=at, **numbers, **more) for at in range(20_000))
    text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode()
    packed = gzip.compress(text, 9)
    assert len(text) > 100 * len(packed)
    assert unpack(packed, free_bytes=0) == text


def test_a_packed_log_of_a_gigabyte_is_refused(tmp_path):
    path = bomb(tmp_path / "bomb.json.gz", 2**30, b'{"frames": [')
    found = measured("read_log(path).frames", path)
    assert found["refused"] == (
        f"{path}: unpacks to more than {2**28} bytes, as no measured rows do; copy or make the log "
        "again"
    )
    assert found["peak"] < 2 * 256 + 64


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("bomb.parquet", LOAD),
        ("bomb.mos", "len(read_scores(path, ['clip'], None).rows)"),
        ("rows.parquet", "len(_read_rows(str(path)))"),
        ("oof_seed0.parquet", "len(read_table(path, 0))"),
    ],
)
def test_a_table_of_one_value_again_and_again_is_refused_by_its_footer(tmp_path, name, action):
    path = tmp_path / name
    rows = pl.select(pl.repeat(0, 2**23, dtype=pl.Int8).alias("a"))
    rows.with_columns(**{f"c{at}": pl.col("a") for at in range(16)}).write_parquet(path)
    assert path.stat().st_size < MIB
    found = measured(action, path)
    assert "8388608 rows of 17 columns in " in found["refused"]
    assert found["peak"] < 64


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (pl.lit(bytes(2**27)), "Binary"),
        (pl.repeat(0, 2**27, dtype=pl.Int64).implode(), "List"),
        (pl.repeat(0, 2**20).reshape((1, 2**20)), "Array"),
        (pl.struct(pl.lit(0).alias("a")), "Struct"),
    ],
)
def test_a_value_of_any_size_is_refused_by_its_kind(tmp_path, value, kind):
    path = tmp_path / "bomb.parquet"
    pl.select(value.alias("a")).write_parquet(path)
    found = measured(LOAD, path)
    assert found["refused"] == (
        f"{path}: column 'a' holds {kind}, not one value; leave the column out"
    )
    assert found["decoder"] < 200
    assert found["peak"] < 64


@pytest.mark.parametrize(
    ("rows", "letters", "problem"),
    [
        (1, 2**28, "decoding ended with signal 6"),
        (3, 2**25, "texts of 100663296 bytes in"),
    ],
)
def test_a_text_without_end_is_refused_within_what_a_small_file_may_take(
    tmp_path, rows, letters, problem
):
    path = tmp_path / "bomb.parquet"
    pl.DataFrame({"a": ["x" * letters] * rows}).write_parquet(path)
    assert path.stat().st_size < MIB // 8
    found = measured(LOAD, path)
    assert found["refused"].startswith(f"{path}: {problem}")
    assert found["peak"] < 64
    assert found["decoder"] < 512 + 200


# -- Many columns ---------------------------------------------------------------------------------


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_ten_thousand_columns_are_read(tmp_path):
    more = {f"feature_{at}": at / 7 for at in range(10_000)}
    path = write_lines(tmp_path / "wide.jsonl", [a_row(frame=at, **more) for at in range(100)])
    found = measured(CHECK, path)
    assert (found["said"], found["refused"]) == (1, "")
    assert found["peak"] < 20 * path.stat().st_size / MIB
    assert found["seconds"] < 20


def test_a_key_of_its_own_in_each_row_is_refused(tmp_path):
    rows = [a_row(frame=at, **{f"key{at}": 1}) for at in range(5000)]
    path = write_lines(tmp_path / "keys.jsonl", rows)
    found = measured(LOAD, path)
    assert found["refused"] == (
        f"{path}: too many different keys, expected at most {2**24 // 5000} in a file of so many "
        "lines and bytes, found 5011; leave out columns that few rows have"
    )
    assert found["peak"] < 500


def test_a_table_of_a_hundred_thousand_columns_is_refused_by_its_header(tmp_path):
    path = tmp_path / "wide.csv"
    names = ",".join(["clip", "mos", *(f"c{at}" for at in range(100_000))])
    path.write_text(f"{names}\na,3" + ",1" * 100_000 + "\n")
    found = measured("len(read_scores(path, ['clip'], None).rows)", path)
    assert found["refused"] == (
        f"{path}: too many columns for a table of scores, expected at most 16384, found 100002; "
        "leave out what says nothing of a clip"
    )
    assert found["peak"] < 64


# -- Many sources ---------------------------------------------------------------------------------


def test_a_million_sources_are_counted_and_not_held_out(tmp_path):
    path = tmp_path / "sources.parquet"
    number = pl.int_range(10**6)
    values = {name: pl.lit(value) for name, value in a_row().items()}
    values["src"] = pl.format("s{}", number)
    pl.select(number.alias("n")).select(**values).write_parquet(path)
    found = measured(CHECK, path)
    assert (found["said"], found["refused"]) == (10**6, "")
    assert found["peak"] < 2000
    assert found["seconds"] < 60
    found = measured("leave_one_source_out([f's{at}' for at in range(10**6)])", path)
    assert found["refused"] == (
        "too many sources to hold each out, expected at most 2147 of 1000000 rows, found 1000000; "
        "group them with --group-by, or train on some of them"
    )
    assert found["peak"] < 1000
