"""What loso reads from outside, and one whole example of each: the targets of every fuzzer here.

`tests/test_fuzz.py` tries each with some hundred mangled examples, `fuzz/explore.py` for as long
as it is told to. Bytes go in; what comes out is a refusal by name (LosoError) or something that
was read. Any other exception is a fault of loso, and so is a refusal too long to be read.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl

from loso.baselines import parse_baselines
from loso.cli import main
from loso.corpus.check import describe_corpus
from loso.corpus.load import load_corpus
from loso.corpus.logs import read_log
from loso.corpus.names import NamePattern, by_clip, read_names
from loso.corpus.origins import agreement, origin_of
from loso.corpus.parts import Parts
from loso.corpus.scores import read_scores as read_table_of_scores
from loso.corpus.shard import read_shard
from loso.errors import CannotRun, LosoError
from loso.evidence import collect_evidence
from loso.features import load_feature_set
from loso.intervals import parse_intervals
from loso.model.files import ENSEMBLE_OUTPUTS, MEMBER_OUTPUTS
from loso.model.grounds import read_promote
from loso.model.onnx_graph import Session, check_graph
from loso.model.opening import open_model
from loso.recipe import Recipe
from loso.registry import list_models
from loso.report.reading import read_run
from loso.schema import CANONICAL_6
from loso.sweep.grid import read_grid
from loso.sweep.kept import Kept
from loso.verify import verify_model
from loso.video.ffmpeg import reason_of
from loso.video.measure import read_scores
from loso.video.said import Said
from loso.video.seen import Watch

__all__ = [
    "MOST_SECONDS",
    "TARGETS",
    "Hung",
    "Material",
    "Target",
    "attempt",
    "make_material",
]

MOST_SECONDS = 30.0
"""For one input of a few kilobytes: a hundred times what the slowest target takes."""

MOST_LETTERS = 5100
"""Of a refusal, which may quote what was found, but not all of it."""


class Hung(BaseException):
    """An input took longer than `MOST_SECONDS`."""


@dataclass(frozen=True)
class Material:
    """A folder of whole files, and a scratch folder that every input is written to."""

    whole: Path
    scratch: Path

    def put(self, name: str, data: bytes) -> Path:
        """Return the scratch folder's file of that name, with `data` in it."""
        path = self.scratch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def copy(self, folder: str) -> Path:
        """Return a copy of a whole folder, made once: each input replaces one file in it."""
        place = self.scratch / folder
        if not place.exists():
            shutil.copytree(self.whole / folder, place)
        return place


@dataclass(frozen=True)
class Target:
    """A reader, and where whole examples of what it reads stand in the material."""

    name: str
    read: Callable[[bytes, Material], object]
    examples: Callable[[Path], Sequence[bytes]]
    weight: float = 1.0
    """How many inputs it is given, relative to the others: few where each takes long."""


