import json
import math
from pathlib import Path

import pytest

from loso.errors import BadEvidence, BadInput, BadSettings
from loso.evidence import collect_evidence
from loso.files import sha256_of
from loso.seedfile import FoldScore, seed_file_name, summarise

SEEDS = (0, 1, 2, 3, 4)

# -- What can be judged ---------------------------------------------------------------------------


def test_a_whole_run_is_evidence_by_the_hashes_of_its_files(make_run):
    folder = make_run()
    evidence = collect_evidence(folder, (4, 2, 0, 1, 3))
    assert tuple(evidence.seed_files) == SEEDS
    assert evidence.warnings == ()
    for seed in SEEDS:
        assert evidence.seed_sha256[seed] == sha256_of(folder / seed_file_name(seed))
        assert evidence.predictions_sha256[seed] == sha256_of(folder / f"oof_seed{seed}.parquet")


def refused(folder: Path, seeds=SEEDS, **options) -> BadEvidence:
    with pytest.raises(BadEvidence) as refusal:
        collect_evidence(folder, seeds, **options)
    return refusal.value


@pytest.mark.parametrize("seeds", [(), (0, 1, 1)])
def test_seeds_must_be_asked_for_once_each(make_run, seeds):
    with pytest.raises(BadSettings, match="each once"):
        collect_evidence(make_run(), seeds)


def test_a_folder_or_seed_files_that_are_missing_are_named_with_the_way_to_make_them(
    make_run, tmp_path
):
    assert "not a folder" in str(refused(tmp_path / "nowhere"))
    folder = make_run("my run", seeds=(0, 1, 3))
    message = str(refused(folder))
    assert "missing loso_seed2.json, loso_seed4.json" in message
    assert f"make it with loso train --out-dir '{folder}' --seeds 2,4 --corpus CORPUS" in message


def test_what_cannot_be_read_is_refused_with_its_reason(make_run, tmp_path):
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file: not a folder" in str(refused(tmp_path / "file"))
    assert "cannot be read (File name too long)" in str(refused(tmp_path / ("a" * 300)))

    folder = make_run()
    for name in ("oof_seed3.parquet", "loso_seed3.json"):
        (folder / name).unlink()
        (folder / name).mkdir()
        with pytest.raises(BadInput, match=r"cannot be read \(Is a directory\)") as refusal:
            collect_evidence(folder, SEEDS)
        assert refusal.value.where == str(folder / name)


def test_seed_files_that_are_not_judged_are_named(make_run):
    folder = make_run(seeds=(*SEEDS, 10))
    (folder / "loso_seed1 (copy).json").touch()
    evidence = collect_evidence(folder, (1, 3))
    names = ("loso_seed0.json", "loso_seed2.json", "loso_seed4.json", "loso_seed10.json")
    assert evidence.not_judged == (*names, "loso_seed1 (copy).json")
    assert evidence.warnings == (f"in the folder and not judged: {', '.join(evidence.not_judged)}",)


def in_seed(number: int, **changes):
    """Change keys of one seed's file."""
    return lambda seed, content: content.update(changes) if seed == number else None


