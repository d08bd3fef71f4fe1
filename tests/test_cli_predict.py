import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import typer

from loso.calibration import calibrate_run
from loso.cli.evaluate import evaluate
from loso.cli.predict import predict
from loso.corpus.load import load_corpus
from loso.data import demo_corpus_path
from loso.errors import BadClip, BadInput, BadSettings
from loso.export import export_model
from loso.model.sums import refresh_sums
from loso.predict import Predictor, measure_rows
from loso.recipe import GateThresholds, Recipe
from loso.run_folder import train_into
from loso.schema import CANONICAL_6
from loso.verdict import validate_run
from loso.video.clips import ClipSettings, open_clip
from loso.video.encoders import ENCODERS, Rate
from loso.video.ffmpeg import FfmpegSession, find_ffmpeg
from loso.video.measure import Encode, VmafModel, measure
from screen import at_terminal

ANYTHING = GateThresholds(mean_plcc_threshold=-1.0, per_seed_min=-1.0, plcc_spread_max=2.0)
FRAMES = 6


@pytest.fixture(scope="module")
def corpus():
    return load_corpus(demo_corpus_path())


@pytest.fixture(scope="module")
def folder(corpus, tmp_path_factory):
    run, out = (tmp_path_factory.mktemp("model") / name for name in ("run", "out"))
    train_into(run, corpus, Recipe(epochs=4, hidden=8, lr=1e-2), [0, 1])
    calibrate_run(run, corpus, [0, 1])
    validate_run(run, [0, 1], ANYTHING, corpus=corpus)
    export_model(run, corpus, out)
    path = next(out.glob("*_v1.json"))
    path.write_text(path.read_text().replace('"smoke": true', '"smoke": false'))
    refresh_sums(out, [path.name])
    return out


