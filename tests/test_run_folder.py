import json
import os
from dataclasses import replace

import polars as pl
import pytest

import loso.run_folder
from loso.corpus.load import load_corpus
from loso.engine import choose
from loso.errors import BadCorpus, BadInput, BadSettings, Busy, Diverged
from loso.files import sha256_of
from loso.locks import folder_lock
from loso.recipe import Compute, Recipe
from loso.run_folder import read_losses, train_into
from loso.seedfile import read_seed_file

SHORT = Recipe(epochs=2, hidden=8)


@pytest.fixture
def corpus(make_corpus):
    return load_corpus(make_corpus())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def trained_seeds(monkeypatch):
    """Seeds that were really trained, a list for each call of the engine."""
    calls = []
    run_loso = loso.run_folder.run_loso

    def spy(corpus, recipe, seeds, **options):
        calls.append(list(seeds))
        return run_loso(corpus, recipe, seeds, **options)

    monkeypatch.setattr(loso.run_folder, "run_loso", spy)
    return calls


def test_a_run_leaves_what_the_contract_names(corpus, folder):
    run = train_into(folder, corpus, SHORT, [0, 3], command=["loso", "train"])
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) == [
        "loso_seed0.json",
        "loso_seed3.json",
        "losses.parquet",
        "oof_seed0.parquet",
        "oof_seed3.parquet",
        "run.json",
    ]
    assert [seed.seed for seed in run.seed_files] == [0, 3]
    seed = json.loads((folder / "loso_seed3.json").read_text())
    assert seed["corpus_sha256"] == sha256_of(corpus.path)
    assert seed["predictions"] == {
        "file": "oof_seed3.parquet",
        "sha256": sha256_of(folder / "oof_seed3.parquet"),
    }
    assert {"epochs": 2, "hidden": 8, "num_codecs": 14}.items() <= seed.items()
    assert seed["engine"] == choose("auto", "cpu")[0]
    predictions = pl.read_parquet(folder / "oof_seed3.parquet")
    assert predictions.columns == (
        "row fold src encoder preset cq frame_index y_true y_pred".split()
    )
    assert predictions.height == len(corpus)
    losses = pl.read_parquet(folder / "losses.parquet")
    assert losses.columns == ["seed", "fold", "held_out", "epoch", "loss"]
    assert losses.height == 2 * 3 * 2
    record = json.loads((folder / "run.json").read_text())
    assert record["calls"][0]["command"] == ["loso", "train"]
    assert record["calls"][0]["trained_seeds"] == [0, 3]


def test_losses_are_read_whatever_the_folder_is_called(corpus, folder, tmp_path):
    train_into(folder, corpus, SHORT, [0])
    losses = read_losses(folder / "losses.parquet")
    assert losses.height == 3 * 2
    strange = folder.rename(tmp_path / os.fsdecode(b"n\xff"))
    assert read_losses(strange / "losses.parquet").equals(losses)


def test_a_folder_whose_name_is_no_text_is_refused_before_training(corpus, tmp_path, trained_seeds):
    with pytest.raises(BadInput, match="its name is not UTF-8"):
        train_into(tmp_path / os.fsdecode(b"n\xff"), corpus, SHORT, [0])
    assert trained_seeds == []


def test_seeds_that_are_there_are_kept(corpus, folder, trained_seeds):
    train_into(folder, corpus, SHORT, [0, 1])
    before = {p.name: p.read_bytes() for p in folder.glob("*_seed*")}
    run = train_into(folder, corpus, SHORT, [0, 1, 2])
    assert trained_seeds == [[0, 1], [2]]
    assert (run.trained, run.kept) == ((2,), (0, 1))
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert pl.read_parquet(folder / "losses.parquet")["seed"].unique().sort().to_list() == [0, 1, 2]
    train_into(folder, corpus, SHORT, [1], force=True)
    assert trained_seeds[2:] == [[1]]
    assert len(json.loads((folder / "run.json").read_text())["calls"]) == 3


def test_training_again_gives_the_same_predictions_to_the_byte(corpus, folder, tmp_path):
    train_into(folder, corpus, SHORT, [0, 1])
    other = tmp_path / "other"
    train_into(other, corpus, SHORT, [1], compute=Compute(threads=1))
    train_into(other, corpus, SHORT, [1, 0])
    for name in ("oof_seed0.parquet", "oof_seed1.parquet", "losses.parquet"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("recipe", "lr"),
        ("corpus", "corpus_sha256"),
        ("exclude", "excluded_sources"),
        ("dry-run", "epochs"),
        ("engine", "engine"),
    ],
)
def test_a_seed_of_another_making_is_replaced_by_force_alone(
    corpus, folder, make_corpus, trained_seeds, change, key
):
    train_into(folder, corpus, SHORT, [0])
    before = (folder / "loso_seed0.json").read_bytes()
    options = {}
    recipe = SHORT
    if change == "recipe":
        recipe = replace(SHORT, lr=1e-3)
    elif change == "corpus":
        corpus = load_corpus(make_corpus("other.jsonl", seed=1))
    elif change == "exclude":
        options["exclude_sources"] = ["ant"]
    elif change == "dry-run":
        options["dry_run"] = True
    elif change == "engine":
        options["compute"] = Compute(engine="reference")
    message = rf"loso_seed0.json: this seed was trained with another {key}, expected .* --force"
    with pytest.raises(BadInput, match=message):
        train_into(folder, corpus, recipe, [0], **options)
    assert (folder / "loso_seed0.json").read_bytes() == before
    train_into(folder, corpus, recipe, [0], force=True, **options)
    assert trained_seeds == [[0], [0]]


