from dataclasses import replace

import polars as pl
import pytest

from loso.corpus.load import load_corpus
from loso.corpus.view import FILE_SOURCE, view
from loso.errors import BadCorpus
from loso.recipe import InputSpec, Recipe


@pytest.fixture
def corpus(make_corpus):
    return load_corpus(make_corpus(sources=("ant", "bee", "cat"), frames=3))


def recipe(**inputs):
    return Recipe(inputs=InputSpec(**inputs))


def test_the_usual_recipe_sees_every_row_and_its_place(corpus):
    seen = view(corpus, Recipe())
    assert seen.rows.drop("row").equals(corpus.rows)
    assert seen.rows["row"].to_list() == list(range(len(corpus)))


def test_rows_are_counted_before_a_source_is_excluded(corpus):
    kept = view(corpus, Recipe(), ["ant"]).rows
    assert kept["row"].to_list() == corpus.rows["src"].ne("ant").arg_true().to_list()
    assert "ant" not in kept["src"]
    with pytest.raises(BadCorpus, match="cannot exclude dog: no such source, expected one of ant"):
        view(corpus, Recipe(), ["dog"])


def test_groups_become_the_sources(corpus):
    film = pl.col("src").replace({"ant": "film", "bee": "film"})
    grouped = replace(corpus, rows=corpus.rows.with_columns(content=film))
    seen = view(grouped, recipe(group_by="content"))
    assert seen.sources == ("cat", "film")
    assert seen.rows[FILE_SOURCE].to_list() == corpus.rows["src"].to_list()
    # Rows that a group would make one are still told apart by their own source.
    assert seen.rows.select(seen.identity).n_unique() == len(corpus)
    assert view(grouped, recipe(group_by="content"), ["film"]).sources == ("cat",)


def test_a_group_that_is_not_there_is_refused(corpus):
    rows = corpus.rows.with_columns(content=pl.when(pl.col("src") != "bee").then("src"))
    with pytest.raises(BadCorpus, match=r"no column contend to group by; did you mean content\?"):
        view(replace(corpus, rows=rows), recipe(group_by="contend"))
    with pytest.raises(BadCorpus, match="content has no value in 18 of 54 rows"):
        view(replace(corpus, rows=rows), recipe(group_by="content"))


def test_clips_are_one_row_each(corpus):
    seen = view(corpus, Recipe(unit="clip"), ["bee"])
    assert len(seen) == len(corpus) * 2 // 3 // 3
    assert seen.rows["row"].to_list() == [*range(6), *range(12, 18)]


def test_frame_0_is_left_out_of_frames_too(corpus):
    seen = view(corpus, recipe(drop_first_frame=True))
    assert seen.rows["frame_index"].min() == 1
    assert len(seen) == len(corpus) * 2 // 3
