import hashlib
import json
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from scipy import stats

from loso.calibration import calibrate_run
from loso.corpus.load import load_corpus
from loso.data import demo_corpus_path
from loso.engine.network import first_network
from loso.errors import BadInput, BadSettings, Refused
from loso.export import export_model
from loso.inputs import build_inputs
from loso.intervals import POOLS, Rule, level_key
from loso.model.feed import make_feed
from loso.model.final_fit import fit_final, make_graphs
from loso.model.onnx_build import ensemble_graph
from loso.model.opening import open_model
from loso.model.sums import refresh_sums
from loso.predict import Predictor
from loso.recipe import GateThresholds, Recipe
from loso.run_folder import train_into
from loso.schema import CANONICAL_6, ENCODER_VOCAB
from loso.verdict import validate_run

PARITY = 1e-3
"""Float32 graphs against float64 weights, in points of VMAF."""
ANYTHING = GateThresholds(mean_plcc_threshold=-1.0, per_seed_min=-1.0, plcc_spread_max=2.0)
RECIPE = Recipe(epochs=4, hidden=8, lr=1e-2)
STEM = "fr_regressor_v2_ensemble_v1"


@pytest.fixture(scope="module")
def corpus():
    return load_corpus(demo_corpus_path())


@pytest.fixture(scope="module")
def folder(corpus, tmp_path_factory):
    """A model folder as export leaves it, with intervals; no longer called a trial."""
    run, out = (tmp_path_factory.mktemp("model") / name for name in ("run", "out"))
    train_into(run, corpus, RECIPE, [0, 1, 2])
    calibrate_run(run, corpus, [0, 1, 2])
    validate_run(run, [0, 1, 2], ANYTHING, corpus=corpus)
    export_model(run, corpus, out)
    path = next(out.glob("*_v1.json"))
    path.write_text(path.read_text().replace('"smoke": true', '"smoke": false'))
    refresh_sums(out, [path.name])
    return out


@pytest.fixture(scope="module")
def fit(corpus):
    """What was exported, before it became graphs."""
    return fit_final(corpus, RECIPE, [0, 1, 2])


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor.load(folder)


@pytest.fixture
def changed(folder, tmp_path):
    """Return a function that copies the folder and edits its manifest."""

    def make(edit=lambda _: None):
        out = tmp_path / "changed"
        shutil.copytree(folder, out)
        path = out / f"{STEM}.json"
        manifest = json.loads(path.read_text())
        edit(manifest)
        path.write_text(json.dumps(manifest))
        refresh_sums(out, [path.name])
        return out

    return make


# -- What comes out -------------------------------------------------------------------------------


def expected_scores(fit):
    standardised = fit.scaler.transform(fit.inputs.matrix)
    return np.stack([network.predict(standardised) for network in fit.networks.values()])


def test_every_row_scores_as_the_trained_weights_do(predictor, corpus, fit):
    scores = expected_scores(fit)
    frames = predictor.predict(corpus.rows).frames
    assert np.abs(frames["mu"] - scores.mean(axis=0)).max() <= PARITY
    assert np.abs(frames["sigma"] - scores.std(axis=0, ddof=1)).max() <= PARITY
    assert frames.select("src", "encoder", "preset", "cq", "clip", "frame_index").equals(
        corpus.rows.select("src", "encoder", "preset", "cq", "clip", "frame_index")
    )
    assert frames["outside"].null_count() == len(corpus)
    assert not frames["unseen_encoder"].any()


@pytest.mark.parametrize(
    ("constant", "factor", "output"),
    [("", 1.0, ""), ("ddof1", 2 / 3, "sigma"), ("quantile", 0.5, "lower")],
)
def test_a_graph_of_a_target_in_0_to_1_is_held_as_closely(
    fit, monkeypatch, constant, factor, output
):
    """Members that lie 0.0005 apart, where an error of ddof is one of 0.0001."""
    first = fit.networks[0]
    small = replace(
        fit,
        inputs=replace(fit.inputs, target=fit.inputs.target / 100),
        networks={seed: first.rescaled(0.0005 * seed, 0.01) for seed in (0, 1, 2)},
    )
    rule = Rule(form="scaled", s0=0.001, quantiles={"0.8": 2.0})
    intervals = SimpleNamespace(unit="frame", default_level=0.8, by_pool={"frame": rule})

    def changed(*given, **named):
        model = onnx.load_model_from_string(ensemble_graph(*given, **named))
        for tensor in model.graph.initializer:
            if tensor.name == constant:
                value = numpy_helper.to_array(tensor) * np.float32(factor)
                tensor.CopyFrom(numpy_helper.from_array(value, constant))
        return model.SerializeToString()

    monkeypatch.setattr("loso.model.final_fit.ensemble_graph", changed)
    if not constant:
        make_graphs(small, intervals)
        return
    with pytest.raises(Refused, match=f"the graph's {output} is not that of the trained weights"):
        make_graphs(small, intervals)