def test_seeds_of_one_folder_are_of_one_making(corpus, folder):
    train_into(folder, corpus, SHORT, [0, 1])
    with pytest.raises(BadInput, match=r"loso_seed0.json: this seed was trained with another lr"):
        train_into(folder, corpus, replace(SHORT, lr=1e-3), [2])
    assert not (folder / "loso_seed2.json").exists()


@pytest.mark.parametrize("name", ["loso_seed0.json", "oof_seed0.parquet", "losses.parquet"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_seed_that_is_not_whole_is_trained_again(corpus, folder, trained_seeds, name, damage):
    train_into(folder, corpus, SHORT, [0])
    whole = (folder / "oof_seed0.parquet").read_bytes()
    if damage == "cut":
        (folder / name).write_bytes((folder / name).read_bytes()[:20])
    else:
        (folder / name).unlink()
    train_into(folder, corpus, SHORT, [0])
    assert trained_seeds == [[0], [0]]
    assert (folder / "oof_seed0.parquet").read_bytes() == whole


def test_a_damaged_record_of_calls_costs_no_training(corpus, folder):
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    train_into(folder, corpus, SHORT, [0])
    assert len(json.loads((folder / "run.json").read_text())["calls"]) == 1


def test_any_training_replaces_a_dry_run(corpus, folder, trained_seeds):
    train_into(folder, corpus, SHORT, [0], dry_run=True)
    train_into(folder, corpus, SHORT, [0])
    assert trained_seeds == [[0], [0]]
    assert read_seed_file(folder / "loso_seed0.json").note is None


@pytest.mark.parametrize(
    ("seeds", "found"), [([-1], "-1"), ([0, 0], "0, 0"), ([], "none"), ([1.0], "1.0")]
)
def test_bad_seeds_are_refused_before_anything_is_written(corpus, folder, seeds, found):
    with pytest.raises(BadSettings, match=rf"seeds must be whole numbers .*, found {found}"):
        train_into(folder, corpus, SHORT, seeds)
    assert not folder.exists()


def test_one_source_is_refused_before_anything_is_written(corpus, folder):
    with pytest.raises(BadCorpus, match="needs two sources"):
        train_into(folder, corpus, SHORT, [0], exclude_sources=["ant", "bee"])
    assert not folder.exists()


def test_a_file_in_the_place_of_the_folder_is_refused(corpus, folder):
    folder.write_text("")
    with pytest.raises(BadInput, match=r"run: cannot be used as a folder \(File exists\)"):
        train_into(folder, corpus, SHORT, [0])


def test_the_corpus_may_move(corpus, folder, tmp_path, trained_seeds):
    train_into(folder, corpus, SHORT, [0])
    moved = load_corpus(corpus.path.rename(tmp_path / "moved.jsonl"))
    train_into(folder, moved, SHORT, [0])
    assert trained_seeds == [[0]]


def test_a_dry_run_is_one_epoch_and_marked(corpus, folder):
    train_into(folder, corpus, Recipe(hidden=8), [0], dry_run=True)
    record = read_seed_file(folder / "loso_seed0.json")
    assert (record.note, record.epochs) == ("dry-run", 1)


@pytest.mark.parametrize("name", ["PROMOTE.json", "HOLD.json", "intervals.json"])
def test_verdict_and_intervals_do_not_outlive_their_seeds(corpus, folder, name):
    train_into(folder, corpus, SHORT, [0])
    (folder / name).write_text("{}")
    train_into(folder, corpus, SHORT, [0])
    assert (folder / name).exists()
    train_into(folder, corpus, SHORT, [0], force=True)
    assert not (folder / name).exists()


def test_a_second_run_in_the_folder_is_refused(corpus, folder):
    with (
        folder_lock(folder, "training"),
        pytest.raises(Busy, match="another process is using this folder for training; wait"),
    ):
        train_into(folder, corpus, SHORT, [0])


def test_a_run_that_diverges_writes_no_seed(corpus, folder):
    with pytest.raises(Diverged, match="seed 0, held out ant"):
        train_into(folder, corpus, Recipe(epochs=40, lr=1e3, depth=4), [0])
    assert not list(folder.glob("*.json"))


def test_seeds_killed_between_are_finished_later(corpus, folder, trained_seeds, monkeypatch):
    """The plain loop writes each seed as it ends; what was written is not trained again."""
    write = loso.run_folder._write_seed

    def die_on_the_second(out_dir, result, *rest):
        if result.seed == 1:
            raise KeyboardInterrupt
        write(out_dir, result, *rest)

    plain = Compute(engine="reference")
    monkeypatch.setattr(loso.run_folder, "_write_seed", die_on_the_second)
    with pytest.raises(KeyboardInterrupt):
        train_into(folder, corpus, SHORT, [0, 1, 2], compute=plain)
    monkeypatch.setattr(loso.run_folder, "_write_seed", write)
    train_into(folder, corpus, SHORT, [0, 1, 2], compute=plain)
    assert trained_seeds == [[0], [1], [1], [2]]


def test_only_what_trained_is_recorded(corpus, folder):
    """The native engine runs where torch is not installed, and asks for no version of it."""
    pytest.importorskip("loso.engine._kernel")
    train_into(folder, corpus, SHORT, [0], compute=Compute(engine="native"))
    assert "torch" not in read_seed_file(folder / "loso_seed0.json").versions
    train_into(folder, corpus, SHORT, [0], compute=Compute(engine="batched"), force=True)
    assert "torch" in read_seed_file(folder / "loso_seed0.json").versions
