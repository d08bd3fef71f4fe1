"""The file of a log: what stands in it, and what becomes of an error."""

import logging
import re

import pytest

from loso.errors import BadCorpus, BadInput
from loso.journal import LOG, journal

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def test_lines_are_appended_with_utc_times(tmp_path):
    path = tmp_path / "a.log"
    for word in ("one", "two"):
        with journal(path):
            logging.getLogger("loso.anything").info("said %s", word)
    LOG.warning("afterwards")
    first, second = path.read_text().splitlines()
    assert re.fullmatch(f"{STAMP} INFO said one", first)
    assert re.fullmatch(f"{STAMP} INFO said two", second)
    assert LOG.level == logging.NOTSET


def test_a_warning_stands_there_once_and_other_lines_as_often_as_they_are_said(tmp_path):
    path = tmp_path / "a.log"
    with journal(path):
        for _ in range(2):
            LOG.warning("few rows")
            LOG.info("training")
    assert [line.split(" ", 1)[1] for line in path.read_text().splitlines()] == [
        "WARNING few rows",
        "INFO training",
        "INFO training",
    ]


def test_no_name_can_break_a_line(tmp_path):
    path = tmp_path / "a.log"
    refusal = BadCorpus("too few rows", where="c\n.jsonl")
    with journal(path):
        LOG.info("clip %s", "a\n2000-01-01T00:00:00Z INFO b")
    with pytest.raises(BadCorpus), journal(path):
        raise refusal
    first, last = path.read_text().splitlines()
    assert first.endswith(r" INFO clip a\n2000-01-01T00:00:00Z INFO b")
    assert last.endswith(r" ERROR BadCorpus: c\n.jsonl: too few rows")


def test_an_error_is_the_last_line_of_the_file_that_it_ends(tmp_path):
    outer, inner = tmp_path / "outer.log", tmp_path / "inner.log"
    with journal(outer), pytest.raises(BadCorpus), journal(inner):
        raise BadCorpus("too few rows", where="c.jsonl")
    assert inner.read_text().endswith(" ERROR BadCorpus: c.jsonl: too few rows\n")
    assert outer.read_text() == ""


def test_a_file_that_cannot_be_opened_is_refused(tmp_path):
    refused = pytest.raises(BadInput, match=r"no/a\.log: cannot be written \(No such file")
    with refused, journal(tmp_path / "no" / "a.log"):
        pass
