import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from loso import export as export_module
from loso.calibration import calibrate_run
from loso.corpus.load import load_corpus
from loso.engine.network import Network
from loso.errors import BadEvidence, BadInput, BadSettings, Busy, Refused
from loso.export import export_model
from loso.files import sha256_of, write_json
from loso.inputs import build_inputs
from loso.intervals import parse_intervals
from loso.locks import folder_lock
from loso.model.files import Manifest, Registry, Sidecar, find_manifest, read_record
from loso.model.final_fit import FINAL_FOLD, fit_final, make_graphs
from loso.model.onnx_graph import Session, read_graph
from loso.recipe import Compute, GateThresholds, InputSpec, Recipe
from loso.registry import flip
from loso.run_folder import train_into
from loso.verdict import validate_run

FLOAT32 = 1e-3
"""PARITY_TOLERANCE, said again: a change of it should be noticed."""

LOOSE = GateThresholds(mean_plcc_threshold=0.5, plcc_spread_max=1.0, per_seed_min=0.5)
COMPUTE = Compute(device="cpu", threads=1)
SEEDS = (0, 1)
STEM = "fr_regressor_v2_ensemble_v1"


def small(_seed, content):
    content.update(epochs=1, hidden=4)


def judge(run, corpus, seeds=SEEDS):
    return validate_run(run, seeds, LOOSE, corpus=corpus)[1]


@pytest.fixture
def promoted(make_run, tmp_path):
    """A run with a PROMOTE, and its corpus."""
    run, corpus = make_run(seeds=SEEDS, edit=small), tmp_path / "corpus.jsonl"
    assert judge(run, corpus).name == "PROMOTE.json"
    return run, corpus


def export(run, corpus, out_dir, **options):
    return export_model(run, corpus, out_dir, compute=COMPUTE, **options)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def intervals_for(run, corpus, seeds=SEEDS):
    """An intervals.json as calibration writes it, with made-up widths."""
    rule = {"form": "scaled", "s0": 0.5, "quantiles": {"0.5": 1.0, "0.8": 3.0}}
    level = {
        "mean": 0.82,
        "worst": 0.6,
        "worst_source": "ant",
        "mean_width": 6.0,
        "by_source": {"ant": {"coverage": 0.6, "width": 6.0}},
    }
    pool = {
        "hierarchical": {"0.8": level},
        "gaussian": {"0.8": level},
        "permuted_split": {},
        "left_out": {},
        "rules": {"ant": rule},
    }
    pools = ("frame", "mean", "hmean", "p1", "p5")
    write_json(
        run / "intervals.json",
        {
            "schema_version": 1,
            "method": "hierarchical_conformal",
            "corpus_sha256": sha256_of(corpus),
            "seeds": list(seeds),
            "predictions": {str(s): sha256_of(run / f"oof_seed{s}.parquet") for s in seeds},
            "target": "vmaf",
            "n_calibration_sources": 9,
            "sources": ["ant", "bee", "cat"],
            "excluded_sources": [],
            "default_level": 0.8,
            "by_pool": dict.fromkeys(pools, rule),
            "coverage": {
                "judged_sources": ["ant"],
                "n_pairs": 2,
                "n_pairs_possible": 3,
                "capped": True,
                "by_pool": dict.fromkeys(pools, pool),
            },
        },
    )


# -- What an export holds -------------------------------------------------------------------------


def test_a_folder_holds_every_file_and_sha256sum_agrees(promoted, tmp_path):
    exported = export(*promoted, tmp_path / "model")
    members = [f"{STEM}_seed{seed}{suffix}" for seed in SEEDS for suffix in (".json", ".onnx")]
    written = {*members, f"{STEM}.onnx", f"{STEM}.json", "MODEL_CARD.md", "registry.json"}
    assert set(exported.files) == written
    assert set(contents(tmp_path / "model")) == written | {"SHA256SUMS"}
    lines = (tmp_path / "model/SHA256SUMS").read_text().splitlines()
    assert len(lines) == len(written)
    tool = shutil.which("sha256sum")
    if tool:
        command = [tool, "--strict", "--quiet", "-c", "SHA256SUMS"]
        subprocess.run(command, cwd=tmp_path / "model", check=True)


