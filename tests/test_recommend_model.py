"""A model in the place of a metric: what it makes of encodes, and what its run says of choosing."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import write_picture
from loso.calibration import calibrate_run, open_run
from loso.corpus.load import load_corpus
from loso.corpus.plan import rows_of
from loso.corpus.view import view
from loso.data import demo_corpus_path
from loso.errors import BadEvidence, BadInput, BadSettings
from loso.export import export_model
from loso.predict import Predictor
from loso.recipe import GateThresholds, InputSpec, Recipe
from loso.recommend.bound import need_of
from loso.recommend.grids import Grid, RunGrounds, grids_of
from loso.recommend.opinion import ModelJudge
from loso.run_folder import train_into
from loso.verdict import validate_run
from loso.video.ffmpeg import find_ffmpeg
from loso.video.measure import Measurement

ANYTHING = GateThresholds(mean_plcc_threshold=-1.0, per_seed_min=-1.0, plcc_spread_max=2.0)
SEEDS = (0, 1)
INTERPOLATED = 0.05
"""Of a score: how far two curves between the same points may be apart here."""


@pytest.fixture(scope="module")
def corpus():
    return load_corpus(demo_corpus_path())


@pytest.fixture(scope="module")
def made(corpus, tmp_path_factory):
    """A run of the demo corpus and the model that was exported from it."""
    run, model = (tmp_path_factory.mktemp("made") / name for name in ("run", "model"))
    train_into(run, corpus, Recipe(epochs=30, hidden=16, lr=1e-2), SEEDS)
    calibrate_run(run, corpus, SEEDS, pairs=9)
    validate_run(run, SEEDS, ANYTHING, corpus=corpus)
    export_model(run, corpus, model)
    return SimpleNamespace(run=run, model=model)


@pytest.fixture(scope="module")
def predictor(made):
    return Predictor.load(made.model)


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Two segments of a clip as a build measures them: cells that are real, and their numbers."""
    from loso.corpus.choices import read_choices
    from loso.corpus.plan import BuildSettings
    from loso.recommend.desk import at_desk
    from loso.recommend.segments import cut_out
    from loso.recommend.work import carry_out

    folder = tmp_path_factory.mktemp("cells")
    ffmpeg = find_ffmpeg()
    write_picture(folder / "ant.mkv", "mandelbrot=size=128x72:rate=25", 10)
    choices = read_choices(["libx264"], quality=["30"], preset=["ultrafast"])
    settings = BuildSettings(choices=choices)
    with at_desk([folder / "ant.mkv"], settings, ffmpeg, parts=folder / "parts") as desk:
        (clip,) = desk.clips

        def work():
            clips = [clip, *(segment.clip for segment in cut_out(clip, [(0, 5), (5, 5)]))]
            return (yield [desk.cell(one, choices[0], choices[0].rate) for one in clips])

        (probes,) = carry_out(desk, [work()])
    return [(probe.cell, probe.measured) for probe in probes]


def test_a_whole_clip_scores_what_predict_makes_of_its_rows(predictor, cells):
    whole, *_ = cells
    expected = predictor.predict(pl.DataFrame(rows_of(*whole)), level=0.8).clips
    for pool in ("mean", "hmean", "p1", "p5"):
        judge = ModelJudge(predictor, pool, asked_level=0.8)
        found = judge.score([whole], is_cut=False)
        assert found.value == expected[f"{pool}_mu"].item()
        assert found.lower == expected[f"{pool}_lower"].item()
    assert judge.level == 0.8
    assert judge.evidence.startswith("scored by the model, interval: hierarchical_conformal")


def test_segments_are_scored_as_one_clip_without_the_first_frame_of_each(predictor, cells):
    _, *segments = cells
    found = ModelJudge(predictor, "mean").score(segments, is_cut=True)
    rows = [row for one in segments for row in rows_of(*one)[1:]]
    frames = predictor.predict(pl.DataFrame(rows)).frames
    assert len(frames) == 8
    assert found.value == pytest.approx(frames["mu"].mean(), abs=1e-9)