@pytest.fixture
def call(capsys):
    """Run a command; return what it prints, and its exit code."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(predict)
    app.command()(evaluate)

    def run(*words):
        code = app([*map(str, words)], standalone_mode=False)
        printed = capsys.readouterr()
        return SimpleNamespace(out=printed.out, err=printed.err, code=code or 0)

    return run


@pytest.fixture
def rows(corpus, tmp_path):
    """Thirty rows of one clip and thirty of another, as each kind of file."""
    table = pl.concat([corpus.rows.head(30), corpus.rows.tail(30)])
    table.write_ndjson(tmp_path / "rows.jsonl")
    table.write_csv(tmp_path / "rows.csv")
    table.write_parquet(tmp_path / "rows.parquet")
    return table


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_rows_of_each_kind_of_file_are_scored_alike(call, folder, rows, tmp_path, suffix):
    found = call("predict", "--model", folder, "--features", tmp_path / f"rows.{suffix}")
    expected = Predictor.load(folder).predict(rows).frames
    assert objects(found.out) == expected.to_dicts()
    assert found.err == ""


def test_rows_come_from_stdin(call, folder, rows, tmp_path, monkeypatch):
    with (tmp_path / "rows.jsonl").open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        found = call("predict", "--model", folder, "--features", "-", "--pooled")
    assert objects(found.out) == Predictor.load(folder).predict(rows).clips.to_dicts()
    assert [clip["n_frames"] for clip in objects(found.out)] == [30, 30]


@pytest.mark.parametrize(("cq", "told"), [("19", "19"), ("19.5", "19.5")])
def test_what_names_a_row_is_printed_as_it_came(call, folder, rows, tmp_path, cq, told):
    row = rows.row(0, named=True) | {"frame_index": 0}
    line = json.dumps(row | {"cq": "CQ"}).replace('"CQ"', cq)
    for name in ("rows.jsonl", "rows.csv"):
        (tmp_path / name).write_text(line + "\n")
        if name == "rows.csv":
            table = pl.DataFrame([row | {"cq": json.loads(cq)}])
            table.write_csv(tmp_path / name)
        found = call("predict", "--model", folder, "--features", tmp_path / name)
        assert f'"cq": {told}, ' in found.out
        assert '"frame_index": 0, ' in found.out


def test_one_object_with_json(call, folder, rows, tmp_path):
    words = ("predict", "--model", folder, "--features", tmp_path / "rows.csv", "--json")
    expected = Predictor.load(folder).predict(rows, level=0.5)
    (record,) = objects(call(*words, "--level", 0.5).out)
    assert record == {
        "level": 0.5,
        "interval": "hierarchical_conformal, supported by 10 sources",
        "warnings": [],
        "clips": expected.clips.to_dicts(),
        "frames": expected.frames.to_dicts(),
    }
    (record,) = objects(call(*words, "--pooled").out)
    assert sorted(record) == ["clips", "interval", "level", "warnings"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_rows_go_to_each_kind_of_file(call, folder, rows, tmp_path, suffix):
    out = tmp_path / f"scores.{suffix}"
    features = tmp_path / "rows.parquet"
    found = call("predict", "--model", folder, "--features", features, "--out", out)
    assert found.out == ""
    assert found.err == f"wrote 60 rows to {out}\n"
    read = {"jsonl": pl.read_ndjson, "csv": pl.read_csv, "parquet": pl.read_parquet}[suffix]
    expected = Predictor.load(folder).predict(rows).frames
    assert read(out)["mu"].to_list() == expected["mu"].to_list()
    assert read(out).columns == expected.columns


def test_a_terminal_gets_a_table_of_clips(folder, rows, tmp_path):
    rows.with_columns(preset=None).write_ndjson(tmp_path / "rows.jsonl")
    words = ("predict", "--model", folder, "--features", tmp_path / "rows.jsonl", "--quiet")
    *_, head, first, second, last = at_terminal(*words, width=160).lines
    assert head.split() == "src encoder cq frames mean 80 % p5 80 % hmean 80 %".split()
    clips = Predictor.load(folder).predict(rows.with_columns(preset=None)).clips
    for line, clip in zip((first, second), clips.rows(named=True), strict=True):
        ends = f"{clip['mean_lower']:.1f}..{clip['mean_upper']:.1f}"
        expected = [*(clip["src"], clip["encoder"], f"{clip['cq']:g}", f"{clip['n_frames']}")]
        assert line.split()[:6] == [*expected, f"{clip['mean_mu']:.2f}", ends]
    assert last == "intervals: hierarchical_conformal, supported by 10 sources"


def test_what_all_clips_share_is_said_once_above_the_table(folder, corpus, tmp_path):
    one = corpus.rows.head(30)
    ladder = pl.concat([one, one.with_columns(cq=pl.lit(35.5))], how="vertical_relaxed")
    ladder.write_parquet(tmp_path / "rows.parquet")
    words = ("predict", "--model", folder, "--features", tmp_path / "rows.parquet")
    src, encoder, preset, cq = one.select("src", "encoder", "preset", "cq").row(0)
    told, empty, head, first, second, _ = at_terminal(*words).lines
    assert told == f"every clip: src {src}, encoder {encoder}, preset {preset}"
    assert (empty, head.split()[:2]) == ("", ["cq", "frames"])
    assert [line.split()[:2] for line in (first, second)] == [[f"{cq:g}", "30"], ["35.5", "30"]]
    # A column that no other can stand for is shown, whatever it is called.
    clips = pl.concat([one, one.with_columns(clip=pl.lit("again\x1b[2J"))])
    clips.write_parquet(tmp_path / "rows.parquet")
    told, _, head, _, second, _ = at_terminal(*words, width=160).lines
    assert told == f"every clip: src {src}, encoder {encoder}, preset {preset}, cq {cq:g}"
    assert head.split()[:2] == ["clip", "frames"]
    assert second.split()[:2] == [r"again\x1b[2J", "30"]
    one.write_parquet(tmp_path / "rows.parquet")
    told, _, head, only, _ = at_terminal(*words).lines
    assert told == f"src {src}, encoder {encoder}, preset {preset}, cq {cq:g}"
    assert (head.split()[0], only.split()[0]) == ("frames", "30")


def test_a_narrow_terminal_gets_a_block_a_clip(folder, rows, tmp_path):
    words = ("predict", "--model", folder, "--features", tmp_path / "rows.csv")
    lines = at_terminal(*words, width=40).lines
    assert max(map(len, lines)) <= 40
    blocks = "\n".join(lines).split("\n\n")
    assert len(blocks) == 3
    for block, clip in zip(blocks, Predictor.load(folder).predict(rows).clips["src"], strict=False):
        assert re.search(rf"^src +{clip}$", block, re.MULTILINE)
        assert re.search(r"^mean 80 % +\d+\.\d\d \S+\.\.\S+$", block, re.MULTILINE)


def test_what_is_worth_knowing_goes_to_stderr(call, folder, rows, tmp_path):
    rows.with_columns(encoder=pl.lit("theora")).write_csv(tmp_path / "odd.csv")
    found = call("predict", "--model", folder, "--features", tmp_path / "odd.csv")
    assert "warning: encoders outside the vocabulary take its slot unknown; rows of" in found.err
    assert len(objects(found.out)) == 60


@pytest.mark.parametrize(
    ("words", "kind", "text"),
    [
        ((), BadSettings, "nothing to score, or too much, expected --features, or --reference"),
        (("--reference", "a.mkv"), BadSettings, "nothing to score, or too much"),
        (("--features", "r.csv", "--cq", 3), BadSettings, "nothing to score, or too much"),
        (("--features", "r.csv", "--width", 3), BadSettings, "--width needs --height"),
        (("--features", "r.csv", "--out", "o.txt"), BadSettings, r"--out: not a file of rows by"),
        (("--features", "r.csv", "--level", 0.93), BadSettings, "no intervals of that level"),
        (("--features", "nowhere.csv"), BadInput, "nowhere.csv: cannot be read"),
        (("--features", "rows.xlsx"), BadInput, "expected a name that ends in .jsonl, .jsonl.gz"),
        (("--features", "r.csv", "--name", "other"), BadInput, "found none"),
    ],
)
def test_what_cannot_be_done_is_refused(call, folder, words, kind, text):
    with pytest.raises(kind, match=text):
        call("predict", "--model", folder, *words)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bad.parquet", b"PAR1"),
        ("bad.csv", b"adm2,cq\n1,2,3\n"),
        ("bad.jsonl.gz", b"\x1f\x8b"),
        ("bad.jsonl", b'{"adm2": '),
    ],
)
def test_damaged_rows_are_refused_and_leave_no_file(call, folder, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "out.csv"
    with pytest.raises(BadInput, match=name):
        call("predict", "--model", folder, "--features", tmp_path / name, "--out", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_a_failed_write_leaves_the_old_file(call, folder, rows, tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("old")
    rows.with_columns(motion2=None).write_csv(tmp_path / "empty.csv")
    with pytest.raises(BadInput, match="motion2 has"):
        call("predict", "--model", folder, "--features", tmp_path / "empty.csv", "--out", out)
    assert out.read_text() == "old"


# -- Videos ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A clip, and what libx264 made of it, with the features that a corpus build measures."""
    folder = tmp_path_factory.mktemp("videos")
    ffmpeg = find_ffmpeg()
    clip = folder / "clip.mkv"
    source = ["-f", "lavfi", "-i", "testsrc2=size=96x80:rate=25", "-frames:v", f"{FRAMES}"]
    command = [ffmpeg.path, "-loglevel", "error", *source, "-c:v", "ffv1", f"{clip}"]
    subprocess.run(command, check=True)
    (folder / "work").mkdir()
    with FfmpegSession(ffmpeg) as session:
        opened = open_clip(clip, ClipSettings(), session, timeout_s=60)
        measured = measure(
            opened,
            Encode(
                encoder=ENCODERS["libx264"],
                preset="medium",
                rate=Rate("quality", 35),
                width=96,
                height=80,
            ),
            VmafModel(),
            session,
            folder=folder / "work",
            timeout_s=60,
            two_step=True,
        )
    coded = folder / "coded.264"
    (folder / "work" / "coded.bin").rename(coded)
    return SimpleNamespace(
        clip=clip,
        coded=coded,
        features=measured.features,
        coded_bytes=sum(measured.packet_bytes),
        folder=folder,
    )


