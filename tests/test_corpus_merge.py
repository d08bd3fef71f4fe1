import gzip
import json
import os
from datetime import date
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clips import write_picture
from loso.corpus.build import build_corpus
from loso.corpus.choices import read_choices
from loso.corpus.load import load_corpus
from loso.corpus.merge import merge_corpora
from loso.corpus.plan import BuildSettings, plan_cells, rows_of
from loso.errors import BadCorpus, BadSettings, LosoError
from loso.files import MOST_RECORD_BYTES, read_json, sha256_of
from loso.schema import CANONICAL_6
from loso.video.clips import ClipSettings
from loso.video.encoders import ENCODERS
from loso.video.ffmpeg import find_ffmpeg

FEATURES = dict.fromkeys(CANONICAL_6, 0.5)
FORMATS = (".jsonl", ".jsonl.gz", ".parquet")
AGAIN = "copy both again, or move the manifest away: then nothing of it is compared"


def row(src="ant", frame=0, **more):
    start = {"src": src, "encoder": "libx264", "cq": 20, "frame_index": frame, "vmaf": 90.0}
    return {**start, **FEATURES, **more}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, rows):
    """Write rows in the format of the name, as a build writes JSON."""
    path = Path(path)
    if path.suffix == ".parquet":
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
        return path
    text = "".join(each if isinstance(each, str) else json.dumps(each) + "\n" for each in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def tell(path, *, clips=(), **tools):
    """Write a build's manifest beside a corpus."""
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    reference = {"width": 96, "height": 64, "pixel_format": "yuv420p", "fps": "25"}
    content = {
        "clips": {
            src: {**reference, "sha256": sha256, **more}
            for src, sha256, more in (clip if len(clip) == 3 else (*clip, {}) for clip in clips)
        },
        "corpus": {"sha256": sha256_of(path)},
        "tools": {"ffmpeg": "7.0", "libvmaf": "3.0", "vmaf_model": "vmaf_v0.6.1", **tools},
    }
    path.with_name(f"{name}.manifest.json").write_text(json.dumps(content))
    return path


def merge(*paths, out="new.jsonl", **options):
    return merge_corpora([Path(path) for path in paths], out=Path(out), **options)


def manifest_of(report):
    """What a manifest says but for its time."""
    content = read_json(report.manifest)
    assert content.pop("created_utc")
    return content


# -- What one build would have written ------------------------------------------------------------


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Build a corpus of two small clips in the current folder; cells are measured once."""
    folder, ffmpeg = tmp_path_factory.mktemp("clips"), find_ffmpeg()
    clips = []
    for name, source in {"bee": "testsrc2", "ant": "mandelbrot"}.items():
        clips.append(folder / f"{name}.mkv")
        write_picture(clips[-1], f"{source}=size=96x64:rate=25", 3)

    def build(name, encoders=("libx264", "libx265"), quality="20,40", paths=clips):
        settings = BuildSettings(
            choices=read_choices(list(encoders), quality=[quality], preset=["ultrafast"]),
            clips=ClipSettings(frames=3),
        )
        options = {"out": Path(name), "parts": folder / "parts"}
        return build_corpus(paths, settings, ffmpeg, **options).corpus

    build.clips = clips
    return build


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_shards_of_one_build_become_its_very_bytes(build, ending):
    whole = build(f"whole{ending}")
    shards = [
        build(f"one{ending}", encoders=["libx265"]),
        build("two.jsonl", encoders=["libx264"], paths=build.clips[:1]),
        build("three.jsonl.gz", encoders=["libx264"], paths=build.clips[1:], quality="40"),
        build("four.jsonl", paths=build.clips[1:], quality="20"),
    ]
    report = merge(*shards, out=f"merged{ending}")
    assert report.corpus.read_bytes() == whole.read_bytes()
    assert (report.rows, report.duplicates, report.sources) == (24, 3, ("ant", "bee"))
    assert report.warnings == ()
    merged, built = (read_json(Path(f"{name}.manifest.json")) for name in ("merged", "whole"))
    assert {k: merged[k] for k in ("cells", "clips", "missing")} == {
        k: built[k] for k in ("cells", "clips", "missing")
    }
    assert merged["shards"] == [
        {
            "file": path.name,
            "sha256": sha256_of(path),
            "rows": load_corpus(path).rows.height,
            "tools": built["tools"],
        }
        for path in sorted(shards)
    ]
    # And what one machine lacked stands there no longer.
    assert merge("merged" + ending, out="again.jsonl").rows == 24


def built_rows(clips, choices, heights, frames):
    """The rows of a build without its measurements: every number is another one."""
    cells = plan_cells(
        [
            SimpleNamespace(src=src, fps=25, frames=frames, width=64, height=48, path=Path(src))
            for src in clips
        ],
        BuildSettings(choices=choices, heights=heights),
    )
    rows = []
    for at, cell in enumerate(cells):
        numbers = [tuple((at * frames + f) * step for f in range(frames)) for step in (1e-7, 0.01)]
        measured = SimpleNamespace(
            vmaf=numbers[1],
            features=dict.fromkeys(CANONICAL_6, numbers[0]),
            packet_bytes=(at + 1,) * frames,
        )
        rows += rows_of(cell, measured)
    return rows


ENCODER_SETS = st.lists(st.sampled_from(sorted(ENCODERS)), min_size=1, max_size=4, unique=True)


@given(data=st.data())
@settings(max_examples=60)
def test_any_split_of_a_build_becomes_the_build(tmp_path_factory, data):
    encoders = data.draw(ENCODER_SETS)
    choices = read_choices(
        encoders,
        quality=[",".join(map(str, data.draw(st.lists(st.integers(1, 51), min_size=1))))],
        bitrate=data.draw(st.lists(st.sampled_from(["800k", "2M", "90k"]))),
        preset=[f"{e}={data.draw(st.sampled_from(ENCODERS[e].presets))}" for e in encoders],
    )
    names = st.lists(st.text("abé日_", min_size=1, max_size=2), min_size=1, max_size=3, unique=True)
    frames = data.draw(st.integers(1, 3))
    heights = data.draw(st.sampled_from([(), (48,), (48, 24)]))
    rows = built_rows(data.draw(names), choices, heights, frames)
    folder = tmp_path_factory.mktemp("split")
    whole = write(folder / "whole.jsonl", rows)
    # Each row goes into one shard at least; a shard knows no order.
    shards = data.draw(st.integers(1, 3))
    homes = st.lists(st.integers(0, shards - 1), min_size=1, max_size=2, unique=True)
    parts = [[] for _ in range(shards)]
    for each in data.draw(st.permutations(rows)):
        for home in data.draw(homes):
            parts[home].append(each)
    paths = [
        write(folder / f"{at}{data.draw(st.sampled_from(FORMATS))}", part)
        for at, part in enumerate(parts)
        if part
    ]
    report = merge(*data.draw(st.permutations(paths)), out=folder / "new.jsonl")
    assert report.corpus.read_bytes() == whole.read_bytes()
    assert report.rows == len(rows)
    assert report.duplicates == sum(map(len, parts)) - len(rows)


def test_a_built_row_has_its_columns_in_the_order_of_a_corpus():
    from loso.corpus.order import columns_in_order

    choices = read_choices(["h264_videotoolbox"], quality=["60"])
    (one,) = built_rows(["ant"], choices, (), 1)
    assert list(one) == columns_in_order(sorted(one))


# -- Whatever comes first -------------------------------------------------------------------------

VALUES = st.sampled_from([None, 0.0, -0.0, 1.0, 2.5, "x"])


@given(data=st.data())
@settings(max_examples=60)
def test_the_order_of_shards_changes_nothing(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("order")
    places = st.tuples(st.sampled_from("abc"), st.integers(0, 3))
    mos = {
        place: (data.draw(st.sampled_from([0, 1, 2.5])), data.draw(st.sampled_from(["A", "é"])))
        for place in data.draw(st.lists(places, min_size=2, max_size=12, unique=True))
    }

    def written(place):
        """A line that says the same as any other of this place, in one of several ways."""
        number, text = mos[place]
        told = row(*place, mos=number, panel=text)
        if data.draw(st.booleans()):
            told["mos"] = -0.0 if not number else float(number)
        if data.draw(st.booleans()):
            told = dict(reversed(told.items()))
        gap = data.draw(st.sampled_from(["", " ", "\t"]))
        ascii_only = data.draw(st.booleans())
        return gap + json.dumps(told, ensure_ascii=ascii_only) + gap + "\n"

    some = st.lists(st.sampled_from(sorted(mos)), min_size=1, unique=True)
    paths = []
    for at in range(data.draw(st.integers(1, 3))):
        lines = [written(place) for place in data.draw(some)]
        if data.draw(st.booleans()):
            lines.insert(data.draw(st.integers(0, len(lines))), " \n")
        paths.append(write(folder / f"{at}{data.draw(st.sampled_from(FORMATS[:2]))}", lines))
    if data.draw(st.booleans()):
        rows = [row(*place, mos=float(mos[place][0]), panel=mos[place][1]) for place in mos]
        paths.append(write(folder / "p.parquet", rows))
    ending = data.draw(st.sampled_from(FORMATS))
    out = folder / f"new{ending}"
    found = set()
    for order in permutations(paths):
        report = merge(*order, out=out)
        found.add((out.read_bytes(), report, json.dumps(manifest_of(report))))
    ((content, report, _),) = found
    # Once more, alone or with a part of itself, it stays as it is.
    for others in ([], [paths[0]]):
        again = merge(out, *others, out=folder / f"again{ending}")
        assert again.corpus.read_bytes() == content
        assert (again.rows, again.sources) == (report.rows, report.sources)
    assert load_corpus(out).rows.height == report.rows


@pytest.mark.parametrize("out", [f"new{ending}" for ending in FORMATS])
def test_the_names_of_shards_change_nothing(out):
    found = set()
    for one, other in (("a.jsonl", "b.jsonl"), ("b.jsonl", "a.jsonl")):
        write(one, [row(mos=0.0), row(frame=1, mos=2)])
        write(other, [row(mos=-0.0), row(frame=1, mos=2.0)])
        found.add(merge(one, other, out=out).corpus.read_bytes())
    assert len(found) == 1


def test_a_merge_of_merges_speaks_for_all_its_shards():
    clips = {"a.jsonl": ("ant", "1" * 64), "b.jsonl": ("bee", "2" * 64), "c.jsonl": ("cat", "1")}
    shards = [
        tell(write(name, [row(clip[0], clip=f"{clip[0]}_1")]), clips=[clip], ffmpeg=name)
        for name, clip in clips.items()
    ]
    at_once = merge(*shards, out="at_once.parquet")
    two = merge(*shards[:2], out="two.jsonl")
    stepwise = merge(two.corpus, shards[2], out="stepwise.parquet")
    assert stepwise.corpus.read_bytes() == at_once.corpus.read_bytes()
    one, other = manifest_of(at_once), manifest_of(stepwise)
    for same in ("shards", "clips", "cells", "missing", "duplicates", "schema_version"):
        assert one[same] == other[same]
    assert [part["file"] for part in one["shards"]] == list(clips)
    versions = (
        "several versions of ffmpeg, whose encodes may differ: a.jsonl in a.jsonl; b.jsonl in "
        "b.jsonl; c.jsonl in c.jsonl"
    )
    assert at_once.warnings[0] == stepwise.warnings[0] == versions


def test_what_one_shard_lacked_and_another_has_is_not_missing():
    shards = []
    for name, cells, missing in (
        ("a.jsonl", ["x"], {"y": "no room", "z": "no room"}),
        ("b.jsonl", ["y"], {"z": "killed"}),
    ):
        path = tell(write(name, [row(clip=cells[0], frame=len(shards))]))
        told = read_json(Path(f"{path.stem}.manifest.json"))
        told |= {"missing": missing, "cells": [{"clip": c, "seconds": 1.5} for c in cells]}
        Path(f"{path.stem}.manifest.json").write_text(json.dumps(told))
        shards.append(path)
    manifest = manifest_of(merge(*shards))
    assert manifest["cells"] == [{"clip": "x", "seconds": 1.5}, {"clip": "y", "seconds": 1.5}]
    assert manifest["missing"] == {"z": "killed"}


def test_a_shard_knows_what_it_shares():
    write("a.jsonl", [row(frame=at) for at in range(3)])
    write("b.jsonl", [row(frame=at) for at in (2, 4)])
    report = merge("b.jsonl", "a.jsonl")
    assert [(s.path, s.rows, s.shared) for s in report.shards] == [
        ("a.jsonl", 3, 1),
        ("b.jsonl", 2, 1),
    ]
    assert (report.rows, report.duplicates) == (4, 1)
    assert manifest_of(report)["duplicates"] == 1


def test_a_key_tells_rows_apart():
    shards = [write(f"{test}.jsonl", [row(test=test, vmaf=test)]) for test in (1, 2)]
    assert merge(*shards, key=["test"]).rows == 2
    with pytest.raises(BadCorpus, match="vmaf of one row is 1 in the first and 2 in the second"):
        merge(*shards)


# -- What cannot be one corpus --------------------------------------------------------------------


def refusal(*paths, kind=BadCorpus, **options):
    before = sorted(Path().iterdir())
    with pytest.raises(LosoError) as refused:
        merge(*paths, **options)
    assert type(refused.value) is kind
    assert sorted(Path().iterdir()) == before
    return str(refused.value)


@pytest.mark.parametrize(
    ("ending", "place"), [(".jsonl", "line 4"), (".jsonl.gz", "line 4"), (".parquet", "row 3")]
)
def test_two_values_of_one_row_are_refused_with_both(ending, place):
    rows = [row(frame=at, preset="fast", note=f"n{at}") for at in range(4)]
    others = [{**each} for each in rows[1:]]
    others[2]["vmaf"] = 12.5
    others[1] |= {"adm2": 0.25, "note": None}
    blank = [] if ending == ".parquet" else [" \n"]
    write("a.jsonl", rows)
    write(f"b{ending}", [*blank, *[others[2], others[0], others[1]]])
    expected = (
        f"a.jsonl line 3 and b{ending} {place}: adm2 of one row is 0.5 in the first and 0.25 in "
        'the second, found src "ant", encoder "libx264", preset "fast", cq 20, frame_index 2, and '
        "1 rows more; drop one of the two, measure again, or name the column that tells them "
        "apart (--key)"
    )
    for order in (["a.jsonl", f"b{ending}"], [f"b{ending}", "a.jsonl"]):
        for out in ("new.jsonl", "new.parquet"):
            assert refusal(*order, out=out) == expected


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({"height": 480}, "vmaf of one row is 90 in the first and 45 in the second"),
        ({"rate_control": "bitrate"}, "vmaf of one row is 90 in the first and 45 in the second"),
        ({"height": 480, "vmaf": 90.0}, "height of one row is 240 in the first and 480 in the"),
    ],
)
def test_what_names_no_row_hides_no_contradiction(theirs, said):
    """Rows are put out by height and rate control first, which tell no two of them apart."""
    ours = {"height": 240, "rate_control": "quality", "preset": "fast"}
    rows = [row(cq=cq, frame=at, **ours) for cq in (20, 30) for at in range(4)]
    write("a.jsonl", rows)
    write("b.jsonl", [{**each, "vmaf": 45.0, **theirs} for each in rows])
    for shards in permutations(("a.jsonl", "b.jsonl")):
        text = refusal(*shards)
        assert text.startswith(f"a.jsonl line 1 and b.jsonl line 1: {said}")
        assert "cq 20, frame_index 0, and 7 rows more; drop one of the two" in text


SEEN = st.fixed_dictionaries(
    {
        "cq": st.sampled_from([-3, 0, -0.0, 20]),
        "frame": st.integers(0, 1),
        "height": st.sampled_from([None, 240, 480]),
        "rate_control": st.sampled_from([None, "quality", "bitrate"]),
    }
)


@given(one=st.lists(SEEN, min_size=1, max_size=6), other=st.lists(SEEN, min_size=1, max_size=6))
@settings(max_examples=100)
def test_what_is_merged_has_no_row_twice(tmp_path_factory, one, other):
    folder, told = tmp_path_factory.mktemp("twice"), []
    for name, seen in (("a", one), ("b", other)):
        own = {(each["cq"], each["frame"]): row(**each) for each in seen}
        told.append(own)
        write(folder / f"{name}.jsonl", own.values())
    agrees = all(told[0][same] == told[1][same] for same in set(told[0]) & set(told[1]))
    shards = (folder / "a.jsonl", folder / "b.jsonl")
    if not agrees:
        with pytest.raises(BadCorpus, match=" of one row is "):
            merge(*shards, out=folder / "new.jsonl")
        return
    report = merge(*shards, out=folder / "new.jsonl")
    assert load_corpus(report.corpus).rows.height == report.rows == len(told[0] | told[1])


def test_nothing_is_another_value_than_something():
    write("a.jsonl", [row(mos=1.5), row(frame=1, mos=2)])
    write("b.jsonl", [row(mos=None), row(frame=3, mos=2)])
    assert "mos of one row is 1.5 in the first and nothing in the second" in refusal(
        "a.jsonl", "b.jsonl"
    )


@pytest.mark.parametrize(
    ("more", "found", "fix"),
    [
        (
            {"clip": "c", "mos": 1.5},
            "no test, clip beside them",
            "clip names a row, so all shards need it, or none",
        ),
        ({}, "no mos, no test", "add them with loso corpus join, or drop them"),
        (
            {"mos": 1.5, "test": 1, "quality_setting": 60.0, "note": None},
            "note beside them",
            "add them with loso corpus join, or drop them",
        ),
    ],
)
def test_other_columns_are_refused(more, found, fix):
    write("a.jsonl", [row(mos=1.5, test=1)])
    write("b.jsonl", [row("bee", **more)])
    assert refusal("a.jsonl", "b.jsonl") == (
        f"b.jsonl: its columns are not those of a.jsonl, found {found}; {fix}"
    )


def test_another_type_is_refused():
    write("a.jsonl", [row(mos=1.5, tags=None)])
    write("b.jsonl", [row("bee", mos=2, tags=[1])])
    write("c.jsonl", [row("cat", mos="3", tags=[1])])
    assert refusal("c.jsonl", "b.jsonl", "a.jsonl") == (
        "c.jsonl: mos has another type than in a.jsonl, expected a number, found text; "
        "write one type in all shards"
    )
    assert merge("a.jsonl", "b.jsonl").rows == 2
    write("c.jsonl", [row("cat", mos=3, tags=["x"])])
    assert "tags has another type than in b.jsonl, expected List(Int64)" in refusal(
        "a.jsonl", "b.jsonl", "c.jsonl"
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([date(2020, 1, 2)], "day cannot be written as JSON (Object of type date is not JSON"),
        ([1.5, float("nan")], "day cannot be written as JSON (Out of range float values are not"),
    ],
)
def test_what_json_lacks_stays_in_parquet(values, said):
    write("a.parquet", [row(frame=at, day=day) for at, day in enumerate(values)])
    text = refusal("a.parquet")
    assert text.startswith(f"a.parquet row {len(values)}: {said}")
    assert text.endswith("; drop the column, or write the new corpus as Parquet")
    assert merge("a.parquet", out="new.parquet").rows == len(values)


def test_shards_scored_with_two_models_are_refused():
    tell(write("a.jsonl", [row()]))
    tell(write("b.jsonl", [row("bee")]), vmaf_model="vmaf_v0.6.1neg")
    expected = (
        "b.jsonl: scored with another VMAF model than a.jsonl, expected vmaf_v0.6.1, found "
        "vmaf_v0.6.1neg; measure both with one model, or keep two corpora"
    )
    assert refusal("b.jsonl", "a.jsonl") == expected
    merge("a.jsonl", out="m.jsonl")
    assert refusal("b.jsonl", "m.jsonl") == (
        "m.jsonl: scored with another VMAF model than b.jsonl, expected vmaf_v0.6.1neg, found "
        "vmaf_v0.6.1; measure both with one model, or keep two corpora"
    )


def test_one_source_of_two_contents_is_refused():
    tell(write("a.jsonl", [row()]), clips=[("ant", "1" * 64), ("bee", "3" * 64)])
    tell(write("b.jsonl", [row(frame=1)]), clips=[("ant", "2" * 64)])
    assert refusal("a.jsonl", "b.jsonl") == (
        f"b.jsonl: source ant is another clip than in a.jsonl, expected sha256 {'1' * 64}, found "
        f"{'2' * 64}; a source is one content: rename one of the clips, and build its shard again"
    )


def test_a_shard_that_changed_since_its_manifest_is_refused():
    path = tell(write("a.jsonl", [row()]))
    before = sha256_of(path)
    write("a.jsonl", [row(vmaf=91)])
    assert refusal("a.jsonl") == (
        f"a.jsonl: not the bytes that its manifest names, expected sha256 {before}, found "
        f"{sha256_of(path)}; copy both again, or move the manifest away: then nothing of it is "
        "compared"
    )
    Path("a.manifest.json").unlink()
    assert merge("a.jsonl").rows == 1


def test_a_shard_that_was_packed_since_is_the_same():
    path = tell(write("a.jsonl", [row()]), clips=[("ant", "1" * 64)])
    write("a.jsonl.gz", path.read_text().splitlines(keepends=True))
    path.unlink()
    assert merge("a.jsonl.gz").warnings == ()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "not valid JSON"),
        ('{"corpus": {"sha256": NaN}}', "not valid JSON (NaN is no number in JSON)"),
        ("[]", "the record cannot be used: "),
        ("{}", "corpus cannot be used: Field required"),
        ('{"corpus": {"sha256": 5}}', "corpus.sha256 cannot be used: "),
        ('{"corpus": {"sha256": "x"}, "clips": {"a": {}}}', "clips.a.sha256 cannot be used: "),
        ('{"corpus": {"sha256": "x"}, "shards": [{}]}', "shards.0.file cannot be used: "),
    ],
)
def test_a_manifest_that_is_none_is_refused(content, text):
    write("a.jsonl", [row()])
    Path("a.manifest.json").write_text(content)
    with pytest.raises(LosoError) as refused:
        merge("a.jsonl")
    assert refused.value.exit_code == 2
    assert str(refused.value).startswith(f"a.manifest.json: {text}")


def test_a_manifest_that_cannot_be_read_is_refused():
    write("a.jsonl", [row()])
    Path("a.manifest.json").mkdir()
    assert refusal("a.jsonl") == f"a.manifest.json: cannot be read (Is a directory); {AGAIN}"


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_a_manifest_may_grow_with_its_corpus(monkeypatch, ending):
    """The floor is lowered: else the corpus would have to be one of megabytes."""
    monkeypatch.setattr("loso.corpus.origins.MOST_RECORD_BYTES", 2000)
    path = tell(write(f"a{ending}", [row(frame=number) for number in range(100)]))
    manifest, most = Path("a.manifest.json"), 16 * path.stat().st_size
    told = manifest.read_text()
    manifest.write_text(told + " " * (most - len(told)))
    assert merge(path).rows == 100
    manifest.write_text(told + " " * (most - len(told) + 1))
    assert refusal(path) == (
        f"a.manifest.json: cannot be read ({most + 1} bytes, {most} are read); {AGAIN}"
    )
    manifest.unlink()
    assert merge(path).rows == 100


def test_the_manifest_of_a_small_corpus_may_be_what_any_record_may():
    path = tell(write("a.jsonl", [row()]))
    told = Path("a.manifest.json").read_text()
    Path("a.manifest.json").write_text(told + " " * 2**20)
    assert merge(path).rows == 1
    with Path("a.manifest.json").open("wb") as stream:
        stream.truncate(MOST_RECORD_BYTES + 1)
    assert f"({MOST_RECORD_BYTES + 1} bytes, {MOST_RECORD_BYTES} are read)" in refusal(path)


def test_a_shard_is_never_replaced():
    write("a.jsonl", [row()])
    Path("link.jsonl").symlink_to("a.jsonl")
    os.link("a.jsonl", "hard.jsonl")
    for out in ("a.jsonl", "./a.jsonl", "link.jsonl", "hard.jsonl"):
        assert refusal("a.jsonl", out=out, kind=BadSettings) == (
            f"--out: would take the place of a shard that is merged, found {Path(out)}; "
            "give the new corpus another name"
        )
    assert refusal("a.jsonl", out="a.jsonl.gz", kind=BadSettings) == (
        "--out: the manifest of the new corpus would take the place of the old one's, found "
        "a.jsonl.gz; give the new corpus another name"
    )
    assert refusal("a.jsonl", out="a.csv", kind=BadSettings) == (
        "--out: not the name of a corpus, expected a name that ends in .jsonl, .jsonl.gz, "
        ".parquet, found a.csv"
    )


def test_a_shard_that_is_no_corpus_is_refused_as_everywhere():
    write("a.jsonl", [row(), row()])
    assert "a.jsonl line 2: the row of line 1 again" in refusal("a.jsonl")
    assert "nothing.jsonl: file not found" in refusal("nothing.jsonl")
    assert "there is no column clap to tell rows apart" in refusal("a.jsonl", key=["clap"])


# -- What is warned about -------------------------------------------------------------------------


def test_what_made_shards_differ_is_said_with_what_each_had():
    Path("far").mkdir()
    clips = [("ant", "1" * 64)]
    tell(write("a.jsonl", [row()]), clips=clips)
    tell(write("b.jsonl", [row(frame=1)]), clips=clips, libvmaf="2.3.1")
    tell(write("far/b.jsonl", [row(frame=2)]), clips=clips, libvmaf="2.3.1", ffmpeg="6.1")
    report = merge("a.jsonl", "b.jsonl", "far/b.jsonl")
    assert report.warnings == (
        (
            "several versions of libvmaf, whose features and scores may differ: 2.3.1 in b.jsonl, "
            "far/b.jsonl; 3.0 in a.jsonl"
        ),
        (
            "several versions of ffmpeg, whose encodes may differ: 6.1 in far/b.jsonl; 7.0 in "
            "a.jsonl, b.jsonl"
        ),
    )
    assert tuple(manifest_of(report)["warnings"]) == report.warnings


def test_one_content_under_two_names_is_warned_about():
    tell(write("a.jsonl", [row()]), clips=[("ant", "1" * 64), ("cat", "2" * 64)])
    tell(write("b.jsonl", [row("bee")]), clips=[("bee", "1" * 64)])
    assert merge("a.jsonl", "b.jsonl").warnings == (
        (
            "ant (a.jsonl) and bee (b.jsonl) are the same file: as two sources they leak into each "
            "other"
        ),
    )


def test_references_of_two_sizes_are_warned_about():
    tell(write("a.jsonl", [row()]), clips=[("ant", "1" * 64)])
    tell(write("b.jsonl", [row(frame=1)]), clips=[("ant", "1" * 64, {"height": 32})])
    assert merge("b.jsonl", "a.jsonl").warnings == (
        (
            "ant was scored against references of several kinds: 96x64 yuv420p at 25 frames a "
            "second in a.jsonl, 96x32 yuv420p at 25 frames a second in b.jsonl"
        ),
    )


def test_what_no_manifest_says_is_said():
    tell(write("a.jsonl", [row()]), clips=[("ant", "1" * 64)])
    write("b.jsonl", [row("bee")])
    write("c.jsonl", [row("cat")])
    told = {"corpus": {"sha256": sha256_of(Path("c.jsonl"))}, "tools": {"libvmaf": "3.0"}}
    Path("c.manifest.json").write_text(json.dumps(told))
    assert merge("a.jsonl", "b.jsonl", "c.jsonl").warnings == (
        "not compared, as no manifest says it: its clips and the VMAF model and libvmaf of b.jsonl",
        "not compared, as no manifest says it: its clips and the VMAF model of c.jsonl",
    )
