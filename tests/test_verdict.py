import errno
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import polars as pl
import pytest

from loso.ablation import ablate_run
from loso.baselines import paired_gain
from loso.corpus.load import load_corpus
from loso.errors import BadCorpus, BadEvidence, BadInput, Busy, CannotRun
from loso.files import sha256_of
from loso.gate import evaluate_gate
from loso.intervals import (
    POOLS,
    IntervalsFile,
    LevelCoverage,
    MeasuredCoverage,
    PoolCoverage,
    Rule,
    write_intervals,
)
from loso.locks import folder_lock
from loso.recipe import GateThresholds, Recipe
from loso.run_folder import train_into
from loso.verdict import snapshot_corpus, validate_run

SEEDS = (0, 1, 2, 3, 4)
STRICT = GateThresholds(per_seed_min=0.9999)


def clock():
    return datetime(2026, 3, 1, 12, 30, 15, 999, tzinfo=timezone(timedelta(hours=2)))


def files_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"}


def intervals_of(folder, seeds=SEEDS, **changes):
    """Intervals that speak of a run's seeds; their numbers are made up."""
    rule = Rule(form="absolute", s0=0.0, quantiles={"0.5": 1.0, "0.8": 2.0})
    found = LevelCoverage(mean=0.75, worst=0.25, worst_source="cat", mean_width=2.0, by_source={})
    pool = PoolCoverage(
        hierarchical={"0.5": found},
        gaussian={"0.5": found.model_copy(update={"mean": 0.625}), "0.8": found},
        permuted_split={},
        left_out={},
        rules={},
    )
    record = json.loads((folder / "loso_seed1.json").read_text())
    return IntervalsFile(
        **{
            "corpus_sha256": record["corpus_sha256"],
            "seeds": seeds,
            "predictions": {s: sha256_of(folder / f"oof_seed{s}.parquet") for s in seeds},
            "target": "vmaf",
            "n_calibration_sources": 4,
            "sources": ("ant", "bee", "cat", "dog"),
            "excluded_sources": (),
            "default_level": 0.8,
            "by_pool": dict.fromkeys(POOLS, rule),
            "coverage": MeasuredCoverage(
                judged_sources=("cat",),
                n_pairs=3,
                n_pairs_possible=6,
                capped=True,
                by_pool=dict.fromkeys(POOLS, pool),
            ),
        }
        | changes
    )


# -- The verdict ----------------------------------------------------------------------------------


def test_a_promote_binds_its_answer_to_the_bytes_it_judged(make_run, tmp_path, monkeypatch):
    folder = make_run()
    write_intervals(folder / "intervals.json", intervals_of(folder))
    checked = []  # the rules of that file are made up: tests of calibration recompute real ones
    monkeypatch.setattr("loso.verdict.check_rules", lambda *given: checked.append(given[0]))
    verdict, path = validate_run(folder, SEEDS, corpus=tmp_path / "corpus.jsonl", now=clock)
    assert checked == [intervals_of(folder)]
    content = json.loads(path.read_text())
    assert path == folder / "PROMOTE.json"
    assert content == verdict.to_dict()
    assert content["schema_version"] == 1
    assert content["verdict"] == "PROMOTE"
    assert content["generated_at_utc"] == "2026-03-01T10:30:15+00:00"
    assert content["loso_dir"] == str(folder)
    assert content["seeds"] == list(SEEDS)
    assert content["gate"]["passed"] is True
    assert "flip seeds smoke->false" in content["recommendation"]
    assert (content["adr"], content["parent_adr"]) == ("ADR-0309", "ADR-0303")
    assert content["corpus"]["present"] is False
    assert content["diagnosis"]["failed"] == []
    assert content["evidence"] == {
        "corpus_sha256": sha256_of(tmp_path / "corpus.jsonl"),
        "seeds": {str(s): sha256_of(folder / f"loso_seed{s}.json") for s in SEEDS},
        "predictions": {str(s): sha256_of(folder / f"oof_seed{s}.parquet") for s in SEEDS},
        "intervals_sha256": sha256_of(folder / "intervals.json"),
        "excluded_sources": [],
        "taken_on_trust": [],
        "not_judged": [],
    }
    assert verdict.warnings == ()


