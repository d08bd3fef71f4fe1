import hashlib
import json
from dataclasses import replace

import polars as pl
import pytest

from loso.corpus.load import load_corpus
from loso.crossval import score_folds
from loso.errors import BadEvidence
from loso.evidence import collect_evidence
from loso.files import sha256_of
from loso.recheck import check_against_corpus, read_predictions
from loso.seedfile import summarise

SEEDS = (0, 1, 2, 3, 4)


def refused(folder) -> str:
    with pytest.raises(BadEvidence) as refusal:
        read_predictions(collect_evidence(folder, SEEDS))
    return str(refusal.value)


def refused_beside(corpus, folder) -> str:
    """The refusal of a run whose files agree with each other, and not with the corpus."""
    evidence = collect_evidence(folder, SEEDS)
    predictions = read_predictions(evidence)
    with pytest.raises(BadEvidence) as refusal:
        check_against_corpus(evidence, predictions, corpus)
    return str(refusal.value)


@pytest.fixture
def corpus(make_corpus):
    """The corpus that made-up runs speak of."""
    return load_corpus(make_corpus())


def in_seed(number, change):
    return lambda seed, table: change(table) if seed == number else table


def where(number, /, **changes):
    """Change columns of one row."""
    return lambda table: table.with_columns(
        pl.when(pl.col("row") == number).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
        for name, value in changes.items()
    )


def test_predictions_that_give_the_scores_are_returned_in_order_of_row(make_run):
    folder = make_run(predict=lambda seed, table: table.sample(fraction=1, shuffle=True, seed=seed))
    predictions = read_predictions(collect_evidence(folder, SEEDS))
    assert tuple(predictions) == SEEDS
    for table in predictions.values():
        assert table["row"].to_list() == list(range(72))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (where(3, y_pred=50.0), "plcc of held-out source ant in loso_seed1.json is not borne out"),
        (where(30, y_pred=50.0), "plcc of held-out source bee"),
        (lambda t: t.with_columns(pl.col("y_pred") + 1), "rmse of held-out source ant"),
        (lambda t: t.with_columns(y_pred=pl.lit(1.0)), "plcc of held-out source ant"),
        (where(3, y_pred=None), "y_pred is missing, not finite or beyond 1e+100 in 1 of 72 rows"),
        (where(3, y_pred=float("nan")), "y_pred is missing, not finite or beyond 1e+100"),
        (where(3, y_true=float("inf")), "y_true is missing, not finite or beyond 1e+100"),
        (where(3, y_pred=-1e300), "y_pred is missing, not finite or beyond 1e+100"),
        (where(3, encoder=None), "encoder is missing in 1 of 72 rows"),
        (where(3, row=4), "row 4 is held out more than once"),
        (where(3, row=72), "row 72 is not in the corpus, expected 0..71"),
        (where(3, row=-1), "row -1 is not in the corpus"),
        (where(3, fold=3), "fold 3 is not in loso_seed1.json"),
        (where(3, fold=-1), "fold -1 is not in loso_seed1.json"),
        (where(3, fold=1), "row 3 of source ant is held out in the fold of bee"),
        (where(3, src="bee"), "row 3 of source bee is held out in the fold of ant"),
        (where(3, src="x"), "row 3 of source x is held out in the fold of ant"),
        (where(3, fold=1, src="bee"), "rows of held-out source ant, expected 24, found 23"),
        (lambda t: t.filter(pl.col("row") != 3), "rows of held-out source ant, expected 24"),
        (lambda t: t.drop("y_pred"), "cannot be read as predictions ("),
        (where(3, cq=99), "the predictions of seeds 0 and 1 differ in cq"),
        (where(3, preset="slow"), "the predictions of seeds 0 and 1 differ in preset"),
        (where(3, encoder="libx265"), "the predictions of seeds 0 and 1 differ in encoder"),
        (
            lambda t: t.with_columns(height=pl.lit(360)),
            "the predictions of seeds 0 and 1 differ in their columns, expected cq, encoder, fold",
        ),
    ],
)
def test_predictions_that_do_not_bear_the_scores_out_are_refused(make_run, change, message):
    assert message in refused(make_run(predict=in_seed(1, change)))


