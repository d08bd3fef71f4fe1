import gzip
import hashlib
import io
import json
import pickle
import random
import re
from contextlib import suppress

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loso.corpus import jsonl
from loso.corpus.load import load_corpus, require_trainable
from loso.errors import BadCorpus
from loso.recipe import TrainingNeeds
from loso.schema import CANONICAL_6, REQUIRED_NUMBERS, REQUIRED_TEXTS

REQUIRED = (*REQUIRED_TEXTS, *REQUIRED_NUMBERS)


@pytest.fixture(scope="module", params=["polars", "compiled"], autouse=True)
def reader(request):
    """Each way to read whole lines, in turn."""
    if request.param == "compiled" and jsonl.read_flat is None:
        pytest.skip("loso is installed without its compiled reader")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "polars":
            patch.setattr(jsonl, "read_flat", None)
        yield request.param


def row(frame_index=0, **changes):
    features = dict.fromkeys(CANONICAL_6, 0.5)
    return {
        "src": "ant",
        "encoder": "libx264",
        "cq": 23,
        "frame_index": frame_index,
        "vmaf": 91.5,
        **features,
        **changes,
    }


def lines_of(rows, **options):
    return [json.dumps(r, **options) for r in rows]


@pytest.fixture
def save(tmp_path):
    """Write lines, or bytes, as a corpus file and return its path."""

    def write(content, name="corpus.jsonl"):
        if not isinstance(content, bytes):
            content = "".join(f"{line}\n" for line in content).encode()
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


def refusal(path, **options):
    with pytest.raises(BadCorpus) as caught:
        load_corpus(path, **options)
    return str(caught.value).removeprefix(f"{path.parent}/")


# -- What a corpus is -----------------------------------------------------------------------------


def test_one_row_is_a_corpus(save):
    path = save(lines_of([row(preset="8")]))
    corpus = load_corpus(str(path))
    assert len(corpus) == 1
    assert corpus.path == path
    assert corpus.sources == ("ant",)
    assert corpus.encoders == ("libx264",)
    assert corpus.identity == ("src", "encoder", "preset", "cq", "frame_index")
    assert corpus.unknown_encoders == {}
    assert corpus.warnings == ()
    assert corpus.rows.columns == [*REQUIRED, "preset"]
    assert corpus.rows["preset"].to_list() == ["8"]
    types = dict(corpus.rows.select(REQUIRED).schema)
    assert {types.pop(name) for name in REQUIRED_TEXTS} == {pl.String()}
    assert types.pop("frame_index") == pl.Int64
    assert set(types.values()) == {pl.Float64()}


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz", "C.JSONL"])
def test_hash_is_that_of_the_stored_bytes(save, name):
    path = save(lines_of([row()]), name)
    assert load_corpus(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_compressed_corpora_may_be_joined_end_to_end(tmp_path):
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(
        b"".join(gzip.compress(f"{line}\n".encode()) for line in lines_of([row(0), row(1)]))
    )
    assert load_corpus(path).rows["frame_index"].to_list() == [0, 1]


def test_a_corpus_travels_between_processes(save):
    corpus = load_corpus(save(lines_of([row(encoder="theora")])))
    copy = pickle.loads(pickle.dumps(corpus))
    assert copy.rows.equals(corpus.rows)
    assert copy.unknown_encoders == {"theora": 1}


def test_unknown_encoders_are_counted_and_named(save):
    names = ["vp6", "libx265", "theora", "vp6", "unknown"]
    corpus = load_corpus(save(lines_of(row(i, encoder=n) for i, n in enumerate(names))))
    assert corpus.unknown_encoders == {"theora": 1, "vp6": 2}
    assert corpus.rows["encoder"].to_list() == names
    assert corpus.warnings == (
        "encoders outside the vocabulary share its slot unknown; rows of each: theora 1, vp6 2",
    )


def test_bitrate_cells_have_a_negative_quality(save):
    assert load_corpus(save(lines_of([row(cq=-800)]))).rows["cq"].to_list() == [-800.0]


def test_a_whole_number_may_be_written_with_a_point(save):
    corpus = load_corpus(save(lines_of([row(3.0), row(2)])))
    assert corpus.rows["frame_index"].to_list() == [3, 2]


# -- The three formats hold the same --------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
columns_of_one_type = st.sampled_from(
    [
        st.text(max_size=8),
        st.text('ab:"\\{}[], \t\n', max_size=8),
        finite,
        st.integers(-(2**63), 2**63 - 1),
        st.booleans(),
        st.one_of(st.integers(-1000, 1000), finite),
    ]
)


@st.composite
def tables(draw):
    """Rows of a valid corpus, with optional columns that are null or absent on some rows."""
    names = draw(st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=3))
    optional = {
        name: draw(columns_of_one_type) for name in names if name not in {*REQUIRED, "clip"}
    }
    rows = []
    for frame_index in range(draw(st.integers(1, 12))):
        numbers = {name: draw(finite) for name in ("cq", *CANONICAL_6)}
        text = st.text(min_size=1, max_size=4)
        extra = {
            name: draw(st.one_of(values, st.none()))
            for name, values in optional.items()
            if draw(st.booleans())
        }
        rows.append(
            {
                "src": draw(text),
                "encoder": draw(text),
                "frame_index": frame_index,
                "vmaf": draw(st.floats(0, 100)),
                **numbers,
                **extra,
            }
        )
    return rows


