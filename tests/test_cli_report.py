import json
import os
import shutil
from pathlib import Path

import pytest

from loso import pipeline
from loso.errors import BadEvidence
from loso.recipe import Recipe
from loso.report import write
from loso.run_folder import train_into

MOST_BYTES = 6_000_000


@pytest.fixture
def short_run(make_corpus, tmp_path):
    return pipeline.run(make_corpus(frames=8), tmp_path / "run", Recipe(epochs=1, hidden=4), [0, 1])


def test_a_run_ends_with_its_report(short_run):
    page = short_run.report
    assert page == short_run.verdict_path.with_name("report.html")
    assert short_run.verdict.verdict in page.read_text()
    assert page.stat().st_size < MOST_BYTES


def test_a_report_that_cannot_be_written_is_a_warning(make_corpus, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise BadEvidence("nothing to draw")

    monkeypatch.setattr(write, "write_report", refuse)
    outcome = pipeline.run(
        make_corpus(frames=8), tmp_path / "run", Recipe(epochs=1, hidden=4), [0, 1]
    )
    assert outcome.report is None
    assert outcome.verdict_path.exists()
    assert "no report: nothing to draw" in outcome.warnings


def test_training_takes_an_older_report_away(short_run):
    train_into(short_run.report.parent, short_run.corpus, Recipe(epochs=1, hidden=4), [0, 1, 2])
    assert not short_run.report.exists()


def test_equal_records_give_equal_bytes(whole_run, tmp_path):
    pages = [write.write_report(whole_run, tmp_path / name) for name in ("a.html", "b.html")]
    assert pages[0].read_bytes() == pages[1].read_bytes()
    assert pages[0].stat().st_size < MOST_BYTES


def test_a_folder_whose_name_is_no_text_has_a_report_too(whole_run, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(whole_run, tmp_path / os.fsdecode(b"n\xff")))
    assert r"n\udcff" in write.write_report(Path()).read_text()


@pytest.mark.parametrize("name", ["loso_seed0.json", "run.json", "intervals.json"])
def test_no_report_takes_the_place_of_a_record(loso, whole_run, tmp_path, name):
    run = shutil.copytree(whole_run, tmp_path / "run")
    before = (run / name).read_bytes()
    for words in ([run], [run, whole_run]):
        code, _, err = loso("report", *words, "--out", run / name)
        assert code == 2
        assert "would take the place of a record that is drawn" in err
    assert (run / name).read_bytes() == before


def test_no_report_takes_the_place_of_the_corpus(loso, make_run, tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    run = make_run()
    before = corpus.read_bytes()
    code, _, err = loso("report", run, "--corpus", corpus, "--out", corpus)
    assert (code, corpus.read_bytes()) == (2, before)
    assert "would take the place of the corpus that is drawn" in err


def test_the_command_says_where_the_page_is(loso, whole_run, tmp_path):
    page = tmp_path / "page.html"
    code, out, _ = loso("report", whole_run, "--out", page)
    assert (code, out) == (0, f"{page}: {page.stat().st_size / 1e6:.1f} MB\n")
    code, out, _ = loso("report", whole_run, "--out", page, "--json")
    assert (code, json.loads(out)) == (0, {"report": str(page), "bytes": page.stat().st_size})


def test_two_runs_are_compared_beside_the_first(loso, make_run):
    before, after = make_run("before"), make_run("after", noise=2)
    code, _, _ = loso("report", before, after)
    page = before / "against_after.html"
    assert code == 0
    assert "before against after" in page.read_text()
    assert not (before / "report.html").exists()


def test_a_corpus_goes_with_one_run(loso, make_run, tmp_path):
    run = make_run()
    code, _, err = loso("report", run, run, "--corpus", tmp_path / "corpus.jsonl")
    assert code == 2
    assert "--corpus goes with one run; leave it out to compare two" in err


def test_what_is_no_run_is_refused_and_nothing_is_written(loso, tmp_path):
    code, out, err = loso("report", tmp_path, "--json")
    assert code == 2
    assert json.loads(out)["error"] == "BadEvidence"
    assert "no seed files with predictions, so there is nothing to draw" in err
    assert list(tmp_path.iterdir()) == []
