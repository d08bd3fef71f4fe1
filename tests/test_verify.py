import hashlib
import json
import os
import re
import shutil
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import typer
from typer.testing import CliRunner

from loso.calibration import calibrate_run
from loso.cli.verify import verify as verify_command
from loso.corpus.load import load_corpus
from loso.engine.network import Network, first_network
from loso.errors import BadCorpus, BadInput, BadSettings
from loso.export import export_model
from loso.files import sha256_of, to_json, write_json
from loso.model.files import Manifest, read_record
from loso.model.onnx_build import ensemble_graph, member_graph
from loso.model.onnx_graph import read_graph
from loso.model.sums import refresh_sums
from loso.recipe import Compute, GateThresholds, Recipe
from loso.registry import flip, unflip
from loso.run_folder import LOSSES_FILE, RUN_FILE, train_into
from loso.schema import CANONICAL_6, ENCODER_VOCAB
from loso.verdict import validate_run
from loso.verify import verify_model
from loso.verify.graphs import read_network

SEEDS = (0, 1)
SOURCES = ("ant", "bee", "cat", "fox", "gnu")
RECIPE = Recipe(epochs=3, hidden=4, lr=1e-2, standardise_target=True)
COMPUTE = Compute(device="cpu", threads=1)
STEM = "fr"
MEMBER = f"{STEM}_seed0"
LOOSE = GateThresholds(mean_plcc_threshold=0.5, plcc_spread_max=1.0, per_seed_min=0.5)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    return tmp_path_factory.mktemp("once")


@pytest.fixture
def chain(once, make_corpus, tmp_path):
    """Copies of a corpus, a promoted run and its flipped export, all made once."""
    if not (once / "model").exists():
        run, corpus = once / "run", once / "corpus.jsonl"
        shutil.move(make_corpus(sources=SOURCES), corpus)
        train_into(run, load_corpus(corpus), RECIPE, SEEDS, compute=COMPUTE)
        for name in (RUN_FILE, LOSSES_FILE):  # nothing is judged by them
            (run / name).unlink()
        calibrate_run(run, load_corpus(corpus), SEEDS, compute=COMPUTE)
        verdict = validate_run(run, SEEDS, LOOSE, corpus=corpus)[1]
        export_model(run, corpus, once / "trial", stem=STEM, compute=COMPUTE)
        shutil.copytree(once / "trial", once / "model")
        flip(once / "model", verdict, accept_limits=True)
    for name in ("run", "trial", "model"):
        shutil.copytree(once / name, tmp_path / "chain" / name)
    shutil.copy(once / "corpus.jsonl", tmp_path / "chain")
    place = tmp_path / "chain"
    return SimpleNamespace(
        model=place / "model",
        trial=place / "trial",
        run=place / "run",
        corpus=place / "corpus.jsonl",
        all={"run_dir": place / "run", "corpus": place / "corpus.jsonl"},
    )


def told(found):
    """Every finding on a line: its check, its file, and what is wrong."""
    return [f"{f.check} {f.file}: {f.problem}" for f in found.findings]


def edit(path, change):
    """Change a JSON file; in a model folder, SHA256SUMS is made to fit."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(to_json(content))
    if (path.parent / "SHA256SUMS").exists():
        refresh_sums(path.parent, [path.name])


def put(*keys, value):
    """Return a change that puts `value` at the end of `keys`; ... takes the key away."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        if value is ...:
            del content[keys[-1]]
        else:
            content[keys[-1]] = value

    return change


# -- Clean ----------------------------------------------------------------------------------------


def test_an_export_is_clean_before_and_after_its_flip(chain):
    for folder in (chain.trial, chain.model):
        found = verify_model(folder, **chain.all)
        assert told(found) == []
        assert found.clean
        assert found.models == (STEM,)
    assert any("mean_plcc_threshold was 0.5, the standard is 0.95" in n for n in found.notes)
    unflip(chain.model, "it failed on animation")
    assert told(verify_model(chain.model, **chain.all)) == []


def test_a_clean_folder_of_two_models_beside_others_is_clean(chain):
    (chain.model / "other.onnx").write_bytes(b"theirs")
    edit(
        chain.model / "registry.json",
        lambda c: c["models"].append(
            {"id": "other", "kind": "filter", "onnx": "other.onnx", "sha256": sha(b"theirs")}
        ),
    )
    export_model(chain.run, chain.corpus, chain.model, stem="two", compute=COMPUTE)
    found = verify_model(chain.model, **chain.all)
    assert (told(found), found.models) == ([], (STEM, "two"))
    assert verify_model(chain.model, stem="two").models == ("two",)
    with pytest.raises(BadInput, match=r"found fr, two; name one of them with --name"):
        verify_model(chain.model, stem="three")


def sha(content):
    return hashlib.sha256(content).hexdigest()


# -- One byte -------------------------------------------------------------------------------------


def flipped(path, places=5):
    """Yield while one byte of a file is another, at several places."""
    content = path.read_bytes()
    for place in np.linspace(0, len(content) - 1, places).astype(int).tolist():
        for bit in (1, 32):
            path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
            yield place
    path.write_bytes(content)


def test_one_byte_anywhere_in_the_folder_is_found_and_its_file_is_named(chain):
    for path in sorted(chain.model.iterdir()):
        if path.name == ".lock":
            continue
        for place in flipped(path):
            found = verify_model(chain.model)
            named = {f.file for f in found.findings} | {
                word for f in found.findings for word in f.problem.split()
            }
            assert path.name in named, (path.name, place, told(found))
    assert verify_model(chain.model).clean


def test_one_byte_anywhere_in_the_run_or_the_corpus_is_found_and_its_file_is_named(chain):
    for path in [*sorted(chain.run.iterdir()), chain.corpus]:
        if path.name == ".lock":
            continue
        for place in flipped(path, places=3):
            found = verify_model(chain.model, **chain.all)
            assert any(path.name in text for text in told(found)), (path.name, place)
    assert verify_model(chain.model, **chain.all).clean