def test_what_lies_outside_of_training_is_said(predictor, cells):
    cell, measured = cells[0]
    strange = {**measured.features, "adm2": tuple(3.0 for _ in measured.vmaf)}
    odd = replace(measured, features=strange)
    assert isinstance(odd, Measurement)
    (said,) = [
        remark
        for remark in ModelJudge(predictor, "mean").score([(cell, odd)], is_cut=False).remarks
        if "outside the range of training" in remark
    ]
    assert "adm2 10" in said


@pytest.mark.parametrize("target", [0.0, 101.0])
def test_a_target_that_its_scores_cannot_be_is_refused(predictor, target):
    with pytest.raises(BadSettings, match="--target: no clip can be held to that vmaf, expected"):
        ModelJudge(predictor, "mean").refuse_target(target)


def test_a_level_without_intervals_is_refused(predictor):
    with pytest.raises(BadSettings, match="this model has no intervals of that level"):
        ModelJudge(predictor, "mean", asked_level=0.99)


def test_a_model_of_other_features_is_refused(predictor):
    inputs = predictor.model.inputs
    other = replace(inputs, features=replace(inputs.features, columns=("cambi", "adm2")))
    odd = replace(predictor, model=replace(predictor.model, inputs=other))
    with pytest.raises(BadInput, match="missing columns: cambi, found src, encoder"):
        ModelJudge(odd, "mean")


# -- The run behind a model -----------------------------------------------------------------------


def test_grids_hold_each_source_coded_in_each_way_with_the_members_mean(made, corpus):
    opened = open_run(made.run, corpus, SEEDS, "look at")
    grids = grids_of(opened, "mean")
    rows = opened.seen.rows.with_columns(mu=pl.Series(opened.out_of_fold.mean(axis=0)))
    ways = rows.select("src", "encoder").unique()
    assert {(grid.src, grid.encoder) for grid in grids} == set(ways.rows())
    for grid in grids[:4]:
        own = rows.filter((pl.col("src") == grid.src) & (pl.col("encoder") == grid.encoder))
        by_cq = own.group_by("cq").agg(pl.col("vmaf", "mu").mean()).sort("cq")
        assert grid.cq.tolist() == by_cq["cq"].to_list()
        assert grid.truth == pytest.approx(by_cq["vmaf"].to_numpy(), abs=1e-9)
        assert grid.estimate == pytest.approx(by_cq["mu"].to_numpy(), abs=1e-9)


truths = st.lists(st.floats(5, 95), min_size=4, max_size=20, unique=True)
falling = truths.map(lambda values: np.sort(values)[::-1])


@given(falling | truths.map(np.array), st.floats(-5, 5), st.floats(1, 99))
def test_a_need_between_settings_is_that_of_a_fine_grid(truth, error, target):
    cq = np.arange(len(truth), dtype=np.float64)
    estimate = truth + error
    need = Grid("ant", "x", cq, truth, estimate).need(target)
    if truth.min() >= target or truth.max() < target:
        assert need is None  # the crossing lies beyond the grid
    else:
        # The coarse grid's first miss lies below the crossing, and so does its estimate.
        assert need_of(estimate, truth, target) - 1e-9 <= need <= error + 1e-9
        # Where truths rise again, any that misses may be estimated the highest.
        assert estimate[truth < target].max() - target <= need


def test_a_constant_error_is_needed_as_a_margin():
    cq = np.array([20.0, 30.0, 40.0])
    truth = np.array([95.0, 80.0, 50.0])
    assert Grid("ant", "x", cq, truth, truth + 2.5).need(85.0) == pytest.approx(
        2.5, abs=INTERPOLATED
    )
    assert Grid("ant", "x", cq, truth, truth - 2.5).need(99.0) is None


def test_an_estimate_that_rises_beyond_the_first_miss_could_be_chosen_and_counts():
    cq, truth = np.array([20.0, 30.0, 40.0]), np.array([95.0, 80.0, 50.0])
    assert Grid("ant", "x", cq, truth, np.array([95.0, 80.0, 91.0])).need(85.0) == 6.0


def test_a_miss_that_the_curve_makes_good_still_needs_its_margin():
    # The curve through these truths runs 4.0, 3.65, 3.65: it never falls below the target.
    cq, truth = np.array([20.0, 30.0, 40.0]), np.array([4.0, 3.4, 3.9])
    assert Grid("ant", "x", cq, truth, truth + 0.2).need(3.5) == pytest.approx(0.1)


