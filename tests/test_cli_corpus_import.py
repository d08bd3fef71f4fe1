import json
import re
from pathlib import Path

import polars as pl
import pytest

from loso import load_corpus
from loso.files import read_json
from loso.schema import CANONICAL_6

FORMATS = Path(__file__).parents[1] / "docs" / "formats.md"
PATTERN = ("--name-pattern", "{src}_{cq}kbps_{height}p_{encoder}")
CLIPS = ("ant_200kbps_64p_h264", "ant_800kbps_64p_h264", "bee_200kbps_64p_x265")


@pytest.fixture
def loso(loso, tmp_path, monkeypatch):
    """Import the three logs of an empty folder; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    for clip in CLIPS:
        features = dict.fromkeys(CANONICAL_6, 0.5)
        frames = [{"frameNum": at, "metrics": {**features, "vmaf": 90.0 + at}} for at in range(2)]
        Path(f"{clip}.json").write_text(json.dumps({"version": "3.0.0", "frames": frames}))

    def run(*words, pattern=PATTERN, logs=CLIPS):
        paths = [f"{clip}.json" for clip in logs]
        return loso("corpus", "import", *paths, "--out", "c.jsonl", *pattern, *words)

    return run


@pytest.fixture
def scores(tmp_path):
    """Write a table of scores from lines; return its path."""

    def scores(*lines, header="clip,mos,mos_std", name="mos.csv"):
        path = tmp_path / name
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return path.name

    return scores


def rows_of(clip):
    return load_corpus("c.jsonl").rows.filter(pl.col("clip") == clip)


WHOLE = [f"{clip},{1.5 + at},0.{at}" for at, clip in enumerate(CLIPS)]


def test_the_whole_way(loso, scores):
    code, out, err = loso("--scores", scores(*WHOLE), "--scale", "1..5", "--set", "preset=fast")
    assert code == 0
    assert out == (
        "c.jsonl: 6 rows from 3 logs\n"
        "\n"
        "logs                  3\n"
        "rows                  6\n"
        "sources               2: ant, bee\n"
        "encoders              2: libx264, libx265\n"
        "renamed               h264 -> libx264 (logs: 2)\n"
        "renamed               x265 -> libx265 (logs: 1)\n"
        "libvmaf               3.0.0\n"
        "joined                3 logs with their scores\n"
        "logs without a score  0\n"
        "scores without a log  0\n"
    )
    assert "import: 100% in 0 s, bee_200kbps_64p_x265\n" in err
    row = rows_of(CLIPS[2]).row(1, named=True)
    assert row == {
        "src": "bee",
        "encoder": "libx265",
        "preset": "fast",
        "cq": -200,
        "frame_index": 1,
        "vmaf": 91.0,
        **dict.fromkeys(CANONICAL_6, 0.5),
        "clip": CLIPS[2],
        "bitrate_kbps": 200,
        "height": 64,
        "rate_control": "bitrate",
        "mos": 3.5,
        "mos_std": 0.2,
    }


def test_without_scores_nothing_is_said_of_them(loso):
    code, out, _ = loso()
    assert code == 0
    assert "joined" not in out
    assert "mos" not in rows_of(CLIPS[0]).columns


def documented(title):
    text = FORMATS.read_text(encoding="utf-8")
    (section,) = re.findall(
        rf"^### {re.escape(title)}\n(.*?)(?=^#)", text, re.MULTILINE | re.DOTALL
    )
    return re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)


def test_every_key_is_documented(loso, scores):
    table = scores(*WHOLE[:1], "cat,3,0.1")
    code, out, _ = loso("--scores", table, "--allow-unjoined", "--scale", "1..5", "--json")
    assert code == 0
    report = json.loads(out)
    assert report == {
        "aliases": {"h264 -> libx264": 1},
        "corpus": "c.jsonl",
        "encoders": ["libx264"],
        "libvmaf": {"3.0.0": 1},
        "logs": 1,
        "logs_without_score": [CLIPS[1], CLIPS[2]],
        "manifest": "c.manifest.json",
        "rows": 2,
        "scored": 1,
        "scores_without_log": ["cat"],
        "sources": ["ant"],
        "warnings": [],
    }
    assert sorted(documented("`loso corpus import --json`")) == sorted(report)
    manifest = read_json(Path("c.manifest.json"))
    assert manifest["command"].startswith("loso corpus import ant_200kbps_64p_h264.json")
    assert manifest["scores"]["join"] == ["clip"]
    assert manifest["scores"]["scores_without_log"] == ["cat"]
    assert manifest["settings"] == {"name_pattern": PATTERN[1], "set": {}}
    parts = ("corpus", "scores", "settings", "tools")
    found = {key for key in manifest if key not in {*parts, "scores"}} | {"scores"}
    found |= {f"{part}.{key}" for part in parts for key in manifest[part]}
    found |= {f"logs[].{key}" for key in manifest["logs"][0]}
    assert sorted(documented("Import manifest")) == sorted(found)


def test_what_does_not_join_is_refused_by_name_on_both_sides(loso, scores):
    code, out, err = loso("--scores", scores(*WHOLE[:2], "cat,3,0.1"))
    assert (code, out) == (2, "")
    assert (
        "loso: mos.csv: logs and scores do not match: 1 log without a score "
        "(bee_200kbps_64p_x265), 1 score without a log (cat); name them alike, or leave these "
        "out with --allow-unjoined\n"
    ) in err
    assert not Path("c.jsonl").exists()
    assert not Path("c.manifest.json").exists()


def test_what_does_not_join_is_listed_where_it_is_allowed(loso, scores):
    code, out, _ = loso("--scores", scores(*WHOLE[:2], "cat,3,0.1"), "--allow-unjoined")
    assert code == 0
    assert "joined                2 logs with their scores\n" in out
    assert "logs without a score  1: bee_200kbps_64p_x265\n" in out
    assert "scores without a log  1: cat\n" in out
    assert load_corpus("c.jsonl").sources == ("ant",)


def test_where_nothing_joins_nothing_is_allowed(loso, scores):
    code, _, err = loso("--scores", scores("cat,3,0.1"), "--allow-unjoined")
    assert code == 2
    assert "none match: give the columns that name a clip in both with --join, not clip" in err


def test_other_columns_can_name_a_clip_and_numbers_and_encoders_are_compared_as_such(loso, scores):
    lines = ["ant;200.0;avc;1,5;x", "ant;800;libx264;2.5;", "bee;200;hevc;3;z"]
    table = scores(*lines, header="src;bitrate_kbps;encoder;mos;lab")
    code, _, err = loso("--scores", table, "--join", "src,bitrate_kbps,encoder")
    assert (code, "mos is not a finite number, found 1,5" in err) == (2, True)
    table = scores(
        *lines[1:], lines[0].replace(",", "."), header="src;bitrate_kbps;encoder;mos;lab"
    )
    assert loso("--scores", table, "--join", "src,bitrate_kbps, encoder")[0] == 0
    rows = load_corpus("c.jsonl").rows.filter(pl.col("frame_index") == 0)
    assert rows["mos"].to_list() == [1.5, 2.5, 3]
    assert rows["lab"].to_list() == ["x", None, "z"]


def test_tabs_and_parquet_are_read_by_content(loso, scores, tmp_path):
    lines = [line.replace(",", "\t") for line in WHOLE]
    assert loso("--scores", scores(*lines, header="clip\tmos\tmos_std", name="a.txt"))[0] == 0
    first = Path("c.jsonl").read_bytes()
    table = pl.DataFrame({"clip": CLIPS, "mos": [1.5, 2.5, 3.5], "mos_std": [0.0, 0.1, 0.2]})
    table.write_parquet(tmp_path / "b.table")
    assert loso("--scores", "b.table")[0] == 0
    assert Path("c.jsonl").read_bytes() == first


def test_one_panel_of_several_is_taken_by_name(loso, scores):
    lines = [f"{clip},{panel},{1 + at}" for at, panel in enumerate("AB") for clip in CLIPS]
    table = scores(*lines, header="clip,panel,mos")
    code, _, err = loso("--scores", table)
    assert code == 2
    assert "mos.csv row 4: two scores for ant_200kbps_64p_h264, found mos 1 and 2; keep one" in err
    more = ("--set", "panel=B", "--join", "clip,panel", "--allow-unjoined")
    assert loso("--scores", table, *more)[0] == 0
    assert rows_of(CLIPS[0])["mos"].to_list() == [2, 2]


@pytest.mark.parametrize(
    ("lines", "header", "refusal"),
    [
        (WHOLE, "clip,MOS,std", "there is no column mos, found clip, MOS, std; rename MOS to mos"),
        (WHOLE, "video,mos,std", "there is no column clip, found video, mos, std; rename the col"),
        (["a,,1"], "clip,mos,std", "mos.csv row 1: mos is empty; fill it in or drop the row"),
        (["a,1,1", ",2,1"], "clip,mos,std", "mos.csv row 2: clip is empty"),
        (["a,1,1", "b,bad,1"], "clip,mos,std", "row 2: mos is not a finite number, found bad"),
        (["a,1,1", "b,NaN,1"], "clip,mos,std", "row 2: mos is not a finite number, found NaN"),
        (["a,0.5,1"], "clip,mos,std", "row 1: mos must lie in 1..5, found 0.5; drop the row"),
        (["a,1,1", "a,1,1"], "clip,mos,std", "row 2: two scores for a, found mos 1 and 1"),
        (WHOLE, "clip,mos,vmaf", "mos.csv: vmaf comes from the logs; rename the column"),
        ([], "clip,mos", "mos.csv: holds no scores"),
        (["a,1,1"], "clip,mos", "mos.csv: not a table ("),
        (
            ["a,1,1"],
            "clip,mos,mos",
            "mos.csv: two columns are named mos, found clip, mos, mos; rename",
        ),
        (["0,a,1"], ",clip,mos", "mos.csv: a column without a name, found , clip, mos; rename"),
        (
            WHOLE,
            "clip,mos, mos",
            "mos.csv: two columns are named mos, found clip, mos, mos; rename",
        ),
        (
            [f"{clip},1,720" for clip in CLIPS],
            "clip,mos,height",
            "height of ant_200kbps_64p_h264 is 720 here and 64 by its log's name; correct one",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(loso, scores, lines, header, refusal):
    code, out, err = loso("--scores", scores(*lines, header=header), "--scale", "1..5")
    assert (code, out) == (2, "")
    assert refusal in err
    assert not Path("c.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (("--scale", "1..5"), "--join, --scale and --allow-unjoined are about scores, and none"),
        (("--allow-unjoined",), "--join, --scale and --allow-unjoined are about scores, and none"),
        (("--scores", "none.csv"), "none.csv: file not found"),
        (("--scores", "."), ".: cannot be read"),
        (("--scores", "m.csv", "--scale", "5..1"), "--scale: not a scale, expected LOW..HIGH"),
        (("--scores", "m.csv", "--scale", "five"), "--scale: not a scale, expected LOW..HIGH"),
        (("--scores", "m.csv", "--join", "clip,lab"), "m.csv: there is no column lab"),
        (("--set", "preset=a", "--set", "preset=b"), "--set: a column is given twice"),
        (("--set", "height=3"), "height is in the name and given with --set"),
    ],
)
def test_options_that_cannot_be_used_are_refused(loso, scores, words, refusal):
    scores(*WHOLE, name="m.csv")
    code, _, err = loso(*words)
    assert code == 2
    assert refusal in err


def test_what_both_sides_say_may_be_said_in_other_words(loso, scores):
    lines = [f"{clip},3,{clip[-4:]},{clip[4:7]}.0,64" for clip in CLIPS]
    table = scores(*lines, header="clip,mos,encoder,bitrate_kbps,height")
    assert loso("--scores", table)[0] == 0
    assert rows_of(CLIPS[2])["encoder"].to_list() == ["libx265"] * 2


def test_a_name_that_looks_like_a_number_stays_a_name(loso, scores, tmp_path):
    (tmp_path / "007.json").write_bytes(Path(f"{CLIPS[0]}.json").read_bytes())
    table = scores("007,3,1")
    given = ("--set", "encoder=libx264", "--set", "cq=20")
    code, *_ = loso("--scores", table, *given, logs=["007"], pattern=("--name-pattern", "{src}"))
    assert code == 0
    assert rows_of("007")["src"].to_list() == ["007", "007"]


def test_a_column_to_join_by_must_be_in_the_names_of_logs_too(loso, scores):
    table = scores("a,1,x", header="clip,mos,lab")
    code, _, err = loso("--scores", table, "--join", "clip,lab")
    assert code == 2
    assert "--join: the logs have no column lab, expected one of clip, src" in err


def test_a_number_to_join_by_must_be_one(loso, scores):
    table = scores("ant,1,high", header="src,mos,height")
    code, _, err = loso("--scores", table, "--join", "src,height")
    assert code == 2
    assert "mos.csv row 1: height is a number, found 'high'" in err


def test_a_refusal_is_json_where_json_is_asked_for(loso):
    code, out, _ = loso("--json", pattern=("--name-pattern", "{src}_q{cq}_{encoder}"))
    assert code == 2
    refusal = json.loads(out)
    assert refusal["error"] == "BadInput"
    assert refusal["problem"] == "3 of 3 logs are not named by the pattern"
    assert refusal["found"] == ", ".join(CLIPS)