def assert_same_values(table, rows):
    names = dict.fromkeys(name for r in rows for name in r)
    assert set(table.columns) == set(names)
    for name in names:
        assert table[name].to_list() == [r.get(name) for r in rows]


@given(
    tables(),
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :  ")]),
    st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\n"]),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
)
def test_jsonl_loads_what_was_written(
    tmp_path_factory, rows, ensure_ascii, separators, newline, bom
):
    lines = lines_of(rows, ensure_ascii=ensure_ascii, separators=separators)
    content = bom + newline.join(lines).encode()
    folder = tmp_path_factory.mktemp("jsonl")
    (folder / "c.jsonl").write_bytes(content)
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(content))
    plain, packed = load_corpus(folder / "c.jsonl"), load_corpus(folder / "c.jsonl.gz")
    assert_same_values(plain.rows, rows)
    assert packed.rows.equals(plain.rows)


@given(tables())
def test_parquet_loads_what_was_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("parquet") / "c.parquet"
    names = dict.fromkeys(name for r in rows for name in r)
    table = pl.DataFrame(
        {name: pl.Series([r.get(name) for r in rows], strict=False) for name in names}
    )
    table.write_parquet(path)
    assert_same_values(load_corpus(path).rows, rows)


# -- The quick way is never a wrong way -----------------------------------------------------------

hostile_values = st.sampled_from(
    [
        "1", "2.5", "-3", "1e3", "true", "null", '"a"', '"5"', '"a:b"', '"{"', '"["', '":null"',
        '": null,"', '"\\""', '"\\u003a"', '"\\\\"', '"\\ud800"', '["q"]', "[1]", '{"k":1}', "{}",
        "9" * 25, "1" + "0" * 400, "1" * 5000, "1e999", "NaN", "-Infinity", '"é"',
        '"\\u00e9"', '"\\u0022"', '"\\u005B"', '"\\uD83d\\uDe00"', '"\\\\u00e9"',
        '"' + ":" * 3 + '"', "[" * 50 + "]" * 50,
    ]
)  # fmt: skip
hostile_keys = st.sampled_from(['"a"', '"b"', '"c:d"', '"c\\"d"', '"é"', '"a:null"'])
hostile_lines = st.lists(
    st.tuples(hostile_keys, st.sampled_from([":", ": ", " :"]), hostile_values), max_size=4
).map(lambda cells: "{" + ",".join("".join(cell) for cell in cells) + "}")