def grid(src, error, encoder="x"):
    truth = np.array([95.0, 80.0, 50.0])
    return Grid(src, encoder, np.array([20.0, 30.0, 40.0]), truth, truth + error)


def test_the_bound_is_the_conformal_quantile_over_sources_of_the_encoder():
    grids = [grid(name, error) for name, error in zip("abcd", (1.0, 2.0, 3.0, 4.0), strict=True)]
    grids += [grid(name, 9.0, "y") for name in "abcd"]
    bound = RunGrounds(grids).bound("x", 85.0, 0.8)
    assert bound.margin == pytest.approx(4.0, abs=INTERPOLATED)  # ceil(0.8 x 5) of four
    assert (bound.level, bound.n_sources) == (0.8, 4)
    assert bound.evidence == "estimated by the model, bound supported by 4 sources"
    other = RunGrounds(grids).bound("z", 85.0, 0.8)
    assert other.margin == pytest.approx(9.0, abs=INTERPOLATED)
    assert "by the model, whose run has no z, bound" in other.evidence
    with pytest.raises(BadSettings, match="4 sources do not support an interval at that level"):
        RunGrounds(grids).bound("x", 85.0, 0.9)
    with pytest.raises(BadSettings, match="too few sources of the run were coded to above and"):
        RunGrounds(grids).bound("x", 40.0, 0.8)


def test_a_clip_that_is_a_source_of_the_run_says_nothing_of_its_own_need():
    errors = zip("abcde", (1.0, 2.0, 3.0, 4.0, 9.0), strict=True)
    grids = [grid(name, error) for name, error in errors]
    grounds = RunGrounds(grids)
    assert grounds.bound("x", 85.0, 0.8).margin == pytest.approx(9.0, abs=INTERPOLATED)
    without = grounds.bound("x", 85.0, 0.8, without="e")
    assert without == RunGrounds(grids[:4]).bound("x", 85.0, 0.8)
    assert (without.margin, without.n_sources) == (pytest.approx(4.0, abs=INTERPOLATED), 4)
    assert grounds.bound("x", 85.0, 0.8, without="new") == grounds.bound("x", 85.0, 0.8)
    text = "too few other sources of the run were coded to above and below 85, expected at least 4"
    with pytest.raises(BadSettings, match=f"{text}, found 3"):
        RunGrounds(grids[1:]).bound("x", 85.0, 0.8, without="e")
    alone = RunGrounds([*grids, grid("e", 9.0, "y")]).bound("y", 85.0, 0.8, without="e")
    assert "by the model, whose run has no y of another source, bound" in alone.evidence
    assert alone.margin == without.margin


def test_a_clip_is_left_out_with_the_sources_that_it_is_grouped_with():
    grids = [
        replace(grid(group, error, encoder), file_src=name)
        for group, name, error, encoder in [
            *(("city", "tram", 9.0, "y"), ("city", "roof", 8.0, "x"), ("a", "tree", 1.0, "x")),
            *(("b", "lake", 2.0, "x"), ("c", "hill", 3.0, "x"), ("d", "road", 4.0, "x")),
        ]
    ]
    bound = RunGrounds(grids).bound("x", 85.0, 0.8, without="tram")
    assert bound == RunGrounds(grids[2:]).bound("x", 85.0, 0.8)
    # The group's own name is no clip's.
    assert RunGrounds(grids).bound("x", 85.0, 0.8, without="city").n_sources == 5


def test_grids_of_grouped_sources_hold_one_clip_each(corpus):
    groups = {name: f"group {at % 4}" for at, name in enumerate(corpus.sources)}
    named = corpus.rows.with_columns(content=pl.col("src").replace_strict(groups))
    recipe = Recipe(inputs=InputSpec(group_by="content"))
    seen = view(replace(corpus, rows=named), recipe)
    truth = seen.rows["vmaf"].to_numpy()
    opened = SimpleNamespace(
        seen=seen, recipe=recipe, inputs=SimpleNamespace(target=truth), out_of_fold=truth[None] + 1
    )
    grids = grids_of(opened, "mean")
    ways = corpus.rows.select("src", "encoder").unique().rows()
    assert {(grid.file_src, grid.encoder) for grid in grids} == set(ways)
    assert all(grid.src == groups[grid.file_src] for grid in grids)
    for grid in grids:
        own = (pl.col("src") == grid.file_src) & (pl.col("encoder") == grid.encoder)
        by_cq = corpus.rows.filter(own).group_by("cq").agg(pl.col("vmaf").mean()).sort("cq")
        assert grid.truth == pytest.approx(by_cq["vmaf"].to_numpy(), abs=1e-9)