def test_the_same_inputs_give_the_same_bytes_wherever_they_lie(promoted, tmp_path):
    run, corpus = promoted
    export(run, corpus, tmp_path / "model")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(run, elsewhere / "run")
    shutil.copy(corpus, elsewhere / corpus.name)
    export(elsewhere / "run", elsewhere / corpus.name, elsewhere / "deep/model")
    first = contents(tmp_path / "model")
    assert contents(elsewhere / "deep/model") == first
    export(run, corpus, tmp_path / "model")
    assert contents(tmp_path / "model") == first
    assert not any(str(tmp_path).encode() in content for content in first.values())


def test_graphs_give_what_the_trained_weights_give(make_corpus, tmp_path):
    run, path = tmp_path / "run", make_corpus(sources=("ant", "bee", "cat", "dog", "elk"))
    corpus, recipe = load_corpus(path), Recipe(epochs=3, hidden=4, lr=1e-2, standardise_target=True)
    train_into(run, corpus, recipe, SEEDS, compute=COMPUTE)
    intervals = calibrate_run(run, corpus, SEEDS, compute=COMPUTE)
    judge(run, path)
    export(run, path, tmp_path / "model")
    fit = fit_final(corpus, recipe, SEEDS, compute=COMPUTE)
    raw = build_inputs(corpus).matrix
    scores = fit.predict(raw)
    mean, std = raw[:, :6].mean(axis=0), raw[:, :6].std(axis=0)
    for seed, expected in zip(SEEDS, scores, strict=True):
        graph, _ = read_graph(tmp_path / f"model/{STEM}_seed{seed}.onnx", outputs=("score",))
        found = Session(graph).run((raw[:, :6] - mean) / std, raw[:, 6:])["score"]
        assert np.abs(found - expected).max() < FLOAT32
    outputs = ("mu", "sigma", "lower", "upper")
    graph, _ = read_graph(tmp_path / f"model/{STEM}.onnx", outputs=outputs)
    found = Session(graph).run(raw[:, :6], raw[:, 6:])
    sigma = scores.std(axis=0, ddof=1)
    half = intervals.by_pool["frame"].half_width(sigma, 0.8)
    upper = np.clip(scores.mean(axis=0) + half, 0, 100)
    assert np.abs(found["mu"] - scores.mean(axis=0)).max() < FLOAT32
    assert np.abs(found["sigma"] - sigma).max() < FLOAT32
    assert np.abs(found["upper"] - upper).max() < FLOAT32
    manifest = read_record(tmp_path / f"model/{STEM}.json", Manifest)
    assert manifest.confidence.nominal_coverage == 0.8
    assert manifest.confidence.n_calibration_sources == 5
    assert manifest.confidence.by_pool == intervals.by_pool
    measured = intervals.coverage.by_pool["frame"].hierarchical["0.8"]
    at = manifest.confidence.measured_coverage["by_pool"]["frame"]["0.8"]
    assert at == measured.model_dump(include={"mean", "worst", "worst_source", "mean_width"})
    card = (tmp_path / "model/MODEL_CARD.md").read_text()
    assert "supported by 5 sources" in card
    row = f"| {measured.mean:.3f} | {measured.worst_source} | {measured.worst:.3f} "
    assert f"| frame {row}| {measured.mean_width:.2f} |" in card


def test_the_final_fit_is_no_fold_and_sees_every_row(promoted):
    corpus, recipe = load_corpus(promoted[1]), Recipe(epochs=1, hidden=4)
    fit = fit_final(corpus, recipe, [3, 5], compute=COMPUTE)
    raw = build_inputs(corpus).matrix
    assert fit.rows.height == len(corpus)
    assert fit.scaler.mean[:6] == pytest.approx(raw[:, :6].mean(axis=0))
    assert fit.scaler.std[:6] == pytest.approx(raw[:, :6].std(axis=0))
    assert list(fit.networks) == [3, 5]
    assert FINAL_FOLD > 10**9  # no corpus has as many sources, and calibration's pairs count up
    without = fit_final(corpus, recipe, [3], exclude_sources=["bee"], compute=COMPUTE)
    assert set(without.rows["src"]) == {"ant", "cat"}


