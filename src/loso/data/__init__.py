"""The demo corpus: real measurements that ship with the package. README.md tells their origin."""

from __future__ import annotations

from pathlib import Path

__all__ = ["demo_corpus_path"]


def demo_corpus_path() -> Path:
    """Return the path of the demo corpus: 6,000 rows, ten sources, five encoders."""
    return Path(__file__).with_name("demo.jsonl.gz")
