import json
import math
import re
import shlex
import shutil
from dataclasses import replace
from statistics import fmean

import numpy as np
import polars as pl
import pytest
from plotly import graph_objects as go

from loso.errors import BadEvidence
from loso.recipe import GateThresholds
from loso.report import (
    bounds,
    compare,
    content,
    judged,
    provenance,
    residuals,
    training,
    worth,
)
from loso.report.figures import escaped, markers, powers, thinned
from loso.report.parts import Chart, Code, Grid, Note, Table, Tiles
from loso.report.reading import read_run
from loso.run_folder import read_losses
from loso.seedfile import seed_file_name

SECTIONS = {
    "verdict": judged.verdict_section,
    "sources": judged.sources_section,
    "intervals": bounds.section,
    "errors": residuals.section,
    "corpus": content.section,
    "training": training.section,
    "baselines": worth.section,
    "provenance": provenance.section,
}


@pytest.fixture(scope="module")
def records(whole_run):
    return read_run(whole_run)


@pytest.fixture
def copied(whole_run, tmp_path):
    """The run in a folder of its own, to be spoilt."""
    return shutil.copytree(whole_run, tmp_path / "run")


def parts(section, kind):
    return [part for part in section.parts if isinstance(part, kind)]


def charts(section):
    grids = [chart for grid in parts(section, Grid) for _, _, chart in grid.charts]
    return parts(section, Chart) + grids


def texts(section):
    return "\n".join(part.text for part in parts(section, Note))


def points(chart):
    return sum(len(trace.x) for trace in chart.figure.data if trace.mode == "markers")


# -- Reading --------------------------------------------------------------------------------------


def test_rows_hold_the_mean_and_spread_of_the_seeds(records, whole_run):
    tables = [pl.read_parquet(whole_run / f"oof_seed{seed}.parquet") for seed in (0, 1, 2)]
    answers = np.stack([table.sort("row")["y_pred"].to_numpy() for table in tables])
    assert np.allclose(records.rows["y_pred"], answers.mean(axis=0), rtol=1e-12)
    assert np.allclose(records.rows["sigma"], answers.std(axis=0, ddof=1), rtol=1e-9)
    error = answers.mean(axis=0) - tables[0].sort("row")["y_true"].to_numpy()
    assert np.allclose(records.rows["error"], error, atol=1e-10)


def test_a_whole_run_has_no_remark_and_a_fresh_verdict(records):
    assert records.remarks == ()
    assert records.fresh
    assert records.seen.rows.height == records.rows.height


def test_other_predictions_are_refused(copied):
    path = copied / "oof_seed1.parquet"
    pl.read_parquet(path).with_columns(pl.col("y_true").alias("y_pred")).write_parquet(path)
    with pytest.raises(BadEvidence, match=r"not the predictions that loso_seed1\.json"):
        read_run(copied)


@pytest.mark.parametrize("name", ["nowhere", ""])
def test_a_folder_without_a_run_is_refused(tmp_path, name):
    with pytest.raises(BadEvidence, match=r"not a folder|no seed files with predictions"):
        read_run(tmp_path / name)


@pytest.mark.parametrize("name", ["HOLD.json", "intervals.json", "baselines.json"])
def test_a_damaged_record_is_refused_by_its_name(copied, name):
    assert (copied / name).exists()
    (copied / name).write_text("{")
    with pytest.raises(BadEvidence, match=name):
        read_run(copied)


def test_what_changed_after_the_verdict_is_said(copied):
    content = json.loads((copied / "intervals.json").read_text())
    (copied / "intervals.json").write_text(json.dumps(content))  # other bytes, same content
    found = read_run(copied)
    assert not found.fresh
    assert any("before intervals.json changed" in remark for remark in found.remarks)


def test_intervals_of_other_predictions_are_not_drawn(copied):
    content = json.loads((copied / "intervals.json").read_text())
    content["predictions"]["0"] = "0" * 64
    (copied / "intervals.json").write_text(json.dumps(content))
    found = read_run(copied)
    assert found.intervals is None
    assert any("made of other predictions" in remark for remark in found.remarks)