def test_records_say_what_was_made_of_what(promoted, tmp_path):
    run, path = promoted
    export(run, path, tmp_path / "model")
    verdict = json.loads((run / "PROMOTE.json").read_text())
    raw = build_inputs(load_corpus(path)).matrix
    folder, promote = tmp_path / "model", sha256_of(run / "PROMOTE.json")
    manifest = json.loads((folder / f"{STEM}.json").read_text())
    entries = json.loads((folder / "registry.json").read_text())["models"]
    for seed, member, entry in zip(SEEDS, manifest["members"], entries, strict=True):
        sidecar = json.loads((folder / f"{STEM}_seed{seed}.json").read_text())
        digest = sha256_of(folder / f"{STEM}_seed{seed}.onnx")
        assert member == {
            "id": f"{STEM}_seed{seed}",
            "onnx": f"{STEM}_seed{seed}.onnx",
            "seed": seed,
            "sha256": digest,
        }
        assert {key: sidecar[key] for key in member} == member
        assert set(entry) == {"id", "kind", "onnx", "opset", "sha256", "smoke", "notes"}
        assert (entry["kind"], entry["opset"], entry["smoke"]) == ("fr", 17, True)
        assert (entry["sha256"], len(entry["notes"]) <= 512) == (digest, True)
        assert sidecar["gate"] == {
            "verdict": "PROMOTE",
            "mean_plcc": verdict["gate"]["mean_plcc"],
            "mean_plcc_threshold": 0.5,
            "plcc_spread": verdict["gate"]["plcc_spread"],
            "plcc_spread_max": 1.0,
            "per_seed_min_threshold": 0.5,
            "this_seed_loso_plcc": verdict["gate"]["per_seed_plccs"][str(seed)],
            "passed": True,
        }
        assert sidecar["loso_mean_plcc"] == verdict["gate"]["mean_plcc"]
        assert sidecar["verdict_sha256"] == promote
        assert sidecar["evidence"]["seeds"] == verdict["evidence"]["seeds"]
        assert sidecar["corpus"] == {
            "path": "corpus.jsonl",
            "sha256": sha256_of(path),
            "n_rows": 72,
            "cq_min": 20.0,
            "cq_max": 40.0,
        }
        recipe = sidecar["training_recipe"]
        assert (recipe["optimizer"], recipe["loss"]) == ("Adam", "MSE")
        assert (recipe["fit_set"], recipe["scaler"]) == ("full_corpus", "fit_on_full_corpus")
        assert (recipe["epochs"], recipe["hidden"], recipe["in_features"]) == (1, 4, 6)
        assert sidecar["parent_adrs"] == ["ADR-0303", "ADR-0309", "ADR-0319", "ADR-0321"]
        assert sidecar["codec_aware"] is True
        assert len(sidecar["codec_block_layout"]) == recipe["num_codecs"] == 14
    assert manifest["smoke"] is True
    assert manifest["confidence"] is None
    assert manifest["output_names"] == ["mu", "sigma"]
    assert manifest["verdict_sha256"] == promote
    assert manifest["corpus_sha256"] == sha256_of(path)
    assert manifest["preset_constant"] == 0.5
    assert manifest["encoders_seen"] == ["libsvtav1", "libx264"]
    ranges = np.array(list(map(manifest["training_ranges"].get, manifest["feature_order"])))
    assert ranges == pytest.approx(np.stack([raw[:, :6].min(axis=0), raw[:, :6].max(axis=0)], 1))
    assert manifest["eval"]["mean_sigma"] > 0


def test_what_is_written_is_read_by_the_records(promoted, tmp_path):
    export(*promoted, tmp_path / "model")
    path = find_manifest(tmp_path / "model")
    manifest = read_record(path, Manifest)
    assert manifest.sha256 == sha256_of(tmp_path / "model" / manifest.onnx)
    assert len(read_record(tmp_path / "model/registry.json", Registry).models) == len(SEEDS)
    sidecar = read_record(tmp_path / f"model/{STEM}_seed1.json", Sidecar)
    assert sidecar.sha256 == manifest.members[1].sha256


def test_excluded_sources_stay_out_of_the_final_fit(make_run, tmp_path):
    run = make_run(seeds=SEEDS, edit=small, excluded=["bee"])
    judge(run, tmp_path / "corpus.jsonl")
    export(run, tmp_path / "corpus.jsonl", tmp_path / "model")
    sidecar = json.loads((tmp_path / f"model/{STEM}_seed0.json").read_text())
    assert sidecar["corpus"]["n_rows"] == 48
    assert sidecar["training_recipe"]["excluded_sources"] == ["bee"]
    assert "Left out: bee" in (tmp_path / "model/MODEL_CARD.md").read_text()