def test_a_hold_says_what_failed_and_what_to_try(make_run):
    folder = make_run(noise=30.0)
    verdict, path = validate_run(folder, SEEDS)
    content = json.loads(path.read_text())
    assert path.name == "HOLD.json"
    assert verdict.verdict == content["verdict"] == "HOLD"
    assert "investigate diversity" in content["recommendation"]
    assert content["diagnosis"]["failed"][0] in content["recommendation"]
    assert content["diagnosis"]["try"]
    assert content["evidence"]["intervals_sha256"] is None


def test_the_advice_of_the_predictions_stands_beside_the_gate_and_changes_nothing(make_run):
    verdict, _ = validate_run(make_run(), SEEDS)
    checks = [advice["check"] for advice in verdict.to_dict()["gate"]["advisory"]]
    assert checks == [
        "worst_fold_plcc",
        "mean_rmse",
        "worst_fold_rmse",
        "mean_plcc_interval_low",
        "encoders_without_rows",
        "rises_with_cq",
    ]


@pytest.mark.parametrize("default", [0.5, 0.8])
def test_measured_coverage_stands_beside_the_gate_and_changes_nothing(make_run, default):
    """At the default level, and where that was not measured at the highest that was."""
    folder = make_run()
    write_intervals(folder / "intervals.json", intervals_of(folder, default_level=default))
    verdict, _ = validate_run(folder, SEEDS)
    assert verdict.verdict == "PROMOTE"
    mean, worst = verdict.to_dict()["gate"]["advisory"][-2:]
    assert (mean["check"], mean["value"]) == ("coverage_mean", 0.75)
    assert mean["note"] == (
        "measured coverage of frames by intervals of level 0.5, over 0 of 4 sources; "
        "mu +- z sigma covers 0.625"
    )
    assert (worst["check"], worst["value"]) == ("coverage_worst", 0.25)
    assert worst["note"] == "held-out source cat"


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": (0, 1)},
        {"corpus_sha256": "0" * 64},
        {"predictions": dict.fromkeys(SEEDS, "0" * 64)},
    ],
)
def test_intervals_of_other_predictions_are_refused(make_run, changes):
    folder = make_run()
    write_intervals(folder / "intervals.json", intervals_of(folder, **changes))
    before = files_of(folder)
    message = (
        r"intervals\.json: not made from the predictions of the seeds that are judged, .*"
        r"calibrate again with loso calibrate .*run --corpus CORPUS --seeds 0,1,2,3,4"
    )
    with pytest.raises(BadEvidence, match=message):
        validate_run(folder, SEEDS)
    assert files_of(folder) == before


def test_damaged_intervals_are_refused(make_run):
    folder = make_run()
    (folder / "intervals.json").write_text("{}")
    with pytest.raises(BadEvidence, match="corpus_sha256 cannot be used: Field required"):
        validate_run(folder, SEEDS)
    (folder / "intervals.json").unlink()
    (folder / "intervals.json").mkdir()
    with pytest.raises(BadEvidence, match=r"intervals\.json: cannot be read"):
        validate_run(folder, SEEDS)
    assert verdicts_in(folder) == []


def test_the_gate_in_a_verdict_is_the_gate(make_run):
    from loso.evidence import collect_evidence

    folder = make_run()
    verdict, _ = validate_run(folder, SEEDS)
    alone = evaluate_gate(collect_evidence(folder, SEEDS), GateThresholds()).to_dict()
    inside = verdict.gate.to_dict()
    assert {k: v for k, v in inside.items() if k != "advisory"} == {
        k: v for k, v in alone.items() if k != "advisory"
    }


def verdicts_in(folder):
    return [p.name for p in folder.glob("[PH]*.json")]


