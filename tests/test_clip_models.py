"""Models of other targets than VMAF: clips as the unit, other features, conditions, statistics."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import pytest
from scipy import stats
from typer.testing import CliRunner

from loso.calibration import calibrate_run
from loso.cli import app
from loso.corpus.load import load_corpus
from loso.corpus.units import as_clips
from loso.errors import BadCorpus, BadInput, BadSettings, Refused
from loso.evaluate import evaluate_model
from loso.export import export_model
from loso.features import load_feature_set
from loso.files import sha256_of, to_json
from loso.intervals import LEVELS
from loso.metrics.mapping import map_out_of_fold
from loso.model.feed import make_feed
from loso.model.final_fit import fit_final
from loso.model.sums import refresh_sums
from loso.predict import Predictor
from loso.recipe import Compute, GateThresholds, InputSpec, Recipe
from loso.registry import flip
from loso.run_folder import train_into
from loso.schema import ENCODER_VOCAB
from loso.verdict import validate_run
from loso.verify import verify_model

PARITY = 1e-3
"""Float32 graphs against float64 weights, in units of the target."""
ANYTHING = GateThresholds(mean_plcc_threshold=-1.0, per_seed_min=-1.0, plcc_spread_max=2.0)
COMPUTE = Compute(device="cpu", threads=1)
SEEDS = [0, 1]
STEM = "people"
SOURCES = tuple("abcdef")
CONDITIONS = ("log2:bitrate_kbps", "height", "log2:bits_per_pixel")
STATISTICS = ("mean", "p5")


def frames(sources=SOURCES, seed=0):
    """Made-up frames: people see the bitrate and the motion, VMAF sees next to nothing."""
    random = np.random.default_rng(seed)
    rows = []
    for src in sources:
        for encoder in ("libx264", "libx265"):
            for at, kbps in enumerate((300, 900, 2700, 8100)):
                mos = 1.2 + 0.85 * at + 0.2 * (encoder == "libx265") + random.normal(0, 0.05)
                for frame in range(5):
                    detail = 0.6 + 0.1 * at + random.normal(0, 0.01)
                    rows.append(
                        {
                            "src": src,
                            "content": src.upper(),
                            "encoder": encoder,
                            "cq": 40 - 5 * at,
                            "frame_index": frame,
                            "vmaf": float(random.uniform(30, 90)),
                            "adm2": detail,
                            **{f"vif_scale{i}": detail - 0.1 * i for i in range(4)},
                            "motion2": float(random.uniform(0, 5)) if frame else 0.0,
                            "motion3_v2": float(random.uniform(0, 9)) if frame else 0.0,
                            "mos": float(np.clip(mos, 1, 5)),
                            "bitrate_kbps": kbps + float(random.uniform(0, 9)),
                            "height": 720 if at < 2 else 1080,
                            "fps": 25.0,
                        }
                    )
    return pl.DataFrame(rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A promoted run of a panel's scores with its corpus, and the model made of it."""
    place = tmp_path_factory.mktemp("clip")
    frames().write_parquet(place / "corpus.parquet")
    features = place / "features.json"
    features.write_text(
        json.dumps({"name": "mine", "features": ["adm2", {"motion": "motion3_v2"}, "vif_scale0"]})
    )
    recipe = Recipe(
        target="mos",
        unit="clip",
        standardise_target=True,
        epochs=30,
        hidden=6,
        lr=1e-2,
        inputs=InputSpec(
            features=load_feature_set(str(features)),
            conditions=CONDITIONS,
            statistics=STATISTICS,
            drop_first_frame=True,
            group_by="content",
        ),
    )
    corpus = load_corpus(place / "corpus.parquet")
    run, model = place / "run", place / "model"
    train_into(run, corpus, recipe, SEEDS, compute=COMPUTE)
    calibrate_run(run, corpus, SEEDS, compute=COMPUTE)
    _, verdict = validate_run(run, SEEDS, ANYTHING, corpus=corpus)
    assert verdict.name == "PROMOTE.json"
    export_model(run, corpus, model, stem=STEM, compute=COMPUTE)
    return place, corpus, recipe