def test_a_file_that_is_gone_is_named(chain):
    for path in sorted(chain.model.iterdir()):
        content = path.read_bytes()
        if path.name == ".lock":
            continue
        path.unlink()
        files = {f.file for f in verify_model(chain.model).findings}
        assert path.name in files
        path.write_bytes(content)


def test_every_line_of_the_sums_counts(chain):
    path = chain.model / "SHA256SUMS"
    content = path.read_text()
    for text, problem in (
        (content + content.splitlines()[0] + "\n", "line 10 is not one of sha256sum"),
        (content[:-1], "the last line has no end"),
        (content.replace("\n", "\x0b", 1), "line 1 is not one of sha256sum"),
        (content.replace("  ", " *", 1), "line 1 is not one of sha256sum"),
        (content + f"{'0' * 64}  ../run/PROMOTE.json\n", "and no file of the folder"),
        (content + f"{'0' * 64}  /etc/hostname\n", "and no file of the folder"),
    ):
        path.write_text(text)
        assert any(problem in line for line in told(verify_model(chain.model))), problem
    path.write_text(content)
    (chain.model / "extra.bin").write_bytes(b"")
    assert told(verify_model(chain.model)) == ["sums extra.bin: SHA256SUMS has no line for it"]


# -- Records that do not fit, under sums that do --------------------------------------------------

MANIFEST, SIDECAR = f"{STEM}.json", f"{MEMBER}.json"
PROMOTION, REGISTRY = f"{STEM}.promotion.json", "registry.json"
ZEROS = "0" * 64