def in_fold(number: int, **changes):
    """Change keys of the middle fold in one seed's file, with its summary made to fit."""

    def edit(seed, content):
        if seed == number:
            content["folds"][1] |= changes
            content |= summarise([FoldScore.model_validate(fold) for fold in content["folds"]])

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (in_seed(2, seed=7), "the seed inside is not that of the file's name, expected 2, found 7"),
        (in_seed(4, note="dry-run"), "a dry run (one epoch) proves nothing"),
        (in_seed(1, n_folds=9), "n_folds disagrees with folds, expected 3, found 9"),
        (in_seed(1, folds=[], n_folds=0), "no folds, so the mean cannot be checked"),
        (in_fold(3, held_out="ant"), "source ant is held out 2 times"),
        (
            in_fold(3, plcc=None, reason="y_pred is constant"),
            "plcc of held-out source bee is undefined (y_pred is constant)",
        ),
        (in_fold(3, plcc=math.nan), "plcc of held-out source bee is undefined; give that source"),
        (in_fold(3, srocc=None), "srocc of held-out source bee is undefined"),
        (in_fold(0, rmse=None), "rmse of held-out source bee is undefined"),
        (in_fold(0, n_val=25), "held-out source ant do not add up to all rows, expected 73"),
        (in_seed(0, mean_plcc=None), "mean_plcc is not what the folds give"),
        (in_seed(0, mean_plcc=0.99), "mean_plcc is not what the folds give, expected 0.9"),
        (in_seed(0, std_plcc=0.5), "std_plcc is not what the folds give"),
        (in_seed(0, min_plcc=0.5), "min_plcc is not what the folds give"),
        (in_seed(0, max_plcc=0.5), "max_plcc is not what the folds give"),
        (in_seed(0, mean_srocc=0.5), "mean_srocc is not what the folds give"),
        (in_seed(0, mean_rmse=9.5), "mean_rmse is not what the folds give"),
        (
            in_seed(4, predictions={"file": "oof_seed0.parquet", "sha256": "0" * 64}),
            "names predictions that are not this seed's, expected oof_seed4.parquet, found oof_se",
        ),
        (in_seed(4, excluded_sources=["bee"]), "source bee is held out and excluded"),
        (in_seed(4, excluded_sources=["dog"]), "seeds 0 and 4 differ in excluded_sources"),
        (in_seed(4, corpus_rows=73), "seeds 0 and 4 differ in corpus_rows"),
        (in_seed(4, corpus_sha256="0" * 64), "seeds 0 and 4 differ in corpus_sha256, expected "),
        (in_seed(4, epochs=199), "differ in epochs, expected 200 as in loso_seed0.json, found 199"),
        (in_seed(4, batch_size=16), "seeds 0 and 4 differ in batch_size"),
        (in_seed(4, lr=1e-3), "seeds 0 and 4 differ in lr"),
        (in_seed(4, weight_decay=0.0), "seeds 0 and 4 differ in weight_decay"),
        (in_seed(4, hidden=32), "seeds 0 and 4 differ in hidden"),
        (in_seed(4, depth=3), "seeds 0 and 4 differ in depth"),
        (in_seed(4, dropout=0.2), "seeds 0 and 4 differ in dropout"),
        (in_seed(4, num_codecs=15), "seeds 0 and 4 differ in num_codecs"),
        (in_seed(4, target="mos"), "seeds 0 and 4 differ in target"),
        (in_seed(4, unit="clip"), "seeds 0 and 4 differ in unit"),
        (in_seed(4, encoder_vocab_version=1), "seeds 0 and 4 differ in encoder_vocab_version"),
        (in_fold(4, held_out="dog"), "seeds 0 and 4 differ in the fold of bee"),
    ],
)
def test_broken_evidence_is_refused(make_run, edit, message):
    assert message in str(refused(make_run(edit=edit)))


def test_one_fold_is_not_leave_one_out(make_run):
    def edit(_, content):
        folds = content["folds"][:1]
        content |= summarise([FoldScore.model_validate(fold) for fold in folds])
        content |= {"folds": folds, "n_folds": 1}

    assert "too few folds, expected 2 or more, found 1" in str(refused(make_run(edit=edit)))


def test_folds_of_other_row_counts_are_other_folds(make_run):
    def edit(seed, content):
        if seed == 1:
            for fold in content["folds"]:
                fold |= {"n_train": 2 * fold["n_train"], "n_val": 2 * fold["n_val"]}

    assert "seeds 0 and 1 differ in the fold of ant" in str(refused(make_run(edit=edit)))


@pytest.mark.parametrize("longer", [0, 1])
def test_a_seed_with_one_more_fold_is_of_another_run(tmp_path, longer):
    for seed in (0, 1):
        folds = [
            {"held_out": source, "plcc": 0.9} for source in "abc"[: 3 if seed == longer else 2]
        ]
        content = {"seed": seed, "mean_plcc": 0.9, "folds": folds}
        (tmp_path / seed_file_name(seed)).write_text(json.dumps(content))
    assert "seeds 0 and 1 differ in the fold of c" in str(refused(tmp_path, (0, 1)))


def test_a_summary_may_differ_by_rounding_only(make_run):
    def off_by(error):
        return lambda _, content: content.update(mean_plcc=content["mean_plcc"] + error)

    collect_evidence(make_run("a", edit=off_by(0.5e-9)), SEEDS)
    assert "mean_plcc" in str(refused(make_run("b", edit=off_by(2e-9))))