@pytest.fixture(scope="module")
def corpus(made):
    return made[1]


@pytest.fixture(scope="module")
def predictor(made):
    return Predictor.load(made[0] / "model")


@pytest.fixture(scope="module")
def fit(made):
    """What was exported, before it became graphs."""
    return fit_final(made[1], made[2], SEEDS, compute=COMPUTE)


@pytest.fixture
def copied(made, tmp_path):
    """A copy of run and model, to be changed."""
    for name in ("run", "model"):
        shutil.copytree(made[0] / name, tmp_path / name)
    return tmp_path


def by_hand(rows):
    """The raw inputs of each clip, by the definition: (clips, 6 + 14 + 3)."""
    rows = rows.filter(pl.col("frame_index") > 0)
    low, high = frames()["cq"].min(), frames()["cq"].max()
    inputs = []
    for (_, encoder, cq), own in rows.group_by("src", "encoder", "cq", maintain_order=True):
        features = []
        for name in ("adm2", "motion3_v2", "vif_scale0"):
            values = own[name].to_numpy()
            features += [values.mean(), np.percentile(values, 5)]
        one_hot = np.eye(len(ENCODER_VOCAB))[ENCODER_VOCAB.index(encoder)]
        kbps, height = own["bitrate_kbps"].to_numpy(), own["height"].to_numpy()
        bits = 1000 * kbps / (height * height * 16 / 9 * 25)
        conditions = [np.log2(kbps.mean()), height.mean(), np.log2(bits.mean())]
        inputs.append([*features, *one_hot, 0.5, (cq - low) / (high - low), *conditions])
    return np.array(inputs)


# -- What an export says --------------------------------------------------------------------------


def test_records_say_the_whole_of_what_goes_in_and_comes_out(made, corpus):
    place = made[0]
    manifest = json.loads((place / "model" / f"{STEM}.json").read_text())
    sidecar = json.loads((place / "model" / f"{STEM}_seed1.json").read_text())
    seed_file = json.loads((place / "run/loso_seed1.json").read_text())
    raw = by_hand(corpus.rows)
    order = ["adm2", "adm2_p5", "motion", "motion_p5", "vif_scale0", "vif_scale0_p5"]
    for record in (manifest, sidecar):
        assert record["inputs"] == seed_file["inputs"]
        assert record["unit"] == "clip"
        assert record["feature_order"] == order
        assert record["codec_block_layout"][14:] == list(CONDITIONS)
        np.testing.assert_allclose(record["feature_mean"], raw[:, :6].mean(axis=0))
        np.testing.assert_allclose(record["condition_mean"], raw[:, 20:].mean(axis=0))
        np.testing.assert_allclose(record["condition_std"], raw[:, 20:].std(axis=0))
    assert (manifest["target"], manifest["target_range"]) == ("mos", None)
    scores = corpus.rows["mos"]
    np.testing.assert_allclose(manifest["target_seen"], [scores.min(), scores.max()])
    assert set(manifest["training_ranges"]) == {*order, *CONDITIONS}
    ranges = manifest["training_ranges"]["log2:bitrate_kbps"]
    np.testing.assert_allclose(ranges, [raw[:, 20].min(), raw[:, 20].max()])
    trained = sidecar["training_recipe"]
    assert (trained["in_features"], trained["num_codecs"]) == (6, 17)
    assert trained["standardise_target"] is True
    assert list(manifest["confidence"]["by_pool"]) == ["clip"]
    card = (place / "model/MODEL_CARD.md").read_text()
    assert "predict mos of a clip from 6 features of its frames" in card
    assert "mean, p5, frame 0 left out" in card


def test_every_key_that_only_such_models_have_is_documented(made):
    text = (Path(__file__).parents[1] / "docs/formats.md").read_text(encoding="utf-8")
    section = text.partition("### Records of other inputs")[2].partition("\n### ")[0]
    documented = set(re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE))
    manifest = json.loads((made[0] / "model" / f"{STEM}.json").read_text())
    sidecar = json.loads((made[0] / "model" / f"{STEM}_seed0.json").read_text())
    found = {*manifest, *sidecar} | {f"training_recipe.{key}" for key in sidecar["training_recipe"]}
    usual = set(re.findall(r"^\| `([\w.]+)` \|", text.replace(section, ""), re.MULTILINE))
    assert documented <= found
    assert found - usual <= documented | {"corpus", "training_recipe", "gate", "evidence", "eval"}


