"""Parquet is decoded by a process of its own, which may die of it: the one that asked goes on."""

import datetime as dt
import io
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from loso import stored
from loso.cli.predict import _read_rows
from loso.corpus.load import load_corpus
from loso.corpus.table import read_table
from loso.decoder import decode, working_memory
from loso.errors import BadCorpus, BadInput, CannotRun
from loso.stored import NotMeasured, end_decoder, read_parquet


@pytest.fixture
def program(monkeypatch):
    """Let the next process run `lines` before it decodes, with its module as `d`."""

    def use(lines):
        code = f"import os, signal, time, polars as pl, loso.decoder as d\n{lines}\nd.main()"
        monkeypatch.setattr(stored, "_PROGRAM", ("-c", code))
        end_decoder()

    yield use
    end_decoder()


def packed(table, **options):
    stream = io.BytesIO()
    table.write_parquet(stream, **options)
    return stream.getvalue()


SMALL = packed(pl.DataFrame({"a": [1, 2, 3]}))


def child():
    return stored._DECODER._child


def gone(pid, within_s):
    """Wait until nothing is left of a process, not even a zombie."""
    end = time.monotonic() + within_s
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end
        time.sleep(0.02)


# -- What comes back ------------------------------------------------------------------------------

NUMBERS = [1, None, 3]
COLUMNS = {
    **{str(kind): pl.Series(NUMBERS, dtype=kind) for kind in (pl.Int8, pl.UInt64, pl.Int128)},
    **{str(kind): pl.Series(NUMBERS, dtype=kind) for kind in (pl.Float32, pl.Float64)},
    "Categorical": pl.Series(["a", None, "b"], dtype=pl.Categorical),
    "Enum": pl.Series(["a", None, "b"], dtype=pl.Enum(["b", "a", "c"])),
    "Decimal": pl.Series(["1.5", None, "2"]).cast(pl.Decimal(10, 3)),
    "Datetime": pl.Series([dt.datetime(2020, 1, 1, tzinfo=dt.UTC), None, None]),
    "Date": pl.Series([dt.date(2020, 1, 1), None, None]),
    "Time": pl.Series([dt.time(1), None, None]),
    "Duration": pl.Series([dt.timedelta(1), None, None]),
    "Boolean": pl.Series([True, None, False]),
    "Null": pl.Series([None] * 3),
    "String": pl.Series(["", None, "\u00e9" * 40]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_comes_back_as_polars_reads_it(name):
    content = packed(pl.DataFrame({"a": COLUMNS[name]}))
    read, expected = read_parquet(content), pl.read_parquet(content)
    assert read.schema == expected.schema
    assert read.equals(expected)


@pytest.mark.parametrize("rows", [0, 1, 6, 1000])
def test_slices_make_the_whole_table(program, rows):
    program("d._SLICE_CELLS = 7")
    number = pl.int_range(rows)
    text = pl.format("a text of more than twelve letters {}", number)
    table = pl.select(number.alias("a"), text.alias("b"))
    for options in ({}, {"row_group_size": 5}):
        assert read_parquet(packed(table, **options)).equals(table)


def test_a_table_without_columns_has_no_rows():
    assert read_parquet(packed(pl.DataFrame())).shape == (0, 0)


# -- One process for all files --------------------------------------------------------------------


def test_a_refusal_leaves_the_process_for_the_next_file():
    read_parquet(SMALL)
    first = child()
    with pytest.raises(ValueError, match="must end with PAR1"):
        read_parquet(SMALL[:-1])
    assert read_parquet(SMALL).height == 3
    assert child() is first


def test_a_process_that_nobody_needs_goes_and_another_one_comes(program):
    program("d._IDLE_S = 0.05")
    read_parquet(SMALL)
    first = child()
    gone(first.pid, within_s=60)
    assert read_parquet(SMALL).height == 3
    assert child() is not first


def test_a_large_file_takes_its_process_with_it(program):
    program("d._KEPT_BYTES = 10")
    assert read_parquet(SMALL).height == 3
    assert child().wait(timeout=60) == 0
    assert read_parquet(SMALL).height == 3


def test_the_process_ends_with_the_one_that_asked(tmp_path):
    (tmp_path / "a.parquet").write_bytes(SMALL)
    lines = "import os, pathlib; from loso import stored\n"
    lines += "stored.read_parquet(pathlib.Path('a.parquet').read_bytes())\n"
    lines += "print(stored._DECODER._child.pid, flush=True)\nos.kill(os.getpid(), 9)"
    words = [sys.executable, "-c", lines]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False)
    proc = Path("/proc") / ended.stdout.decode().strip()
    end = time.monotonic() + 5  # half of the time after which it would go by itself
    while (proc / "status").exists() and "(zombie)" not in (proc / "status").read_text():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_module_that_lies_in_the_folder_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "polars.py").write_text("open('run', 'w')")
    end_decoder()
    monkeypatch.chdir(tmp_path)
    assert read_parquet(SMALL).height == 3
    assert not Path("run").exists()