EDITS = [
    # The manifest against itself.
    (MANIFEST, put("id", value="other"), "manifest: id does not match"),
    (MANIFEST, put("ensemble_size", value=3), "manifest: ensemble_size does"),
    (
        MANIFEST,
        lambda c: c["members"].pop(),
        "members: fr_seed1 is there and not among its members",
    ),
    (MANIFEST, lambda c: c["members"].pop(), "manifest: too few members"),
    (MANIFEST, put("members", 1, "seed", value=0), "manifest: 2 members have the same seed"),
    (MANIFEST, put("members", 0, "id", value="elsewhere"), "manifest: id of seed 0 does not match"),
    (
        MANIFEST,
        put("members", 0, "onnx", value="fr.onnx"),
        "manifest: onnx of seed 0 does not match",
    ),
    (
        MANIFEST,
        lambda c: c.update(codec_vocab=c.pop("encoder_vocab")),
        "manifest: codec_vocab is an old name",
    ),
    (
        MANIFEST,
        put("encoder_vocab", value=["x264", "x265", "unknown"]),
        "manifest: encoder_vocab does not match",
    ),
    (
        MANIFEST,
        lambda c: c["encoder_vocab"].reverse(),
        f"members {SIDECAR}: encoder_vocab is not that of the manifest",
    ),
    (
        MANIFEST,
        put("encoder_vocab", value=["x264", "x265", "unknown"]),
        f"members: codec block of {MEMBER}.onnx has another width",
    ),
    (
        MANIFEST,
        put("encoder_vocab", value=["x"] * 13),
        f"members: inputs of {MEMBER}.onnx are not as wide",
    ),
    (
        MANIFEST,
        put("encoder_vocab_version", value=1),
        "manifest: encoder_vocab_version does not match",
    ),
    (MANIFEST, lambda c: c["feature_order"].reverse(), "manifest: feature_order does not match"),
    (
        MANIFEST,
        lambda c: c["feature_mean"].pop(),
        "manifest: length of feature_mean does not match",
    ),
    (MANIFEST, put("verdict_sha256", value=None), "manifest: no verdict_sha256: it does not say"),
    (MANIFEST, put("corpus_sha256", value=...), "manifest: no corpus_sha256: it does not say"),
    (MANIFEST, put("target_range", value=[0, 50]), "manifest: target_range does not match"),
    (
        MANIFEST,
        put("training_ranges", "motion2", value=[5, 1]),
        "manifest: range of motion2 is upside down",
    ),
    (
        MANIFEST,
        put("training_ranges", "motion2", value=...),
        "manifest: training_ranges of other inputs",
    ),
    (
        MANIFEST,
        put("confidence", "nominal_coverage", value=0.9),
        "manifest: pool frame lacks its level",
    ),
    (MANIFEST, put("confidence", "by_pool", "frame", value=...), "manifest: no rule for frames"),
    (
        MANIFEST,
        put("members", 0, "sha256", value="none"),
        "manifest: members.0.sha256 cannot be used",
    ),
    (
        MANIFEST,
        put("members", 0, "onnx", value="../run/PROMOTE.json"),
        "manifest: members.0.onnx cannot be used",
    ),
    (MANIFEST, put("kind", value="fr"), "manifest: kind cannot be used"),
    # The manifest against members and sidecars.
    (
        MANIFEST,
        put("members", 0, "sha256", value=ZEROS),
        f"members: sha256 of {MEMBER}.onnx does not match",
    ),
    (
        MANIFEST,
        put("feature_mean", 0, value=0.5),
        f"members {SIDECAR}: feature_mean is not that of the manifest",
    ),
    (
        MANIFEST,
        put("feature_std", 0, value=0.5),
        f"members {SIDECAR}: feature_std is not that of the manifest",
    ),
    (
        MANIFEST,
        put("verdict_sha256", value=ZEROS),
        f"members {SIDECAR}: verdict_sha256 is not that of the manifest",
    ),
    (
        MANIFEST,
        put("corpus_sha256", value=ZEROS),
        f"members {SIDECAR}: corpus.sha256 is not that of the manifest",
    ),
    (
        MANIFEST,
        put("cq_max", value=99),
        f"members {SIDECAR}: corpus.cq_max is not that of the manifest",
    ),
    # A sidecar against its graph, its name and the others.
    (SIDECAR, put("sha256", value=ZEROS), f"sidecar: sha256 of {MEMBER}.onnx does not match"),
    (SIDECAR, put("id", value="fr_seed7"), "sidecar: id does not match"),
    (SIDECAR, put("onnx", value="fr.onnx"), "sidecar: onnx does not"),
    (SIDECAR, put("kind", value="nr"), "sidecar: kind does not match"),
    (SIDECAR, put("input_names", value=["x", "y"]), "sidecar: input_names does not match"),
    (SIDECAR, put("output_names", value=["mos"]), "sidecar: output_names does not match"),
    (SIDECAR, put("opset", value=18), f"sidecar: opset of {MEMBER}.onnx does"),
    (
        SIDECAR,
        lambda c: c["codec_block_layout"].reverse(),
        "sidecar: codec_block_layout does not match",
    ),
    (
        SIDECAR,
        lambda c: c["codec_block_layout"].append("height"),
        f"sidecar: width of the inputs of {MEMBER}.onnx does not match",
    ),
    (SIDECAR, put("encoder_vocab", value=["x264"]), "sidecar: encoder_vocab does not match"),
    (SIDECAR, lambda c: c["feature_mean"].pop(), "sidecar: length of feature_mean does not match"),
    (SIDECAR, put("seed", value=4), "members: seed is not that of the manifest"),
    (
        SIDECAR,
        put("ensemble_id", value="other"),
        "members: ensemble_id is not that of the manifest",
    ),
    (
        f"{STEM}_seed1.json",
        put("training_recipe", "lr", value=1),
        f"members {STEM}_seed1.json: training_recipe is not that of {SIDECAR}",
    ),
    # The ensemble's graph.
    (MANIFEST, put("sha256", value=ZEROS), "ensemble: sha256 of fr.onnx does not match"),
    (MANIFEST, put("onnx", value=f"{MEMBER}.onnx"), "ensemble: onnx does not match"),
    (MANIFEST, put("onnx", value=None), "ensemble: names no graph of the ensemble"),
    (
        MANIFEST,
        put("confidence", "by_pool", "frame", "quantiles", "0.8", value=9.0),
        "ensemble fr.onnx: not the graph that the members and the manifest give",
    ),
    (
        MANIFEST,
        put("feature_std", 0, value=5.0),
        "ensemble fr.onnx: not the graph that the members and the manifest give",
    ),
    # The registry.
    (REGISTRY, put("schema_version", value=0), "registry: schema_version"),
    (REGISTRY, put("models", value={}), "registry: not a registry"),
    (REGISTRY, lambda c: c["models"].append(3), "registry: an entry that is no object"),
    (
        REGISTRY,
        put("models", 0, "sha256", value=ZEROS),
        f"registry: sha256 of {MEMBER} is not that of {MEMBER}.onnx",
    ),
    (
        REGISTRY,
        put("models", 0, "onnx", value="../run/x.onnx"),
        f"registry: {MEMBER} names no file of the folder",
    ),
    (REGISTRY, put("models", 0, "opset", value=18), f"registry: opset of {MEMBER} does not match"),
    (REGISTRY, put("models", 0, "kind", value="video"), "registry: kind cannot be used"),
    (
        REGISTRY,
        put("models", 0, "onnx", value=f"{STEM}_seed1.onnx"),
        f"registry: onnx of {MEMBER} does not match",
    ),
    (REGISTRY, lambda c: c["models"].pop(0), f"registry: {MEMBER} does not stand there once"),
    (
        REGISTRY,
        lambda c: c["models"].append(dict(c["models"][0], id="fr_seed9")),
        "registry: fr_seed9 is no member of fr",
    ),
    # Smoke and promotion.
    (
        REGISTRY,
        put("models", 0, "smoke", value=True),
        "smoke: some members are for production and some are not",
    ),
    (
        MANIFEST,
        put("smoke", value=True),
        "smoke: smoke is not that of the members in registry.json",
    ),
    (PROMOTION, put("state", value="withdrawn"), "promotion: state does not match"),
    (PROMOTION, put("id", value="x"), "promotion: id does not"),
    (
        PROMOTION,
        put("members", MEMBER, value=ZEROS),
        f"promotion: sha256 of {MEMBER} does not match",
    ),
    (
        PROMOTION,
        put("members", "fr_seed9", value=ZEROS),
        "promotion: list of members does not match",
    ),
    (PROMOTION, put("verdict_sha256", value=ZEROS), "promotion: verdict_sha256 does not match"),
    (PROMOTION, put("corpus_sha256", value=ZEROS), "promotion: corpus_sha256 does not match"),
    (
        PROMOTION,
        put("evidence", "corpus_sha256", value=None),
        "promotion: names no corpus that was judged",
    ),
    (
        PROMOTION,
        put("evidence", "seeds", "0", value=ZEROS),
        f"promotion: evidence is not that in {SIDECAR}",
    ),
    (
        PROMOTION,
        put("accepted_limits", value={}),
        "promotion: limits looser than the standard ones were not accepted so",
    ),
    (
        REGISTRY,
        put("models", 0, "smoke", value=...),
        f"smoke: {MEMBER} does not say whether it is on trial",
    ),
    (PROMOTION, put("at_utc", value=...), "promotion: at_utc cannot be used"),
    # The gate's numbers in the sidecars.
    (SIDECAR, put("gate", "verdict", value="HOLD"), "verdict: gate.verdict"),
    (
        SIDECAR,
        put("gate", "mean_plcc", value=0.99),
        "verdict: gate.mean_plcc is not what the seeds' scores give",
    ),
    (SIDECAR, put("loso_mean_plcc", value=0.5), "verdict: loso_mean_plcc does not match"),
    (
        SIDECAR,
        put("gate", "plcc_spread", value=0.0),
        "verdict: gate.plcc_spread is not what the seeds' scores give",
    ),
    (SIDECAR, put("gate", "this_seed_loso_plcc", value=0.1), "verdict: gate.mean_plcc is not what"),
    (SIDECAR, put("gate", "mean_plcc_threshold", value=1.0), "verdict: gate.passed does not match"),
    (SIDECAR, put("gate", value={}), "verdict: gate lacks numbers"),
    (SIDECAR, put("evidence", value=None), "verdict: its verdict names no corpus that was judged"),
]