@pytest.mark.parametrize("level", [None, 0.5, 0.8])
def test_bounds_are_those_of_each_pools_own_rule(predictor, corpus, level):
    found = predictor.predict(corpus.rows, level=level)
    rules = predictor.manifest.confidence.by_pool
    assert found.level == (level or 0.8)
    assert found.interval == "hierarchical_conformal, supported by 10 sources"
    for pool in POOLS:
        table, prefix = (found.frames, "") if pool == "frame" else (found.clips, f"{pool}_")
        mu, sigma, lower, upper = (
            table[prefix + name].to_numpy() for name in ("mu", "sigma", "lower", "upper")
        )
        rule = rules[pool]
        unit = 1.0 if rule.form == "absolute" else sigma + rule.s0
        half = rule.quantiles[level_key(found.level)] * unit
        np.testing.assert_allclose(lower, np.clip(mu - half, 0, 100))
        np.testing.assert_allclose(upper, np.clip(mu + half, 0, 100))


def test_the_ensemble_graph_bakes_in_the_same_bounds(folder, predictor, corpus):
    session = onnxruntime.InferenceSession(folder / f"{STEM}.onnx")
    inputs = build_inputs(corpus).matrix.astype(np.float32)
    fed = {"features": inputs[:, :6], "codec_onehot": inputs[:, 6:]}
    baked = dict(zip(("mu", "sigma", "lower", "upper"), session.run(None, fed), strict=True))
    found = predictor.predict(corpus.rows).frames
    for name, values in baked.items():
        np.testing.assert_allclose(found[name], values, atol=PARITY / 10)


def test_a_clip_of_one_frame_scores_as_that_frame_to_the_last_digit(predictor, corpus):
    """The same networks speak of both: their spread is no difference of two graphs' roundings."""
    found = predictor.predict(corpus.rows.gather_every(30))
    assert found.clips["n_frames"].to_list() == [1] * 200
    for name in ("mu", "sigma"):
        assert np.array_equal(found.frames[name], found.clips[f"mean_{name}"])


def test_numbers_that_name_rows_keep_their_type(predictor, corpus):
    rows = corpus.rows.head(3)
    for kind in (pl.Int64, pl.Float64):
        typed = rows.with_columns(pl.col("cq").cast(kind))
        assert predictor.predict(typed).frames.schema["cq"] == kind
        assert predictor.predict(typed).clips.schema["cq"] == kind


def test_a_clips_scores_are_pools_of_its_frames(predictor, corpus, fit):
    found = predictor.predict(corpus.rows)
    scores = expected_scores(fit)
    keys = ["src", "encoder", "preset", "cq", "clip"]
    assert found.clips.height == corpus.rows.select(keys).n_unique() == 200
    clips = found.clips.rows(named=True)
    names = corpus.rows.select(keys).rows()
    for clip in clips[::37]:
        own = [i for i, name in enumerate(names) if name == tuple(clip[k] for k in keys)]
        assert clip["n_frames"] == len(own)
        mu, of_members = scores[:, own].mean(axis=0), scores[:, own]
        ways = {
            "mean": np.mean,
            "hmean": lambda x, axis=None: stats.hmean(np.maximum(x, 0) + 1, axis=axis) - 1,
            "p1": lambda x, axis=None: np.percentile(x, 1, axis=axis),
            "p5": lambda x, axis=None: np.percentile(x, 5, axis=axis),
        }
        for pool, way in ways.items():
            assert clip[f"{pool}_mu"] == pytest.approx(way(mu), abs=PARITY)
            spread = np.std(way(of_members, axis=1), ddof=1)
            assert clip[f"{pool}_sigma"] == pytest.approx(spread, abs=PARITY)