def test_a_moved_corpus_is_a_remark_and_another_one_a_refusal(make_run, tmp_path):
    run = make_run()
    (tmp_path / "corpus.jsonl").rename(tmp_path / "moved.jsonl")
    found = read_run(run)
    assert found.corpus is None
    assert any("not where it was" in remark for remark in found.remarks)
    assert read_run(run, tmp_path / "moved.jsonl").seen.rows.height == 72
    with (tmp_path / "moved.jsonl").open("a") as stream:
        stream.write("\n")
    with pytest.raises(BadEvidence, match="not the corpus that the seeds were trained on"):
        read_run(run, tmp_path / "moved.jsonl")


def test_a_dry_run_is_called_one(make_run):
    run = make_run(edit=lambda _, content: content.update(note="dry-run"))
    found = read_run(run)
    assert "a dry run (one epoch) proves nothing" in found.remarks[0]
    assert "A dry run of one epoch" in texts(judged.verdict_section(found))


def test_an_undefined_source_comes_first_and_is_called_undefined(make_run):
    def spoil(_, content):
        content["folds"][1].update(plcc=None, srocc=None, reason="y_true is constant")
        content.update(mean_plcc=None, std_plcc=None, min_plcc=None, max_plcc=None, mean_srocc=None)

    found = read_run(make_run(edit=spoil))
    section = judged.sources_section(found)
    (table,) = parts(section, Table)
    assert table.rows[0][0] == "bee"
    assert table.rows[0][2] == "undefined"
    assert table.rows[0][-1] == "y_true is constant"
    assert parts(section, Chart)[0].figure.data[0].text[0][0] == "undef."


def test_the_reason_of_any_seed_is_told(make_run):
    def spoil(seed, content):
        if seed == 1:
            content["folds"][1].update(plcc=None, srocc=None, reason="y_pred is constant")
            content.update(
                mean_plcc=None, std_plcc=None, min_plcc=None, max_plcc=None, mean_srocc=None
            )

    (table,) = parts(judged.sources_section(read_run(make_run(edit=spoil))), Table)
    assert table.rows[0][2] == "undefined"
    assert table.rows[0][-1] == "y_pred is constant"


def test_what_changes_while_it_is_read_is_refused(copied, monkeypatch):
    def train_meanwhile(path):
        (copied / "run.json").write_text("{}")
        return read_losses(path)

    monkeypatch.setattr("loso.report.reading.read_losses", train_meanwhile)
    with pytest.raises(BadEvidence, match=r"changed while it was read: run\.json"):
        read_run(copied)


# -- Sections -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_of_a_bare_run_can_be_drawn(make_run, name):
    section = SECTIONS[name](read_run(make_run()))
    assert section.anchor == name
    assert section.parts


def test_the_three_numbers_are_those_of_the_verdict(records):
    gate = records.verdict.gate
    (tiles,) = parts(judged.verdict_section(records), Tiles)
    shown = [tile.value for tile in tiles.tiles]
    lowest = min(gate.per_seed_plccs.values())
    assert shown == [f"{v:.4f}" for v in (gate.mean_plcc, gate.plcc_spread, lowest)]
    assert tiles.tiles[0].limit == f">= {GateThresholds().mean_plcc_threshold:g}"
    margin = gate.mean_plcc - gate.mean_plcc_threshold
    assert tiles.tiles[0].margin == f"margin {margin:+.4f}"
    assert tiles.tiles[0].tone == ("good" if margin >= 0 else "bad")


def test_a_hold_says_what_failed_and_what_to_try(make_run, loso):
    run = make_run(noise=30)
    loso("validate", run)
    section = judged.verdict_section(read_run(run))
    assert section.parts[0].text.startswith("HOLD:")
    assert "Failed: mean PLCC" in texts(section)
    assert "Try: " in texts(section)