@pytest.mark.parametrize(
    ("file", "change", "expected"), EDITS, ids=lambda v: None if callable(v) else str(v)[:60]
)
def test_a_record_that_does_not_fit_is_found(chain, file, change, expected):
    """What is expected speaks of the edited file, unless it names another."""
    check, text = expected.split(": ", 1)
    expected = expected if " " in check else f"{check} {file}: {text}"
    edit(chain.model / file, change)
    found = verify_model(chain.model)
    assert any(line.startswith(expected) for line in told(found)), told(found)
    assert all(finding.fix for finding in found.findings)


def test_production_without_a_promotion_and_a_trial_with_one_are_found(chain):
    (chain.model / PROMOTION).rename(chain.trial / PROMOTION)
    for folder in (chain.model, chain.trial):
        refresh_sums(folder, [])
    problem = "missing, though members are for production"
    assert told(verify_model(chain.model)) == [f"promotion {PROMOTION}: {problem}"]
    assert told(verify_model(chain.trial)) == [f"promotion {PROMOTION}: state does not match"]


def test_members_on_trial_under_a_manifest_for_production_are_found(chain):
    edit(chain.trial / MANIFEST, put("smoke", value=False))
    found = "\n".join(told(verify_model(chain.trial)))
    assert f"smoke {MANIFEST}: smoke is not that of the members" in found
    assert f"promotion {PROMOTION}: missing, though members are for production" in found


# -- Graphs ---------------------------------------------------------------------------------------


def put_graph(chain, name, content):
    """Put another graph in the place of one, with every hash made to fit."""
    (chain.model / f"{name}.onnx").write_bytes(content)

    def fit(record):
        for entry in [record, *record.get("members", []), *record.get("models", [])]:
            if isinstance(entry, dict) and entry.get("onnx") == f"{name}.onnx":
                entry["sha256"] = sha(content)

    for file in (MANIFEST, SIDECAR, REGISTRY):
        edit(chain.model / file, fit)
    edit(chain.model / PROMOTION, put("members", name, value=sha(content)))
    refresh_sums(chain.model, [f"{name}.onnx"])


def network(seed, width=20):
    return first_network(width, Recipe(hidden=4), seed=seed, fold=0)


def test_another_graph_under_hashes_that_fit_is_found_by_its_weights(chain):
    put_graph(chain, MEMBER, member_graph(network(5)))
    lines = told(verify_model(chain.model))
    assert lines == ["ensemble fr.onnx: not the graph that the members and the manifest give"]


def test_graphs_of_another_width_are_found(chain):
    put_graph(chain, MEMBER, member_graph(network(0, width=21)))
    lines = told(verify_model(chain.model))
    assert f"sidecar {SIDECAR}: width of the inputs of {MEMBER}.onnx does not match" in lines
    assert "ensemble fr.onnx: inputs not as wide as those of the members" in lines


def test_an_ensemble_without_bounds_is_found(chain):
    content = ensemble_graph([network(0), network(1)], feature_mean=[0.0] * 6, feature_std=[1] * 6)
    (chain.model / "fr.onnx").write_bytes(content)
    edit(chain.model / MANIFEST, put("sha256", value=sha(content)))
    refresh_sums(chain.model, ["fr.onnx"])
    assert "graph fr.onnx: other outputs" in told(verify_model(chain.model))


def test_operators_that_no_model_needs_are_found_and_not_run(chain):
    model = onnx.load_model_from_string((chain.model / f"{MEMBER}.onnx").read_bytes())
    model.graph.node[0].op_type = "Loop"
    put_graph(chain, MEMBER, model.SerializeToString())
    lines = told(verify_model(chain.model))
    assert any(f"graph {MEMBER}.onnx: operator Loop is not one of" in line for line in lines)


def split_weights(folder, name):
    """Put the weights of a graph into a second file, as other exporters do."""
    model = onnx.load_model_from_string((folder / f"{name}.onnx").read_bytes())
    onnx.save_model(
        model,
        folder / f"{name}.onnx",
        save_as_external_data=True,
        location=f"{name}.onnx.data",
        size_threshold=0,
    )
    return (folder / f"{name}.onnx").read_bytes()


def test_weights_outside_their_graph_are_found(chain):
    put_graph(chain, MEMBER, split_weights(chain.model, MEMBER))
    data = f"{MEMBER}.onnx.data"
    weights = f"weights {data}: weights of {MEMBER}.onnx outside its file"
    refresh_sums(chain.model, [])
    assert told(verify_model(chain.model)) == [weights]
    sums = chain.model / "SHA256SUMS"
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(line for line in lines if data not in line))
    assert told(verify_model(chain.model)) == [
        f"sums {data}: SHA256SUMS has no line for it",
        weights,
    ]
    sums.unlink()
    assert f"weights {data}: no sha256 covers it, and {MEMBER}.onnx is nothing without" in told(
        verify_model(chain.model)
    )


def test_a_member_that_nobody_lists_is_found(chain):
    shutil.copy(chain.model / f"{MEMBER}.onnx", chain.model / f"{STEM}_seed8.onnx")
    refresh_sums(chain.model, [])
    lines = told(verify_model(chain.model))
    assert f"members {MANIFEST}: fr_seed8 is there and not among its members" in lines
    assert "sidecar fr_seed8.json: missing" in lines


# -- The run and the corpus -----------------------------------------------------------------------


def judged_again(chain, change):
    """Edit the run's verdict; the model is made to name it."""
    path = chain.run / "PROMOTE.json"
    edit(path, change)
    for name in (MANIFEST, SIDECAR, f"{STEM}_seed1.json", PROMOTION):
        edit(chain.model / name, put("verdict_sha256", value=sha256_of(path)))