@given(st.randoms(use_true_random=False), st.integers(1, 60))
def test_the_order_of_rows_changes_nothing_but_the_order(predictor, corpus, random, count):
    order = random.sample(range(len(corpus)), count)
    shuffled = predictor.predict(corpus.rows[order]).frames
    ascending = predictor.predict(corpus.rows[sorted(order)])
    place = np.argsort(np.argsort(order))
    again = ascending.frames[place]
    assert shuffled.drop("mu", "sigma", "lower", "upper").equals(
        again.drop("mu", "sigma", "lower", "upper")
    )
    for name in ("mu", "sigma", "lower", "upper"):  # a batch of another size sums otherwise
        np.testing.assert_allclose(shuffled[name], again[name], atol=PARITY / 10)


def test_columns_that_name_rows_may_be_missing(predictor, corpus):
    bare = corpus.rows.select(*CANONICAL_6, "encoder", "cq", "preset")
    found = predictor.predict(bare)
    assert found.frames.columns[:4] == ["encoder", "preset", "cq", "mu"]
    assert found.clips.height == bare.select("encoder", "cq").n_unique()
    whole = predictor.predict(corpus.rows).frames
    assert np.array_equal(found.frames["mu"], whole["mu"])
    named = corpus.rows.select(*CANONICAL_6, "encoder", "cq", "preset", "frame_index")
    (warning,) = predictor.predict(named).warnings
    assert warning.startswith("rows share their encoder, preset, cq, frame_index: clips that these")


def test_what_lies_outside_of_training_is_named(predictor, corpus):
    rows = corpus.rows.head(4).with_columns(
        adm2=pl.Series([0.9, 7.0, 0.9, 0.9]),
        cq=pl.Series([30.0, 99.0, 5.0, 30.0]),
        encoder=pl.Series(["libx264", "libx264", "theora", "h264_qsv"]),
        preset=pl.Series(["medium", "medium", None, "veryfast"]),
    )
    found = predictor.predict(rows)
    assert found.frames["outside"].to_list() == [None, "adm2, cq", "cq", None]
    assert found.frames["unseen_encoder"].to_list() == [False, False, True, True]
    assert found.clips["n_outside"].to_list() == [0, 1, 1, 0]
    told = "\n".join(found.warnings)
    assert "slot unknown; rows of each: theora 1" in told
    assert "2 of 4 rows lie outside the range of training" in told
    assert "have no support: cq 2, adm2 1" in told
    assert "encoders without a row in training; rows of each: h264_qsv 1" in told


def test_the_codec_block_is_that_of_training(predictor, corpus):
    """Few rows of a corpus have another range of cq, but the same inputs as in training."""
    whole = build_inputs(corpus).matrix
    for own in ([0], list(range(100, 160)), [5999, 0, 3000]):
        assert np.array_equal(make_feed(predictor.model, corpus.rows[own]).matrix, whole[own])


def test_one_preset_in_training_is_fed_throughout(changed, corpus):
    def edit(manifest):
        manifest["preset_constant"] = 0.25

    predictor = Predictor.load(changed(edit))
    fed = make_feed(predictor.model, corpus.rows.head(3))
    (warning,) = fed.warnings
    assert fed.matrix[:, 18].tolist() == [0.25] * 3
    assert warning.startswith("training saw one preset, so its preset_norm 0.25 is fed throughout;")
    assert warning.endswith("; 3 of 3 rows record another")
    bare = corpus.rows.head(3).drop("preset")
    assert make_feed(predictor.model, bare).warnings == ()


def test_rows_without_a_preset_where_training_saw_several(predictor, corpus):
    (warning,) = predictor.predict(corpus.rows.head(3).drop("preset")).warnings
    assert warning == "training saw several presets and rows record none: 0.5 is fed"