def test_exactly_one_verdict_stands(make_run):
    folder = make_run()
    validate_run(folder, SEEDS)
    assert verdicts_in(folder) == ["PROMOTE.json"]
    validate_run(folder, SEEDS, STRICT)
    assert verdicts_in(folder) == ["HOLD.json"]
    validate_run(folder, SEEDS)
    assert verdicts_in(folder) == ["PROMOTE.json"]


def test_a_verdict_that_cannot_be_written_leaves_the_old_one(make_run, monkeypatch):
    folder = make_run()
    validate_run(folder, SEEDS, STRICT)
    before = files_of(folder)

    def disk_full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_text", disk_full)
        with pytest.raises(CannotRun, match=r"PROMOTE\.json: cannot be written \(No space left"):
            validate_run(folder, SEEDS)
    assert files_of(folder) == before


@pytest.mark.parametrize(
    ("blocked", "reason"),
    [
        ("HOLD.json", r"HOLD\.json: cannot be removed \(Is a directory\)"),
        ("PROMOTE.json", r"PROMOTE\.json: a folder, not a verdict; remove it"),
        (".lock", r"run: cannot be locked \("),
    ],
)
def test_a_folder_in_the_way_is_refused_before_anything_changes(make_run, blocked, reason):
    folder = make_run()
    (folder / blocked).mkdir()
    old = {"HOLD.json": "PROMOTE.json", "PROMOTE.json": "HOLD.json"}.get(blocked, "HOLD.json")
    (folder / old).write_text("old")
    with pytest.raises(BadInput, match=reason):
        validate_run(folder, SEEDS)
    assert (folder / old).read_text() == "old"
    assert not list(folder.glob("*.tmp"))


def test_seeds_that_were_not_judged_are_in_the_verdict(make_run):
    verdict, _ = validate_run(make_run(), (1, 3))
    names = ["loso_seed0.json", "loso_seed2.json", "loso_seed4.json"]
    assert verdict.evidence["not_judged"] == names
    assert f"in the folder and not judged: {', '.join(names)}" in verdict.warnings


def test_sources_that_were_left_out_are_in_the_verdict(make_run, tmp_path):
    folder = make_run(excluded=["bee"])
    verdict, _ = validate_run(folder, SEEDS, corpus=tmp_path / "corpus.jsonl")
    assert verdict.evidence["excluded_sources"] == ["bee"]
    assert verdict.warnings == ("sources left out of the run: bee",)


def test_one_seed_gets_no_verdict(make_run):
    folder = make_run()
    with pytest.raises(BadEvidence, match="at least two seeds"):
        validate_run(folder, [1])
    assert verdicts_in(folder) == []


def test_the_same_run_gives_the_same_bytes(make_run):
    folder = make_run()
    _, path = validate_run(folder, SEEDS, now=clock)
    first = path.read_bytes()
    validate_run(folder, SEEDS[::-1], now=clock)
    assert path.read_bytes() == first


def test_old_files_are_judged_and_what_was_taken_on_trust_is_in_the_verdict(tmp_path):
    for seed in SEEDS:
        content = {"seed": seed, "mean_plcc": 0.96}
        (tmp_path / f"loso_seed{seed}.json").write_text(json.dumps(content))
    verdict, _ = validate_run(tmp_path, SEEDS, allow_thin=True)
    assert verdict.verdict == "PROMOTE"
    assert "thin evidence" in verdict.evidence["taken_on_trust"][0]
    assert verdict.evidence["corpus_sha256"] is None
    with pytest.raises(BadEvidence, match="no folds"):
        validate_run(tmp_path, SEEDS)


# -- Refusals write nothing -----------------------------------------------------------------------


def test_a_run_that_cannot_be_judged_is_left_as_it_is(make_run, tmp_path):
    folder = make_run("a", edit=lambda _, content: content.update(note="dry-run"))
    before = files_of(folder)
    with pytest.raises(BadEvidence, match="dry run"):
        validate_run(folder, SEEDS)
    assert sorted(folder.iterdir()) == sorted(folder / name for name in before)
    assert files_of(folder) == before

    with pytest.raises(BadEvidence, match="not a folder"):
        validate_run(tmp_path / "nowhere", SEEDS)
    assert not (tmp_path / "nowhere").exists()