def test_predictions_must_be_the_bytes_that_the_seed_file_names(make_run):
    folder = make_run()
    path = folder / "oof_seed3.parquet"
    path.write_bytes(path.read_bytes() + b"\0")
    refusal = refused(folder)
    assert "not the predictions that loso_seed3.json was computed from" in str(refusal)
    assert refusal.where == str(path)
    path.unlink()
    refusal = refused(folder)
    assert "missing predictions oof_seed3.parquet" in str(refusal)
    assert refusal.fix.endswith(f"loso train --out-dir {folder} --seeds 3 --force --corpus CORPUS")


def test_one_seed_does_not_pass_as_two(make_run):
    folder = make_run()
    content = json.loads((folder / seed_file_name(1)).read_text())
    (folder / seed_file_name(3)).write_text(json.dumps(content | {"seed": 3}))
    assert "expected oof_seed3.parquet, found oof_seed1.parquet" in str(refused(folder))

    (folder / "oof_seed3.parquet").write_bytes((folder / "oof_seed1.parquet").read_bytes())
    content["predictions"]["file"] = "oof_seed3.parquet"
    (folder / seed_file_name(3)).write_text(json.dumps(content | {"seed": 3}))
    assert "seeds 1 and 3 have the same predictions, so one is a copy" in str(refused(folder))


# -- Files of the replaced trainer ----------------------------------------------------------------


def old_file(content: dict, *, keys=()) -> None:
    kept = {"seed", "mean_plcc", *keys}
    for key in content.keys() - kept:
        del content[key]


OLD_KEYS = (
    *("corpus", "n_folds", "folds", "std_plcc", "min_plcc", "max_plcc", "mean_srocc", "mean_rmse"),
    *("epochs", "batch_size", "lr", "weight_decay", "num_codecs", "encoder_vocab_version"),
)


def test_old_files_are_judged_by_what_they_have_and_the_rest_is_said(make_run):
    folder = make_run(edit=lambda _, content: old_file(content, keys=OLD_KEYS))
    evidence = collect_evidence(folder, SEEDS)
    assert list(evidence.warnings) == [
        "seeds 0, 1, 2, 3, 4: no corpus_sha256: that the seeds saw one corpus is taken on trust",
        (
            "seeds 0, 1, 2, 3, 4: no hidden, depth, dropout, target, unit: "
            "that the seeds share them is taken on trust"
        ),
        "seeds 0, 1, 2, 3, 4: no predictions: the scores cannot be computed again",
    ]
    assert evidence.predictions_sha256 == {}


def test_old_files_of_different_corpora_differ_by_path(make_run):
    def edit(seed, content):
        old_file(content, keys=OLD_KEYS)
        content["corpus"] = f"{seed % 2}.jsonl"

    refusal = refused(make_run(edit=edit))
    assert "seeds 0 and 1 differ in corpus, expected 0.jsonl" in str(refusal)


@pytest.mark.parametrize("old", [0, 3])
def test_old_and_new_files_do_not_mix(make_run, old):
    def edit(seed, content):
        if seed == old:
            old_file(content, keys=OLD_KEYS)

    assert f"seeds 0 and {old or 1} differ in schema_version" in str(refused(make_run(edit=edit)))


def test_predictions_are_not_left_out_of_the_evidence(make_run):
    folder = make_run(edit=lambda _, content: old_file(content, keys=OLD_KEYS))
    (folder / "oof_seed2.parquet").touch()
    message = f"{folder}/oof_seed2.parquet: predictions that loso_seed2.json does not name"
    assert message in str(refused(folder))


def test_a_file_without_folds_is_judged_only_where_thin_evidence_is_allowed(make_run):
    folder = make_run(edit=lambda _, content: old_file(content))
    assert "no folds, so the mean cannot be checked" in str(refused(folder))
    evidence = collect_evidence(folder, SEEDS, allow_thin=True)
    assert evidence.warnings[0].startswith("seeds 0, 1, 2, 3, 4: thin evidence, no folds")


def test_thin_evidence_is_still_evidence(make_run):
    def undefined(_, content):
        old_file(content)
        content["mean_plcc"] = math.nan

    folder = make_run("a", edit=undefined)
    assert "mean_plcc is undefined" in str(refused(folder, allow_thin=True))
    folder = make_run("b", edit=in_seed(0, folds=[], n_folds=0))
    assert "no folds" in str(refused(folder, allow_thin=True))