# -- Rows that are refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda t: t.drop("adm2", "cq"), "the rows: missing columns: adm2, cq, found src,"),
        (lambda t: t.head(0), "the rows: holds no rows, expected at least one"),
        (lambda t: t.with_columns(cq=pl.lit("23")), "the rows: cq has the wrong type, found Str"),
        (lambda t: t.with_columns(encoder=pl.lit(7)), "encoder has the wrong type, found Int32"),
        (lambda t: t.with_columns(src=pl.lit([1])), r"src has the wrong type, found List\(Int"),
        (
            lambda t: t.with_columns(motion2=pl.Series([1.0, None, 2.0])),
            "row 2: motion2 has no value that can be scored, found None; measure the row ",
        ),
        (
            lambda t: t.with_columns(motion2=pl.Series([1.0, 2.0, float("inf")])),
            "row 3: motion2 has no value that can be scored, found inf",
        ),
        (
            lambda t: t.with_columns(encoder=pl.Series(["libx264", None, "libx264"])),
            "row 2: encoder has no value that can be scored, found None",
        ),
        (
            lambda t: t.with_columns(motion2=pl.Series([1.0, 1e300, 2.0])),
            "row 2: motion2 has no value that can be scored, found 1e",
        ),
    ],
)
def test_rows_that_cannot_be_scored_are_refused(predictor, corpus, edit, text):
    with pytest.raises(BadInput, match=text):
        predictor.predict(edit(corpus.rows.head(3)))


def test_a_level_without_a_rule_is_refused(predictor, corpus):
    with pytest.raises(
        BadSettings, match=r"no intervals of that level, expected 0.5 or 0.8, found 0.9"
    ):
        predictor.predict(corpus.rows, level=0.9)
    with pytest.raises(BadSettings, match="must lie between 0 and 1, found 80"):
        predictor.predict(corpus.rows, level=80)


# -- Folders of others ----------------------------------------------------------------------------

OLD_VOCABULARY = ["x264", "x265", "svtav1", "vvenc", "vp9", "unknown"]


