import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loso.corpus.join import JoinSettings, join_table
from loso.corpus.load import load_corpus
from loso.errors import BadCorpus, BadInput, BadSettings, LosoError
from loso.files import read_json, sha256_of
from loso.schema import CANONICAL_6

FEATURES = dict.fromkeys(CANONICAL_6, 0.5)


def row(clip="a", frame=0, **more):
    start = {"src": f"film {clip}", "encoder": "libx264", "cq": 20, "frame_index": frame}
    return {**start, "vmaf": 90.0, **FEATURES, "clip": clip, **more}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name, rows):
    """Write dictionaries as JSONL, Parquet or a table of what the name's ending says."""
    path, table = Path(name), pl.DataFrame(rows, infer_schema_length=None)
    if name.endswith(".parquet"):
        table.write_parquet(path)
    elif name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    else:
        table.write_csv(path, separator={"csv": ",", "tsv": "\t", "txt": ";"}[name[-3:]])
    return path


def join(rows, table, *, out="new.jsonl", **settings):
    """Join two lists of dictionaries on the clip, unless said otherwise; return report and rows."""
    settings = JoinSettings(**{"on": ("clip",), **settings})
    old = write("old.jsonl", rows) if isinstance(rows, list) else rows
    given = write("table.jsonl", table) if isinstance(table, list) else table
    report = join_table(old, given, settings, out=Path(out))
    return report, load_corpus(out, key=settings.key).rows


# -- What joins -----------------------------------------------------------------------------------


@given(data=st.data())
def test_a_join_is_a_lookup_in_a_dictionary(tmp_path_factory, data):
    names = st.tuples(st.sampled_from("abc"), st.integers(-1, 2))
    places = data.draw(st.lists(names, min_size=1, max_size=12))
    rows = [row(clip, at, test=test) for at, (clip, test) in enumerate(places)]
    scores = data.draw(st.dictionaries(names, st.none() | st.floats(1, 5), min_size=1))
    table = [{"test": test, "mos": mos, "clip": clip} for (clip, test), mos in scores.items()]
    folder = tmp_path_factory.mktemp("join")
    old, given, out = folder / "old.jsonl", folder / "table.jsonl", folder / "new.jsonl"
    old.write_text("".join(json.dumps(each) + "\n" for each in rows))
    given.write_text("".join(json.dumps(each) + "\n" for each in table))
    settings = JoinSettings(on=("test", "clip"), allow_unjoined=True)
    kept = [each for each in rows if (each["clip"], each["test"]) in scores]
    if not kept:
        with pytest.raises(BadInput, match="none match"):
            join_table(old, given, settings, out=out)
        assert not out.exists()
        return
    report = join_table(old, given, settings, out=out)

    found = load_corpus(out).rows.select("frame_index", "clip", "test", "mos").rows()
    assert found == [
        (r["frame_index"], r["clip"], r["test"], scores[r["clip"], r["test"]]) for r in kept
    ]
    used = {(each["clip"], each["test"]) for each in kept}
    assert (report.rows, report.left_out) == (len(kept), len(rows) - len(kept))
    assert report.joined == len(used)
    lone = dict.fromkeys(f"{test} {clip}" for clip, test in places if (clip, test) not in used)
    assert report.corpus_without_table == tuple(lone)
    assert report.table_without_corpus == tuple(
        f"{test} {clip}" for clip, test in scores if (clip, test) not in used
    )


@pytest.mark.parametrize("table", ["t.csv", "t.tsv", "t.txt", "t.jsonl", "t.parquet", "t.other"])
@pytest.mark.parametrize("out", ["new.jsonl", "new.jsonl.gz", "new.parquet"])
def test_every_format_gives_the_same_rows(table, out):
    told = [{"clip": "b", "mos": 1.5, "panel": "A"}, {"clip": "a", "mos": 4.25, "panel": None}]
    given = write("t.parquet" if table == "t.other" else table, told)
    given = given.rename(table)
    report, rows = join([row("a"), row("b"), row("b", 1)], given, out=out)
    assert rows["mos"].to_list() == [4.25, 1.5, 1.5]
    assert rows["panel"].to_list() == [None, "A", "A"]
    assert report.columns == ("mos", "panel")
    again, _ = join([row("a"), row("b"), row("b", 1)], given, out=f"again-{out}")
    assert sha256_of(again.corpus) == sha256_of(report.corpus)


