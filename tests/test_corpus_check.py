import json
import statistics
import sys
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loso.cli import main
from loso.corpus.check import Rise, Spread, describe_corpus
from loso.corpus.load import load_corpus
from loso.recipe import TrainingNeeds
from loso.schema import CANONICAL_6

FLOAT64 = 1e-9
"""Error of a mean of VMAF values, whatever the order of summation."""


def row(src="ant", cq=20, vmaf=90.0, frame_index=0, **more):
    features = dict.fromkeys(CANONICAL_6, 0.5)
    return {
        "src": src,
        "encoder": "libx264",
        "cq": cq,
        "frame_index": frame_index,
        "vmaf": vmaf,
        **features,
        **more,
    }


@pytest.fixture
def describe(tmp_path):
    """Write rows as a corpus and return its summary."""

    def run(rows, *, key=(), needs=None):
        path = tmp_path / "corpus.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return describe_corpus(load_corpus(path, key=key), needs)

    return run


# -- Counts ---------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from(["libx264", "libx265", "theora"]),
            st.sampled_from([20, 30]),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=40,
        unique=True,
    ),
    st.data(),
)
def test_counts_equal_plain_python(tmp_path_factory, ids, data):
    rows = [
        row(src, cq, data.draw(st.sampled_from([0.0, 50.0, 100.0])), frame, encoder=encoder)
        for src, encoder, cq, frame in ids
    ]
    path = tmp_path_factory.mktemp("counts") / "c.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    summary = describe_corpus(load_corpus(path))

    per_source = Counter(src for src, *_ in ids)
    per_clip = Counter(name[:3] for name in ids)
    vmafs = [r["vmaf"] for r in rows]
    assert summary.rows == len(ids)
    assert summary.clips == len(per_clip)
    assert {s.source: s.rows for s in summary.sources} == per_source
    assert [s.source for s in summary.sources] == sorted(per_source)
    assert {e.encoder: e.rows for e in summary.encoders} == Counter(name[1] for name in ids)
    assert summary.rows_per_source == spread(per_source.values())
    assert summary.frames_per_clip == spread(per_clip.values())
    assert summary.vmaf == spread(vmafs)
    assert summary.saturated_share == vmafs.count(100) / len(rows)
    for source in summary.sources:
        mine = [r for r in rows if r["src"] == source.source]
        assert source.clips == len({(r["encoder"], r["cq"]) for r in mine})
        assert source.encoders == tuple(sorted({r["encoder"] for r in mine}))
        assert source.vmaf_mean == pytest.approx(
            statistics.fmean(r["vmaf"] for r in mine), abs=FLOAT64
        )
    assert json.loads(json.dumps(summary.to_dict(), allow_nan=False))["rows"] == len(ids)


def spread(values):
    return Spread(min(values), statistics.median(values), max(values))


def test_presets_and_qualities_stand_by_encoder(describe):
    rows = [row(cq=cq, preset=preset) for cq in (30, 20.5) for preset in ("slow", "fast", None)]
    (encoder,) = describe(rows).encoders
    assert encoder.presets == ("fast", "slow")
    assert encoder.cq == (20.5, 30.0)
    assert describe([row(preset=8)]).encoders[0].presets == ("8",)


# -- What deserves a second look ------------------------------------------------------------------


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("ab"), st.sampled_from([None, "fast", "slow"])),
        st.dictionaries(st.integers(-3, 5), st.floats(0, 100), min_size=1, max_size=5),
        min_size=1,
    )
)
def test_steps_of_quality_equal_plain_python(tmp_path_factory, ladders):
    """Steps lead between neighbouring qualities of one clip, never from a bitrate to a quality."""
    rows, rises, steps = [], defaultdict(float), 0
    for (src, preset), vmafs in ladders.items():
        rows += [row(src, cq, vmaf, preset=preset) for cq, vmaf in vmafs.items()]
        for kind in (
            sorted(cq for cq in vmafs if cq < 0),
            sorted(cq for cq in vmafs if cq >= 0),
        ):
            for one, other in pairwise(kind):
                steps += 1
                rise = vmafs[other] - vmafs[one]
                if rise > 0.5:
                    rises[f"{src} libx264 {preset or ''}".strip(), one, other] = rise
    path = tmp_path_factory.mktemp("steps") / "c.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    summary = describe_corpus(load_corpus(path))
    assert summary.steps == steps
    seen = {(r.clip, r.cq_from, r.cq_to): r.vmaf_rise for r in summary.rises}
    assert seen == pytest.approx(dict(rises), abs=FLOAT64)
    sizes = [r.vmaf_rise for r in summary.rises]
    assert sizes == sorted(sizes, reverse=True)


def test_a_clip_that_improves_as_it_gets_cheaper_is_named(describe):
    vmafs = {20: 90.0, 30: 80.0, 40: 82.0, 50: 82.5}
    summary = describe([row(cq=cq, vmaf=vmaf) for cq, vmaf in vmafs.items()])
    assert summary.rises == (Rise("ant libx264", 30, 40, 2.0),)
    assert (
        "VMAF rises by more than 0.5 with a cheaper cq on 1 of 3 steps, most by 2.00: "
        "ant libx264, cq 30 to 40"
    ) in summary.notes


def test_a_scale_that_runs_the_other_way_is_noticed(describe):
    summary = describe([row(cq=kbps, vmaf=kbps / 100) for kbps in (1000, 2000, 4000)])
    assert summary.notes == (
        "VMAF rises with cq on 2 of 2 steps: a larger cq must be cheaper, turn the scale round",
    )