def test_every_other_column_is_shared_too(make_run):
    def predict(seed, table):
        return table.with_columns(clip=pl.lit("a" if seed < 4 else "b"))

    message = refused(make_run(predict=predict))
    assert "the predictions of seeds 0 and 4 differ in clip" in message
    assert "--seeds 0,4 --force" in message


def test_a_row_that_no_seed_can_hold_out_is_missed(make_run):
    def edit(_, content):
        content["corpus_rows"] = 80

    assert "not every row is held out, expected 80, found 72" in refused(make_run(edit=edit))


def forge(folder, seed, change):
    """Change a seed's predictions, and its file so that all of it fits them."""
    path, record = folder / f"oof_seed{seed}.parquet", folder / f"loso_seed{seed}.json"
    table, content = change(pl.read_parquet(path)), json.loads(record.read_text())
    table.write_parquet(path)
    folds = score_folds(table, [fold["held_out"] for fold in content["folds"]])
    content["folds"] = [fold.model_dump(exclude={"reason"}) for fold in folds]
    content["predictions"]["sha256"] = sha256_of(path)
    record.write_text(json.dumps(content | summarise(folds)))


@pytest.mark.parametrize("copied", [["ant", "bee", "cat"], ["bee"]])
def test_two_seeds_with_one_answer_are_one_seed(make_run, copied):
    """A table in another order is other bytes; what it says gives the copy away."""
    folder = make_run()
    original = pl.read_parquet(folder / "oof_seed1.parquet")["y_pred"]

    def copy(table):
        taken = pl.when(pl.col("src").is_in(copied)).then(original).otherwise("y_pred")
        return table.with_columns(y_pred=taken).sample(fraction=1, shuffle=True, seed=0)

    forge(folder, 3, copy)
    message = f"seeds 1 and 3 predict the same for source {copied[0]}, so one is a copy"
    assert message in refused(folder)


def test_a_file_that_is_not_parquet_is_refused(make_run):
    def edit(seed, content):
        if seed == 2:
            content["predictions"]["sha256"] = hashlib.sha256(b"not a table").hexdigest()

    folder = make_run(edit=edit)
    (folder / "oof_seed2.parquet").write_bytes(b"not a table")
    message = refused(folder)
    assert "cannot be read as predictions (" in message
    assert f"loso train --out-dir {folder} --seeds 2 --force" in message


# -- Excluded sources -----------------------------------------------------------------------------


def test_rows_of_excluded_sources_are_absent_and_others_are_not(make_run, corpus):
    folder = make_run(excluded=["bee"])
    evidence = collect_evidence(folder, SEEDS)
    predictions = read_predictions(evidence)
    assert predictions[0]["row"].to_list() == [*range(24), *range(48, 72)]
    check_against_corpus(evidence, predictions, corpus)

    def exclude(_, content):
        content["excluded_sources"] = ["dog"]

    message = "no rows are left for the excluded sources, expected at most 71, found 72"
    assert message in refused(make_run("b", edit=exclude))


def test_what_is_excluded_is_a_source_of_the_corpus(make_run, corpus):
    def edit(_, content):
        content["excluded_sources"] = ["dog", "bee"]

    message = refused_beside(corpus, make_run(excluded=["bee"], edit=edit))
    assert "excluded source dog is not in the corpus, expected one of ant, bee, cat" in message


# -- Beside the corpus ----------------------------------------------------------------------------


def both(change):
    return lambda _, table: change(table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            where(3, encoder="libx265"),
            "encoder of row 3 is not that of the corpus, expected libx264",
        ),
        (where(3, preset="slow"), "preset of row 3 is not that of the corpus, expected None, fou"),
        (where(3, cq=99), "cq of row 3 is not that of the corpus, expected 20.0, found 99.0"),
        (where(3, frame_index=9), "frame_index of row 3 is not that of the corpus, expected 3"),
        (
            lambda t: t.with_columns(pl.col("y_true", "y_pred") + 1),
            "y_true of row 0 is not that of the corpus",
        ),
        (
            lambda t: t.with_columns(pl.col("row").replace({3: 4, 4: 3})),
            "cq of row 3 is not that of the corpus, expected 20.0, found 30.0",
        ),
    ],
)
def test_predictions_of_other_rows_than_the_corpus_holds_are_refused(
    make_run, corpus, change, message
):
    """All seeds agree and bear their scores out: only the corpus tells."""
    folder = make_run(predict=both(change))
    assert message in refused_beside(corpus, folder)


