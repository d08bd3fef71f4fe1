import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# CI machines are slow and noisy: laws are checked, not the time they take.
settings.register_profile("loso", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("loso")


def corpus_rows(
    sources: Sequence[str] = ("ant", "bee", "cat"),
    *,
    encoders: Sequence[str] = ("libx264", "libsvtav1"),
    qualities: Sequence[int] = (20, 30, 40),
    frames: int = 4,
    seed: int = 0,
) -> list[dict]:
    """Rows of made-up clips: VMAF is a smooth function of the features, the source and the cq."""
    random = np.random.default_rng(seed)
    rows = []
    for src in sources:
        hardness = random.uniform(0.5, 1.5)
        for encoder in encoders:
            for cq in qualities:
                loss = hardness * (cq / 50) ** 2
                for frame in range(frames):
                    jitter = random.normal(0, 0.004, 5)
                    motion = float(random.uniform(0, 5)) if frame else 0.0
                    rows.append(
                        {
                            "src": src,
                            "encoder": encoder,
                            "cq": cq,
                            "frame_index": frame,
                            "vmaf": float(np.clip(100 - 60 * loss + 300 * jitter[0], 0, 100)),
                            "adm2": float(1 - 0.3 * loss + jitter[0]),
                            "vif_scale0": float(0.9 - 0.5 * loss + jitter[1]),
                            "vif_scale1": float(0.95 - 0.4 * loss + jitter[2]),
                            "vif_scale2": float(0.97 - 0.3 * loss + jitter[3]),
                            "vif_scale3": float(0.98 - 0.2 * loss + jitter[4]),
                            "motion2": motion,
                        }
                    )
    return rows


def write_rows(path: Path, rows: Sequence[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def make_corpus(tmp_path: Path) -> Callable[..., Path]:
    """Write a made-up corpus of 72 rows, or as `options` ask, each row edited; return its path."""

    def make(name: str = "corpus.jsonl", edit: Callable | None = None, **options) -> Path:
        rows = corpus_rows(**options)
        for i, row in enumerate(rows):
            if edit:
                edit(i, row)
        return write_rows(tmp_path / name, rows)

    return make
