import json
import re
from pathlib import Path

import pytest

from loso.corpus.load import load_corpus
from loso.files import read_json, sha256_of

FORMATS = Path(__file__).parents[1] / "docs" / "formats.md"


@pytest.fixture
def loso(loso, make_corpus, monkeypatch):
    """Merge a.jsonl and b.jsonl, of 24 rows each and three sources, 24 rows of one in both."""
    monkeypatch.chdir(make_corpus("a.jsonl", sources=["ant", "bee"]).parent)
    lines = Path("a.jsonl").read_text().splitlines(keepends=True)
    cat = make_corpus("c.jsonl", sources=["cat"]).read_text()
    Path("b.jsonl").write_text("".join(lines[24:]) + cat)
    Path("c.jsonl").unlink()

    def run(*words, out="new.jsonl"):
        return loso("corpus", "merge", "b.jsonl", "a.jsonl", "--out", out, *words)

    return run


def test_what_a_user_sees(loso):
    code, out, err = loso()
    assert code == 0
    assert out == (
        "new.jsonl: 72 rows of 3 sources from 2 shards\n"
        "\n"
        "shard    rows  also elsewhere\n"
        "a.jsonl    48              24\n"
        "b.jsonl    48              24\n"
        "\n"
        "24 rows were there already, with the same values, and are kept once\n"
    )
    assert err.splitlines()[-1] == (
        "warning: not compared, as no manifest says it: its clips and the VMAF model and libvmaf "
        "of a.jsonl, b.jsonl"
    )
    assert load_corpus("new.jsonl").sources == ("ant", "bee", "cat")


def test_what_disagrees_is_refused_and_nothing_written(loso):
    text = Path("b.jsonl").read_text()
    Path("b.jsonl").write_text(re.sub(r'"adm2": [0-9.]+', '"adm2": 0.5', text, count=1))
    line = json.loads(Path("a.jsonl").read_text().splitlines()[24])
    code, out, err = loso()
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == (
        f"loso: a.jsonl line 25 and b.jsonl line 1: adm2 of one row is {line['adm2']} in the first "
        'and 0.5 in the second, found src "bee", encoder "libx264", cq 20, frame_index 0; drop one '
        "of the two, measure again, or name the column that tells them apart (--key)"
    )
    assert not list(Path().glob("new*"))


def test_a_key_is_passed_on(loso):
    code, _, err = loso("--key", "clap")
    assert code == 2
    assert "there is no column clap to tell rows apart" in err


def documented(title):
    text = FORMATS.read_text(encoding="utf-8")
    (section,) = re.findall(
        rf"^### {re.escape(title)}\n(.*?)(?=^#)", text, re.MULTILINE | re.DOTALL
    )
    return re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)


def paths(value):
    """The keys of a record, and those of what it lists."""
    for key, inner in value.items():
        if key == "corpus" and isinstance(inner, dict):
            yield from (f"{key}.{name}" for name in inner)
        else:
            yield key
        if key == "shards":
            yield from (f"{key}[].{name}" for name in inner[0])


def test_every_key_is_documented(loso, tmp_path):
    told = {
        "corpus": {"sha256": sha256_of(Path("a.jsonl"))},
        "cells": [{"clip": "x", "seconds": 2.5}],
        "clips": {"ant": {"sha256": "1", "file": "ant.mkv"}},
        "missing": {"y": "no room"},
        "tools": {"libvmaf": "3.0", "vmaf_model": "vmaf_v0.6.1"},
    }
    Path("a.manifest.json").write_text(json.dumps(told))
    code, out, _ = loso("--json", out="new.parquet")
    assert code == 0
    report = json.loads(out)
    assert report == {
        "corpus": "new.parquet",
        "manifest": "new.parquet.manifest.json",
        "rows": 72,
        "sources": ["ant", "bee", "cat"],
        "duplicates": 24,
        "shards": [
            {"path": "a.jsonl", "rows": 48, "shared": 24},
            {"path": "b.jsonl", "rows": 48, "shared": 24},
        ],
        "warnings": [
            (
                "not compared, as no manifest says it: its clips and the VMAF model and libvmaf of "
                "b.jsonl"
            )
        ],
    }
    assert sorted(documented("`loso corpus merge --json`")) == sorted(paths(report))
    manifest = read_json(Path("new.parquet.manifest.json"))
    assert manifest["command"].startswith("loso corpus merge b.jsonl a.jsonl --out new.parquet")
    assert f"{tmp_path}" not in json.dumps(manifest)
    assert sorted(documented("Merge manifest")) == sorted(paths(manifest))
    for key in ("cells", "clips", "missing"):
        assert manifest[key] == told[key]
    assert [part["tools"] for part in manifest["shards"]] == [told["tools"], {}]