def test_sources_under_another_name_are_refused(make_run, corpus):
    def edit(_, content):
        content["folds"][0]["held_out"] = "ape"

    def predict(_, table):
        return table.with_columns(pl.col("src").replace({"ant": "ape"}))

    folder = make_run(edit=edit, predict=predict)
    message = refused_beside(corpus, folder)
    assert "src of row 0 is not that of the corpus, expected ant, found ape" in message


def test_a_source_that_is_excluded_is_not_another_that_was_left_out(make_run, corpus):
    """The rows of bee are gone, those of cat stand in its fold, cat is said to be left out."""

    def edit(_, content):
        content["excluded_sources"] = ["cat"]
        content["folds"][1]["held_out"] = "bee"

    def predict(_, table):
        return table.with_columns(pl.col("src").replace({"cat": "bee"}))

    folder = make_run(excluded=["bee"], edit=edit, predict=predict)
    message = refused_beside(corpus, folder)
    assert "row 24 of source bee is not predicted, though its source is not excluded" in message


def test_rows_of_an_excluded_source_do_not_pass_under_another_name(make_run, corpus):
    def edit(_, content):
        content["excluded_sources"] = ["bee"]
        content["folds"][1]["held_out"] = "ape"

    folder = make_run(edit=edit)
    rename = pl.col("src").replace({"bee": "ape"})
    for seed in SEEDS:
        forge(folder, seed, lambda t: t.filter(pl.col("row") != 47).with_columns(rename))
    message = refused_beside(corpus, folder)
    assert "row 24 of source bee is predicted, though its source is excluded" in message


def test_the_corpus_is_known_by_its_bytes_its_size_and_its_target(make_run, corpus):
    folder = make_run()
    other = replace(corpus, sha256="0" * 64)
    message = refused_beside(other, folder)
    assert f"the seeds were trained on, expected sha256 {corpus.sha256}, found 000" in message

    longer = replace(corpus, rows=pl.concat([corpus.rows, corpus.rows]))
    message = "corpus_rows in loso_seed0.json is not that of the corpus, expected 144, found 72"
    assert message in refused_beside(longer, folder)

    def edit(_, content):
        content["target"] = "mos"

    message = refused_beside(corpus, make_run("b", edit=edit))
    assert "target mos is not a column of the corpus" in message


@pytest.mark.parametrize("target", ["adm2", "src"])
def test_another_target_of_the_corpus_is_another_truth(make_run, corpus, target):
    folder = make_run(edit=lambda _, content: content.update(target=target))
    message = refused_beside(corpus, folder)
    assert "y_true of row 0 is not that of the corpus" in message


def test_a_clip_that_the_corpus_records_is_recorded(make_run, corpus):
    folder = make_run()
    named = replace(corpus, rows=corpus.rows.with_columns(clip=pl.lit(7)))
    assert "no column clip, which the corpus has" in refused_beside(named, folder)
    folder = make_run("b", predict=both(lambda t: t.with_columns(clip=pl.lit(7))))
    evidence = collect_evidence(folder, SEEDS)
    check_against_corpus(evidence, read_predictions(evidence), named)
    folder = make_run("c", predict=both(lambda t: t.with_columns(clip=pl.lit("8"))))
    message = refused_beside(named, folder)
    assert "clip of row 0 is not that of the corpus, expected 7, found 8" in message


def test_old_files_without_predictions_give_none(tmp_path):
    (tmp_path / "loso_seed0.json").write_text('{"seed": 0, "mean_plcc": 0.9}')
    evidence = collect_evidence(tmp_path, [0], allow_thin=True)
    assert read_predictions(evidence) == {}