def foreign_member(network, path, *, opset=18, external=True):
    """Write a member as other exporters do: their names of nodes, weights in a second file."""
    nodes = [helper.make_node("Concat", ["features", "codec_onehot"], ["x0"], axis=1)]
    weights = []
    for i, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        for kind, value in (("w", weight), ("b", bias)):
            weights.append(numpy_helper.from_array(value.astype(np.float32), f"{kind}{i}"))
        nodes.append(helper.make_node("Gemm", [f"x{i}", f"w{i}", f"b{i}"], [f"y{i}"], transB=1))
        if i < len(network.weights) - 1:
            nodes += [
                helper.make_node("Div", [f"y{i}", "root"], [f"d{i}"]),
                helper.make_node("Erf", [f"d{i}"], [f"e{i}"]),
                helper.make_node("Add", [f"e{i}", "one"], [f"a{i}"]),
                helper.make_node("Mul", [f"y{i}", f"a{i}"], [f"m{i}"]),
                helper.make_node("Mul", [f"m{i}", "half"], [f"x{i + 1}"]),
            ]
    nodes.append(helper.make_node("Squeeze", [nodes[-1].output[0], "last"], ["score"]))
    for name, value in (("root", np.sqrt(2.0)), ("one", 1.0), ("half", 0.5)):
        weights.append(numpy_helper.from_array(np.float32(value), name))
    weights.append(numpy_helper.from_array(np.array([1]), "last"))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [
            value("features", TensorProto.FLOAT, ["batch", 6]),
            value("codec_onehot", TensorProto.FLOAT, ["batch", network.weights[0].shape[1] - 6]),
        ],
        [value("score", TensorProto.FLOAT, ["batch"])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.save_model(
        model, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=0
    )
    return hashlib.sha256(path.read_bytes()).hexdigest()


MEAN, STD = [0.9, 0.5, 0.8, 0.9, 0.95, 4.0], [0.1, 0.2, 0.1, 0.1, 0.1, 3.0]


def networks(width=20, scale=30.0):
    made = [first_network(width, Recipe(hidden=8), seed=seed, fold=0) for seed in (0, 1, 2)]
    return [network.rescaled(70.0, scale) for network in made]


@pytest.fixture
def foreign(tmp_path):
    """Return a function that writes a folder of the replaced exporter, records edited."""

    def make(edit_manifest=lambda _: None, edit_sidecar=lambda _: None, **options):
        out = tmp_path / "foreign"
        out.mkdir()
        members = []
        of_networks = {name: options.pop(name) for name in ("width", "scale") if name in options}
        for seed, network in enumerate(networks(**of_networks)):
            name = f"{STEM}_seed{seed}"
            sha256 = foreign_member(network, out / f"{name}.onnx", **options)
            # What the manifest says of its members is that of an earlier making.
            members.append({"id": name, "seed": seed, "onnx": f"{name}.onnx", "sha256": "0" * 64})
            sidecar = {
                "id": name,
                "seed": seed,
                "kind": "fr",
                "onnx": f"{name}.onnx",
                "sha256": sha256,
                "feature_order": list(CANONICAL_6),
                "feature_mean": MEAN,
                "feature_std": STD,
                "encoder_vocab": list(ENCODER_VOCAB),
                "encoder_vocab_version": 2,
                "corpus": {"sha256": "a" * 64, "cq_min": 18.0, "cq_max": 48.0},
            }
            edit_sidecar(sidecar)
            (out / f"{name}.json").write_text(json.dumps(sidecar))
        manifest = {
            "id": STEM,
            "kind": "fr_ensemble",
            "ensemble_size": 3,
            "members": members,
            "feature_order": list(CANONICAL_6),
            "feature_mean": [0.5] * 6,
            "feature_std": [0.25] * 6,
            "codec_vocab": OLD_VOCABULARY,
            "codec_vocab_version": 1,
            "smoke": True,
            "confidence": {"method": "ensemble", "nominal_coverage": 0.95, "gaussian_z": 1.96},
        }
        edit_manifest(manifest)
        (out / f"{STEM}.json").write_text(json.dumps(manifest))
        return out

    return make


@pytest.mark.parametrize("options", [{}, {"opset": 17, "external": False}])
def test_a_foreign_folder_predicts_by_its_members_own_records(foreign, corpus, options):
    rows = corpus.rows.filter(pl.col("cq").is_between(18, 48)).head(500)
    found = Predictor.load(foreign(**options)).predict(rows)
    inputs = np.zeros((len(rows), 20))
    inputs[:, :6] = (rows.select(CANONICAL_6).to_numpy() - MEAN) / STD
    inputs[
        np.arange(len(rows)), 6 + np.array([ENCODER_VOCAB.index(e) for e in rows["encoder"]])
    ] = 1
    inputs[:, 18] = 0.5
    inputs[:, 19] = (rows["cq"].to_numpy() - 18) / 30
    scores = np.stack([network.predict(inputs) for network in networks()])
    mu, sigma = scores.mean(axis=0), scores.std(axis=0, ddof=1)
    assert np.abs(found.frames["mu"] - mu).max() <= PARITY
    assert np.abs(found.frames["sigma"] - sigma).max() <= PARITY
    assert np.abs(found.frames["upper"] - np.clip(mu + 1.96 * sigma, 0, 100)).max() <= 2 * PARITY
    assert (found.level, found.interval) == (0.95, "gaussian, not calibrated")
    assert found.frames["unseen_encoder"].null_count() == len(rows)


def test_networks_that_overflow_are_refused(foreign, corpus):
    predictor = Predictor.load(foreign(scale=9e38))
    rows = corpus.rows.head(3).with_columns(motion2=pl.Series([0.0, 1e6, 0.0]))
    with pytest.raises(BadInput, match=r"row 2: the score is not finite; measure the row again"):
        predictor.predict(rows)


def test_a_foreign_folder_says_what_does_not_fit(foreign):
    told = "\n".join(Predictor.load(foreign()).model.warnings)
    for seed in range(3):
        assert f"seed{seed}.onnx is not the file that the manifest names by its sha256" in told
        assert f"weights of {STEM}_seed{seed}.onnx lie in {STEM}_seed{seed}.onnx.data" in told
    for name in ("encoder_vocab", "feature_mean", "feature_std"):
        assert f"{STEM}.json: {name} is not that of the members' own records" in told
    assert "feature_order" not in told
    assert "records no ranges of training: only cq is held against one" in told
    assert "does not record which encoders had rows in training" in told
    assert "intervals are mu +- z sigma: gaussian, not calibrated" in told


def test_gaussian_intervals_have_any_level(foreign, corpus):
    found = Predictor.load(foreign()).predict(corpus.rows.head(50), level=0.8).frames
    half = stats.norm.ppf(0.9) * found["sigma"]
    np.testing.assert_allclose(found["lower"], np.clip(found["mu"] - half, 0, 100))


def test_without_confidence_there_are_no_bounds(foreign, corpus):
    predictor = Predictor.load(foreign(lambda m: m.pop("confidence")))
    found = predictor.predict(corpus.rows.head(5))
    assert (found.level, found.interval) == (None, "none")
    assert found.frames["lower"].null_count() == 5
    assert found.clips["p5_upper"].null_count() == found.clips.height
    with pytest.raises(BadSettings, match="this model has no intervals; leave out the level"):
        predictor.predict(corpus.rows, level=0.8)


def test_presets_make_no_difference_to_a_foreign_folder(foreign, corpus):
    rows = corpus.rows.head(5)
    predictor = Predictor.load(foreign())
    with_preset = predictor.predict(rows.with_columns(preset=pl.lit("veryslow")))
    assert with_preset.frames["mu"].equals(predictor.predict(rows.drop("preset")).frames["mu"])
    assert "its preset_norm 0.5 is fed throughout; 5 of 5 rows record another" in "".join(
        with_preset.warnings
    )


@pytest.mark.parametrize(
    ("edits", "text"),
    [
        (
            {"edit_sidecar": lambda s: s.update(sha256="1" * 64)},
            "seed0.json: the sha256 of .*_seed0.onnx does not match, expected 1{64}, found",
        ),
        (
            {"edit_sidecar": lambda s: s.update(encoder_vocab=OLD_VOCABULARY)},
            "seed0.json: encoder_vocab does not match",
        ),
        (
            {"edit_sidecar": lambda s: s.update(codec_block_layout=["crf_norm"])},
            "seed0.json: codec_block_layout does not match",
        ),
        (
            {"edit_sidecar": lambda s: s.update(feature_mean=[0.0] * 5)},
            "the length of feature_mean does not match, expected 6, found 5",
        ),
        (
            {"edit_sidecar": lambda s: s.update(feature_order=list(CANONICAL_6)[::-1])},
            "seed0.json: feature_order does not match",
        ),
        (
            {"edit_sidecar": lambda s: s.update(feature_std=[0.0] * 6)},
            "seed0.json: feature_std.0 cannot be used: Input should be greater than 0",
        ),
        (
            {"edit_sidecar": lambda s: s.pop("corpus")},
            "seed0.json: no range of cq, which crf_norm needs, found None..None",
        ),
        (
            {"edit_sidecar": lambda s: s["corpus"].update(cq_max=48.0 + s["seed"])},
            "foreign: members disagree on the range of cq",
        ),
        ({"width": 19}, r"inputs of another width, expected \(6, 14\), found \(6, 13\)"),
    ],
)
def test_a_foreign_folder_whose_members_do_not_fit_is_refused(foreign, edits, text):
    with pytest.raises(BadInput, match=text):
        Predictor.load(foreign(**edits))


def test_a_member_without_its_own_record_is_refused(foreign):
    out = foreign()
    (out / f"{STEM}_seed1.json").unlink()
    with pytest.raises(BadInput, match=r"seed1\.json: file not found"):
        Predictor.load(out)


def test_external_weights_stay_inside_the_folder(foreign, tmp_path):
    out = foreign()
    data = out / f"{STEM}_seed0.onnx.data"
    data.rename(tmp_path / "outside.data")
    with pytest.raises(BadInput, match=r"seed0\.onnx\.data: file not found"):
        Predictor.load(out)
    data.symlink_to(tmp_path / "outside.data")
    with pytest.raises(BadInput, match=r"seed0\.onnx\.data: not opened"):
        Predictor.load(out)


# -- Hostile and damaged folders ------------------------------------------------------------------


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(BadInput, match="nowhere: not a model folder"):
        Predictor.load(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="expected one manifest of kind fr_ensemble, found none"):
        Predictor.load(tmp_path)


def test_one_of_several_models_is_named_by_its_stem(changed):
    out = changed()
    manifest = json.loads((out / f"{STEM}.json").read_text())
    (out / "other.json").write_text(json.dumps(manifest | {"id": "other"}))
    refresh_sums(out, [])
    with pytest.raises(BadInput, match=f"found {STEM}.json, other.json"):
        Predictor.load(out)
    assert Predictor.load(out, "other").manifest.id == "other"


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda m: m.update(ensemble_size=4), "not as many members as it says, expected 4"),
        (
            lambda m: m.update(ensemble_size=1, members=m["members"][:1]),
            "expected 1, at least 2, found 1",
        ),
        (lambda m: m["members"][0].update(onnx="../seed0.onnx"), "members.0.onnx cannot be used"),
        (lambda m: m.update(onnx="/etc/passwd"), "onnx cannot be used: String should match"),
        (lambda m: m["members"][1].update(sha256="0" * 64), "seed1.onnx: its sha256 in the mani"),
        (lambda m: m.update(sha256="0" * 64), f"{STEM}.onnx: its sha256 in the manifest does not"),
        (lambda m: m.pop("sha256"), "does not match, expected None"),
        (lambda m: m["members"][2].update(onnx="absent.onnx"), "absent.onnx: file not found"),
        (lambda m: m.pop("cq_min"), "no range of cq, which crf_norm needs, found None..6"),
        (lambda m: m.update(encoder_vocab=OLD_VOCABULARY), "encoder_vocab does not match"),
        (lambda m: m.update(feature_std=[1.0] * 7), "the length of feature_std does not match"),
        (lambda m: m.update(confidence=None), "other outputs, expected mu, sigma, found mu, sig"),
        (lambda m: m.update(onnx=m["members"][0]["onnx"]), "other outputs, expected mu, sigma, "),
    ],
)
def test_a_manifest_that_does_not_fit_its_folder_is_refused(changed, edit, text):
    with pytest.raises(BadInput, match=text):
        Predictor.load(changed(edit))