def test_scores_that_the_predictions_do_not_bear_out_are_refused(make_run):
    folder = make_run(predict=lambda _, table: table.with_columns(y_pred=-table["y_pred"]))
    before = files_of(folder)
    with pytest.raises(BadEvidence, match="is not borne out"):
        validate_run(folder, SEEDS)
    assert files_of(folder) == before


def test_another_corpus_is_refused(make_run, make_corpus, tmp_path):
    folder = make_run()
    with pytest.raises(BadCorpus, match=r"other\.jsonl: file not found"):
        validate_run(folder, SEEDS, corpus=tmp_path / "other.jsonl")
    with pytest.raises(BadEvidence, match="not the corpus that the seeds were trained on"):
        validate_run(folder, SEEDS, corpus=make_corpus("other.jsonl", seed=1))
    assert verdicts_in(folder) == []


def test_without_the_corpus_its_rows_are_taken_on_trust(make_run, tmp_path):
    """Scores bear a made-up truth out; the corpus does not."""

    def shift(_, table):
        return table.with_columns(table["y_true"] + 1, table["y_pred"] + 1)

    folder = make_run(predict=shift)
    verdict, _ = validate_run(folder, SEEDS)
    assert verdict.warnings == (
        "no corpus file: that the predictions are of its rows is taken on trust",
    )
    assert verdict.evidence["taken_on_trust"] == list(verdict.warnings)
    corpus = tmp_path / "corpus.jsonl"
    for given in (corpus, load_corpus(corpus)):
        with pytest.raises(BadEvidence, match="y_true of row 0 is not that of the corpus"):
            validate_run(folder, SEEDS, corpus=given)


def test_seed_files_without_a_corpus_hash_cannot_vouch_for_a_corpus(make_run, tmp_path):
    def old(_, content):
        for key in content.keys() - {"seed", "folds", "mean_plcc"}:
            del content[key]

    with pytest.raises(BadEvidence, match="in the seed files, which record none"):
        validate_run(make_run(edit=old), SEEDS, corpus=tmp_path / "corpus.jsonl")


def test_what_training_writes_is_borne_out_by_its_corpus(make_corpus, tmp_path):
    def edit(_, row):
        slow = row["encoder"] == "libx264" and row["cq"] == 20
        row |= {"preset": "slow" if slow else None, "clip": f"{row['src']}_{row['cq']}"}

    path = make_corpus(edit=edit, sources=["ant", "bee", "cat", "dog"])
    corpus, folder = load_corpus(path), tmp_path / "run"
    anything = GateThresholds(mean_plcc_threshold=-1, plcc_spread_max=2, per_seed_min=-1)
    train_into(folder, corpus, Recipe(epochs=2), [0, 1], exclude_sources=["bee"])
    for given in (path, corpus):
        verdict, _ = validate_run(folder, [0, 1], anything, corpus=given)
        assert verdict.verdict == "PROMOTE"
        assert verdict.evidence["taken_on_trust"] == []


@pytest.mark.parametrize("name", ["loso_seed3.json", "oof_seed2.parquet", "intervals.json"])
def test_a_run_that_changes_while_it_is_judged_gets_no_verdict(make_run, monkeypatch, name):
    from loso import verdict

    folder = make_run()

    def train_meanwhile(_):
        (folder / name).write_bytes(b"new")
        return ()

    monkeypatch.setattr(verdict, "advise_on_predictions", train_meanwhile)
    with pytest.raises(BadEvidence, match=f"{name}: changed while it was judged"):
        validate_run(folder, SEEDS)
    assert verdicts_in(folder) == []


def test_a_folder_in_use_is_left_alone(make_run):
    folder = make_run()
    with folder_lock(folder, "training"), pytest.raises(Busy, match="judging"):
        validate_run(folder, SEEDS)
    assert verdicts_in(folder) == []


# -- The snapshot of the clips --------------------------------------------------------------------