def test_the_usual_model_says_none_of_it(make_run, tmp_path):
    run = make_run(seeds=SEEDS, edit=lambda _, content: content.update(epochs=1, hidden=4))
    validate_run(run, SEEDS, ANYTHING, corpus=tmp_path / "corpus.jsonl")
    export_model(run, tmp_path / "corpus.jsonl", tmp_path / "model", compute=COMPUTE)
    for path in (tmp_path / "model").glob("fr_*.json"):
        content = json.loads(path.read_text())
        rare = {"inputs", "unit", "condition_mean", "condition_std", "target_seen"}
        assert not rare & content.keys()
        assert "standardise_target" not in content.get("training_recipe", {})


# -- Predictions ----------------------------------------------------------------------------------


def test_clips_score_as_the_trained_weights_do_on_averaged_rows(made, predictor, corpus, fit):
    _, _, recipe = made
    clips = as_clips(
        corpus, recipe.inputs.features.columns, statistics=STATISTICS, drop_first_frame=True
    )
    raw = by_hand(corpus.rows)
    np.testing.assert_allclose(fit.inputs.matrix, raw)
    scores = fit.predict(raw)
    found = predictor.predict(corpus.rows.drop("vmaf", "mos", "bits_per_pixel"))
    assert found.clips is found.frames
    assert found.clips.columns == [
        *("src", "encoder", "cq", "content", "n_frames"),
        *("mu", "sigma", "lower", "upper", "outside", "unseen_encoder"),
    ]
    assert found.clips["n_frames"].to_list() == clips.rows["n_frames"].to_list() == [4] * 48
    assert np.abs(found.clips["mu"] - scores.mean(axis=0)).max() <= PARITY
    assert np.abs(found.clips["sigma"] - scores.std(axis=0, ddof=1)).max() <= PARITY
    assert found.clips["outside"].null_count() == 48
    rule = predictor.manifest.confidence.by_pool["clip"]
    half = rule.half_width(found.clips["sigma"].to_numpy(), found.level)
    np.testing.assert_allclose(found.clips["upper"], found.clips["mu"] + half)  # past 5 if it must
    assert found.interval == "hierarchical_conformal, supported by 6 sources"


def test_graphs_take_raw_features_and_standardised_conditions(made, predictor, corpus):
    raw = by_hand(corpus.rows)
    manifest = predictor.manifest
    block = raw[:, 6:].copy()
    block[:, 14:] = (block[:, 14:] - manifest.condition_mean) / manifest.condition_std
    features = (raw[:, :6] - manifest.feature_mean) / np.array(manifest.feature_std)
    expected = predictor.predict(corpus.rows).clips
    members = []
    for name, fed in ((f"{STEM}_seed0", features), (f"{STEM}_seed1", features), (STEM, raw[:, :6])):
        session = onnxruntime.InferenceSession(made[0] / f"model/{name}.onnx")
        given = {"features": fed, "codec_onehot": block}
        outputs = session.run(None, {k: v.astype(np.float32) for k, v in given.items()})
        members.append(outputs[0])
    mu, sigma, lower, upper = outputs
    np.testing.assert_allclose(np.mean(members[:2], axis=0), mu, atol=PARITY)
    for name, values in {"mu": mu, "sigma": sigma, "lower": lower, "upper": upper}.items():
        np.testing.assert_allclose(expected[name], values, atol=PARITY / 10)


