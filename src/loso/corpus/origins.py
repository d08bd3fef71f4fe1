"""What shards say of their making: what must agree before they are one corpus, and what should.

A build's manifest names its clips by hash, its tools and its VMAF model; an import's names the
libvmaf of its logs. A merged corpus's lists the shards that it was made of, and speaks for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from pydantic import BaseModel, ConfigDict

from loso.corpus.manifest import manifest_path
from loso.corpus.names import listed
from loso.corpus.shard import Shard
from loso.errors import BadCorpus
from loso.files import MOST_RECORD_BYTES, parse_json, read_file
from loso.records import OneFault, parse_record

__all__ = ["CellRecord", "ClipRecord", "Origin", "ShardRecord", "agreement", "origin_of"]

_MAY_DIFFER: Final = {"libvmaf": "features and scores", "ffmpeg": "encodes"}
"""Tools, and what their versions may make differ."""

_MANIFEST_SHARE: Final = 16
"""Bytes of a manifest for each byte of its corpus, at most: of a cell with one frame it takes 1.2
kB, and the row packs to 90 bytes. A small one may have what any record may."""


class _Record(OneFault, BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class ClipRecord(_Record):
    """A source's clip as a build's manifest has it; keys that are not named here are kept."""

    sha256: str
    width: int | None = None
    height: int | None = None
    pixel_format: str | None = None
    fps: str | None = None

    @property
    def reference(self) -> str:
        """What rows of one source should share, whichever shard they stand in."""
        return f"{self.width}x{self.height} {self.pixel_format} at {self.fps} frames a second"


class CellRecord(_Record):
    """An encode as a build's manifest has it; keys that are not named here are kept."""

    clip: str


class ShardRecord(OneFault, BaseModel):
    """A shard as the manifest of a merged corpus has it."""

    file: str
    sha256: str
    rows: int
    tools: dict[str, str]


class _File(_Record):
    sha256: str


class _Manifest(_Record):
    corpus: _File
    tools: dict[str, str] = {}
    clips: dict[str, ClipRecord] = {}
    cells: list[CellRecord] = []
    missing: dict[str, str] = {}
    shards: list[ShardRecord] = []


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a shard, called `name` in warnings, says of its making; nothing, where all is empty."""

    shard: Shard
    name: str
    parts: Sequence[ShardRecord]
    """The shard itself, or those that it was merged of."""
    clips: Mapping[str, ClipRecord]
    cells: Sequence[CellRecord]
    missing: Mapping[str, str]


def origin_of(shard: Shard, name: str) -> Origin:
    """Return what the manifest beside a shard says, if there is one.

    BadCorpus where it cannot be read, or speaks of other bytes than the shard's: one of the two
    was changed, or came from somewhere else.
    """
    path = manifest_path(shard.path)
    most_bytes = max(MOST_RECORD_BYTES, _MANIFEST_SHARE * shard.stored_bytes)
    fix = "copy both again, or move the manifest away: then nothing of it is compared"
    try:
        content = read_file(path, most_bytes)
    except FileNotFoundError:
        said = _Manifest(corpus=_File(sha256=shard.hashes[0]))
    except OSError as error:
        raise BadCorpus(f"cannot be read ({error.strerror})", where=str(path), fix=fix) from None
    else:
        parse_json(content, str(path))  # which takes no NaN, as pydantic does
        said = parse_record(_Manifest, content, path, refusal=BadCorpus, fix=fix)
    if said.corpus.sha256 not in shard.hashes:
        raise BadCorpus(
            "not the bytes that its manifest names",
            where=str(shard.path),
            expected=f"sha256 {said.corpus.sha256}",
            found=shard.hashes[0],
            fix=fix,
        )
    itself = ShardRecord(
        file=shard.path.name, sha256=shard.hashes[0], rows=shard.rows.height, tools=said.tools
    )
    return Origin(
        shard=shard,
        name=name,
        parts=said.shards or [itself],
        clips=said.clips,
        cells=said.cells,
        missing=said.missing,
    )


def agreement(origins: Sequence[Origin]) -> list[str]:
    """Return warnings about what differs; BadCorpus where shards cannot be one corpus.

    That is where they were scored with two VMAF models, and where one source is two clips.
    """
    _refuse_other_models(origins)
    _refuse_other_clips(origins)
    return [*_versions(origins), *_twins(origins), *_references(origins), *_unsaid(origins)]


def _refuse_other_models(origins: Sequence[Origin]) -> None:
    said = [
        (part.tools["vmaf_model"], origin.shard.path)
        for origin in origins
        for part in origin.parts
        if "vmaf_model" in part.tools
    ]
    for model, path in said:
        if model != said[0][0]:
            raise BadCorpus(
                f"scored with another VMAF model than {said[0][1]}",
                where=str(path),
                expected=said[0][0],
                found=model,
                fix="measure both with one model, or keep two corpora",
            )


def _refuse_other_clips(origins: Sequence[Origin]) -> None:
    since: dict[str, tuple[str, Origin]] = {}
    for origin in origins:
        for src, clip in origin.clips.items():
            expected, there = since.setdefault(src, (clip.sha256, origin))
            if clip.sha256 != expected:
                raise BadCorpus(
                    f"source {src} is another clip than in {there.shard.path}",
                    where=str(origin.shard.path),
                    expected=f"sha256 {expected}",
                    found=clip.sha256,
                    fix="a source is one content: rename one of the clips, and build its shard "
                    "again",
                )


def _versions(origins: Sequence[Origin]) -> Iterator[str]:
    for tool, what in _MAY_DIFFER.items():
        had: dict[str, set[str]] = {}
        for origin in origins:
            for part in origin.parts:
                name = origin.name if len(origin.parts) == 1 else part.file
                if tool in part.tools:
                    had.setdefault(part.tools[tool], set()).add(name)
        if len(had) > 1:
            each = "; ".join(f"{told} in {listed(sorted(had[told]))}" for told in sorted(had))
            yield f"several versions of {tool}, whose {what} may differ: {each}"


def _twins(origins: Sequence[Origin]) -> Iterator[str]:
    sources: dict[str, dict[str, str]] = {}
    for origin in origins:
        for src, clip in origin.clips.items():
            sources.setdefault(clip.sha256, {}).setdefault(src, origin.name)
    for found in sources.values():
        for one, other in combinations(sorted(found), 2):
            yield (
                f"{one} ({found[one]}) and {other} ({found[other]}) are the same file: as two "
                "sources they leak into each other"
            )


def _references(origins: Sequence[Origin]) -> Iterator[str]:
    made: dict[str, dict[str, str]] = {}
    for origin in origins:
        for src, clip in origin.clips.items():
            made.setdefault(src, {}).setdefault(clip.reference, origin.name)
    for src, found in sorted(made.items()):
        if len(found) > 1:
            each = ", ".join(f"{reference} in {name}" for reference, name in found.items())
            yield f"{src} was scored against references of several kinds: {each}"


def _unsaid(origins: Sequence[Origin]) -> Iterator[str]:
    lacking: dict[str, list[str]] = {}
    for origin in origins:
        told = [set(part.tools) for part in origin.parts]
        missing = [
            *(["its clips"] if not origin.clips else []),
            *(["the VMAF model"] if not all("vmaf_model" in tools for tools in told) else []),
            *(["libvmaf"] if not all("libvmaf" in tools for tools in told) else []),
        ]
        if missing:
            lacking.setdefault(" and ".join(missing), []).append(origin.name)
    for what, names in lacking.items():
        yield f"not compared, as no manifest says it: {what} of {listed(names)}"