def test_the_snapshot_is_the_hash_of_the_sorted_listing(tmp_path):
    sizes = {"ref/a.yuv": 3, "dis/a_q1.yuv": 5, "x/refined_dist.yuv": 0, "b.yuv": 1, "ref/n.txt": 9}
    for name, size in sizes.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0" * size)
    (tmp_path / "gone.yuv").symlink_to("nowhere")
    listing = b"b.yuv\t1\ndis/a_q1.yuv\t5\nref/a.yuv\t3\nx/refined_dist.yuv\t0\n"
    assert snapshot_corpus(tmp_path) == {
        "present": True,
        "corpus_root": str(tmp_path),
        "sha256": hashlib.sha256(listing).hexdigest(),
        "ref_count": 2,
        "dis_count": 2,
        "yuv_count": 4,
    }


def test_the_listing_is_sorted_by_path_not_by_text(tmp_path):
    for name in ("a/z.yuv", "a-b/y.yuv"):  # "-" sorts before "/", the folder "a" before "a-b"
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    listing = b"a/z.yuv\t0\na-b/y.yuv\t0\n"
    assert snapshot_corpus(tmp_path)["sha256"] == hashlib.sha256(listing).hexdigest()


def test_the_snapshot_of_nothing_has_no_hash(tmp_path):
    empty = hashlib.sha256(b"").hexdigest()
    assert snapshot_corpus(tmp_path)["sha256"] == empty
    absent = {"present": False, "sha256": None, "ref_count": 0, "dis_count": 0, "yuv_count": 0}
    assert snapshot_corpus(tmp_path / "no") == absent | {"corpus_root": str(tmp_path / "no")}
    assert snapshot_corpus(None) == absent | {"corpus_root": None}


def test_clips_that_cannot_be_listed_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"cannot be listed \(File name too long\)"):
        snapshot_corpus(tmp_path / ("a" * 300))


def test_the_clock_is_in_utc(make_run):
    verdict, _ = validate_run(make_run(), SEEDS)
    moment = datetime.fromisoformat(verdict.generated_at_utc)
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=5)


# -- Another target than VMAF ---------------------------------------------------------------------

EASY = GateThresholds(mean_plcc_threshold=0.5, per_seed_min=0.5, plcc_spread_max=0.3)


def mos(row):
    """Scores that VMAF explains but for the encoder."""
    return 1 + row["vmaf"] / 25 + 0.5 * (row["encoder"] == "libx264")


def vmaf_alone(row):
    return 1.25 + row["vmaf"] / 25


def judged(make_run, tmp_path, thresholds=EASY, **options):
    folder = make_run(score=mos, **options)
    verdict, path = validate_run(folder, SEEDS, thresholds, corpus=tmp_path / "mos.jsonl")
    return folder, verdict.to_dict(), path


def test_a_model_that_beats_vmaf_is_promoted(make_run, tmp_path):
    folder, verdict, path = judged(make_run, tmp_path, noise=0.05)
    assert path.name == "PROMOTE.json"
    assert verdict["gate"]["passed"] is True
    gain = verdict["gate"]["gain_over_vmaf"]
    assert gain["beats"] is True
    assert gain["bootstrap"]["low"] > 0
    assert gain["model_rmse"] < 0.1 < gain["baseline_rmse"]
    tables = [pl.read_parquet(folder / f"oof_seed{seed}.parquet") for seed in SEEDS]
    corpus = load_corpus(tmp_path / "mos.jsonl").rows
    mean = np.mean([table["y_pred"] for table in tables], axis=0)
    columns = (corpus[name].to_numpy() for name in ("vmaf", "src"))
    assert gain == paired_gain("mos", corpus["mos"].to_numpy(), mean, *columns).model_dump()