def test_names_in_the_card_are_text_and_nothing_else(make_run, tmp_path):
    evil = "<script>alert(1)</script> [x](http://e) `a|b`\n# t"
    run, corpus = make_run(seeds=SEEDS, edit=small), tmp_path / "corpus.jsonl"
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    rows = [{**row, "src": evil if row["src"] == "ant" else row["src"]} for row in rows]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    digest = sha256_of(corpus)
    for seed in SEEDS:
        table = pl.read_parquet(run / f"oof_seed{seed}.parquet")
        table = table.with_columns(src=pl.Series([row["src"] for row in rows]))
        order = {name: i for i, name in enumerate(sorted({evil, "bee", "cat"}))}
        table = table.with_columns(fold=pl.col("src").replace_strict(order).cast(pl.Int64))
        table.write_parquet(run / f"oof_seed{seed}.parquet")
        path = run / f"loso_seed{seed}.json"
        content = json.loads(path.read_text())
        folds = {fold["held_out"]: fold for fold in content["folds"]}
        folds["ant"]["held_out"] = evil
        content["folds"] = sorted(content["folds"], key=lambda fold: fold["held_out"])
        content["corpus_sha256"] = digest
        content["predictions"]["sha256"] = sha256_of(run / f"oof_seed{seed}.parquet")
        path.write_text(json.dumps(content))
    judge(run, corpus)
    export(run, corpus, tmp_path / "model")
    card = (tmp_path / "model/MODEL_CARD.md").read_text()
    for raw in ("<script>", "[x](", "`a|b`", "\n# t"):
        assert raw not in card
    assert r"\<script\>alert\(1\)\<\/script\> \[x\]\(http\:\/\/e\) \`a\|b\` \# t" in card


# -- What is refused ------------------------------------------------------------------------------