@pytest.mark.parametrize("name", [f"{STEM}.onnx", f"{STEM}_seed1.onnx"])
def test_changed_and_cut_graphs_are_refused(changed, name):
    out = changed()
    content = (out / name).read_bytes()
    (out / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInput, match=f"{name}: not a whole ONNX file"):
        Predictor.load(out)
    at = content.rindex(b"\x3f") - 40  # inside some weight
    (out / name).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(BadInput, match=name):
        Predictor.load(out)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (f"{STEM}.json", "not opened, expected a regular file of at most 16777216 bytes, no link"),
        (f"{STEM}_seed0.json", "not opened"),
        (f"{STEM}.onnx", "not opened"),
        (f"{STEM}_seed0.onnx", "not opened"),
    ],
)
def test_links_are_not_followed(changed, tmp_path, name, text):
    out = changed()
    (out / name).rename(tmp_path / "outside")
    (out / name).symlink_to(tmp_path / "outside")
    with pytest.raises(BadInput, match=f"{name}: {text}"):
        Predictor.load(out)


@pytest.mark.parametrize("name", ["pipe.json", "SHA256SUMS"])
def test_a_pipe_does_not_hang_it(changed, name):
    out = changed()
    (out / name).unlink(missing_ok=True)
    os.mkfifo(out / name)
    with pytest.raises(BadInput, match=f"{name}: not opened"):
        Predictor.load(out)