def test_nothing_else_of_the_corpus_changes():
    rows = [row("a", at, vmaf=81.123456789012345, note=None, dark=at > 0) for at in range(3)]
    _, new = join(rows, [{"clip": "a", "mos": 3.5}])
    old = load_corpus("old.jsonl").rows
    assert new.drop("mos").equals(old)
    assert new.columns == [*old.columns, "mos"]


def test_numbers_join_as_numbers_and_text_as_text():
    Path("t.csv").write_text("clip,test,cq,mos\n007, 2.0,20.0,1\n7,2,20,5\n")
    rows = [row("007", test=2), row("7", test=2)]
    _, new = join(rows, Path("t.csv"), on=("clip", "test", "cq"))
    assert new["mos"].to_list() == [1, 5]
    # Neighbours as 64-bit numbers, the same as Float64.
    ids = [2**60, 2**60 + 1]
    rows = [row("a", at, job=job) for at, job in enumerate(ids)]
    _, new = join(rows, [{"job": job, "mos": at} for at, job in enumerate(ids)], on=("job",))
    assert new["mos"].to_list() == [0, 1]


def test_only_named_columns_are_taken_in_their_order():
    table = [{"clip": "a", "vmaf": 3.0, "x": 1, "y": "two", "z": True}]
    _, new = join([row()], table, columns=("z", "x"))
    assert new.columns[-2:] == ["z", "x"]
    assert new.select("vmaf", "z", "x").rows() == [(90.0, True, 1)]


def test_a_column_of_both_that_says_the_same_stays():
    table = [{"clip": "a", "cq": 20.0, "height": None, "mos": 2}]
    report, new = join([row(height=720)], table)
    assert report.columns == ("mos",)
    assert new["height"].to_list() == [720]


def test_bits_per_pixel_follow_what_is_joined():
    rows = [row(bitrate_kbps=1000, fps=25, height=90)]
    old = 1000 * 1000 / (160 * 90 * 25)
    assert load_corpus(write("old.jsonl", rows)).rows["bits_per_pixel"].item() == old
    report, new = join(rows, [{"clip": "a", "width": 320}])
    assert new["bits_per_pixel"].item() == old / 2
    assert "bits_per_pixel" not in Path("new.jsonl").read_text()
    assert report.warnings == ()
    _, new = join(
        [row(bits_per_pixel=0.125, bitrate_kbps=1, fps=1, height=1)], [{"clip": "a", "width": 1}]
    )
    assert new["bits_per_pixel"].item() == 0.125


# -- Encoders -------------------------------------------------------------------------------------


def test_encoders_are_renamed_when_asked_on_both_sides_and_counted():
    called = ["h264", "x265", "theora", "h264", "libx264"]
    rows = [row("a", at, encoder=name) for at, name in enumerate(called)]
    names = ["H264", "hevc", "theora"]
    table = [{"encoder": name, "mos": at} for at, name in enumerate(names)]
    report, new = join(rows, table, on=("encoder",), known_encoders=True)
    assert new["encoder"].to_list() == ["libx264", "libx265", "theora", "libx264", "libx264"]
    assert new["mos"].to_list() == [0, 1, 2, 0, 0]
    assert report.aliases == {"h264 -> libx264": 2, "x265 -> libx265": 1}
    assert report.warnings == (
        "encoders outside the vocabulary share its slot unknown; rows of each: theora 1",
    )
    with pytest.raises(BadInput, match=r"1 of the corpus \(theora\), 1 of the table \(theory\)"):
        join(
            rows,
            [*table[:2], {"encoder": "theory", "mos": 1}],
            on=("encoder",),
            known_encoders=True,
        )