def test_choices_on_the_run_s_own_sources_keep_their_promise_as_often_as_was_said(made, corpus):
    # Leave each source out of the bound, choose on it, and count. The quantile promises 0.8.
    grids = grids_of(open_run(made.run, corpus, SEEDS, "look at"), "mean")
    kept = []
    for target in (95.0, 90.0, 80.0):
        for one in grids:
            try:
                bound = RunGrounds(grids).bound(one.encoder, target, 0.8, without=one.src)
            except BadSettings:
                continue  # too few of this encoder span the target
            need = one.need(target)
            kept += [] if need is None else [need < bound.margin]
    assert np.mean(kept) >= 0.7  # few and dependent: a sign error would halve it


def saying(predictor, **keys):
    """The same model with something else in its manifest."""
    manifest = predictor.manifest.model_copy(update=keys)
    return replace(predictor, model=replace(predictor.model, manifest=manifest))


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"corpus_sha256": "0" * 64}, "the corpus is another, expected 0000"),
        ({"target": "mos"}, "the target is another, expected mos, found vmaf; name the run that"),
        ({"verdict_sha256": "0" * 64}, "the verdict is another, expected 0000"),
    ],
)
def test_what_a_model_says_of_its_run_has_to_be_so(made, predictor, corpus, keys, text):
    with pytest.raises(BadEvidence, match=f"is not the run of this model: {text}"):
        RunGrounds.of(saying(predictor, **keys), made.run, corpus, "mean")


@pytest.fixture
def other_run(corpus, tmp_path):
    """Another run on the model's corpus, of as many seeds, that was judged too."""
    train_into(tmp_path / "other", corpus, Recipe(epochs=2, hidden=16, lr=1e-2), SEEDS)
    validate_run(tmp_path / "other", SEEDS, ANYTHING, corpus=corpus)
    return tmp_path / "other"


def test_another_run_on_the_same_corpus_is_refused(made, predictor, corpus, other_run):
    text = "is not the run of this model: the verdict is another, expected .*; name the run that"
    with pytest.raises(BadEvidence, match=text):
        RunGrounds.of(predictor, other_run, corpus, "mean")
    # The verdict alone does not make it the model's.
    shutil.copy(made.run / "PROMOTE.json", other_run)
    with pytest.raises(BadEvidence, match="the table of predictions of seed 0 is another"):
        RunGrounds.of(predictor, other_run, corpus, "mean")
    (other_run / "PROMOTE.json").unlink()
    with pytest.raises(BadEvidence, match=r"the verdict is another, expected .*, found none; name"):
        RunGrounds.of(predictor, other_run, corpus, "mean")


def test_of_a_model_without_a_verdict_the_rest_is_compared(made, predictor, corpus):
    bare = saying(predictor, verdict_sha256=None)
    assert RunGrounds.of(bare, made.run, corpus, "mean").bound("libx264", 85.0, 0.8).margin >= 0.0
    with pytest.raises(BadEvidence, match="the corpus is another"):
        RunGrounds.of(saying(bare, corpus_sha256="0" * 64), made.run, corpus, "mean")


# -- The command ----------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path):
    return write_picture(tmp_path / "ant.mkv", "mandelbrot=size=128x72:rate=25", 4)


