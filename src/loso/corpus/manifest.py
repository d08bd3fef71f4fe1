"""What a corpus says of its making; it names files, and no path of the machine that made it."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from loso.corpus.plan import Cell, Plan, portable
from loso.video.clips import Clip
from loso.video.measure import commands

__all__ = ["describe", "manifest_path"]

SCHEMA_VERSION: Final = 1


def manifest_path(out: Path) -> Path:
    """Return where the manifest of corpus `out` stands.

    >>> manifest_path(Path("runs/corpus.jsonl.gz")).name
    'corpus.manifest.json'
    """
    return out.with_name(out.name.removesuffix(".gz").removesuffix(".jsonl") + ".manifest.json")


def describe(
    plan: Plan, *, seconds: Mapping[str, float], missing: Mapping[str, str]
) -> dict[str, Any]:
    """Return the part of a manifest that follows from the plan and from how its cells went."""
    return {
        "cells": [
            _cell(cell, plan, seconds[cell.name]) for cell in plan.cells if cell.name in seconds
        ],
        "clips": {clip.src: _clip(clip) for clip in plan.clips},
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "loso_version": version("loso"),
        "machine": {
            "architecture": platform.machine(),
            "cpus": os.cpu_count(),
            "system": platform.system(),
        },
        "missing": dict(missing),
        "schema_version": SCHEMA_VERSION,
        "settings": _settings(plan),
        "tools": dict(plan.tools),
        "warnings": list(plan.warnings),
    }


def _settings(plan: Plan) -> dict[str, Any]:
    settings, clips = plan.settings, plan.settings.clips
    return {
        "choices": [
            {
                "encoder": choice.encoder.name,
                "extra": list(choice.extra),
                "preset": choice.preset,
                "rate": choice.rate.value,
                "rate_control": choice.rate.control,
            }
            for choice in settings.choices
        ],
        "clips": {
            "fps": clips.fps and str(clips.fps),
            "fps_of": {stem: str(fps) for stem, fps in clips.fps_of.items()},
            "frames": clips.frames,
            "raw_pixel_format": clips.raw_pixel_format,
            "raw_size": clips.raw_size,
            "scale": clips.scale,
            "start_s": clips.start_s,
        },
        "heights": settings.heights,
        "model": plan.tools["vmaf_model"],
        "qsv_device": settings.qsv_device,
        "threads": settings.threads,
        "timeout_s": settings.timeout_s,
        "two_step": plan.two_step,
        "vaapi_device": settings.vaapi_device,
    }


def _cell(cell: Cell, plan: Plan, seconds: float) -> dict[str, Any]:
    lines = commands(cell.clip, cell.encode, plan.settings.model, two_step=plan.two_step)
    named = portable(lines, cell.clip, cell.clip.path.name)
    return {
        "clip": cell.name,
        "commands": [shlex.join(["ffmpeg", *line]) for line in named],
        "fingerprint": plan.marks[cell.name],
        "seconds": seconds,
        "src": cell.clip.src,
    }


def _clip(clip: Clip) -> dict[str, Any]:
    return {
        "decoded": clip.decoded,
        "file": clip.path.name,
        "file_bytes": clip.identity[2],
        "fps": str(clip.fps),
        "frames": clip.frames,
        "height": clip.height,
        "pixel_format": clip.pixel_format,
        "remarks": list(clip.remarks),
        "sha256": clip.sha256,
        "width": clip.width,
    }