def spoil(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def break_seed(run):
    spoil(run / "loso_seed1.json", '"wall_time_s": 1.5', '"wall_time_s": 1.6')


def break_predictions(run):
    path = run / "oof_seed1.parquet"
    table = pl.read_parquet(path)
    table.with_columns(y_pred=pl.col("y_pred") + 1e-6).write_parquet(path)


def edit_verdict(run, edit):
    content = json.loads((run / "PROMOTE.json").read_text())
    edit(content)
    (run / "PROMOTE.json").write_text(json.dumps(content))


def rename_verdict(run):
    (run / "PROMOTE.json").rename(run / "HOLD.json")


REFUSALS = {
    "no verdict": (
        lambda run: (run / "PROMOTE.json").unlink(),
        "PROMOTE.json: no verdict to promote; judge the run as it stands: loso validate",
    ),
    "held": (rename_verdict, "HOLD.json: the run is held"),
    "both": (lambda run: shutil.copy(run / "PROMOTE.json", run / "HOLD.json"), "the run is held"),
    "hold inside": (
        lambda run: edit_verdict(run, lambda c: c.update(verdict="HOLD")),
        "the verdict is not to promote, found HOLD",
    ),
    "not passed": (
        lambda run: edit_verdict(run, lambda c: c["gate"].update(passed=False)),
        "the verdict is not to promote",
    ),
    "old validator": (
        lambda run: edit_verdict(run, lambda c: c.pop("evidence")),
        "does not say which bytes it judged; judge the run again: loso validate",
    ),
    "no corpus judged": (
        lambda run: edit_verdict(run, lambda c: c["evidence"].update(corpus_sha256=None)),
        "does not say which bytes it judged",
    ),
    "edited seed": (break_seed, r"loso_seed1.json: not the seed file that the verdict judged"),
    "missing seed": (lambda run: (run / "loso_seed0.json").unlink(), "loso_seed0.json: missing"),
    "edited predictions": (
        break_predictions,
        "oof_seed1.parquet: not the predictions that the verdict judged",
    ),
    "missing predictions": (
        lambda run: (run / "oof_seed0.parquet").unlink(),
        "oof_seed0.parquet: not the predictions",
    ),
    "intervals appear": (
        lambda run: write_json(run / "intervals.json", {}),
        "not the intervals that stood there when the run was judged",
    ),
    "a seed more": (
        lambda run: edit_verdict(run, lambda c: c["seeds"].append(3)),
        "does not name the seed files of all its seeds",
    ),
    "gate edited": (
        lambda run: edit_verdict(run, lambda c: c["gate"].update(mean_plcc=0.999999)),
        "mean_plcc is not what the seed files give",
    ),
    "seed plcc edited": (
        lambda run: edit_verdict(run, lambda c: c["gate"]["per_seed_plccs"].update({"1": 0.99})),
        "per_seed_plccs are not what the seed files give",
    ),
    "limits edited": (
        lambda run: edit_verdict(run, lambda c: c["gate"].update(mean_plcc_threshold=1.0)),
        "does not pass the verdict's own limits",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_run_without_a_verdict_of_its_own_bytes_is_refused(promoted, tmp_path, what):
    run, corpus = promoted
    edit, text = REFUSALS[what]
    edit(run)
    with pytest.raises(Refused, match=text) as refusal:
        export(run, corpus, tmp_path / "model")
    assert refusal.value.exit_code == 1
    assert not (tmp_path / "model").exists()


def test_the_verdict_of_another_run_is_refused(promoted, make_run, tmp_path):
    run, corpus = promoted
    other = make_run("other", seeds=SEEDS, noise=0.4, edit=small)
    shutil.copy(run / "PROMOTE.json", other / "PROMOTE.json")
    with pytest.raises(Refused, match="the verdict is that of another run"):
        export(other, corpus, tmp_path / "model")


def test_a_changed_corpus_is_refused(promoted, tmp_path):
    run, corpus = promoted
    corpus.write_text(corpus.read_text() + "\n")
    with pytest.raises(Refused, match="not the corpus that the verdict speaks of, expected sha256"):
        export(run, corpus, tmp_path / "model")


def test_predictions_of_other_rows_are_refused(make_run, tmp_path):
    def swap(_seed, table):
        return table.with_columns(y_true=pl.col("y_true") + 1, y_pred=pl.col("y_pred") + 1)

    run = make_run(seeds=SEEDS, edit=small, predict=swap)
    validate_run(run, SEEDS, LOOSE)  # without a corpus that is taken on trust
    with pytest.raises(BadEvidence, match="y_true of row 0 is not that of the corpus"):
        export(run, tmp_path / "corpus.jsonl", tmp_path / "model")


def test_intervals_of_other_predictions_are_refused(promoted, tmp_path):
    run, corpus = promoted
    intervals_for(run, corpus)
    spoil(run / "intervals.json", sha256_of(corpus), "0" * 64)
    # A verdict that vouches for the file, as one of an older loso may.
    edit_verdict(
        run,
        lambda c: c["evidence"].update(intervals_sha256=sha256_of(run / "intervals.json")),
    )
    with pytest.raises(Refused, match="the intervals are of other predictions"):
        export(run, corpus, tmp_path / "model")


def test_a_verdict_that_is_none_is_bad_input(promoted, tmp_path):
    run, corpus = promoted
    (run / "PROMOTE.json").write_text('{"verdict": "PROMOTE"')
    with pytest.raises(BadInput, match="not a verdict: the file: Invalid JSON"):
        export(run, corpus, tmp_path / "model")
    with pytest.raises(BadInput, match="not a folder; name the folder of a training run"):
        export(tmp_path / "none", corpus, tmp_path / "model")


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (InputSpec(codec_block=False), "its networks do not read the codec block, which is an inp"),
        (InputSpec(conditions=("adm2",)), "adm2 is the name of two inputs, and records name each"),
        (InputSpec(conditions=("crf_norm",)), "crf_norm is the name of two inputs"),
    ],
)
def test_networks_that_records_cannot_name_are_refused(
    promoted, tmp_path, monkeypatch, inputs, text
):
    monkeypatch.setattr(export_module, "recipe_of", lambda _: Recipe(inputs=inputs))
    with pytest.raises(BadInput, match=text):
        export(*promoted, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("stem", ["", "Upper", "a/b", "../x", "a b", "registry", "x" * 60, "a\n"])
def test_names_that_cannot_be_files_and_ids_are_refused(promoted, tmp_path, stem):
    with pytest.raises(BadSettings, match="not a name for a model"):
        export(*promoted, tmp_path / "model", stem=stem)


def test_a_folder_that_holds_something_else_is_refused(promoted, tmp_path):
    out_dir = tmp_path / "model"
    out_dir.mkdir()
    (out_dir / "taken.json").write_text('{"kind": "fr"}')
    with pytest.raises(BadInput, match=r"taken.json: holds something else than a manifest"):
        export(*promoted, out_dir, stem="taken")
    (out_dir / "registry.json").write_text('{"models": 3}')
    with pytest.raises(BadInput, match=r"registry.json: not a registry"):
        export(*promoted, out_dir)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="not a folder; choose another --out-dir"):
        export(*promoted, tmp_path / "file")
    assert set(contents(out_dir)) == {"taken.json", "registry.json"}


def test_a_card_that_is_no_file_is_not_opened(promoted, tmp_path):
    (tmp_path / "model").mkdir()
    os.mkfifo(tmp_path / "model/MODEL_CARD.md")
    with pytest.raises(BadInput, match=r"MODEL_CARD.md: not opened, expected a regular file"):
        export(*promoted, tmp_path / "model")


def test_a_folder_in_use_is_busy(promoted, tmp_path):
    with (
        folder_lock(tmp_path / "model", "something"),
        pytest.raises(Busy, match="another process is using this folder for exporting"),
    ):
        export(*promoted, tmp_path / "model")


def test_a_run_that_is_being_trained_is_busy(promoted, tmp_path):
    with (
        folder_lock(promoted[0], "training"),
        pytest.raises(Busy, match="another process is using this folder for exporting"),
    ):
        export(*promoted, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_graph_that_gives_something_else_is_never_written(promoted, tmp_path, monkeypatch):
    from loso.model import final_fit

    def wrong(network, **options):
        biases = (*network.biases[:-1], network.biases[-1] + np.float32(0.01))
        return real(Network(network.weights, biases), **options)

    real = final_fit.member_graph
    monkeypatch.setattr(final_fit, "member_graph", wrong)
    with pytest.raises(Refused, match=r"seed 0: the graph's score is not that of the trained"):
        export(*promoted, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("output", ["sigma", "lower"])
def test_a_wrong_ensemble_is_never_written(promoted, monkeypatch, output):
    from loso.model import final_fit

    run, corpus = promoted
    intervals_for(run, corpus)
    fit = fit_final(load_corpus(corpus), Recipe(epochs=1, hidden=4), SEEDS, compute=COMPUTE)
    path = run / "intervals.json"
    intervals = parse_intervals(path.read_bytes(), path)
    make_graphs(fit, intervals)
    real = final_fit.ensemble_graph

    def wrong(networks, **options):
        if output == "sigma":
            return real([networks[0], *networks[:-1]], **options)
        return real(networks, **{**options, "level": 0.5})

    monkeypatch.setattr(final_fit, "ensemble_graph", wrong)
    with pytest.raises(Refused, match="ensemble: the graph's"):
        make_graphs(fit, intervals)


# -- A folder that is shared, replaced, or left half-written --------------------------------------


def test_other_models_in_the_folder_stay_as_they_are(promoted, tmp_path):
    out_dir = tmp_path / "tiny"
    out_dir.mkdir()
    theirs = {
        "$schema": "./registry.schema.json",
        "schema_version": 0,
        "models": [
            {"id": "first", "kind": "filter", "license": "BSD", "onnx": "first.onnx"},
            {"id": f"{STEM}_seed0", "onnx": "old.onnx", "sha256": "0" * 64, "smoke": False},
            {"id": f"{STEM}_seed9", "onnx": "old.onnx", "sha256": "0" * 64, "smoke": False},
            {"id": "last", "kind": "nr", "onnx": "last.onnx", "smoke": True, "extra": [1]},
        ],
    }
    (out_dir / "registry.json").write_text(json.dumps(theirs))
    (out_dir / "MODEL_CARD.md").write_text("# first\nabout another model\n")
    (out_dir / "first.onnx").write_bytes(b"theirs")
    (out_dir / f"{STEM}_seed9.onnx").write_bytes(b"ours, of a seed that is gone")
    (out_dir / f"{STEM}_seed_flip.json").write_text("{}")
    before = contents(out_dir)
    export(*promoted, out_dir)
    after = contents(out_dir)
    for name in ("MODEL_CARD.md", "first.onnx", f"{STEM}_seed_flip.json"):
        assert after[name] == before[name]
    assert f"{STEM}_seed9.onnx" not in after
    registry = json.loads(after["registry.json"])
    assert (registry["$schema"], registry["schema_version"]) == ("./registry.schema.json", 0)
    ids = [entry["id"] for entry in registry["models"]]
    assert ids == ["first", *(f"{STEM}_seed{seed}" for seed in SEEDS), "last"]
    assert registry["models"][0] == theirs["models"][0]
    assert registry["models"][-1] == theirs["models"][-1]
    assert all(entry["smoke"] for entry in registry["models"][1:-1])
    assert after[f"{STEM}.MODEL_CARD.md"].startswith(f"# {STEM}\n".encode())
    sums = dict(reversed(line.split("  ")) for line in after["SHA256SUMS"].decode().splitlines())
    assert sums == {
        name: hashlib.sha256(content).hexdigest()
        for name, content in after.items()
        if name != "SHA256SUMS"
    }


def test_two_models_share_a_folder(promoted, tmp_path):
    export(*promoted, tmp_path / "model", stem="one")
    one = contents(tmp_path / "model")
    export(*promoted, tmp_path / "model", stem="two")
    both = contents(tmp_path / "model")
    kept = [name for name in one if name not in {"registry.json", "SHA256SUMS"}]
    assert {name: both[name] for name in kept} == {name: one[name] for name in kept}
    with pytest.raises(BadInput, match=r"found one.json, two.json; name one of them with --name"):
        find_manifest(tmp_path / "model")
    assert find_manifest(tmp_path / "model", "two").name == "two.json"


def test_a_foreign_file_that_changed_does_not_pass_for_whole(promoted, tmp_path):
    out_dir = tmp_path / "model"
    out_dir.mkdir()
    (out_dir / "other.onnx").write_bytes(b"a")
    export(*promoted, out_dir)
    (out_dir / "other.onnx").write_bytes(b"b")
    export(*promoted, out_dir)
    assert f"{hashlib.sha256(b'a').hexdigest()}  other.onnx" in (out_dir / "SHA256SUMS").read_text()


class Killed(BaseException):
    """A process that ends in the middle, as far as one can be that has to go on."""


def test_cut_short_anywhere_the_folder_is_whole_or_completed_by_the_same_call(
    promoted, make_run, tmp_path, monkeypatch
):
    run, corpus = promoted
    other = make_run("other", seeds=SEEDS, edit=lambda _, c: c.update(epochs=2, hidden=3))
    judge(other, corpus)
    export(run, corpus, tmp_path / "old")
    flip(tmp_path / "old", run / "PROMOTE.json", accept_limits=True)
    export(other, corpus, tmp_path / "new")
    old, new = contents(tmp_path / "old"), contents(tmp_path / "new")
    real, calls, fits = Path.replace, 0, []

    def remembered(*args, **options):
        if not fits:
            fits.append(fit_final(*args, **options))
        return fits[0]

    monkeypatch.setattr(export_module, "fit_final", remembered)
    for n in range(1, 30):
        out_dir = tmp_path / f"cut{n}"
        shutil.copytree(tmp_path / "old", out_dir)
        calls = 0

        def cut(self, target, n=n):
            nonlocal calls
            calls += 1
            if calls == n:
                raise Killed
            return real(self, target)

        monkeypatch.setattr(Path, "replace", cut)
        try:
            export(other, corpus, out_dir)
        except Killed:
            found = contents(out_dir)
            assert all(found[name] in {old[name], new.get(name)} for name in found), n
            assert (found == old) is (n == 1)
            # No changed member is for production, and the manifest vouches for none before it.
            registry = json.loads(found["registry.json"])["models"]
            assert found == old or all(entry["smoke"] for entry in registry)
            ours = [name for name in new if name.startswith(f"{STEM}_seed")]
            whole = all(found[name] == new[name] for name in ours)
            assert whole or found[f"{STEM}.json"] == old[f"{STEM}.json"]
            monkeypatch.setattr(Path, "replace", real)
            export(other, corpus, out_dir)
            assert contents(out_dir) == new
            assert not list(out_dir.glob(".*.tmp"))
        else:
            break
    assert n == len(new) + 1  # every file of the folder was cut off once


def test_a_full_disk_changes_nothing(promoted, make_run, tmp_path, monkeypatch):
    run, corpus = promoted
    export(run, corpus, tmp_path / "model")
    before = contents(tmp_path / "model")
    other = make_run("other", seeds=SEEDS, edit=lambda _, c: c.update(epochs=2, hidden=3))
    judge(other, corpus)
    real, left = Path.write_bytes, 3

    def full(self, content):
        nonlocal left
        left -= 1
        if not left:
            raise OSError(28, "No space left on device")
        return real(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Exception, match="No space left on device"):
        export(other, corpus, tmp_path / "model")
    assert contents(tmp_path / "model") == before