def test_the_whole_way_with_a_model(loso, made, clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["recommend", clip, "--encoder", "libx264", "--preset", "ultrafast", "--step", 1]
    words += ["--model", made.model, "--target", 60]
    code, out, err = loso(*words, "--json")
    assert code == 0, err
    (coding,) = json.loads(out)["codings"]
    (answer,) = coding["answers"]
    assert (answer["level"], json.loads(out)["metric"]) == (0.8, "vmaf")
    assert 60 <= answer["lower"] < answer["score"]
    assert any("ant: " in line and "trial" in line for line in err.splitlines())

    run = ["--run", made.run, "--corpus", demo_corpus_path()]
    code, out, _ = loso(*words, *run, "--confidence", 0.9, "--json")
    (bound,) = json.loads(out)["codings"][0]["answers"]
    count = bound["n_calibration_sources"]  # of ten, those that span the target
    assert (code, bound["level"]) == (0, 0.9)
    assert 9 <= count <= 10
    assert bound["evidence"] == f"estimated by the model, bound supported by {count} sources"
    assert bound["lower"] >= 60


def test_of_a_long_clip_the_model_s_margin_counts_and_no_level_is_claimed_without_others(
    loso, made, predictor, corpus, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    picture = "mandelbrot=size=64x48:rate=25:start_x=-0.7{}:end_pts=50"
    clip, *others = (
        write_picture(tmp_path / f"c{number}.mkv", picture.format(number), 64)
        for number in range(6)
    )
    words = ["recommend", clip, "--encoder", "libx264", "--preset", "ultrafast", "--step", 1]
    words += ["--segments", 2, "--segment-seconds", 0.6, "--model", made.model]

    def answer(*more, target=60):
        code, out, err = loso(*words, *more, "--target", target, "--json")
        assert code == 0, err
        (found,) = json.loads(out)["codings"][0]["answers"]
        return found

    own = answer()
    assert (own["level"], own["lower"]) == (None, None)
    code, out, _ = loso(*words, "--target", 60)
    assert (code, "at least" in out) == (0, False)
    code, _, err = loso(*words, "--target", 100)
    assert (code, "by its segments" in err, "at least" in err) == (1, True, False)
    run = ("--run", made.run, "--corpus", demo_corpus_path())
    grounds = RunGrounds.of(predictor, made.run, corpus, "mean")
    bound = grounds.bound("libx264", 60.0, None)
    of_run = answer(*run)
    assert (of_run["level"], of_run["lower"]) == (None, None)
    assert "without a bound" in of_run["evidence"]
    assert of_run["score"] >= 60 + bound.margin > 60
    near = of_run["score"] - bound.margin / 2  # which that setting meets, but for the margin
    assert answer(*run, target=near)["score"] >= near + bound.margin / 2 + 1e-6

    both = answer(*run, *(word for path in others for word in ("--calibrate-on", path)))
    assert both["level"] == pytest.approx(bound.level + 0.8 - 1.0)  # each may fail
    assert both["n_calibration_sources"] == 5
    assert both["score"] - both["lower"] >= bound.margin
    assert both["lower"] >= 60


def test_a_clip_that_the_model_was_trained_on_is_said(predictor, cells):
    cell, measured = cells[0]
    known = next(iter(predictor.manifest.training_sources))
    same = replace(cell, clip=replace(cell.clip, src=known))
    judge = ModelJudge(predictor, "mean")
    told = "the model was trained on a source of that name: no interval is meant for it"
    assert told in judge.score([(same, measured)], is_cut=False).remarks
    assert told not in judge.score([(cell, measured)], is_cut=False).remarks


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--metric", "vmaf", "--model", "m"), "--metric is measured, a --model estimates what"),
        (("--run", "r"), "--name, --run and --corpus are about a --model, and none was given"),
        (("--model", "m", "--run", "r"), "--run needs --corpus; give both, or neither"),
        (("--model", "nowhere"), "nowhere"),
        (("--metric", "vmfa"), "--metric: no such metric, expected one of vmaf psnr ssim"),
        (("--metric", "ssim"), "no clip can be held to that ssim, expected above 0, at most 1"),
    ],
)
def test_what_cannot_go_together_is_refused(loso, clip, tmp_path, monkeypatch, words, text):
    monkeypatch.chdir(tmp_path)
    code, out, err = loso("recommend", clip, "--encoder", "libx264", "--target", 80, *words)
    assert (code, out) == (2, "")
    assert text in err
    assert not (tmp_path / "recommend.parts").exists()


def test_a_confidence_that_the_run_s_sources_cannot_support_is_refused(
    loso, made, clip, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ["recommend", clip, "--encoder", "libx264", "--target", 80, "--model", made.model]
    words += ["--run", made.run, "--corpus", demo_corpus_path(), "--confidence", 0.95]
    code, _, err = loso(*words)
    assert code == 2
    assert "10 sources do not support an interval at that level" in err
