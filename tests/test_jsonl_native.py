import json
import math
import shutil
import struct
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from loso.corpus import jsonl
from loso.schema import REQUIRED_NUMBERS

if find_spec("loso.corpus._jsonl") is None:
    pytest.skip("loso is installed without its compiled reader", allow_module_level=True)

from loso.corpus._jsonl import read_flat

NATIVE = Path(__file__).parents[1] / "native"
THREADS = (1, 2, 3, 7)
INT64 = (-(2**63), 2**63 - 1)


def bits(value):
    return struct.pack("<d", value)


def plain(columns):
    """What `read_flat` gave, as lists: floats as their bytes, so that equal means bit-equal."""
    if columns is None:
        return None
    table = {}
    for name, values in columns.items():
        if isinstance(values, tuple):
            codes, distinct = values
            assert codes.dtype == np.uint32
            seen = dict.fromkeys(codes.tolist())
            assert list(seen) == list(range(len(distinct)))  # in order of first appearance
            assert len(set(distinct)) == len(distinct)
            table[name] = [distinct[code] for code in codes]
        else:
            whole = values.dtype == np.int64
            assert whole or values.dtype == np.float64
            table[name] = [v if whole else bits(v) for v in values.tolist()]
    return table


def by_python(content):
    """The table that Python's json reads, or None where the lines are not flat, whole and alike."""
    lines = [line.strip(b" \t\r") for line in content.split(b"\n")]
    try:
        rows = [json.loads(line.decode(), object_pairs_hook=tuple) for line in lines if line]
    except ValueError:
        return None
    if not rows or not all(isinstance(row, tuple) and row for row in rows):
        return None
    names = [name for name, _ in rows[0]]
    if len(set(names)) < len(names) or any([name for name, _ in row] != names for row in rows):
        return None
    table = {}
    for name, *values in zip(names, *([v for _, v in row] for row in rows), strict=True):
        kinds = {type(v) for v in values}
        if kinds == {str}:
            table[name] = values
        elif kinds <= {int, float} and all(
            INT64[0] <= v <= INT64[1] if isinstance(v, int) else math.isfinite(v) for v in values
        ):
            table[name] = values if kinds == {int} else [bits(v) for v in values]
        else:
            return None
    return table


def agree(content, *, must_read=False):
    one, *others = (plain(read_flat(content, threads)) for threads in THREADS)
    assert all(other == one for other in others)
    if must_read or one is not None:
        assert one == by_python(content)
        assert one is not None


def in_range(text):
    value = json.loads(text)
    return isinstance(value, float) or INT64[0] <= value <= INT64[1]


texts = st.text(
    st.characters(min_codepoint=32, exclude_categories=("Cs",), exclude_characters='"\\'),
    max_size=12,
)
floats = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(-1000, 1000, places=6).map(str),
    st.from_regex(r"\A-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?\Z"),
)
integers = st.integers(*INT64).map(str)
numbers = st.one_of(floats.filter(in_range), integers, st.just("-0"))


@st.composite
def tables(draw):
    """Lines that are alike, as bytes."""
    names = draw(st.lists(texts, min_size=1, max_size=4, unique=True))
    quoted = texts.map(lambda text: f'"{text}"')
    kinds = [draw(st.sampled_from([quoted, numbers, integers])) for _ in names]
    colon, comma = draw(st.sampled_from([(": ", ", "), (":", ","), ("\t: ", " ,\r")]))
    rows = draw(st.lists(st.tuples(*kinds), min_size=1, max_size=12))
    ends = st.sampled_from(["\n", "\r\n", "\n\n", " \n\t\n"])
    lines = [
        "{" + comma.join(f'"{n}"' + colon + v for n, v in zip(names, row, strict=True)) + "}"
        for row in rows
    ]
    content = "".join(line + draw(ends) for line in lines)
    return (content if draw(st.booleans()) else content.rstrip()).encode()


@given(tables())
def test_any_flat_table_is_what_python_reads(content):
    agree(content, must_read=True)


@given(tables(), st.data())
def test_changed_bytes_are_refused_or_what_python_reads(content, data):
    changed = bytearray(content)
    marks = st.sampled_from(b'{}[]:,"\\ \n\r\t0.-+eEtn\x00\x80\xc3\xff')
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed)))
        drop = data.draw(st.integers(0, 2))
        put = data.draw(st.one_of(st.binary(max_size=2), st.lists(marks, max_size=2).map(bytes)))
        changed[at : at + drop] = put
    agree(bytes(changed))


@given(tables(), st.data())
def test_a_cut_file_is_refused_or_what_python_reads(content, data):
    agree(content[: data.draw(st.integers(0, len(content)))])


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=3))
def test_texts_are_utf8(texts):
    agree(b"\n".join(b'{"a":"%b"}' % text for text in texts))


@given(st.lists(st.text("0123456789.eE+-", max_size=6), min_size=1, max_size=3))
def test_numbers_are_those_of_json(texts):
    agree("\n".join(f'{{"a":{text}}}' for text in texts).encode())