def test_few_frames_in_another_order_are_fed_as_in_training(predictor, corpus, fit):
    own = corpus.rows.filter(pl.col("src") == "c", pl.col("cq") < 40)
    own = own.sample(fraction=1.0, shuffle=True, seed=1)
    feed = make_feed(predictor.model, own)
    whole = {row: i for i, row in enumerate(fit.rows.select("src", "encoder", "cq").rows())}
    order = [whole[row] for row in feed.rows.select("content", "encoder", "cq").rows()]
    np.testing.assert_allclose(feed.matrix, fit.inputs.matrix[order])


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda t: t.drop("motion3_v2"), "missing columns: motion3_v2, found src, .*measure them"),
        (
            lambda t: t.drop("height", "bits_per_pixel"),
            "height, bits_per_pixel, found .*one value for all with --set COL=VALUE; bits_per_pi",
        ),
        (lambda t: t.drop("cq", "encoder"), "missing columns: cq, encoder"),
        (lambda t: t.drop("frame_index"), "missing columns: frame_index"),
        (
            lambda t: t.with_columns(bitrate_kbps=pl.lit("9")).drop("bits_per_pixel"),
            "the rows: bitrate_kbps has the wrong type, found String",
        ),
        (
            lambda t: t.with_columns(bitrate_kbps=pl.lit(0.0)),
            "log2 of bitrate_kbps needs numbers a",
        ),
        (lambda t: t.with_columns(height=pl.lit(None)), "height has the wrong type, found Null"),
        (lambda t: t.filter(frame_index=0), "8 clips have no frame but frame 0"),
    ],
)
def test_rows_that_cannot_be_fed_are_refused(predictor, corpus, edit, text):
    with pytest.raises(BadInput, match=text):
        predictor.predict(edit(corpus.rows.filter(src="a")))


def test_conditions_outside_of_training_are_named(predictor, corpus):
    rows = corpus.rows.filter(src="a").with_columns(height=pl.lit(4320)).drop("bits_per_pixel")
    found = predictor.predict(rows)
    assert found.clips["outside"][0] == "height, log2:bits_per_pixel"
    told = "\n".join(found.warnings)
    assert "8 of 8 clips lie outside the range of training" in told
    assert "no column width: bits_per_pixel takes it as 16:9 of the height" in told


def test_levels_are_those_of_clips(predictor, corpus):
    for level in LEVELS:
        assert predictor.predict(corpus.rows, level=level).level == level
    with pytest.raises(BadSettings, match=r"no intervals of that level, expected 0\.5 or 0\.8"):
        predictor.predict(corpus.rows, level=0.9)


# -- Evaluation -----------------------------------------------------------------------------------


def test_an_evaluation_judges_clips_against_the_target(predictor, tmp_path):
    frames(sources=tuple("xyz"), seed=7).write_parquet(tmp_path / "new.parquet")
    corpus = load_corpus(tmp_path / "new.parquet")
    found = evaluate_model(predictor, corpus)
    assert (found.target, found.rows, found.clips, found.unseen) == ("mos", 96, 24, True)
    (pool,) = found.pools
    judged = found.pools[pool]
    assert (pool, list(judged.by_source)) == ("clip", ["X", "Y", "Z"])
    clips = predictor.predict(corpus.rows).clips
    mos = as_clips(corpus, ()).rows["mos"].to_numpy()
    mu, source = clips["mu"].to_numpy(), clips["src"].to_numpy()
    assert judged.pooled.plcc == pytest.approx(stats.pearsonr(mos, mu)[0])
    assert judged.pooled.rmse == pytest.approx(np.sqrt(np.mean((mos - mu) ** 2)))
    mapped = map_out_of_fold(mos, mu, source)
    assert judged.mapped.rmse == pytest.approx(np.sqrt(np.mean((mos - mapped) ** 2)))
    assert (judged.mapped.n, judged.mapped.coverage) == (24, None)
    of_y = source == "y"
    inside = (clips["lower"].to_numpy() <= mos) & (mos <= clips["upper"].to_numpy())
    assert judged.by_source["Y"].coverage == pytest.approx(inside[of_y].mean())
    drift = {one.name: one for one in found.inputs}
    assert list(drift) == [*predictor.manifest.feature_order, *CONDITIONS, "cq"]
    raw, member = by_hand(corpus.rows), predictor.model.members[0].scaler
    shift = (raw[:, 20].mean() - member.mean[20]) / member.std[20]
    assert drift["log2:bitrate_kbps"].mean_shift == pytest.approx(shift)