# -- What it dies of ------------------------------------------------------------------------------

BROKEN = "broken pages, or more memory than measured rows take"


def test_pages_that_claim_to_be_endless_are_refused(tmp_path):
    """One byte makes a page's count -4 for 3: polars then asks for 2 EiB, unless it is mended."""
    content = packed(pl.DataFrame({"a": ["x", "y", "x"]}), compression="uncompressed")
    path, refusals = tmp_path / "c.parquet", []
    for at in range(4, content.index(b"PAR1", 4)):
        if content[at] == 6:
            path.write_bytes(content[:at] + b"\7" + content[at + 1 :])
            try:
                load_corpus(path)
            except BadCorpus as refusal:
                refusals.append(str(refusal))
    died = f"{path}: decoding ended with signal 6: {BROKEN}; copy or write it again, or as .jsonl"
    assert any(each == died or "not a whole Parquet file" in each for each in refusals)


A_TABLE = "a line of column names and a row for each clip, JSONL, or Parquet"
READERS = [
    ("c.parquet", load_corpus, "{path}: {problem}; copy or write it again, or as .jsonl"),
    (
        "rows.parquet",
        lambda path: _read_rows(str(path)),
        "{path}: cannot be read ({problem}); copy or write it again, or as .jsonl",
    ),
    (
        "mos.parquet",
        lambda path: read_table(path, texts=()),
        f"{{path}}: not a table ({{problem}}), expected {A_TABLE}",
    ),
]


@pytest.mark.parametrize(("name", "read", "refusal"), READERS)
@pytest.mark.parametrize(
    ("lines", "limit_s", "problem"),
    [
        ("d.decode = lambda *_: os.abort()", 60, f"decoding ended with signal 6: {BROKEN}"),
        ("d.decode = lambda *_: 1 / 0", 60, f"decoding ended with exit code 1: {BROKEN}"),
        (
            "d.decode = lambda *_: time.sleep(600)",
            1,
            "decoding takes longer than 1 s, as that of no measured rows does",
        ),
    ],
)
def test_a_file_that_ends_its_process_is_refused(
    tmp_path, program, monkeypatch, name, read, refusal, lines, limit_s, problem
):
    path = tmp_path / name
    path.write_bytes(SMALL)
    program(lines)
    monkeypatch.setattr(stored, "_DECODE_S", limit_s)
    with pytest.raises(BadInput) as refused:
        read(path)
    assert str(refused.value) == refusal.format(path=path, problem=problem)
    assert child() is None


def test_after_a_death_the_next_file_is_read(tmp_path, program):
    (tmp_path / "once").touch()
    program(f"if os.path.exists({str(tmp_path / 'once')!r}): d.decode = lambda *_: os.abort()")
    with pytest.raises(NotMeasured, match="decoding ended with signal 6"):
        read_parquet(SMALL)
    (tmp_path / "once").unlink()
    assert read_parquet(SMALL).height == 3