def test_two_videos_give_the_features_of_a_corpus_build(videos):
    rows = measure_rows(videos.clip, videos.coded, encoder="libx264", cq=35, preset="medium")
    for name in CANONICAL_6:
        assert tuple(rows[name]) == videos.features[name]
    assert rows.drop(CANONICAL_6).row(1) == ("clip", "libx264", "medium", 35.0, "coded", 1, 80, 96)


def test_raw_videos_give_the_same(videos, tmp_path):
    ffmpeg = find_ffmpeg().path
    raw = []
    for path in (videos.clip, videos.coded):
        raw.append(tmp_path / f"{path.stem}.yuv")
        convert = ["-pix_fmt", "yuv420p", "-fps_mode", "passthrough", "-f", "rawvideo", raw[-1]]
        command = [ffmpeg, "-loglevel", "error", "-i", path, *convert]
        subprocess.run([*map(str, command)], check=True)
    rows = measure_rows(*raw, encoder="libx264", cq=35, raw_size=(96, 80))
    np.testing.assert_allclose(rows["vif_scale0"], videos.features["vif_scale0"], atol=5e-3)
    with pytest.raises(BadClip, match="raw YUV carries no size; give --width and --height"):
        measure_rows(*raw, encoder="libx264", cq=35)


def test_two_videos_tell_what_a_model_may_be_conditioned_on(videos, tmp_path):
    boxed = tmp_path / "coded.mkv"
    ffmpeg = [find_ffmpeg().path, "-loglevel", "error", "-i"]
    scaled = ["-vf", "scale=48:40", "-c:v", "libx264", boxed]
    subprocess.run([*ffmpeg, videos.clip, *scaled], check=True)
    listing = [*ffmpeg, boxed, "-c", "copy", "-f", "framecrc", "-"]
    packets = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
    sizes = [int(line.split(",")[4]) for line in packets.splitlines() if line[0] != "#"]
    how = {"encoder": "libx264", "cq": 35}
    columns = ["height", "width", "fps", "bitrate_kbps"]
    rows = measure_rows(videos.clip, boxed, **how)
    kbps = sum(sizes) * 8 * 25 / FRAMES / 1000
    assert rows.select(columns).row(3) == (40, 48, 25.0, pytest.approx(kbps))
    # A stream outside a container has no rate, so no bitrate until it is given one.
    assert measure_rows(videos.clip, videos.coded, **how).columns[-2:] == ["height", "width"]
    rows = measure_rows(videos.clip, videos.coded, **how, given={"fps": 25.0, "height": 40.0})
    kbps = videos.coded_bytes * 8 * 25 / FRAMES / 1000
    assert rows.select(columns).row(0) == (40.0, 96, 25.0, pytest.approx(kbps))