def test_two_sources_are_too_few_for_a_mapping(predictor, tmp_path):
    frames(sources=("x", "y")).write_parquet(tmp_path / "new.parquet")
    found = evaluate_model(predictor, load_corpus(tmp_path / "new.parquet"))
    assert found.pools["clip"].mapped is None
    frames().drop("mos").write_parquet(tmp_path / "other.parquet")
    with pytest.raises(BadCorpus, match="no column mos"):
        evaluate_model(predictor, load_corpus(tmp_path / "other.parquet"))


# -- Verification and promotion -------------------------------------------------------------------


def told(found):
    return [f"{f.check} {f.file}: {f.problem}" for f in found.findings]


def test_the_folder_is_clean_before_and_after_its_flip(copied, made):
    chain = {"run_dir": copied / "run", "corpus": made[0] / "corpus.parquet"}
    assert told(verify_model(copied / "model", **chain)) == []
    assert told(verify_model(copied / "model", corpus=chain["corpus"])) == []
    flip(copied / "model", copied / "run/PROMOTE.json", accept_limits=True)
    assert told(verify_model(copied / "model", **chain)) == []


@pytest.mark.parametrize(
    ("name", "change", "finding"),
    [
        (
            STEM,
            lambda c: c["condition_mean"].reverse(),
            "condition_mean.0 is not what export would write",
        ),
        (STEM, lambda c: c["condition_std"].pop(), "length of condition_std"),
        (STEM, lambda c: c["codec_block_layout"].pop(), "manifest people.json: codec_block_layout"),
        (STEM, lambda c: c["inputs"].update(conditions=["a:b"]), "no such condition"),
        (STEM, lambda c: c["inputs"].update(statistics=["mean", "std"]), "feature_order"),
        (STEM, lambda c: c["inputs"]["features"]["columns"].pop(), "not a column for each feature"),
        (
            STEM,
            lambda c: c["confidence"]["by_pool"]["clip"]["quantiles"].update({"0.8": 2.0}),
            "ensemble people.onnx: not the graph that the members and the manifest give",
        ),
        (
            STEM,
            lambda c: c.update(target_seen=[0, 9]),
            "target_seen.0 is not what export would write",
        ),
        (STEM, lambda c: c["training_ranges"].pop("height"), "training_ranges of other inputs"),
        (
            STEM,
            lambda c: c.update(unit="frame"),
            "no rule for frames, whose bounds the graph gives",
        ),
        (f"{STEM}_seed0", lambda c: c.pop("inputs"), "inputs is not what export would write"),
        (
            f"{STEM}_seed0",
            lambda c: c["training_recipe"].pop("standardise_target"),
            "training_recipe.standardise_target is not what export would write",
        ),
    ],
)
def test_what_a_record_says_of_inputs_is_held_against_all_else(copied, made, name, change, finding):
    path = copied / f"model/{name}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(to_json(content))
    refresh_sums(copied / "model", [path.name])
    chain = {"run_dir": copied / "run", "corpus": made[0] / "corpus.parquet"}
    assert any(finding in text for text in told(verify_model(copied / "model", **chain)))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c["inputs"].update(conditions=["fps"]), "codec_block_layout does not match"),
        (lambda c: c["inputs"].update(codec_block=False), "inputs.codec_block does not match"),
        (
            lambda c: c["condition_mean"].pop(),
            "length of condition_mean does not match, expected 3",
        ),
        (lambda c: c["inputs"].update(statistics=["p50"]), "no such statistic of a clip"),
        (lambda c: c.pop("inputs"), "feature_order does not match, expected .'adm2', 'vif_scale0'"),
    ],
)
def test_a_folder_whose_inputs_do_not_fit_is_not_opened(copied, change, text):
    path = copied / f"model/{STEM}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(to_json(content))
    refresh_sums(copied / "model", [path.name])
    with pytest.raises(BadInput, match=text):
        Predictor.load(copied / "model")