def attempt(target: Target, data: bytes, material: Material) -> str:
    """Return "taken", or the name of the refusal; anything else is raised."""
    with _within(MOST_SECONDS):
        try:
            target.read(data, material)
        except LosoError as refusal:
            if not 0 < len(str(refusal)) < MOST_LETTERS:
                raise AssertionError(f"{target.name}: {len(str(refusal))} letters") from refusal
            return type(refusal).__name__
    return "taken"


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    def hung(*_: object) -> None:
        raise Hung(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# -- Readers --------------------------------------------------------------------------------------


def _corpus(name: str) -> Callable[[bytes, Material], object]:
    def read(data: bytes, material: Material) -> object:
        return describe_corpus(load_corpus(material.put(name, data)))

    return read


_ODD_TYPES = (
    *(pl.Binary, pl.Boolean, pl.Categorical, pl.Date, pl.Datetime, pl.Decimal, pl.Duration),
    *(pl.Float32, pl.Int8, pl.UInt64, pl.Null, pl.String, pl.Time, pl.List(pl.Float64)),
    *(pl.Int128, pl.Array(pl.Float64, 1), pl.Struct({"a": pl.Float64})),
)


def _columns_of_odd_types(data: bytes, material: Material) -> object:
    random = Random(zlib.crc32(data))
    table = pl.read_ndjson(material.whole / "corpus.jsonl")
    for name in random.sample(table.columns, random.randint(1, 3)):
        kind = random.choice(_ODD_TYPES)
        try:
            odd = table[name].cast(kind, strict=False)
        except (pl.exceptions.PolarsError, TypeError):  # of a Decimal no precision is given
            odd = pl.Series(name, [None] * table.height, dtype=kind)
        if random.random() < 0.5:
            odd = odd.fill_null(strategy="forward").fill_null(strategy="backward")
        table = table.with_columns(odd.alias(name))
    stream = io.BytesIO()
    try:
        table.write_parquet(stream)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None  # it cannot be written: nobody will have such a file
    return describe_corpus(load_corpus(material.put("odd.parquet", stream.getvalue())))


def _corpus_manifest(data: bytes, material: Material) -> object:
    shard = material.put("shard.jsonl", (material.whole / "merged.jsonl").read_bytes())
    material.put("shard.manifest.json", data)
    origin = origin_of(read_shard(shard), "shard")
    return agreement([origin, origin])


def _in_folder(
    folder: str, file: str, read: Callable[[Path], object]
) -> Callable[[bytes, Material], object]:
    def replaced(data: bytes, material: Material) -> object:
        place = material.copy(folder)
        whole = (material.whole / folder / file).read_bytes()
        (place / file).write_bytes(data)
        try:
            return read(place)
        finally:
            (place / file).write_bytes(whole)

    return replaced


def _run_again(folder: Path) -> object:
    return read_run(folder)


def _model_and_its_audit(folder: Path) -> object:
    audit = verify_model(folder)  # which finds, and refuses nothing that a folder may hold
    for finding in audit.findings:
        if not all(each.isprintable() for each in json.dumps(finding.to_dict())):
            raise AssertionError(finding)
    list_models(folder)
    sums = folder / "SHA256SUMS"
    kept = sums.read_bytes()
    try:
        open_model(folder)
        sums.unlink()  # so that the records themselves are all there is to go by
        return open_model(folder)
    except LosoError:
        sums.unlink(missing_ok=True)
        return open_model(folder)
    finally:
        sums.write_bytes(kept)


def _graph(outputs: Sequence[str]) -> Callable[[bytes, Material], object]:
    rows = np.random.default_rng(0).random((7, 64))

    def read(data: bytes, _: Material) -> object:
        graph = check_graph(data, where="m.onnx", outputs=outputs)
        features, codec = graph.widths
        if max(features, codec) > rows.shape[1]:
            return graph
        return Session(graph, threads=1).run(rows[:, :features], rows[:, :codec])

    return read


def _log(name: str) -> Callable[[bytes, Material], object]:
    return lambda data, material: read_log(material.put(name, data))


def _own_log(data: bytes, material: Material) -> object:
    try:
        return read_scores(material.put("measured.json", data))
    except CannotRun:  # which puts what was found into words as Python writes it
        return None


def _table(data: bytes, material: Material) -> object:
    return read_table_of_scores(material.put("mos.csv", data), ["clip"], (1.0, 5.0))


_PATTERNS = ("{src}_{cq}", "{src}_{encoder}_crf{cq}", "{a}_{b}_{src}_{c}_{encoder}_{cq}")


def _names(data: bytes, _: Material) -> object:
    first, _, rest = data.partition(b"\n")
    names = [os.fsdecode(name) for name in rest.split(b"\0") if name]
    for text in (*_PATTERNS, first.decode("utf-8", errors="replace")):
        try:
            pattern = NamePattern.parse(text)
            clips = by_clip([Path("logs") / name.replace("/", "_") for name in names])
            read_names(clips, pattern, {} if "encoder" in pattern.fields else {"encoder": "x"})
        except LosoError as refusal:
            last = refusal
        else:
            last = None
    if last:
        raise last
    return names


def _stderr(data: bytes, _: Material) -> object:
    random = Random(zlib.crc32(data))
    watch = Watch()
    said = Said(watch)
    at = 0
    while at < len(data):
        step = random.choice((1, 7, 100, 2**16))
        said.hear(data[at : at + step])
        at += step
    seen = watch.seen()
    text = reason_of(said.text())
    if "\n" in text or not isinstance(seen.has_constant_rate, bool):
        raise AssertionError(text)
    return seen.average_fps, seen.shapes, text


def _part(data: bytes, material: Material) -> object:
    whole = hashlib.sha256(data).hexdigest().encode() + b"\n" + data
    material.put("parts/mark.part", whole)
    return Parts(material.scratch / "parts").load("mark")


def _kept(data: bytes, material: Material) -> object:
    kept = Kept(material.scratch / "fits", lambda _: {})
    name = kept._name(Recipe(), 0, ["a"])  # noqa: SLF001 (what decides a file's name)
    renamed = data.replace(b'"NAME"', json.dumps(name).encode())
    material.put(
        f"fits/{name}.kept", hashlib.sha256(renamed).hexdigest().encode() + b"\n" + renamed
    )
    other = kept._name(Recipe(), 0)  # noqa: SLF001 (the same)
    renamed = data.replace(b'"NAME"', json.dumps(other).encode())
    material.put(
        f"fits/{other}.kept", hashlib.sha256(renamed).hexdigest().encode() + b"\n" + renamed
    )
    return kept.scores(Recipe(), 0, ["a"]), kept.predicted(Recipe(), 0)


# -- Examples -------------------------------------------------------------------------------------


def _of(*names: str) -> Callable[[Path], Sequence[bytes]]:
    return lambda whole: [(whole / name).read_bytes() for name in names]


def _texts(*texts: str) -> Callable[[Path], Sequence[bytes]]:
    return lambda _: [text.encode() for text in texts]


_MODEL_FILES = ("m.json", "m_seed0.json", "registry.json", "m.promotion.json", "SHA256SUMS")

_SHOWN = (
    "[Parsed_showinfo_0 @ 0x5] [info] config in time_base: 1/1000, frame_rate: 25/1\n"
    "[Parsed_showinfo_0 @ 0x5] [info] n:   0 pts:      0 pts_time:0       duration:     40 "
    "duration_time:0.04    fmt:yuv420p cl:left sar:1/1 s:96x64 i:P iskey:1 type:I \n"
    "[Parsed_showinfo_0 @ 0x5] [info] color_range:pc color_space:unknown\n"
    "[Parsed_showinfo_0 @ 0x5] [info] n:   1 pts:     40 pts_time:0.04    duration:     40 "
    "duration_time:0.04    fmt:yuv420p cl:left sar:1/1 s:96x64 i:P iskey:0 type:P \n"
    "[info]   Display Matrix: rotation of -90.00 degrees\n"
    "[libx264 @ 0x5] [error] Specified pixel format is not supported\n[error] Conversion failed!\n"
)

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("corpus lines", _corpus("corpus.jsonl"), _of("corpus.jsonl"), 2),
        Target("corpus, packed", _corpus("corpus.jsonl.gz"), _of("corpus.jsonl.gz")),
        Target("corpus, Parquet", _corpus("corpus.parquet"), _of("corpus.parquet")),
        Target("corpus, columns of odd types", _columns_of_odd_types, _texts("0", "1")),
        Target("corpus manifest", _corpus_manifest, _of("merged.manifest.json")),
        Target(
            "seed file",
            _in_folder("run", "loso_seed0.json", lambda run: collect_evidence(run, (0, 1))),
            _of("run/loso_seed0.json"),
        ),
        Target(
            "predictions",
            _in_folder("run", "oof_seed0.parquet", _run_again),
            _of("run/oof_seed0.parquet"),
            0.3,
        ),
        *(
            Target(f"run's {name}", _in_folder("run", name, _run_again), _of(f"run/{name}"), 0.3)
            for name in ("run.json", "PROMOTE.json", "loso_seed1.json", "losses.parquet")
        ),
        Target(
            "verdict",
            _in_folder("run", "PROMOTE.json", lambda run: read_promote(run / "PROMOTE.json")),
            _of("run/PROMOTE.json"),
        ),
        Target(
            "intervals",
            lambda data, _: parse_intervals(data, Path("intervals.json")),
            _of("run/intervals.json"),
        ),
        Target(
            "baselines",
            lambda data, _: parse_baselines(data, Path("baselines.json")),
            _of("run/baselines.json"),
        ),
        *(
            Target(
                f"model's {name}",
                _in_folder("model", name, _model_and_its_audit),
                _of(f"model/{name}"),
                0.2,
            )
            for name in (*_MODEL_FILES, "m_seed0.onnx")
        ),
        Target("ONNX member", _graph(MEMBER_OUTPUTS), _of("model/m_seed0.onnx")),
        Target("ONNX ensemble", _graph(ENSEMBLE_OUTPUTS), _of("model/m.onnx")),
        Target("libvmaf log, JSON", _log("log.json"), _of("log.json")),
        Target("libvmaf log, CSV", _log("log.csv"), _of("log.csv")),
        Target("libvmaf log, XML", _log("log.xml"), _of("log.xml")),
        Target("libvmaf log, packed", _log("log.json.gz"), _of("log.json.gz")),
        Target("libvmaf log of a build", _own_log, _of("log.json")),
        Target("table of scores", _table, _of("mos.csv", "mos.jsonl", "mos.parquet")),
        Target(
            "file names",
            _names,
            _texts("{src}_{cq}\na_20.json\0b_crf_30.json.gz\0--i_x264_crf23", "{a}_{b}\n____\0_"),
        ),
        Target("encoder's stderr", _stderr, _texts(_SHOWN)),
        Target(
            "feature set",
            lambda data, material: load_feature_set(str(material.put("set.json", data))),
            _texts('{"name": "vmaf-v1", "features": ["adm3", {"motion": "motion3_v2"}]}'),
        ),
        Target(
            "grid of recipes",
            lambda data, material: read_grid(material.put("grid.toml", data)),
            _texts("epochs = [1, 2]\nlr = [0.1]\nconditions = [[], ['fps']]\n"),
        ),
        Target(
            "finished cell",
            _part,
            _texts(
                '{"fingerprint": "mark", "vmaf": [90.0], "features": {"adm2": [0.5]}, '
                '"packet_bytes": [7], "libvmaf": "3", "seconds": 1.0}'
            ),
        ),
        Target(
            "finished recipe",
            _kept,
            _texts(
                '{"name": "NAME", "content": {"y_pred": {"a": "AAAAAAAA8D8="}, "out": {"b": "x"}}}'
            ),
        ),
    )
}