FIRST = '{"a": 1.5, "b": "x"}\n'


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[]",
        '"a"',
        "1",
        "{",
        '{"a"}',
        '{"a": }',
        '{"a": 1, "b": "x", "a": 1}',
        '{"a": null, "b": "x"}',
        '{"a": true, "b": "x"}',
        '{"a": 1, "b": false}',
        '{"a": [1], "b": "x"}',
        '{"a": {"c": 1}, "b": "x"}',
        '{"a": 1, "b": "\\n"}',
        '{"a": 1, "b": "\\u0041"}',
        '{"a": 1, "\\u0062": "x"}',
        '{"a": 1, "b": "\t"}',
        '{"a": 1, "b": "x}',
        '{"a": 1, "b": "x"',
        '{"a": 1, "b": "x"} 1',
        '{"a": 1, "b": "x"}{"a": 1, "b": "x"}',
        '{"a": 1, "b": "x",}',
        '{"a": 1 "b": "x"}',
        '\f{"a": 1, "b": "x"}',
        *(
            f'{{"a": {number}, "b": "x"}}'
            for number in "01 -01 +1 .5 1. -.5 1e 1e+ -  1.e1 0x1 1_0 NaN Infinity -Infinity inf "
            "1e400 -1e400 9223372036854775808 -9223372036854775809".split()
        ),
        f'{{"a": 1{"0" * 400}, "b": "x"}}',
        f'{{"a": {"9" * 400}.5, "b": "x"}}',
    ],
)
def test_what_is_not_flat_is_refused(line, alone):
    content = (line if alone else FIRST + line + "\n" + FIRST).encode()
    for threads in THREADS:
        assert read_flat(content, threads) is None


@pytest.mark.parametrize(
    "line",
    [
        '{"b": "x", "a": 1}',
        '{"a": 1}',
        '{"a": 1, "b": "x", "c": 1}',
        '{"a": 1, "c": "x"}',
        '{"a": "1", "b": "x"}',
        '{"a": 1, "b": 2}',
        '{"a":1,"b":"x"}',
    ],
)
def test_a_line_unlike_the_first_is_refused(line):
    for threads in THREADS:
        assert read_flat((FIRST * 3 + line).encode(), threads) is None


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\t\n", b"\xef\xbb\xbf" + FIRST.encode()])
def test_no_lines_and_a_mark_are_refused(content):
    for threads in THREADS:
        assert read_flat(content, threads) is None


def test_too_many_distinct_texts_are_refused():
    def content(count):
        return "".join(f'{{"a":"{i:x}"}}\n' for i in range(count)).encode()

    assert len(read_flat(content(2**20), 2)["a"][1]) == 2**20
    assert read_flat(content(2**20 + 1), 1) is None
    assert read_flat(content(2**20 + 1), 2) is None


def test_a_wide_first_line_claims_no_memory():
    wide = "{" + ",".join(f'"{i}":1' for i in range(100_000)) + "}\n"
    assert read_flat((wide + "1\n" * 1_000_000).encode(), 2) is None


def test_a_long_line_is_read():
    agree(f'{{"a":"{"é" * 2**19}","b":1}}\n{{"a":"","b":0.5}}'.encode(), must_read=True)


@pytest.mark.parametrize(
    "number",
    "0 -0 -0.0 0.1 1e5 1E-5 5e-324 2.2250738585072014e-308 1.7976931348623157e308 "
    "9007199254740993 9007199254740993.0 0.30000000000000004 123456789012345678901.5 "
    "99999999999999.9 999999999999999.9 0.000000000000001 8.5e-2 9223372036854775807".split(),
)
def test_numbers_are_rounded_as_python_rounds(number):
    for values in ([number], [number, "0.5"], ["-1", number]):
        agree("\n".join(f'{{"a":{value}}}' for value in values).encode(), must_read=True)


@pytest.mark.parametrize("digits", range(13, 20))
def test_many_digits_are_rounded_as_python_rounds(digits):
    random = np.random.default_rng(digits)
    values = [str(v) for v in random.integers(10 ** (digits - 1), min(10**digits, 2**63 - 1), 2000)]
    cuts = random.integers(1, digits, 2000)
    content = "\n".join(f'{{"a":{v[:at]}.{v[at:]}}}' for v, at in zip(values, cuts, strict=True))
    agree(content.encode(), must_read=True)


@given(tables())
def test_the_table_is_that_of_polars(content):
    assume(not any(name.encode() in content for name in REQUIRED_NUMBERS))  # polars wants all
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "read_flat", None)
        expected = jsonl.read_jsonl(content, "corpus")
    table = jsonl.read_jsonl(content, "corpus")
    assert table.schema == expected.schema
    assert table.equals(expected)


def test_required_numbers_are_floats():
    row = dict.fromkeys(REQUIRED_NUMBERS, 1) | {"src": "ant", "encoder": "libx264", "width": 640}
    table = jsonl.read_jsonl(json.dumps(row).encode(), "corpus")
    assert [table[name].dtype for name in REQUIRED_NUMBERS] == [pl.Float64] * len(REQUIRED_NUMBERS)
    assert table["width"].dtype == pl.Int64


def test_no_threads_are_refused():
    with pytest.raises(ValueError, match="threads"):
        read_flat(b"", 0)


def test_sanitizers_find_nothing(tmp_path):
    if (compiler := shutil.which("g++")) is None:
        pytest.skip("no compiler")
    lines, program = tmp_path / "lines.jsonl", tmp_path / "check"
    rows = [{"src": f"é{i // 3}", "cq": i, "vmaf": i / 7, "preset": "slow"} for i in range(12)]
    lines.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    warnings = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-pthread"]
    source = NATIVE / "check_jsonl.cpp"
    build = [compiler, "-std=c++20", "-O1", *warnings, *checks, source, "-o", program]
    subprocess.run(build, check=True)
    ran = subprocess.run([program, lines], capture_output=True, text=True, check=False)
    assert ran.stdout == "0 failures\n", ran.stderr