def test_a_new_name_that_makes_two_rows_one_is_refused():
    rows = [row(encoder="h264"), row(encoder="libx264")]
    with pytest.raises(BadCorpus, match=r"old\.jsonl row 2: the row of row 1 again"):
        join(rows, [{"clip": "a", "mos": 1}], known_encoders=True)
    assert not Path("new.jsonl").exists()


# -- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "table", "settings", "refusal"),
    [
        (
            [row("a"), row("b"), row("b", 1)],
            [{"clip": "a", "mos": 1}, {"clip": "c", "mos": 1}],
            {},
            "table.jsonl: rows without a partner: 2 of the corpus (b), 1 of the table (c); name",
        ),
        (
            [row("a")],
            [{"clip": "c", "mos": 1}],
            {"allow_unjoined": True},
            "none match: give the columns that say the same in both with --on, not clip",
        ),
        (
            [row("a")],
            [{"clip": c, "mos": 1} for c in "bab"],
            {},
            "table.jsonl: two rows for b, row 1 and row 3; keep one, or name the column",
        ),
        (
            [row("a")],
            [{"clip": "a", "mos": 1}, {"clip": "a", "mos": 1}],
            {"allow_unjoined": True},
            "two rows for a, row 1 and row 2",
        ),
        (
            [row("a", test=1)],
            [{"Clip": "a", "mos": 1}],
            {},
            "table.jsonl: there is no column clip, found Clip, mos; rename Clip to clip",
        ),
        (
            [row("a")],
            [{"clip": "a", "test": 1}],
            {"on": ("clip", "test")},
            "old.jsonl: there is no column test, found src, encoder, cq, frame_index",
        ),
        ([row("a")], [{"clip": "a"}], {}, "table.jsonl: there is no column to add, found clip"),
        (
            [row("a")],
            [{"clip": "a", "mos": 1}],
            {"columns": ("mos", "ci")},
            "table.jsonl: there is no column ci, found clip, mos",
        ),
        (
            [row("a")],
            [{"clip": "a", "mos": 1}],
            {"columns": ("mos", "clip")},
            "--columns: clip is joined on; leave it out",
        ),
        (
            [row("a"), row("b", mos=2.0)],
            [{"clip": "b", "mos": 2.5}, {"clip": "a", "mos": None}],
            {},
            "table.jsonl: mos of clip b is 2.5 here and 2.0 in the corpus; correct one of them",
        ),
        (
            [row("a", mos=None), row("b", mos=2.0)],
            [{"clip": "b", "mos": 2.0}, {"clip": "a", "mos": 1.0}],
            {},
            "mos of clip a is 1.0 here and None in the corpus",
        ),
        (
            [row("a"), row(None)],
            [{"clip": "a", "mos": 1}],
            {"allow_unjoined": True},
            "old.jsonl row 2: clip has no value; fill it in or drop the row",
        ),
        (
            [row("a")],
            [{"clip": "a", "mos": 1}, {"clip": " ", "mos": 1}],
            {"allow_unjoined": True},
            "table.jsonl row 2: clip has no value",
        ),
        (
            [row("a", test=1)],
            [{"test": "1", "mos": 1}, {"test": "two", "mos": 1}],
            {"on": ("test",)},
            "table.jsonl row 2: test is a number in the corpus, and here it is not, found 'two'",
        ),
        ([row("a", size=[1, 2])], [{"size": 1, "mos": 1}], {"on": ("size",)}, "size is a list or"),
        ([row("a")], [{"clip": "a", "mos": [1]}], {}, "table.jsonl: mos is a list or an object"),
        ([row("a"), row("a")], [{"clip": "a", "mos": 1}], {}, "old.jsonl line 2: the row of"),
        ([row("a")], [{"clip": "a", "mos": 1}], {"key": ("tset",)}, "no column tset to tell rows"),
    ],
)  # fmt: skip
def test_refusals(folder, rows, table, settings, refusal):
    with pytest.raises(LosoError) as refused:
        join(rows, table, **settings)
    assert refusal in str(refused.value)
    assert refused.value.exit_code == 2
    assert not list(folder.glob("new*"))