def test_intervals_of_frames_are_not_exported_with_a_model_of_clips(copied, made):
    path = copied / "run/intervals.json"
    content = json.loads(path.read_text())
    pools = ("frame", "mean", "hmean", "p1", "p5")
    for holder in (content, content["coverage"]):
        holder["by_pool"] = dict.fromkeys(pools, holder["by_pool"]["clip"])
    path.write_text(to_json(content))
    verdict = json.loads((copied / "run/PROMOTE.json").read_text())
    verdict["evidence"]["intervals_sha256"] = sha256_of(path)  # by hand: no validation passes it
    (copied / "run/PROMOTE.json").write_text(to_json(verdict))
    with pytest.raises(Refused, match="the intervals are of another unit than the run, expected a"):
        export_model(copied / "run", made[1], copied / "other", compute=COMPUTE)


# -- Frames with conditions -----------------------------------------------------------------------


def test_frames_with_a_condition_score_one_by_one(tmp_path):
    frames(seed=3).write_parquet(tmp_path / "corpus.parquet")
    corpus = load_corpus(tmp_path / "corpus.parquet")
    spec = InputSpec(conditions=("log2:bitrate_kbps",), drop_first_frame=True)
    recipe = Recipe(target="mos", epochs=8, hidden=4, lr=1e-2, inputs=spec)
    run, model = tmp_path / "run", tmp_path / "model"
    train_into(run, corpus, recipe, SEEDS, compute=COMPUTE)
    validate_run(run, SEEDS, ANYTHING, corpus=corpus)
    export_model(run, corpus, model, compute=COMPUTE)
    predictor = Predictor.load(model)
    found = predictor.predict(corpus.rows)
    assert "48 rows of frame 0 are left out, as training left them out" in found.warnings
    fit = fit_final(corpus, recipe, SEEDS, compute=COMPUTE)
    assert found.frames.height == 192
    assert np.abs(found.frames["mu"] - fit.predict(fit.inputs.matrix).mean(axis=0)).max() <= PARITY
    assert found.clips["n_frames"].to_list() == [4] * 48
    with pytest.raises(BadInput, match="no frame but frame 0, which this model does not score"):
        predictor.predict(corpus.rows.filter(frame_index=0))
    assert verify_model(model, run_dir=run, corpus=tmp_path / "corpus.parquet").clean
    assert list(evaluate_model(predictor, corpus).pools) == ["frame", "mean", "hmean", "p1", "p5"]


# -- Commands -------------------------------------------------------------------------------------


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_predict_prints_one_line_a_clip(made, corpus, predictor, tmp_path):
    rows = corpus.rows.drop("vmaf", "mos", "bits_per_pixel", "height")
    rows.write_parquet(tmp_path / "rows.parquet")
    words = ("predict", "--model", made[0] / "model", "--features", tmp_path / "rows.parquet")
    found = call(*words, "--set", "height=720")
    expected = predictor.predict(rows.with_columns(height=pl.lit(720.0))).clips
    assert [json.loads(line) for line in found.stdout.splitlines()] == expected.to_dicts()
    record = json.loads(call(*words, "--set", "height=720", "--json").stdout)
    assert record["clips"] == expected.to_dicts()
    assert "frames" not in record
    assert isinstance(call(*words).exception, BadInput)
    for text in ("height", "=7", "height="):
        assert "--set: names no column" in str(call(*words, "--set", text).exception)


def test_evaluate_prints_clips_and_what_is_mapped(made):
    found = call("evaluate", "--model", made[0] / "model", "--corpus", made[0] / "corpus.parquet")
    lines = found.stdout.splitlines()
    assert lines[0] == f"{STEM} on corpus.parquet: 192 rows, 48 clips, target mos"
    assert lines[2] == "clips"
    assert any(line.startswith("together, mapped") for line in lines)
    assert any(line.startswith("log2:bits_per_pixel") for line in lines)


def test_calibrate_prints_the_pool_of_clips(copied, made):
    words = ("calibrate", copied / "run", "--corpus", made[0] / "corpus.parquet", "--seeds", "0,1")
    lines = call(*words).stdout.splitlines()
    assert [line for line in lines if line.startswith("clip ")]
    assert any(line.startswith("worst source of clips: ") for line in lines)