def test_videos_that_lack_a_condition_are_refused_before_they_are_measured(call, videos, folder):
    pair = ("--reference", videos.clip, "--distorted", videos.coded)
    words = ("predict", "--model", folder, *pair, "--encoder", "libx264", "--cq", 35)
    with pytest.raises(BadInput, match=r"missing columns: test, found src, .*--set COL=VALUE"):
        call(*words, "--key", "test")
    assert len(objects(call(*words, "--key", "test", "--set", "test=2").out)) == FRAMES


def test_videos_are_scored_in_one_call(call, folder, videos):
    pair = ("--reference", videos.clip, "--distorted", videos.coded)
    how = ("--encoder", "libx264", "--cq", 35, "--preset", "medium")
    found = call("predict", "--model", folder, *pair, *how)
    rows = measure_rows(videos.clip, videos.coded, encoder="libx264", cq=35, preset="medium")
    assert objects(found.out) == Predictor.load(folder).predict(rows).frames.to_dicts()
    assert len(objects(found.out)) == FRAMES


def test_another_number_of_frames_is_refused(videos, tmp_path):
    short = tmp_path / "short.mkv"
    cut = ["-i", videos.clip, "-frames:v", FRAMES - 1, "-c:v", "ffv1", short]
    subprocess.run([find_ffmpeg().path, "-loglevel", "error", *map(str, cut)], check=True)
    with pytest.raises(BadClip, match=r"short.mkv: another number of frames.*expected 6, found 5"):
        measure_rows(videos.clip, short, encoder="libx264", cq=35)