def test_a_panic_inside_polars_is_a_refusal_and_the_process_is_not_trusted_again(tmp_path, program):
    """Damaged pages can make polars panic, which in Python is not even an Exception."""
    program(
        "def panic(*_): raise pl.exceptions.PanicException('a page is short\\nstack backtrace')\n"
        "d.decode = panic"
    )
    path = tmp_path / "c.parquet"
    path.write_bytes(SMALL)
    with pytest.raises(BadCorpus) as refused:
        load_corpus(path)
    assert str(refused.value) == (
        f"{path}: not a whole Parquet file (a page is short); copy or write it again"
    )
    assert child().wait(timeout=60) == 0


def test_a_kill_from_outside_is_the_machines_and_not_the_files(program):
    program("d.decode = lambda *_: os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(CannotRun) as refused:
        read_parquet(SMALL)
    assert str(refused.value) == (
        "decoding Parquet was ended by signal 9, as systems short of memory do; "
        "free memory, and try again"
    )


@pytest.mark.parametrize("lines", ["raise SystemExit(1)", "print('?', flush=True)"])
def test_a_process_that_does_not_start_is_said(program, lines):
    program(lines)
    with pytest.raises(CannotRun, match=r"^the process that decodes Parquet does not start$"):
        read_parquet(SMALL)


def test_a_python_that_is_not_there_is_said(monkeypatch):
    end_decoder()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    problem = r"^the process that decodes Parquet does not start \(No such file or directory\)$"
    with pytest.raises(CannotRun, match=problem):
        read_parquet(SMALL)


def test_a_ctrl_c_before_it_is_ready_leaves_no_half_asked_process(monkeypatch):
    read_parquet(SMALL)
    first = child()

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stored, "_killed_after", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read_parquet(SMALL)
    assert first.returncode == -9
    assert read_parquet(SMALL).height == 3


def test_ctrl_c_does_not_leave_the_process_behind(program, monkeypatch):
    program("d.decode = lambda *_: time.sleep(600)")
    started = []
    begin = stored._DECODER._awake

    def awake(length):
        started.append(begin(length))
        monkeypatch.setattr(stored, "_block", interrupted)
        return started[0]

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(stored._DECODER, "_awake", awake)
    with pytest.raises(KeyboardInterrupt):
        read_parquet(SMALL)
    assert started[0].returncode == -9


# -- What it may take -----------------------------------------------------------------------------


def test_memory_is_what_a_file_of_that_size_needs_before_and_after_its_footer_is_read():
    told = []
    decode(SMALL, told.append)
    assert told == [working_memory(len(SMALL), 3)]
    assert working_memory(2**30, 2**27) == 2**29 + 8 * 2**30 + 32 * 2**27


def test_a_file_after_a_small_one_has_the_memory_that_it_needs():
    read_parquet(SMALL)
    number = pl.int_range(2**22)
    content = packed(
        pl.select(**{f"c{at}": number * at for at in range(8)}), compression="uncompressed"
    )
    assert read_parquet(content).shape == (2**22, 8)


def test_texts_of_every_kind_are_counted():
    limit = 64 * 2**20
    for kind in (pl.String, pl.Categorical):
        table = pl.DataFrame({"a": pl.Series(["x" * (limit // 4)] * 5, dtype=kind)})
        problem = rf"^texts of {5 * limit // 4} bytes in [0-9]+ bytes, as no measured rows do$"
        with pytest.raises(NotMeasured, match=problem):
            read_parquet(packed(table))
        assert read_parquet(packed(table.head(4))).height == 4


def test_too_many_values_are_refused_with_what_to_do(tmp_path):
    path = tmp_path / "c.parquet"
    pl.select(pl.repeat(0, 2**24 + 1, dtype=pl.Int8).alias("a")).write_parquet(path)
    with pytest.raises(BadCorpus) as refused:
        load_corpus(path)
    assert str(refused.value) == (
        f"{path}: {2**24 + 1} rows of 1 columns in {path.stat().st_size} bytes, as no measured "
        "rows do; leave out what is the same in every row"
    )