def test_a_key_that_is_no_number_is_refused():
    old = write("old.parquet", [row("a", test=1.0), row("b", test=float("nan"))])
    with pytest.raises(BadInput, match=r"^old\.parquet row 2: test has no value"):
        join(old, [{"test": 1, "mos": 1}], on=("test",), allow_unjoined=True)


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        ("", "table.csv: not a table (empty"),
        ("clip,mos\n", "table.csv: holds no rows"),
        ('{"clip": "a", "mos": 1}\n{"clip": "b", "mos"}\n', "table.csv line 2: not JSON"),
        ("clip,mos,mos\na,1,2\n", "table.csv: two columns are named mos"),
    ],
)
def test_what_is_no_table_is_refused(content, refusal):
    Path("table.csv").write_text(content)
    with pytest.raises(LosoError) as refused:
        join([row()], Path("table.csv"))
    assert refusal in str(refused.value)


def test_a_missing_file_is_named():
    with pytest.raises(BadInput, match=r"^table\.csv: file not found"):
        join([row()], Path("table.csv"))
    with pytest.raises(BadCorpus, match=r"^older\.jsonl: file not found"):
        join(Path("older.jsonl"), [{"clip": "a", "mos": 1}])


@pytest.mark.parametrize(
    ("out", "refusal"),
    [
        ("new.csv", "--out: not the name of a corpus, expected a name that ends in .jsonl, .js"),
        ("old.jsonl", "would take the place of the corpus that is joined, found old.jsonl; give"),
        ("link.jsonl", "would take the place of the corpus that is joined"),
        ("table.jsonl", "would take the place of the table that is joined"),
        ("old.jsonl.gz", "the manifest of the new corpus would take the place of the old one's"),
    ],
)
def test_inputs_are_never_overwritten(folder, out, refusal):
    write("old.jsonl", [row()])
    Path("link.jsonl").hardlink_to("old.jsonl")
    Path("table.jsonl").write_text('{"clip": "a", "mos": 1}\n')
    before = sorted(folder.iterdir())
    settings = JoinSettings(on=("clip",))
    with pytest.raises(BadSettings) as refused:
        join_table(Path("old.jsonl"), Path("table.jsonl"), settings, out=Path(out))
    assert refusal in str(refused.value)
    assert sorted(folder.iterdir()) == before


# -- The manifest ---------------------------------------------------------------------------------


def test_the_manifest_names_the_bytes_and_what_was_left_out():
    rows = [row("a"), row("b", encoder="h264"), row("b", 1, encoder="h264")]
    table = [{"clip": "a", "mos": 1, "cq": 20}, {"clip": "c", "mos": 2, "cq": 20}]
    report, new = join(rows, table, out="new.parquet", allow_unjoined=True, known_encoders=True)
    assert report.manifest == Path("new.parquet.manifest.json")
    manifest = read_json(report.manifest)
    assert manifest["corpus"] == {
        "file": "new.parquet",
        "rows": new.height,
        "sha256": sha256_of(Path("new.parquet")),
    }
    assert manifest["joined_corpus"] == {
        "file": "old.jsonl",
        "left_out": 2,
        "sha256": sha256_of(Path("old.jsonl")),
        "without_table": ["b"],
    }
    assert manifest["joined_table"] == {
        "columns": ["mos"],
        "file": "table.jsonl",
        "on": ["clip"],
        "sha256": sha256_of(Path("table.jsonl")),
        "without_corpus": ["c"],
    }
    assert manifest["encoder_aliases"] == {"h264 -> libx264": 2}
    assert manifest["warnings"] == list(report.warnings)