def test_encodes_that_differ_in_more_than_quality_are_not_compared(describe):
    def rows(**columns):
        (name, values), *_ = columns.items()
        return [row(cq=20, vmaf=50, **{name: values[0]}), row(cq=30, vmaf=90, **{name: values[1]})]

    assert describe(rows(preset=["slow", "fast"])).steps == 0
    assert describe(rows(height=[360, 1080])).steps == 0
    assert describe(rows(rate_control=["quality", "bitrate"])).steps == 0
    assert describe(rows(test=[1, 2]), key=["test"]).steps == 0
    assert describe(rows(fps=[25, 25])).steps == 1


def test_a_clip_name_tells_parts_of_a_source_apart_but_not_its_encodes(describe):
    encodes = [row(cq=20, clip="ant_q20"), row(cq=30, clip="ant_q30")]
    assert describe(encodes).steps == 1
    scenes = [row(cq=cq, clip=scene) for cq in (20, 30) for scene in ("one", "two")]
    assert describe(scenes).steps == 2
    assert describe(scenes).rises == ()


def test_thin_sources_are_named(describe):
    frames = {"ant": 4, "bee": 4, "cat": 2, "dog": 1}
    summary = describe([row(src, frame_index=i) for src, n in frames.items() for i in range(n)])
    assert summary.thin_sources == ("dog",)
    assert summary.notes == ("sources with fewer than half the rows of the median source: dog",)


def test_sources_with_one_encoder_are_named_where_others_have_more(describe):
    rows = [row(f"s{i}") for i in range(7)]
    assert describe(rows).notes == ()
    assert describe([*rows, row("s0", encoder="libx265")]).notes == (
        "sources with one encoder, where others have more: s1, s2, s3, s4, s5 and 1 more",
    )


def test_values_at_the_top_and_out_of_the_usual_are_noted(describe):
    rows = [row(frame_index=i, vmaf=100 if i < 2 else 90) for i in range(10)]
    assert describe(rows).notes == (
        "VMAF stands at its top, where it is clipped, in 20% of the rows",
    )
    assert describe(rows[1:]).notes == (
        "VMAF stands at its top, where it is clipped, in 11% of the rows",
    )
    assert describe([*rows[1:], row(frame_index=10)]).notes == ()
    odd = describe([row(adm2=1.18, vif_scale0=1.25, motion2=-0.1), row("bee", motion2=30)])
    assert odd.notes == (
        "vif_scale0 leaves its usual 0..1.2: 0.5..1.25",
        "motion2 leaves its usual 0..inf: -0.1..30",
    )


def test_warnings_of_the_loader_come_first(describe):
    assert describe([row(encoder="theora")]).notes[0].endswith("rows of each: theora 1")


def test_what_training_lacks_is_said(describe):
    rows = [row(src, frame_index=i) for src in ("ant", "bee") for i in range(50)]
    assert describe(rows).trainable
    assert not describe(rows).shortfall
    short = describe(rows, needs=TrainingNeeds(min_rows=101))
    assert not short.trainable
    assert short.shortfall.endswith(
        "too few rows to train on, expected at least 101, found 100; "
        "build a larger corpus: loso corpus build --help"
    )


# -- loso corpus check ----------------------------------------------------------------------------


@pytest.fixture
def loso(monkeypatch, capsys):
    """Run the command line; return its exit code, stdout and stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["loso", "corpus", "check", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, *capsys.readouterr()

    return run


def test_check_prints_what_a_corpus_holds(loso, make_corpus):
    path = make_corpus(edit=lambda i, r: r.update(preset="8" if i % 2 else "fast"))
    code, out, err = loso(path, "--min-rows", "72")
    digest = load_corpus(path).sha256
    assert code == 0
    assert not err
    lines = out.splitlines()
    assert lines[:4] == [
        f"{path}: 72 rows, 36 clips, 3 sources",
        f"sha256         {digest}",
        "rows a source  24..24, median 24",
        "frames a clip  2..2, median 2",
    ]
    assert lines[6:9] == [
        "encoder    rows  presets  cq",
        "libsvtav1    36  8 fast   20 30 40",
        "libx264      36  8 fast   20 30 40",
    ]
    assert lines[10] == "source  rows  clips  encoders  mean vmaf"
    assert lines[11].startswith("ant       24     12         2      ")
    assert lines[-1] == "can be trained on"


def test_check_lists_notes_and_shortens_long_rows_of_qualities(loso, tmp_path):
    path = tmp_path / "c.jsonl"
    rows = [row(cq=cq, encoder="theora") for cq in range(9)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    code, out, _ = loso(path)
    assert code == 1
    assert "theora      9  -        0..8, 9 values\n" in out
    assert "note: encoders outside the vocabulary share its slot unknown" in out
    assert out.splitlines()[-1].startswith(f"not trainable: {path}: too few sources to train on")


def test_check_draws_a_table_on_a_terminal(loso, make_corpus, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    path = make_corpus(edit=lambda _, r: r.update(src=f"[red]{r['src']}"))
    _, out, _ = loso(path)
    assert "[red]bee" in out


def test_check_prints_one_object(loso, make_corpus):
    code, out, err = loso(make_corpus(), "--json")
    content = json.loads(out)
    assert code == 1
    assert not err
    assert out.count("\n") == 1
    assert content["rows"] == 72
    assert content["trainable"] is False
    assert content["sources"][0]["source"] == "ant"
    assert content["rows_per_source"] == {"min": 24, "median": 24, "max": 24}


def test_check_passes_the_key_and_refuses_bad_input(loso, make_corpus):
    path = make_corpus(edit=lambda i, r: r.update(frame_index=0, panel=i))
    code, out, err = loso(path)
    assert code == 2
    assert not out
    assert "the row of line 1 again" in err
    assert loso(path, "--key", "panel", "--min-rows", "72")[0] == 0
    code, out, _ = loso(path.with_name("none.jsonl"), "--json")
    assert code == 2
    assert json.loads(out)["problem"] == "file not found"