def test_sources_stand_worst_first_with_means_over_seeds(records):
    (table,) = parts(judged.sources_section(records), Table)
    means = {
        source: fmean(file.folds[i].plcc for file in records.seed_files)
        for i, source in enumerate(records.sources)
    }
    assert [row[0] for row in table.rows] == sorted(means, key=means.__getitem__)
    assert table.rows[0][2] == f"{min(means.values()):.4g}"


def test_every_row_is_drawn_where_rows_are_few(records):
    scatters = charts(judged.sources_section(records))[1:]
    assert len(scatters) == len(records.sources)
    assert sum(map(points, scatters)) == records.rows.height
    trace = scatters[0].figure.data[1]
    assert trace.text[0].startswith("cq ")
    assert "frame" in trace.text[0]


def test_coverage_is_that_of_the_record(records):
    section = bounds.section(records)
    over = records.intervals.coverage.by_pool["frame"].hierarchical
    table = parts(section, Table)[0]
    level = bounds.shown_level(records.intervals)
    assert table.rows[0][1] == f"{over[level].mean:.3f}"
    covered = [float(row[1]) for row in table.rows[1:]]
    assert covered == sorted(covered)
    lines = {t.name: list(t.y) for t in charts(section)[0].figure.data if t.name}
    assert lines["over sources"] == pytest.approx([over[k].mean for k in sorted(over)], abs=1e-4)


def test_the_worst_rows_are_the_largest_errors(records):
    worst = residuals.worst_rows(records.rows)
    sizes = records.rows["error"].abs().sort(descending=True)
    assert worst["error"].abs().to_list() == sizes[:20].to_list()
    (table,) = parts(residuals.section(records), Table)
    assert table.columns[:5] == ("src", "encoder", "preset", "cq", "frame")
    assert table.rows[0][0] == worst["src"][0]
    assert table.rows[0][-1] == f"{worst['error'][0]:+.3g}"


def test_errors_against_quality_are_means_of_the_rows(records):
    chart = charts(residuals.section(records))[0]
    own = records.rows.filter((pl.col("encoder") == "libx264") & (pl.col("cq") == 30))
    (trace,) = (trace for trace in chart.figure.data if trace.name == "libx264")
    place = list(trace.x).index(30)
    assert trace.y[place] == pytest.approx(own["error"].mean(), rel=1e-4)
    high = np.quantile(own["error"], 0.95, method="nearest")
    assert trace.y[place] + trace.error_y.array[place] == pytest.approx(high, rel=1e-3)


def test_the_corpus_is_counted(records):
    section = content.section(records)
    counts = charts(section)[0].figure.data[0]
    assert np.sum(counts.z) == records.rows.height
    encoders = parts(section, Table)[0]
    assert [row[:2] for row in encoders.rows] == [("libx264", "108"), ("libsvtav1", "108")]
    curves = charts(section)[1:]
    assert len(curves) == len(records.sources)
    assert curves[0].figure.layout.xaxis.type == "log"
    assert sorted(curves[0].figure.data[0].x) == [100.0, 133.33, 200.0]


@pytest.mark.parametrize("rate", [math.nan, math.inf, 0.0, -1.0, None])
def test_a_rate_that_is_none_leaves_curves_over_cq(records, rate):
    rows = records.seen.rows
    spoilt = pl.Series("bitrate_kbps", [rate, *rows["bitrate_kbps"][1:]], dtype=pl.Float64)
    seen = replace(records.seen, rows=rows.with_columns(spoilt))
    section = content.section(replace(records, seen=seen))
    assert charts(section)[1].figure.layout.xaxis.type == "linear"


def test_the_largest_source_is_the_one_whose_points_are_counted(records):
    times = dict(zip(records.sources, (50, 400), strict=False))
    repeated = pl.col("src").replace_strict(times, default=1, return_dtype=pl.Int64)
    many = records.rows.select(pl.all().repeat_by(repeated).explode())
    count = many["src"].value_counts(sort=True)["count"][0]
    assert f" of {count:,} points" in texts(judged.sources_section(replace(records, rows=many)))