def test_a_model_made_of_noise_is_held(make_run, tmp_path):
    _, verdict, path = judged(make_run, tmp_path, noise=2.0, thresholds=GateThresholds())
    assert path.name == "HOLD.json"
    assert verdict["gate"]["gain_over_vmaf"]["beats"] is False
    said = r"RMSE 0\.\d+ does not beat that of the VMAF column, 0\.\d+: gain -0\.\d+, 95% interval "
    assert re.match(said, verdict["diagnosis"]["failed"][-1])
    assert verdict["diagnosis"]["failed"][-1] in verdict["recommendation"]


def test_a_model_that_says_what_vmaf_says_is_held_for_that_alone(make_run, tmp_path):
    _, verdict, path = judged(make_run, tmp_path, noise=0.3, guess=vmaf_alone)
    assert path.name == "HOLD.json"
    gate = verdict["gate"]
    assert all(gate[f"{limit}_pass"] for limit in ("mean_plcc", "plcc_spread", "per_seed"))
    assert gate["passed"] is False
    assert len(verdict["diagnosis"]["failed"]) == 1
    (advice,) = verdict["diagnosis"]["try"]
    assert advice.startswith("VMAF alone, mapped to the target, does as well: see with loso ablate")


def test_excluded_sources_have_no_part_in_the_gain(make_run, tmp_path):
    _, verdict, _ = judged(make_run, tmp_path, noise=0.05, excluded=["bee"])
    assert verdict["gate"]["gain_over_vmaf"]["n_sources"] == 2


def test_the_baseline_of_another_target_takes_the_corpus(make_run):
    folder = make_run(score=mos)
    with pytest.raises(BadEvidence) as refusal:
        validate_run(folder, SEEDS)
    assert str(refusal.value) == (
        f"{folder}: a model of mos must beat its VMAF baseline, which the corpus holds, expected "
        "the corpus that the seeds were trained on; judge with "
        f"loso validate {folder} --corpus CORPUS --seeds 0,1,2,3,4"
    )
    assert not list(folder.glob("*O*.json"))


def test_a_model_of_vmaf_has_no_such_gain(make_run):
    verdict, _ = validate_run(make_run(), SEEDS)
    assert "gain_over_vmaf" not in verdict.to_dict()["gate"]


# -- Baselines in the folder ----------------------------------------------------------------------


def test_baselines_are_bound_and_their_gain_over_a_ridge_is_advice(make_run, tmp_path):
    folder, corpus = make_run(), load_corpus(tmp_path / "corpus.jsonl")
    assert "baselines_sha256" not in validate_run(folder, SEEDS)[0].evidence
    found = ablate_run(folder, corpus, SEEDS, networks=False)
    content = validate_run(folder, SEEDS)[0].to_dict()
    assert content["evidence"]["baselines_sha256"] == sha256_of(folder / "baselines.json")
    (advice,) = (a for a in content["gate"]["advisory"] if a["check"] == "gain_over_ridge")
    gain = found.gains["frame"]["ridge"]
    assert advice["value"] == gain.rmse_gain
    assert advice["note"] == (
        f"RMSE of a ridge on the same inputs less that of the model: {gain.rmse_gain:.4g}, "
        f"95% interval {gain.bootstrap.low:.4g}..{gain.bootstrap.high:.4g}"
    )
    assert content["verdict"] == "PROMOTE"


def test_baselines_that_change_while_they_are_judged_are_refused(make_run, tmp_path, monkeypatch):
    folder, corpus = make_run(), load_corpus(tmp_path / "corpus.jsonl")
    ablate_run(folder, corpus, SEEDS, networks=False)
    path = folder / "baselines.json"

    def too_late(*_):
        path.write_text(path.read_text() + " ")
        return {"failed": [], "try": []}

    monkeypatch.setattr("loso.verdict.diagnose", too_late)
    with pytest.raises(BadEvidence, match=r"baselines\.json: changed while it was judged"):
        validate_run(folder, SEEDS)
    monkeypatch.undo()
    path.unlink()
    monkeypatch.setattr("loso.verdict.diagnose", lambda *_: path.write_text("{}") and {})
    with pytest.raises(BadEvidence, match=r"baselines\.json: changed while it was judged"):
        validate_run(folder, SEEDS)