# -- evaluate -------------------------------------------------------------------------------------


def test_evaluate_prints_a_table(call, folder, corpus):
    found = call("evaluate", "--model", folder, "--corpus", corpus.path)
    assert found.err.startswith("warning: THE MODEL WAS TRAINED ON EVERY SOURCE OF THIS CORPUS")
    lines = found.out.splitlines()
    assert lines[0].endswith("on demo.jsonl.gz: 6000 rows, 200 clips, target vmaf")
    (record,) = objects(call("evaluate", "--model", folder, "--corpus", corpus.path, "--json").out)
    frames = record["pools"]["frame"]
    for source, found in (*frames["by_source"].items(), ("together", frames["pooled"])):
        line = next(line for line in lines if line.startswith(f"{source} * "))
        figures = [f"{found['n']}", f"{found['plcc']:.4f}", f"{found['srocc']:.4f}"]
        figures += [
            f"{found['rmse']:.2f}",
            f"{found['coverage']:.3f}",
            f"{found['mean_width']:.2f}",
        ]
        assert line.split()[2:] == figures
    assert sum(line.startswith("together *") for line in lines) == 2
    assert "*: of sources that the model was trained on, and says nothing about new ones" in lines
    adm2 = next(line for line in lines if line.startswith("adm2 "))
    assert adm2.split()[2:] == ["sd", "0.0%"]
    assert next(line for line in lines if line.startswith("cq ")).split()[1:] == ["-", "0.0%"]


def test_evaluate_says_one_object_with_json(call, folder, corpus):
    words = ("evaluate", "--model", folder, "--corpus", corpus.path, "--json")
    (record,) = objects(call(*words).out)
    assert record["unseen"] is False
    assert sorted(record["pools"]) == ["frame", "hmean", "mean", "p1", "p5"]
    assert [drift["name"] for drift in record["inputs"]] == [*CANONICAL_6, "cq"]
    assert record["warnings"][0].startswith("THE MODEL WAS TRAINED ON EVERY")


# -- docs/formats.md ------------------------------------------------------------------------------


def documented(title):
    text = Path(__file__).parents[1].joinpath("docs", "formats.md").read_text(encoding="utf-8")
    section = re.split(rf"^#+ {re.escape(title)}\n", text, flags=re.MULTILINE)[1]
    return re.findall(
        r"^\| `(\S+)` \|", re.split("^#", section, flags=re.MULTILINE)[0], re.MULTILINE
    )


def test_what_predict_gives_is_documented(call, folder, rows, tmp_path):
    words = ("predict", "--model", folder, "--features", tmp_path / "rows.csv", "--json")
    (record,) = objects(call(*words).out)
    assert sorted(documented("`loso predict --json`")) == sorted(record)
    found = Predictor.load(folder).predict(rows)
    assert documented("Predictions of frames") == found.frames.columns
    columns = [re.sub(r"^(mean|hmean|p1|p5)_", "POOL_", name) for name in found.clips.columns]
    assert documented("Predictions of clips") == list(dict.fromkeys(columns))


def test_what_evaluate_prints_is_documented(call, folder, corpus):
    (record,) = objects(call("evaluate", "--model", folder, "--corpus", corpus.path, "--json").out)
    keys = {
        *record,
        *(f"pools.POOL.{name}" for name in record["pools"]["mean"]),
        *(f"pools.POOL.pooled.{name}" for name in record["pools"]["mean"]["pooled"]),
        *(f"inputs[].{name}" for name in record["inputs"][0]),
    }
    assert sorted(documented("`loso evaluate --json`")) == sorted(keys)


def test_a_misspelt_encoder_is_refused_before_anything_is_measured(loso, tmp_path):
    words = ["--reference", "r.mp4", "--distorted", "d.mp4", "--encoder", "libsvtav", "--cq", "3"]
    code, out, err = loso("predict", "--model", tmp_path, *words)
    assert (code, out) == (2, "")
    assert "--encoder: no such encoder, found libsvtav; did you mean libsvtav1?" in err