def test_dropout_is_named_only_where_it_was_on(records):
    for dropout, told in ((0.1, True), (0.0, False)):
        recipe = replace(records.recipe, dropout=dropout)
        (chart,) = charts(training.section(replace(records, recipe=recipe)))
        assert ("Dropout is on" in chart.caption) is told


def test_advised_commands_can_be_pasted(make_run):
    advised = texts(judged.verdict_section(read_run(make_run("a b"))))
    words = shlex.split(re.search(r"loso calibrate .*", advised)[0])
    assert words[2].endswith("/a b")
    assert words[3] == "--corpus"


def test_without_a_corpus_curves_stand_over_cq(make_run, tmp_path):
    run = make_run()
    (tmp_path / "corpus.jsonl").unlink()
    section = content.section(read_run(run))
    assert charts(section)[1].figure.layout.xaxis.type == "linear"
    assert "has no bitrate" in texts(section)


def test_rows_at_the_top_of_vmaf_are_counted(make_run):
    def top(_, table):
        return table.with_columns(
            y_true=pl.when(pl.col("src") == "cat").then(100.0).otherwise(pl.col("y_true"))
        )

    section = content.section(read_run(make_run(predict=top)))
    (share,) = (row[-1] for row in parts(section, Table)[1].rows if row[0] == "cat")
    assert share == "100.0%"


def test_losses_are_drawn_a_line_a_member(records, whole_run):
    (chart,) = charts(training.section(records))
    assert len(chart.figure.data) == 3 * 6
    losses = pl.read_parquet(whole_run / "losses.parquet")
    own = losses.filter((pl.col("seed") == 0) & (pl.col("fold") == 0)).sort("epoch")["loss"]
    assert chart.figure.data[0].y == pytest.approx(own.to_list(), rel=1e-4)


def test_many_members_are_drawn_as_ranges(records):
    many = pl.DataFrame(
        {
            "seed": np.repeat([0, 1], 50 * 4),
            "fold": np.tile(np.repeat(np.arange(50), 4), 2),
            "held_out": "x",
            "epoch": np.tile(np.arange(4), 100),
            "loss": np.arange(400.0) + 1,
        }
    )
    from dataclasses import replace

    (chart,) = charts(training.section(replace(records, losses=many)))
    assert len(chart.figure.data) == 6
    first = many.filter((pl.col("seed") == 0) & (pl.col("epoch") == 0))["loss"]
    starts = [trace.y[0] for trace in chart.figure.data[:3]]
    assert starts == pytest.approx([first.min(), first.median(), first.max()], rel=1e-4)


def test_gains_are_those_of_the_record(records):
    section = worth.section(records)
    gain = records.baselines.gains["frame"]["ridge"]
    frames = next(t for t in parts(section, Table) if t.caption.startswith("frames"))
    (row,) = (row for row in frames.rows if row[0] == "ridge")
    assert row[5] == f"{gain.rmse_gain:+.4g}"
    assert row[6] == f"{gain.bootstrap.low:.4g}..{gain.bootstrap.high:.4g}"
    chart = next(c for c in charts(section) if c.name.endswith("frames"))
    bars = chart.figure.data[0].error_x
    assert bars.array[0] == pytest.approx(gain.bootstrap.high - gain.rmse_gain, rel=1e-4)
    assert bars.arrayminus[0] == pytest.approx(gain.rmse_gain - gain.bootstrap.low, rel=1e-4)


def test_provenance_names_every_file_by_its_hash(records):
    section = provenance.section(records)
    listed = dict(parts(section, Table)[2].rows)
    assert {seed_file_name(seed) for seed in (0, 1, 2)} <= set(listed)
    beside = {"intervals.json", "baselines.json", "losses.parquet", "oof_seed0.parquet"}
    assert beside <= set(listed)
    assert {"PROMOTE.json", "HOLD.json"} & set(listed)
    again = parts(section, Code)[-1].text
    assert again.startswith("loso validate ")
    assert "--seeds 0,1,2" in again


