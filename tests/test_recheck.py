import json

import polars as pl
import pytest

from loso.errors import BadEvidence
from loso.evidence import collect_evidence
from loso.files import sha256_of
from loso.recheck import read_predictions

SEEDS = (0, 1, 2, 3, 4)


def refused(folder) -> str:
    with pytest.raises(BadEvidence) as refusal:
        read_predictions(collect_evidence(folder, SEEDS))
    return str(refusal.value)


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
        (where(3, y_pred=None), "y_pred is missing or not finite, expected every row, found 1"),
        (where(3, y_pred=float("nan")), "y_pred is missing or not finite"),
        (where(3, y_true=float("inf")), "y_true is missing or not finite"),
        (where(3, row=4), "row 4 is held out more than once"),
        (where(3, fold=3), "fold 3 is not in loso_seed1.json"),
        (where(3, fold=-1), "fold -1 is not in loso_seed1.json"),
        (where(3, fold=1), "rows of held-out source ant, expected 24, found 23"),
        (lambda t: t.filter(pl.col("row") != 3), "rows of held-out source ant, expected 24"),
        (where(3, src="bee"), "source bee is held out in the fold of ant"),
        (
            lambda t: where(30, fold=0, src="x")(where(3, fold=1, src="x")(t)),
            "source x is split over folds",
        ),
        (
            lambda t: t.with_columns(
                src=pl.col("src").replace({"ant": "bee", "bee": "ant"}),
            ),
            "source ant is held out in the fold of bee",
        ),
        (lambda t: t.drop("y_pred"), "cannot be read as predictions ("),
        (where(3, src="x"), "the predictions of seeds 0 and 1 differ in src"),
        (where(3, cq=99), "the predictions of seeds 0 and 1 differ in cq"),
        (where(3, row=1000), "the predictions of seeds 0 and 1 differ in row"),
    ],
)
def test_predictions_that_do_not_bear_the_scores_out_are_refused(make_run, change, message):
    assert message in refused(make_run(predict=in_seed(1, change)))


def test_a_file_that_is_not_parquet_is_refused(make_run):
    folder = make_run()
    path, record = folder / "oof_seed2.parquet", folder / "loso_seed2.json"
    path.write_bytes(b"not a table")
    content = json.loads(record.read_text())
    content["predictions"]["sha256"] = sha256_of(path)
    record.write_text(json.dumps(content))
    assert "cannot be read as predictions (" in refused(folder)


def test_rows_of_excluded_sources_may_be_absent_others_not(make_run):
    def more_rows(_, content):
        content["corpus_rows"] = 80

    def excluded(_, content):
        content |= {"corpus_rows": 80, "excluded_sources": ["dog"]}

    assert "not every row is held out, expected 80, found 72" in refused(
        make_run("a", edit=more_rows)
    )
    assert read_predictions(collect_evidence(make_run("b", edit=excluded), SEEDS))


def test_old_files_without_predictions_give_none(tmp_path):
    (tmp_path / "loso_seed0.json").write_text('{"seed": 0, "mean_plcc": 0.9}')
    evidence = collect_evidence(tmp_path, [0], allow_thin=True)
    assert read_predictions(evidence) == {}