VERDICTS = {
    "hold": (put("verdict", value="HOLD"), "verdict {verdict}: verdict does not match"),
    "seeds": (put("seeds", value=[0]), "verdict {verdict}: list of seeds does not match"),
    "seed": (
        put("gate", "per_seed_plccs", "0", value=0.97),
        f"verdict {SIDECAR}: gate.this_seed_loso_plcc is not the verdict's",
    ),
    "mean": (
        put("gate", "mean_plcc", value=0.97),
        "run {verdict}: gate: mean_plcc is not what the seed files give",
    ),
    "arithmetic": (
        put("gate", "mean_plcc", value=0.97),
        "verdict {verdict}: gate.mean_plcc is not what the seeds' scores give",
    ),
    "limit": (
        put("gate", "mean_plcc_threshold", value=0.9),
        f"verdict {SIDECAR}: gate.mean_plcc_threshold is not the verdict's",
    ),
    "not passed": (
        put("gate", "mean_plcc_threshold", value=1.0),
        "run {verdict}: gate.passed does not match",
    ),
    "no corpus": (
        put("evidence", "corpus_sha256", value=None),
        "verdict {verdict}: PROMOTE without evidence of a corpus",
    ),
    "other corpus": (
        put("evidence", "corpus_sha256", value=ZEROS),
        f"verdict {SIDECAR}: corpus.sha256 is not that of the corpus that was judged",
    ),
    "evidence": (
        put("evidence", "seeds", "0", value=ZEROS),
        f"verdict {SIDECAR}: evidence is not the verdict's",
    ),
    "seed file": (
        put("evidence", "seeds", "0", value=ZEROS),
        "run {run}/loso_seed0.json: not the file that the verdict judged",
    ),
    "predictions": (
        put("evidence", "predictions", "1", value=ZEROS),
        "run {run}/oof_seed1.parquet: not the file that the verdict judged",
    ),
    "intervals": (
        put("evidence", "intervals_sha256", value=None),
        "run {run}/intervals.json: not the file that the verdict judged",
    ),
    "baselines": (
        put("evidence", "baselines_sha256", value=ZEROS),
        "run {run}/baselines.json: not the file that the verdict judged",
    ),
    "key": (put("gate", value=3), "verdict {verdict}: gate cannot be used"),
    "limits out of range": (
        put("gate", "plcc_spread_max", value=-1),
        "run {verdict}: plcc_spread_max",
    ),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_a_verdict_that_the_run_does_not_bear_out_is_found(chain, name):
    change, expected = VERDICTS[name]
    judged_again(chain, change)
    expected = expected.format(verdict=chain.run / "PROMOTE.json", run=chain.run)
    lines = told(verify_model(chain.model, run_dir=chain.run))
    assert any(line.startswith(expected) for line in lines), lines


def test_a_model_of_another_target_must_beat_vmaf(chain):
    edit(chain.model / MANIFEST, put("target", value="mos"))
    lines = told(verify_model(chain.model, run_dir=chain.run))
    problem = "gate.gain_over_vmaf does not say that the model beats VMAF"
    assert f"verdict {chain.run / 'PROMOTE.json'}: {problem}" in lines


def test_another_verdict_than_the_one_of_the_export_is_found(chain):
    edit(chain.run / "PROMOTE.json", put("generated_at_utc", value="2030-01-01T00:00:00+00:00"))
    lines = told(verify_model(chain.model, run_dir=chain.run))
    for name in (MANIFEST, SIDECAR):
        text = f"verdict {name}: names another verdict than {chain.run / 'PROMOTE.json'}"
        assert text in lines


def test_a_run_without_a_verdict_or_with_two_is_found(chain):
    path = chain.run / "PROMOTE.json"
    shutil.copy(path, chain.run / "HOLD.json")
    assert told(verify_model(chain.model, run_dir=chain.run)) == [
        f"run {chain.run / 'HOLD.json'}: the run is held"
    ]
    path.unlink()
    lines = told(verify_model(chain.model, run_dir=chain.run))
    assert f"run {path}: missing: no verdict to promote" in lines


def test_a_run_that_cannot_be_judged_is_found(chain):
    edit(chain.run / "loso_seed1.json", put("mean_plcc", value=0.5))
    lines = told(verify_model(chain.model, run_dir=chain.run))
    path = chain.run / "loso_seed1.json"
    assert f"run {path}: mean_plcc is not what the folds give" in lines
    assert f"run {path}: not the file that the verdict judged" in lines


def test_another_corpus_is_found(chain, make_corpus):
    other = make_corpus("other.jsonl", sources=("ant", "bee", "dog", "eel"), qualities=(20, 30))
    lines = told(verify_model(chain.model, run_dir=chain.run, corpus=other))
    for name in (MANIFEST, SIDECAR, chain.run / "loso_seed0.json"):
        assert f"corpus {name}: names another corpus than {other}" in lines
    seed_file = chain.run / "loso_seed0.json"
    for source in ("cat", "dog", "eel"):
        assert f"corpus {seed_file}: times that source {source} is held out" in lines
    assert f"corpus {chain.run}/oof_seed0.parquet: " not in lines
    only = told(verify_model(chain.model, corpus=other))
    assert f"corpus {MANIFEST}: names another corpus than {other}" in only


def leaves(content, keys=()):
    """Yield where values of a JSON object stand: of a list the first, of pools one."""
    for key in content if isinstance(content, dict) else range(1):
        value = content[key]
        if key in {"mean", "hmean", "p1", "p5"} and isinstance(value, dict):
            continue
        if value and isinstance(value, dict | list):
            yield from leaves(value, (*keys, key))
        else:
            yield (*keys, key)


def changed(value):
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value + 1
    return not value if isinstance(value, bool) else f"{value}x"


@pytest.mark.parametrize("name", [MANIFEST, SIDECAR, REGISTRY])
def test_any_changed_or_deleted_key_is_found_and_named(chain, name):
    path = chain.model / name
    before = path.read_text()
    for keys in leaves(json.loads(before)):
        here = keys if name != REGISTRY else keys[1:]
        if name == REGISTRY and (keys[0] == "schema_version" or keys[-1] == "smoke"):
            continue
        value = json.loads(before)
        for key in keys:
            value = value[key]
        for other in (changed(value), ...):
            if other is ... and (isinstance(keys[-1], int) or len(here) > 2):
                continue
            edit(path, put(*keys, value=other))
            lines = told(verify_model(chain.model, **chain.all))
            of_file = [line for line in lines if f" {name}: " in line]
            assert any(str(key) in line for line in of_file for key in here[-2:]), (keys, lines)
            path.write_text(before)
            refresh_sums(chain.model, [name])


def test_any_change_of_the_card_is_found(chain):
    path = chain.model / "MODEL_CARD.md"
    path.write_text(path.read_text().replace("0.5", "0.9", 1))
    refresh_sums(chain.model, [path.name])
    line = f"records {path.name}: not what export would write"
    assert told(verify_model(chain.model, **chain.all)) == [line]
    path.unlink()
    refresh_sums(chain.model, [])
    line = f"records {path.name}: missing"
    assert told(verify_model(chain.model, **chain.all)) == [line]


def forged(chain):
    """Give one member other weights, with every record, hash and graph made to fit."""
    first = chain.model / f"{MEMBER}.onnx"
    graph, sha256 = read_graph(first, outputs=("score",))
    network = read_network(graph, sha256, RECIPE)
    other = Network(network.weights, (*network.biases[:-1], network.biases[-1] + np.float32(1)))
    made = {"fr_seed0": member_graph(other)}
    graph, sha256 = read_graph(chain.model / "fr_seed1.onnx", outputs=("score",))
    manifest = read_record(chain.model / MANIFEST, Manifest)
    rule = manifest.confidence.by_pool["frame"]
    made["fr"] = ensemble_graph(
        [other, read_network(graph, sha256, RECIPE)],
        feature_mean=manifest.feature_mean,
        feature_std=manifest.feature_std,
        rule=rule,
        level=0.8,
        target_range=(0, 100),
    )
    for name, content in made.items():
        put_graph(chain, name, content)
    edit(chain.model / PROMOTION, lambda c: c["members"].pop("fr"))


def test_weights_are_trained_again(chain):
    found = verify_model(chain.model, **chain.all, refit=True)
    assert found.clean
    assert not any("trained again" in note for note in found.notes)
    assert any("not trained again" in n for n in verify_model(chain.model, **chain.all).notes)
    forged(chain)
    lines = told(verify_model(chain.model, **chain.all))
    assert {line.rpartition(": ")[0] for line in lines} == {f"records {MANIFEST}"}
    assert all("eval." in line for line in lines)
    edit(chain.model / MANIFEST, put("eval", value=eval_of(chain)))
    assert told(verify_model(chain.model, **chain.all)) == []
    lines = told(verify_model(chain.model, **chain.all, refit=True))
    problem = "weights of seed 0 are not what training gives: their scores differ"
    assert lines == [f"refit {MEMBER}.onnx: {problem}"]
    with pytest.raises(BadSettings, match="a refit needs the run and the corpus"):
        verify_model(chain.model, run_dir=chain.run, refit=True)


def eval_of(chain):
    """What export would write of the members as they are, by what verify expects."""
    made = {}
    for finding in verify_model(chain.model, **chain.all).findings:
        made[finding.problem.split()[0].removeprefix("eval.")] = float(finding.expected)
    return json.loads((chain.model / MANIFEST).read_text())["eval"] | made


def test_another_shape_than_the_recipe_names_is_found(chain):
    for seed in SEEDS:
        edit(chain.model / f"{STEM}_seed{seed}.json", put("training_recipe", "hidden", value=5))
    lines = told(verify_model(chain.model))
    assert f"graph {MEMBER}.onnx: not what loso writes for networks of its recipe" in lines


def test_predictions_of_other_rows_are_found(chain):
    """The same rows in another order: only the bytes and the places differ."""
    lines = chain.corpus.read_text().splitlines(keepends=True)
    chain.corpus.write_text("".join(reversed(lines)))
    found = told(verify_model(chain.model, **chain.all))
    problem = "not the corpus that the seeds were trained on"
    assert f"corpus {chain.corpus}: {problem}" in found
    assert not any("feature_mean" in line for line in found)


def test_what_is_given_and_not_there_is_bad_input(chain, tmp_path):
    with pytest.raises(BadInput, match=r"nowhere: not a folder; name the folder of an export"):
        verify_model(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"empty: not a model folder, expected a manifest STEM.json"):
        verify_model(tmp_path / "empty")
    with pytest.raises(BadInput, match=r"not a folder; name the folder of a training run"):
        verify_model(chain.model, run_dir=tmp_path / "nowhere")
    with pytest.raises(BadCorpus, match=r"file not found; name the corpus of the run"):
        verify_model(chain.model, corpus=tmp_path / "nowhere.jsonl")


# -- Signatures -----------------------------------------------------------------------------------


def test_a_signature_is_checked_or_said_not_to_be(chain, tmp_path):
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from loso.model.signing import sign_folder

    private = ec.generate_private_key(ec.SECP256R1())
    secret, public = tmp_path / "key.pem", tmp_path / "key.pub"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    secret.write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(private.public_key().public_bytes(pem, kind))
    found = verify_model(chain.model, public_key=public)
    assert told(found) == ["signature model.sig: no signature"]
    sign_folder(chain.model, secret)
    found = verify_model(chain.model)
    assert found.clean
    assert "model.sig was not checked: no public key was given" in found.notes
    assert verify_model(chain.model, public_key=public).clean
    edit(chain.model / MANIFEST, put("eval", value={}))
    (line,) = told(verify_model(chain.model, public_key=public))
    assert line.startswith("signature model.sig: the signature does not hold")
    with pytest.raises(BadInput, match="not a key that can be used"):
        verify_model(chain.model, public_key=chain.corpus)
    (chain.model / "link").symlink_to(secret)
    lines = told(verify_model(chain.model, public_key=public))
    assert "signature model.sig: not checked: not all that lies here is a file" in lines


# -- Hostile folders ------------------------------------------------------------------------------


def test_links_and_pipes_are_found_and_never_opened(chain, tmp_path, monkeypatch):
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"kind": "fr_ensemble", "id": "secret"}))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/fr_seed9.onnx").write_bytes(b"x")
    for name in (SIDECAR, f"{STEM}_seed1.onnx", REGISTRY, PROMOTION):
        (chain.model / name).unlink()
        (chain.model / name).symlink_to(secret)
    (chain.model / "secret.json").symlink_to(secret)
    (chain.model / "folder").symlink_to(tmp_path / "outside")
    os.mkfifo(chain.model / "pipe.json")
    opened = []
    real = os.open

    def watched(path, *args, **options):
        opened.append(os.path.realpath(path))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", watched)
    found = verify_model(chain.model)
    lines = told(found)
    for name in (SIDECAR, REGISTRY, "secret.json", "folder"):
        assert f"listing {name}: a link, which is not followed" in lines
    assert "listing pipe.json: neither a file nor a folder" in lines
    assert f"sidecar {SIDECAR}: missing" in lines
    assert f"graph {STEM}_seed1.onnx: missing" in lines
    assert f"registry {REGISTRY}: missing" in lines
    assert found.models == (STEM,)
    inside = os.path.realpath(chain.model)
    assert opened
    assert all(path.startswith(inside) for path in opened if "chain" in path or "secret" in path)