@given(
    st.lists(
        st.one_of(
            hostile_lines,
            st.sampled_from(['{"a":1,"b":"x"}', '{"a":2,"b":"y"}', "", " ", "{}", "[]", "7"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_table_holds_what_python_reads(lines):
    """Python's own reader is the oracle; a sample of one line misses most of what comes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "_SAMPLE", 1)
        try:
            table = jsonl.read_jsonl("\n".join(lines).encode(), "c.jsonl")
        except BadCorpus:
            return
    rows = [python_reads(line) for line in lines if line.strip()]
    assert table.height == len(rows)
    assert set(table.columns) == {name for r in rows for name in r}
    for name in table.columns:
        values = [r.get(name) for r in rows]
        if table[name].dtype.is_float():
            values = [None if v is None else float(v) for v in values]
        if not table[name].dtype.is_nested():
            assert [(type(v), v) for v in table[name]] == [(type(v), v) for v in values]


def python_reads(line):
    pairs = json.loads(line, object_pairs_hook=list)
    held = [(name, value) for name, value in pairs if value is not None]
    assert len(dict(held)) == len(held), "a key that came twice went unseen"
    return dict.fromkeys(name for name, _ in pairs) | dict(held)


def test_a_column_that_appears_late_is_kept(save):
    late = [row(i) for i in range(1500)] + [row(1500, mos=4.5)]
    assert load_corpus(save(lines_of(late))).rows["mos"].to_list() == [None] * 1500 + [4.5]


@pytest.mark.parametrize("name", ["mos", "cq", "frame_index", "vmaf"])
def test_whole_numbers_may_turn_into_fractions_late(save, name):
    values = [1] * 1500 + [2.0]
    rows = [row(**{"frame_index": i, "clip": str(i), name: v}) for i, v in enumerate(values)]
    assert load_corpus(save(lines_of(rows))).rows[name].to_list() == values


def test_spelled_nulls_do_not_need_the_slow_way(save, monkeypatch):
    monkeypatch.setattr(jsonl, "_check_lines", pytest.fail)
    rows = [row(i, mos=None if i % 2 else 3.5, preset="a") for i in range(4)]
    assert load_corpus(save(lines_of(rows))).rows["mos"].to_list() == [3.5, None, 3.5, None]


def test_escaped_letters_do_not_need_the_slow_way(save, monkeypatch):
    monkeypatch.setattr(jsonl, "_check_lines", pytest.fail)
    lines = lines_of([row(src="été"), row(src="映画")], ensure_ascii=True)
    assert load_corpus(save(lines)).rows["src"].to_list() == ["été", "映画"]


def test_colons_in_a_text_do_not_need_the_slow_way(save, monkeypatch):
    monkeypatch.setattr(jsonl, "_check_lines", pytest.fail)
    rows = load_corpus(save(lines_of([row(0, note="a:b"), row(1, note="::")]))).rows
    assert rows["note"].to_list() == ["a:b", "::"]


def test_required_numbers_may_be_written_either_way_in_one_reading(save, monkeypatch):
    monkeypatch.setattr(jsonl, "read_flat", None)
    monkeypatch.setattr(jsonl, "_SAMPLE", 1)
    read = jsonl._read
    samples = []
    monkeypatch.setattr(
        jsonl, "_read", lambda *a, **k: samples.append(k["sample"]) or read(*a, **k)
    )
    rows = load_corpus(save(lines_of([row(0, vmaf=91), row(1, vmaf=91.5)]))).rows
    assert rows["vmaf"].to_list() == [91.0, 91.5]
    assert samples == [1]


def test_a_text_that_reads_as_a_null_hides_no_second_key():
    lines = [b'{"a": "x:null", "b": 1}', b'{"a": "y", "b": 2, "b": 3}', b'{"a": "z"}']
    with pytest.raises(BadCorpus, match=r"c\.jsonl line 2: the key b is there twice; keep one"):
        jsonl.read_jsonl(b"\n".join(lines), "c.jsonl")


def test_nested_values_are_kept(save):
    rows = load_corpus(save(lines_of([row(0, tags=["a"]), row(1, tags=[])]))).rows
    assert rows["tags"].to_list() == [["a"], []]


# -- Refusals name file, line, column, what was expected and found, and what to do ----------------


TWIN = 'the row of line 2 again, found src "ant", encoder "libx264", preset "slow", cq 23, '
TWIN += "frame_index 1"
REPAIR = "repair the line or drop it"
REMEASURE = "re-measure or drop the row"
RETYPE = "write one type in the whole column"
MISTYPED = "{} has the wrong type, expected {}, found {}"
HALF = "half a character (a lone surrogate), found"
NO_OBJECT = 'not an object, expected one JSON object {"src": ...}, found'
NO_JSON = "not JSON (Expecting ',' delimiter at column 14), expected one JSON object, found"


@pytest.mark.parametrize(
    ("line", "problem", "fix"),
    [
        ('{"src": "ant"', NO_JSON + r' "{\"src\": \"ant\""', REPAIR),
        ("[1, 2]", f"{NO_OBJECT} a list", REPAIR),
        ("null", f"{NO_OBJECT} null", REPAIR),
        ("[" * 100_000, "nested too deeply to be a row", REPAIR),
        (f'{{"vmaf": {"1" * 5000}}}', "a number has too many digits", REPAIR),
        (json.dumps(row(3))[:-1] + ', "vmaf": 9}', "the key vmaf is there twice", "keep one"),
        (
            json.dumps(row(3, preset="a"))[:-1] + ', "vmaf": null}',
            "the key vmaf is there twice",
            "keep one",
        ),
        (row(3, vmaf="9"), MISTYPED.format("vmaf", "a number", 'text ("9")'), RETYPE),
        (row(3, src=7), MISTYPED.format("src", "text", "a number (7)"), RETYPE),
        (row(3, cq=True), MISTYPED.format("cq", "a number", "true or false (True)"), RETYPE),
        (row(3, src=["ant"]), MISTYPED.format("src", "text", "a list"), RETYPE),
        (row(3, preset=8), MISTYPED.format("preset", "text as in line 1", "a number (8)"), RETYPE),
        (row(3, vmaf=float("nan")), "vmaf must be finite, found NaN", REMEASURE),
        (row(3, adm2=-float("inf")), "adm2 must be finite, found infinity", REMEASURE),
        (
            json.dumps(row(3)).replace("91.5", "1e999"),
            "vmaf must be finite, found infinity",
            REMEASURE,
        ),
        (
            row(3, motion2=10**400),
            f"motion2 is too large, expected a number of 64 bits, found 1{'0' * 56}...",
            REMEASURE,
        ),
        (row(3, src="\ud800"), HALF + r' "src": "\ud800"', "write the whole character"),
        (row(3, **{"\ud800": 1}), HALF + r' "\ud800": 1', "write the whole character"),
        (row(3, vmaf=None), "vmaf has no value", REMEASURE),
        ({"src": "ant", "encoder": "libx264"}, "cq has no value", REMEASURE),
        (
            row(3, vmaf=100.00000000000001),
            "vmaf must lie in 0..100, found 100.00000000000001",
            REMEASURE,
        ),
        (row(3, vmaf=-1), "vmaf must lie in 0..100, found -1", REMEASURE),
        (row(-1), "frame_index must not be negative, found -1", REMEASURE),
        (row(3.5), "frame_index must be a whole number, found 3.5", REMEASURE),
        (row(2**53), f"frame_index must lie below 2**53, found {2**53}", REMEASURE),
        (row(3, src=""), 'src must not be empty, found ""', REMEASURE),
        (row(3, encoder=""), 'encoder must not be empty, found ""', REMEASURE),
        (
            row(1, preset="slow", vmaf=3, cq=23.0),
            TWIN,
            "drop one of the two, or name the column that tells them apart (--key)",
        ),
    ],
)
@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz"])
def test_a_bad_line_is_named(save, line, problem, fix, name):
    good = lines_of(row(i, preset="slow") for i in range(3))
    bad = line if isinstance(line, str) else json.dumps(line)
    path = save([*good[:2], "", bad, good[2]], name)
    assert refusal(path) == f"{name} line 4: {problem}; {fix}"


def test_bytes_that_are_not_utf8_are_named(save):
    content = json.dumps(row()).encode() + b'\n{"src": "caf\xe9"}\n'
    assert refusal(save(content)) == (
        "corpus.jsonl line 2: not UTF-8 text (byte 13); save the file as UTF-8"
    )


def test_all_missing_columns_are_named_at_once(save):
    rest = "cq, frame_index, adm2, vif_scale0, vif_scale1, vif_scale2, vif_scale3, motion2"
    assert refusal(save(['{"src": "ant", "vmaf": 90}'])) == (
        f"corpus.jsonl: missing required columns: encoder, {rest}, found src, vmaf; "
        "rename the columns, or build the corpus anew"
    )
    assert "missing required columns: src, encoder, cq" in refusal(save(["{}"]))


@pytest.mark.parametrize("content", [b"\n \n", b"\xef\xbb\xbf\n"])
def test_a_file_of_blank_lines_holds_no_rows(save, content):
    assert refusal(save(content)) == "corpus.jsonl: holds no rows, expected at least one"


def test_a_line_of_nothing_but_a_byte_order_mark_holds_no_row(save):
    content = "\ufeff\n" + "\n".join(lines_of([row(0), row(-1)]))
    assert "line 3: frame_index must not be negative" in refusal(save(content.encode()))


def test_an_empty_file_is_refused(save):
    for name in ("c.jsonl", "c.parquet"):
        assert refusal(save(b"", name)) == (
            f"{name}: the file is empty, expected at least one row; "
            "build a corpus: loso corpus build --help"
        )
    assert refusal(save(b"", "c.jsonl.gz")) == "c.jsonl.gz: holds no rows, expected at least one"


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert refusal(tmp_path / "c") == "c: file not found; build a corpus: loso corpus build --help"
    (tmp_path / "d.jsonl").mkdir()
    assert refusal(tmp_path / "d.jsonl") == "d.jsonl: a folder, not a file; name a file inside it"


@pytest.mark.parametrize("name", ["c.json", "c.csv", "c.gz", "jsonl"])
def test_another_kind_of_file_is_refused(save, name):
    assert refusal(save(b"{}", name)) == (
        f"{name}: not a corpus file by its name, expected a name that ends in "
        ".jsonl, .jsonl.gz, .parquet; rename or convert it"
    )


def test_what_the_system_says_is_passed_on(tmp_path):
    path = tmp_path / ("x" * 300 + ".jsonl")
    assert refusal(path).endswith("cannot be read (File name too long)")


def test_one_type_through_a_whole_column_can_still_be_wrong(save):
    assert refusal(save(lines_of(row(i, vmaf="91.5") for i in range(2)))) == (
        'corpus.jsonl line 1: vmaf has the wrong type, expected a number, found "91.5"; '
        "write one type in the whole column"
    )
    assert "line 1: src has the wrong type, expected text, found 7;" in refusal(
        save(lines_of(row(i, src=7) for i in range(2)))
    )
    assert "line 1: cq has no value;" in refusal(save(lines_of(row(i, cq=None) for i in range(2))))


@given(
    st.integers(1, 30),
    st.data(),
    st.sampled_from(["}", "{", "nul", '{"src": "a" "b"}', '{"a": 1}}', "\x00", "{]", "{}\x0c"]),
)
def test_a_corrupted_line_is_named_whatever_stands_around_it(
    tmp_path_factory, height, data, rubbish
):
    lines = lines_of(row(i, note="a:b") for i in range(height))
    for at in sorted(data.draw(st.lists(st.integers(0, height), max_size=3)), reverse=True):
        lines.insert(at, " ")
    bad = data.draw(st.integers(0, len(lines) - 1))
    lines[bad] = rubbish
    path = tmp_path_factory.mktemp("bad") / "c.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert refusal(path).startswith(f"c.jsonl line {bad + 1}: not ")


# -- Files that are not whole ---------------------------------------------------------------------


@given(st.data())
def test_a_truncated_gzip_file_is_refused(tmp_path_factory, data):
    packed = gzip.compress("\n".join(lines_of(row(i) for i in range(9))).encode(), mtime=0)
    path = tmp_path_factory.mktemp("gz") / "c.jsonl.gz"
    path.write_bytes(packed[: data.draw(st.integers(1, len(packed) - 1))])
    assert re.fullmatch(
        r"c\.jsonl\.gz: not a whole gzip file \(.+\); copy or compress it again", refusal(path)
    )


def test_a_damaged_gzip_file_is_refused(tmp_path):
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}")[:10] + b"\xff" * 20)
    assert refusal(path).startswith("c.jsonl.gz: not a whole gzip file (Error -3 while decompress")


def test_a_file_that_is_no_gzip_file_is_refused(save, tmp_path):
    plain = save(lines_of([row()]))
    path = plain.rename(tmp_path / "c.jsonl.gz")
    assert refusal(path) == (
        "c.jsonl.gz: not a whole gzip file (Not a gzipped file (b'{\"')); copy or compress it again"
    )


@pytest.fixture(scope="module")
def parquet():
    stream = io.BytesIO()
    pl.DataFrame([row(i) for i in range(50)]).write_parquet(stream)
    return stream.getvalue()


@given(st.data())
def test_a_truncated_parquet_file_is_refused(tmp_path_factory, parquet, data):
    path = tmp_path_factory.mktemp("pq") / "c.parquet"
    path.write_bytes(parquet[: data.draw(st.integers(1, len(parquet) - 1))])
    assert re.fullmatch(
        r"c\.parquet: not a whole Parquet file \(.+\); copy or write it again", refusal(path)
    )


def test_a_damaged_parquet_file_ends_in_a_refusal_or_in_valid_rows(save, parquet):
    dice = random.Random(0)
    for _ in range(60):
        damaged = bytearray(parquet)
        for _ in range(3):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        with suppress(BadCorpus):
            load_corpus(save(bytes(damaged), "c.parquet"))


# -- Parquet --------------------------------------------------------------------------------------


@pytest.fixture
def save_parquet(tmp_path):
    def write(rows, **columns):
        path = tmp_path / "c.parquet"
        pl.DataFrame(rows).with_columns(**columns).write_parquet(path)
        return path

    return write


def test_other_types_of_text_and_number_are_converted(save_parquet):
    path = save_parquet(
        [row(0), row(1)],
        src=pl.col("src").cast(pl.Categorical),
        cq=pl.col("cq").cast(pl.Int16),
        vmaf=pl.col("vmaf").cast(pl.Float32),
        frame_index=pl.col("frame_index").cast(pl.UInt8),
    )
    rows = load_corpus(path).rows
    assert rows.schema["src"] == pl.String
    assert rows.select("cq", "vmaf", "frame_index").rows() == [(23.0, 91.5, 0), (23.0, 91.5, 1)]
    assert rows.schema["frame_index"] == pl.Int64


@pytest.mark.parametrize(
    ("column", "problem", "fix"),
    [
        (
            {"vmaf": pl.Series(["9", "2"])},
            "row 1: " + MISTYPED.format("vmaf", "a number", '"9"'),
            RETYPE,
        ),
        ({"src": pl.Series([3, 4])}, "row 1: " + MISTYPED.format("src", "text", "3"), RETYPE),
        (
            {"cq": pl.Series([True, False])},
            "row 1: " + MISTYPED.format("cq", "a number", "True"),
            RETYPE,
        ),
        (
            {"adm2": pl.Series([0.5, float("nan")])},
            "row 2: adm2 must be finite, found nan",
            REMEASURE,
        ),
        (
            {"cq": pl.Series([0.5, -float("inf")])},
            "row 2: cq must be finite, found -inf",
            REMEASURE,
        ),
        ({"src": pl.Series(["ant", None])}, "row 2: src has no value", REMEASURE),
    ],
)
def test_a_bad_row_is_named(save_parquet, column, problem, fix):
    assert refusal(save_parquet([row(0), row(1)], **column)) == f"c.parquet {problem}; {fix}"


def test_a_table_without_rows_is_refused(tmp_path):
    path = tmp_path / "c.parquet"
    pl.DataFrame([row()]).clear().write_parquet(path)
    assert refusal(path) == "c.parquet: holds no rows, expected at least one"


# -- Identity -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["preset", "clip"])
def test_optional_columns_tell_rows_apart(save, name):
    rows = [row(**{name: "a"}), row(**{name: "b"}), row(), row(**{name: "a"})]
    assert len(load_corpus(save(lines_of(rows[:3])))) == 3
    assert "line 4: the row of line 1 again" in refusal(save(lines_of(rows)))


def test_no_value_is_a_value_where_rows_are_compared(save):
    rows = [row(preset="a"), row(), row(preset=None)]
    assert "line 3: the row of line 2 again" in refusal(save(lines_of(rows)))


def test_minus_zero_is_zero_where_rows_are_compared(save):
    assert "line 2: the row of line 1 again" in refusal(save(lines_of([row(cq=0.0), row(cq=-0.0)])))


def test_a_key_adds_a_column_to_the_identity(save):
    path = save(lines_of([row(test=1), row(test=2)]))
    assert "line 2: the row of line 1 again" in refusal(path)
    corpus = load_corpus(path, key=["test"])
    assert corpus.identity == ("src", "encoder", "cq", "frame_index", "test")
    assert load_corpus(path, key=["cq", "test"]).identity == corpus.identity
    assert refusal(path, key=["tset"]).endswith("; did you mean test?")
    assert refusal(path, key=["panel"]) == (
        f"corpus.jsonl: there is no column panel to tell rows apart, found {', '.join(row())}, "
        "test; name one of these"
    )


def test_a_nested_value_tells_no_rows_apart(save):
    path = save(lines_of([row(tags=["a"])]))
    assert refusal(path, key=["tags"]) == (
        "corpus.jsonl: tags cannot tell rows apart, expected text or a number, "
        "found a list or an object; write a plain value"
    )
    assert "clip cannot tell rows apart" in refusal(save(lines_of([row(clip={"name": "a"})])))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), min_size=1, max_size=8))
def test_the_first_repeated_row_and_the_row_it_repeats_are_named(tmp_path_factory, ids):
    path = tmp_path_factory.mktemp("twins") / "c.jsonl"
    path.write_text("\n".join(lines_of(row(f, src=s) for s, f in ids)), encoding="utf-8")
    again = next((i for i, name in enumerate(ids) if name in ids[:i]), None)
    if again is None:
        assert len(load_corpus(path)) == len(ids)
    else:
        first = ids.index(ids[again])
        assert f"line {again + 1}: the row of line {first + 1} again" in refusal(path)


# -- What training needs --------------------------------------------------------------------------


def test_too_little_to_train_on_is_refused(make_corpus):
    corpus = load_corpus(make_corpus())
    require_trainable(corpus, TrainingNeeds(min_rows=72, min_sources=3))
    with pytest.raises(
        BadCorpus,
        match=r"corpus.jsonl: too few rows to train on, expected at least 100, found 72; "
        r"build a larger corpus: loso corpus build --help$",
    ):
        require_trainable(corpus, TrainingNeeds())
    alone = load_corpus(make_corpus(sources=["ant"]))
    with pytest.raises(
        BadCorpus,
        match=r"corpus.jsonl: too few sources to train on, expected at least 2: each is held out "
        r"once, found 1 \(ant\); add clips of other sources: loso corpus build --help$",
    ):
        require_trainable(alone, TrainingNeeds())


def with_rate(i, row, **more):
    row.update({"bitrate_kbps": 900.0 + i, "fps": 25.0, "height": 360}, **more)


def test_bits_per_pixel_follow_from_bitrate_rate_and_size(make_corpus):
    corpus = load_corpus(make_corpus(edit=lambda i, row: with_rate(i, row, width=640)))
    assert corpus.rows["bits_per_pixel"][3] == pytest.approx(903_000 / (640 * 360 * 25))
    assert corpus.warnings == ()

    corpus = load_corpus(make_corpus("narrow.jsonl", edit=with_rate))
    assert corpus.rows["bits_per_pixel"][0] == pytest.approx(900_000 / (640 * 360 * 25))
    assert corpus.warnings == ("no column width: bits_per_pixel takes it as 16:9 of the height",)

    given = make_corpus("given.jsonl", edit=lambda i, row: with_rate(i, row, bits_per_pixel=0.5))
    assert set(load_corpus(given).rows["bits_per_pixel"]) == {0.5}
    assert "bits_per_pixel" not in load_corpus(make_corpus("none.jsonl")).rows.columns