# -- Names and points -----------------------------------------------------------------------------


def figure_texts(value):
    if isinstance(value, dict):
        for inner in value.values():
            yield from figure_texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from figure_texts(inner)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("name", SECTIONS)
def test_no_name_is_markup_inside_a_chart(records, name):
    for chart in charts(SECTIONS[name](records)):
        go.Figure(chart.figure)  # plotly's own check of every key
        for text in figure_texts(chart.figure.to_plotly_json()):
            tags = set(re.findall(r"</?\w+", text))
            assert tags <= {"<br", "<extra", "</extra"}, text


def test_control_characters_do_not_reach_a_chart():
    assert escaped("a\nb\x00<") == "a b &lt;"


def test_every_encoder_has_a_look_of_its_own():
    looks = markers(["libx264", "libx265", "h264", "hevc"])
    assert len({tuple(look.values()) for look in looks.values()}) == 4
    assert looks["libx265"] == markers(["libx265"])["libx265"]
    many = [f"encoder {number}" for number in range(30)]
    assert list(markers(many)) == many


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([100.0], [100]),
        ([0.0, 0.3, 0.31], [0.2, 0.5]),
        ([45.0, 1700.0], [20, 50, 100, 200, 500, 1000, 2000]),
        ([1e-3, 1e6], [10.0**power for power in range(-3, 7)]),
    ],
)
def test_ticks_of_powers_lie_around_the_values(values, ticks):
    assert powers(values)["tickvals"] == pytest.approx(ticks)


def spread(count):
    random = np.random.default_rng(0)
    return pl.DataFrame({"row": np.arange(count), "error": random.normal(0, 1, count)})


@pytest.mark.parametrize("count", [10, 100, 101, 5000])
def test_thinning_keeps_the_largest_errors_and_says_what_it_left_out(count):
    rows = spread(count)
    kept, sentence = thinned(rows, 100)
    assert kept.height <= 100
    assert kept["row"].is_sorted()
    worst = rows.sort(pl.col("error").abs(), descending=True)["row"][:10]
    assert set(worst) <= set(kept["row"])
    assert kept.equals(thinned(rows, 100)[0])
    if count > 100:
        assert sentence.startswith(f"{kept.height:,} of {count:,} points are drawn: the 10 largest")
    else:
        assert kept.equals(rows)
        assert sentence == ""


# -- Two runs -------------------------------------------------------------------------------------


def test_a_run_against_itself_has_not_changed(records):
    verdicts, sources, _, settings = compare.sections(records, records)
    assert "are the same" in texts(settings)
    assert {row[3] for row in parts(sources, Table)[0].rows} == {"+0.0000"}
    assert {row[3] for row in parts(verdicts, Table)[0].rows} == {"", "+0.0000"}


def test_what_changed_is_shown_source_by_source(make_run):
    before = read_run(make_run("before", noise=0.2))
    after = read_run(make_run("after", noise=9.0))
    _, sources, _, _ = compare.sections(before, after)
    rows = parts(sources, Table)[0].rows
    for row in rows:
        place = before.sources.index(row[0])
        ends = [fmean(f.folds[place].plcc for f in run.seed_files) for run in (before, after)]
        assert row[3] == f"{ends[1] - ends[0]:+.4f}"
    assert [float(row[3]) for row in rows] == sorted(float(row[3]) for row in rows)


def test_other_corpora_sources_and_settings_are_said(make_run, records):
    def other(_, content):
        content.update(epochs=7, engine="native")

    run = read_run(make_run(edit=other))
    verdicts, sources, intervals, settings = compare.sections(records, run)
    assert "different corpora" in texts(verdicts)
    assert "alone: " in texts(sources)
    assert parts(intervals, Table)[0].rows[1][1] == "not calibrated"
    differing = {row[0]: row[1:] for row in parts(settings, Table)[0].rows}
    assert differing["epochs"] == ("12", "7")
    assert "dropout" not in differing