def test_a_folder_that_cannot_be_listed_is_found(chain, monkeypatch):
    (chain.model / "closed").mkdir()
    real = os.scandir

    def scandir(path):
        if os.path.basename(path) == "closed":  # noqa: PTH119 (what os.walk gives may be text)
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert told(verify_model(chain.model)) == ["listing closed: not listed (Permission denied)"]


def test_weights_that_lead_outside_are_refused(chain, tmp_path):
    split_weights(chain.model, MEMBER)
    data = chain.model / f"{MEMBER}.onnx.data"
    shutil.move(data, tmp_path / "outside.data")
    data.symlink_to(tmp_path / "outside.data")
    lines = told(verify_model(chain.model))
    assert f"listing {data.name}: a link, which is not followed" in lines
    assert any(line.startswith(f"graph {data.name}: not opened") for line in lines)
    model = onnx.load(chain.model / f"{MEMBER}.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../../outside.data"
    (chain.model / f"{MEMBER}.onnx").write_bytes(model.SerializeToString())
    lines = told(verify_model(chain.model))
    assert f"graph {MEMBER}.onnx: weights outside the folder" in lines


def test_names_and_values_that_are_no_text_stay_printable(chain):
    name = "evil\x1b[31m\n.onnx"
    (chain.model / name).write_bytes(b"")
    (chain.model / ".hidden").write_bytes(b"")
    edit(chain.model / REGISTRY, put("models", 0, "id", value="\x1b[2J"))
    edit(chain.model / MANIFEST, put("id", value="\u202e" + "x" * 10_000))
    found = verify_model(chain.model)
    for finding in found.findings:
        assert all(value.isprintable() for value in finding.to_dict().values())
        assert all(len(value) < 300 for value in finding.to_dict().values())
    assert any(f.check == "sums" and "evil" in f.file for f in found.findings)
    assert "not checked, their names start with a dot: .hidden" in found.notes


@pytest.mark.parametrize(
    "content", [b"", b"[" * 100_000, b"[]", b"null", b"\xff\xfe", b'{"models": [null]}', b"1e999"]
)
@pytest.mark.parametrize("name", [MANIFEST, SIDECAR, REGISTRY, PROMOTION, "SHA256SUMS", "fr.onnx"])
def test_any_bytes_in_a_record_are_findings(chain, name, content):
    (chain.model / name).write_bytes(content)
    if name != "SHA256SUMS":
        refresh_sums(chain.model, [name])
    found = verify_model(chain.model)
    assert any(name in line for line in told(found))
    if name.endswith(".json") and content in {b"", b"\xff\xfe"}:
        assert any(f"{name}: not valid JSON" in line for line in told(found))
    json.dumps(found.to_dict(), allow_nan=False)


# -- Folders of others ----------------------------------------------------------------------------


@pytest.fixture
def foreign(tmp_path):
    """A folder as the replaced exporter left it, with all that was wrong with it."""
    out, stem = tmp_path / "tiny", "fr_regressor_v2_ensemble_v1"
    out.mkdir()
    entries, models = [], [{"id": "filter_v1", "kind": "filter", "onnx": "filter_v1.onnx"}]
    plccs = {"0": 0.9975, "1": 0.9971}
    mean, spread = sum(plccs.values()) / 2, plccs["0"] - plccs["1"]
    (out / "filter_v1.onnx").write_bytes(b"theirs")
    models[0]["sha256"] = sha(b"theirs")
    for seed in SEEDS:
        name = f"{stem}_seed{seed}"
        (out / f"{name}.onnx").write_bytes(member_graph(network(seed)))
        digest = sha(split_weights(out, name))
        member = {"id": name, "seed": seed, "onnx": f"{name}.onnx"}
        entries.append(member | {"sha256": ZEROS[:-1] + str(seed)})
        models.append(
            {"id": name, "kind": "fr", "onnx": f"{name}.onnx", "opset": 17, "sha256": digest}
            | {"smoke": False, "quantised": None}
        )
        sidecar = {
            **member,
            "sha256": digest,
            "kind": "fr",
            "opset": 17,
            "ensemble_id": stem,
            "feature_order": list(CANONICAL_6),
            "feature_mean": [0.9] * 6,
            "feature_std": [0.1] * 6,
            "encoder_vocab": list(ENCODER_VOCAB),
            "encoder_vocab_version": 2,
            "corpus": {"path": "x.jsonl", "sha256": "5" * 64, "cq_min": 19.0, "cq_max": 37.0},
            "gate": {
                "verdict": "PROMOTE",
                "passed": True,
                "mean_plcc": mean,
                "mean_plcc_threshold": 0.95,
                "plcc_spread": spread,
                "plcc_spread_max": 0.005,
                "per_seed_min_threshold": 0.95,
                "this_seed_loso_plcc": plccs[str(seed)],
            },
            "loso_mean_plcc": mean,
        }
        write_json(out / f"{name}.json", sidecar)
    write_json(
        out / f"{stem}.json",
        {
            "id": stem,
            "kind": "fr_ensemble",
            "ensemble_size": 2,
            "members": entries,
            "feature_order": list(CANONICAL_6),
            "feature_mean": [0.7] * 6,
            "feature_std": [0.2] * 6,
            "codec_vocab": ["x264", "x265", "libsvtav1", "libvvenc", "libvpx-vp9", "unknown"],
            "codec_vocab_version": 1,
            "confidence": {"method": "ensemble", "nominal_coverage": 0.95, "gaussian_z": 1.96},
            "smoke": True,
        },
    )
    write_json(out / "registry.json", {"schema_version": 0, "models": models})
    verdict = {
        "verdict": "PROMOTE",
        "seeds": [0, 1],
        "corpus": {"present": False, "corpus_root": ".", "sha256": None},
        "gate": {
            "passed": True,
            "mean_plcc": mean,
            "mean_plcc_threshold": 0.95,
            "plcc_spread": spread,
            "plcc_spread_max": 0.005,
            "per_seed_plccs": plccs,
            "per_seed_min": 0.95,
        },
    }
    write_json(out / f"{stem}_seed_flip_PROMOTE.json", verdict)
    return SimpleNamespace(path=out, stem=stem)


def test_a_folder_of_others_is_read_and_all_that_is_wrong_is_said(foreign):
    found = verify_model(foreign.path)
    lines, stem = told(found), foreign.stem
    manifest, member = f"{stem}.json", f"{stem}_seed0"
    no_corpus = "PROMOTE without evidence of a corpus: corpus.present is not true"
    narrow = "has another width than encoder_vocab asks"
    assert found.models == (stem,)
    for line in (
        "sums SHA256SUMS: missing: no file of the folder is covered by a sha256",
        f"manifest {manifest}: codec_vocab is an old name",
        f"manifest {manifest}: encoder_vocab does not match",
        f"manifest {manifest}: encoder_vocab_version does not match",
        f"manifest {manifest}: no verdict_sha256: it does not say on what verdict it was made",
        f"members {manifest}: sha256 of {member}.onnx does not match",
        f"members {manifest}: codec block of {member}.onnx {narrow}",
        f"members {member}.json: encoder_vocab is not that of the manifest",
        f"members {member}.json: feature_mean is not that of the manifest",
        f"members {member}.json: sha256 is not that of the manifest",
        f"weights {member}.onnx.data: weights of {member}.onnx outside its file",
        f"weights {member}.onnx.data: no sha256 covers it, and {member}.onnx is nothing without",
        f"ensemble {manifest}: names no graph of the ensemble",
        "registry registry.json: schema_version does not match",
        f"smoke {manifest}: smoke is not that of the members in registry.json",
        f"promotion {stem}.promotion.json: missing, though members are for production",
        f"verdict {stem}_seed_flip_PROMOTE.json: {no_corpus}",
        f"verdict {member}.json: its verdict names no corpus that was judged",
    ):
        assert line in lines
    assert not any("filter_v1" in line for line in lines)
    assert f"{manifest}: intervals are ensemble, not calibrated" in found.notes


def test_a_verdict_in_the_folder_that_sidecars_do_not_repeat_is_found(foreign):
    edit(
        foreign.path / f"{foreign.stem}_seed0.json",
        lambda c: c["gate"].update(mean_plcc=0.999, plcc_spread_max=0.5),
    )
    lines = told(verify_model(foreign.path))
    for key in ("mean_plcc", "plcc_spread_max"):
        assert f"verdict {foreign.stem}_seed0.json: gate.{key} is not the verdict's" in lines


def test_other_models_whose_files_changed_are_found(foreign):
    (foreign.path / "filter_v1.onnx").write_bytes(b"changed")
    line = "registry registry.json: sha256 of filter_v1 is not that of filter_v1.onnx"
    assert line in told(verify_model(foreign.path))


# -- The command ----------------------------------------------------------------------------------


@pytest.fixture
def command():
    app = typer.Typer()
    app.command()(verify_command)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_says_clean(chain, command):
    result = command(chain.model, "--run", chain.run, "--corpus", chain.corpus)
    assert (result.exit_code, result.stdout) == (0, f"{STEM}: clean in 10 files\n")
    assert "not held against" not in result.stderr
    result = command(chain.model, "--name", STEM)
    assert result.exit_code == 0
    for what in ("--run", "--corpus"):
        assert f"note: without {what} the model is not held against what it was" in result.stderr


def test_the_command_prints_every_finding(chain, command):
    (chain.model / "MODEL_CARD.md").write_text("")
    edit(chain.model / MANIFEST, put("smoke", value=True))
    result = command(chain.model)
    assert result.exit_code == 1
    assert re.search(
        r"^sums +MODEL_CARD.md +not as in SHA256SUMS, expected [0-9a-f]{64}, found "
        r"[0-9a-f]{64}; take the folder anew",
        result.stdout,
        re.MULTILINE,
    )
    assert re.search(
        r"^smoke +fr.json +smoke is not that of the members", result.stdout, re.MULTILINE
    )
    assert result.stdout.endswith(f"{STEM}: 2 findings in 10 files\n")
    result = command(chain.model, "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["clean"], len(found["findings"])) == (1, False, 2)
    assert set(found["findings"][0]) == {"file", "check", "problem", "expected", "found", "fix"}
    assert found == verify_model(chain.model).to_dict()