def test_a_file_that_is_not_that_of_the_sums_is_refused(changed):
    """Wider intervals in the manifest, and no graph that says otherwise: only the sum tells."""
    out = changed()
    path = out / f"{STEM}.json"
    manifest = json.loads(path.read_text())
    manifest["confidence"]["by_pool"]["mean"]["quantiles"]["0.8"] *= 0.5
    path.write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match=f"{STEM}.json: its sha256 in SHA256SUMS does not match"):
        Predictor.load(out)
    refresh_sums(out, [path.name])
    assert not any("SHA256SUMS" in warning for warning in Predictor.load(out).model.warnings)
    sums = (out / "SHA256SUMS").read_text().splitlines(keepends=True)
    (out / "SHA256SUMS").write_text("".join(line for line in sums if "_seed1.onnx" not in line))
    with pytest.raises(BadInput, match=r"seed1.onnx: its sha256 in SHA256SUMS .* expected None"):
        Predictor.load(out)
    (out / "SHA256SUMS").unlink()
    assert f"no SHA256SUMS in the folder: a changed {STEM}.json would not be noticed" in (
        Predictor.load(out).model.warnings
    )


def test_a_model_on_trial_says_so(changed):
    (trial,) = Predictor.load(changed(lambda m: m.update(smoke=True))).model.warnings
    assert trial == f"{STEM}.json calls the model a trial (smoke: true), not one for production"


def test_a_model_for_production_warns_of_nothing(changed):
    assert Predictor.load(changed()).model.warnings == ()


def test_nothing_outside_the_folder_is_opened(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = []
    real_open = os.open

    def record(path, *rest, **named):
        opened.append(str(path))
        return real_open(path, *rest, **named)

    monkeypatch.setattr(os, "open", record)
    open_model(folder)
    assert {str(folder) in path for path in opened} == {True}