def make_material(folder: Path) -> Material:
    """Return whole files of every kind, made in `folder` by loso itself; takes seconds."""
    whole, scratch = folder / "whole", folder / "scratch"
    whole.mkdir()
    scratch.mkdir()
    random = np.random.default_rng(0)
    rows = [
        {
            "src": src,
            "encoder": encoder,
            "preset": "fast",
            "cq": cq,
            "frame_index": frame,
            "vmaf": round(100 - cq - random.random(), 3),
            **{name: round((50 - cq) / 50 + random.random() / 9, 3) for name in CANONICAL_6},
            "clip": f"{src}_{encoder}_{cq}",
            "bitrate_kbps": 4000 / cq,
            "fps": 25.0,
        }
        for src in ("ant", "bee", "c:\u00e9", "dog")
        for encoder in ("libx264", "av1_nvenc")
        for cq in (20, 40)
        for frame in (0, 1)
    ]
    lines = [json.dumps(row) + "\n" for row in rows]
    (whole / "corpus.jsonl").write_text("".join(lines))
    (whole / "corpus.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode(), mtime=0))
    pl.DataFrame(rows).write_parquet(whole / "corpus.parquet")
    (whole / "even.jsonl").write_text("".join(lines[::2]))
    (whole / "odd.jsonl").write_text("".join(lines[1::2]))
    scores = [{"clip": "ant_libx264_20", "mos": 4.5, "mos_std": 0.5}, {"clip": "b", "mos": 2}]
    (whole / "mos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scores))
    pl.DataFrame(scores).write_csv(whole / "mos.csv")
    pl.DataFrame(scores).write_parquet(whole / "mos.parquet")
    _write_logs(whole)
    here = Path.cwd()
    os.chdir(whole)
    try:
        for words in _COMMANDS:
            _run(words.split())
    finally:
        os.chdir(here)
    return Material(whole, scratch)


_LOOSE = "--mean-plcc-threshold -1 --per-seed-min -1 --plcc-spread-max 2"
_COMMANDS = (
    "corpus merge even.jsonl odd.jsonl --out merged.jsonl",
    "train --corpus corpus.jsonl --seeds 0,1 --out-dir run --hidden 2 --epochs 2 --min-rows 1",
    "calibrate run --corpus corpus.jsonl --seeds 0,1",
    "ablate run --corpus corpus.jsonl --seeds 0,1",
    f"validate run --corpus corpus.jsonl --seeds 0,1 {_LOOSE}",
    "export run --corpus corpus.jsonl --out-dir model --name m",
    "registry flip model --verdict run/PROMOTE.json --accept-limits",
)


def _run(words: Sequence[str]) -> None:
    before, sys.argv = sys.argv, ["loso", *words]
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(io.StringIO()):
            main()
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"loso {' '.join(words)}\n{said.getvalue()}") from None
    finally:
        sys.argv = before


def _write_logs(whole: Path) -> None:
    metrics = {"vmaf": 90.0, **{f"integer_{name}": 0.5 for name in CANONICAL_6}}
    frames: list[dict[str, Any]] = [{"frameNum": at, "metrics": metrics} for at in range(2)]
    text = json.dumps({"version": "3.0.0", "frames": frames})
    (whole / "log.json").write_text(text)
    (whole / "log.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    cells = [f"{at}," + "".join(f"{value}," for value in metrics.values()) for at in range(2)]
    (whole / "log.csv").write_text("\n".join([f"Frame,{','.join(metrics)},", *cells, ""]))
    attributes = " ".join(f'{name}="{value}"' for name, value in metrics.items())
    elements = "".join(f'<frame frameNum="{at}" {attributes}/>' for at in range(2))
    (whole / "log.xml").write_text(f'<VMAF version="3.0.0"><frames>{elements}</frames></VMAF>')
