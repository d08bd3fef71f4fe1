import json
import re
from pathlib import Path

import pytest

from loso.corpus.load import load_corpus
from loso.files import read_json

FORMATS = Path(__file__).parents[1] / "docs" / "formats.md"
CLIPS = {"ant": 4.5, "bee": 3.25, "cat": 2.0}


@pytest.fixture
def loso(loso, make_corpus, monkeypatch):
    """Join corpus.jsonl, 72 rows of three clips called by an alias, with a table of lines."""

    def edit(_, row):
        row.update(clip=row["src"], encoder={"libx264": "h264"}.get(row["encoder"], "libsvtav1"))

    monkeypatch.chdir(make_corpus(edit=edit).parent)

    def run(*words, table=CLIPS, out="new.jsonl"):
        lines = "".join(f"{clip},{mos},A\n" for clip, mos in table.items())
        Path("mos.csv").write_text(f"clip,mos,panel\n{lines}", encoding="utf-8")
        return loso("corpus", "join", "corpus.jsonl", "mos.csv", "--out", out, *words)

    return run


def test_what_a_user_sees(loso):
    code, out, err = loso("--on", "clip", "--known-encoders")
    assert code == 0
    assert out == (
        "new.jsonl: 72 rows, joined with 3 of the table\n"
        "\n"
        "new columns        mos, panel\n"
        "renamed            h264 -> libx264 (rows: 36)\n"
        "rows left out      0\n"
        "table rows unused  0\n"
    )
    assert err == ""
    rows = load_corpus("new.jsonl").rows
    assert [CLIPS[clip] for clip in rows["clip"]] == rows["mos"].to_list()
    assert set(rows["encoder"]) == {"libx264", "libsvtav1"}


def test_encoders_keep_their_names_unless_asked(loso):
    code, out, err = loso("--on", "clip", "--columns", "mos")
    assert code == 0
    assert "renamed" not in out
    assert "new columns        mos\n" in out
    assert err == (
        "warning: encoders outside the vocabulary share its slot unknown; rows of each: h264 36\n"
    )


def test_what_does_not_join_is_refused_or_left_out_and_listed(loso):
    table = {"ant": 1, "dog": 2, "eel": 3}
    code, out, err = loso("--on", "clip", table=table)
    assert (code, out) == (2, "")
    assert err == (
        "loso: mos.csv: rows without a partner: 48 of the corpus (bee, cat), 2 of the table "
        "(dog, eel); name them alike, or leave these out with --allow-unjoined\n"
    )
    assert not list(Path().glob("new*"))
    code, out, _ = loso("--on", "clip", "--allow-unjoined", table=table)
    assert code == 0
    assert "new.jsonl: 24 rows, joined with 1 of the table\n" in out
    assert "rows left out      48: bee, cat\n" in out
    assert "table rows unused  2: dog, eel\n" in out
    assert load_corpus("new.jsonl").sources == ("ant",)


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["--on", "clip,"], "--on: not a list of columns, expected names separated by commas"),
        (["--on", "clip", "--columns", "mos, mos"], "--columns: not a list of columns"),
        (["--on", "clip", "--columns", ""], "--columns: not a list of columns"),
        (["--on", "clip", "--key", "clap"], "did you mean clip?"),
    ],
)
def test_wrong_lists_of_columns_are_refused(loso, words, refusal):
    code, _, err = loso(*words)
    assert code == 2
    assert refusal in err
    assert not list(Path().glob("new*"))


def documented(title):
    text = FORMATS.read_text(encoding="utf-8")
    (section,) = re.findall(
        rf"^### {re.escape(title)}\n(.*?)(?=^#)", text, re.MULTILINE | re.DOTALL
    )
    return re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)


def test_every_key_is_documented(loso, tmp_path):
    table = {"ant": 1, "dog": 2}
    words = ("--on", "clip", "--known-encoders", "--allow-unjoined", "--json")
    code, out, _ = loso(*words, table=table, out="new.parquet")
    assert code == 0
    report = json.loads(out)
    assert report == {
        "corpus": "new.parquet",
        "manifest": "new.parquet.manifest.json",
        "rows": 24,
        "columns": ["mos", "panel"],
        "joined": 1,
        "left_out": 48,
        "corpus_without_table": ["bee", "cat"],
        "table_without_corpus": ["dog"],
        "aliases": {"h264 -> libx264": 36},
        "warnings": [],
    }
    assert sorted(documented("`loso corpus join --json`")) == sorted(report)
    manifest = read_json(Path("new.parquet.manifest.json"))
    assert manifest["command"].startswith("loso corpus join corpus.jsonl mos.csv --out new.parquet")
    assert f"{tmp_path}" not in json.dumps(manifest)
    keys = set()
    for key, value in manifest.items():
        inner = value if isinstance(value, dict) and key != "encoder_aliases" else None
        keys |= {f"{key}.{name}" for name in inner} if inner else {key}
    assert sorted(documented("Join manifest")) == sorted(keys)
