"""Faults while a file is written: the old one stays or the new one is there, and a refusal says so.

TABLE names every file that loso writes, the function that writes it and a command that does. Faults
strike for real, in forks of `fault_server.py`: the disk is full, the folder may not be written to,
a process is killed between write and rename, the folder is removed, a second one works in it.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from signal import SIGCONT, SIGKILL

import numpy as np
import polars as pl
import pytest

import loso
from loso.corpus.load import load_corpus
from loso.data import demo_corpus_path
from loso.schema import CANONICAL_6

if not sys.platform.startswith("linux"):
    pytest.skip("forks and mounts as Linux makes them", allow_module_level=True)

PACKAGE = Path(loso.__file__).parent
SERVER = Path(__file__).with_name("fault_server.py")
DISK_BYTES = 48 * 2**20

OF_RUN = "--corpus corpus.jsonl --seeds 0,1"
LOOSE = "--mean-plcc-threshold -1 --per-seed-min -1 --plcc-spread-max 2"
TRAIN = f"train {OF_RUN} --out-dir run --hidden 2 --epochs 2 --force"
CALIBRATE = f"calibrate run {OF_RUN}"
ABLATE = f"ablate run {OF_RUN}"
PROMOTE = f"validate run {OF_RUN} {LOOSE}"
HOLD = f"validate run {OF_RUN}"
REPORT = "report run"
COMPARE = "report run other"
EXPORT = "export run --corpus corpus.jsonl --out-dir model --name m"
FLIP = "registry flip model --verdict run/PROMOTE.json --accept-limits --again"
UNFLIP = "registry unflip model --reason tried"
PREDICT = "predict --model model --features corpus.jsonl --out scores"
IMPORT = "corpus import ant_20.json bee_20.json --name-pattern {src}_{cq} --set encoder=libx264"
JOIN = "corpus join corpus.jsonl mos.csv --on src --out joined"
BUILD = (
    "corpus build noise.yuv --width 96 --height 64 --fps 25 --encoder libx264 --preset ultrafast "
    "--quality 30 --out built.jsonl"
)
MERGE = "corpus merge even.jsonl odd.jsonl --out merged"
SWEEP = "sweep --corpus corpus.jsonl --out-dir swept --seeds 0 --hidden 2 --vary epochs=1,2"
RECOMMEND = (
    "recommend noise.yuv --width 96 --height 64 --fps 25 --encoder libx264 --preset ultrafast "
    "--target 60 --max-encodes 3 --parts tried.parts --apply coded.mp4"
)
OF_SEGMENTS = f"{RECOMMEND.replace('noise', 'long')} --segments 1 --segment-seconds 0.2"
RUN = f"run {OF_RUN} --out-dir run --hidden 2 --epochs 2 --force"

CODES = {"full": 3, "limit": 3, "deny": 2, "remove": 3}
"""What a fault ends in: the machine is to blame for all but a folder that nobody may write to."""

OF_A_CELL = {**dict.fromkeys(CODES, 1), "remove": 3}
"""A cell that cannot be kept fails alone; the build says which are missing."""


@dataclass(frozen=True)
class Written:
    """A file in a test's folder, the function that writes it, a command that makes it do so."""

    path: str
    site: str
    command: str
    code: int = 0
    without: str = ""
    """What is removed before the command, so that it has this to write."""
    codes: dict = field(default_factory=lambda: CODES)
    remade: bool = False
    """Whether its folder only keeps work for next time: removed between files, it is made again."""

    @property
    def name(self):
        return Path(self.path).name


TABLE = [
    Written("run/losses.parquet", "run_folder._write_seed", TRAIN),
    Written("run/oof_seed0.parquet", "run_folder._write_seed", TRAIN),
    Written("run/loso_seed0.json", "seedfile.write_seed_file", TRAIN),
    Written("run/run.json", "run_folder.train_into", TRAIN),
    Written("run/intervals.json", "intervals.write_intervals", CALIBRATE),
    Written("run/baselines.json", "baselines.write_baselines", ABLATE),
    Written("run/PROMOTE.json", "verdict._write", PROMOTE),
    Written("run/HOLD.json", "verdict._write", HOLD, code=1),
    Written("run/report.html", "report.write._write", REPORT),
    Written("run/against_other.html", "report.write._write", COMPARE),
    Written("model/registry.json", "export._write", EXPORT),
    Written("model/m_seed0.onnx", "export._write", EXPORT),
    Written("model/m_seed0.json", "export._write", EXPORT),
    Written("model/m.onnx", "export._write", EXPORT),
    Written("model/MODEL_CARD.md", "export._write", EXPORT),
    Written("model/m.json", "export._write", EXPORT),
    Written("model/SHA256SUMS", "model.sums.refresh_sums", EXPORT),
    Written("model/model.sig", "model.signing.sign_folder", f"{EXPORT} --sign key.pem"),
    Written("model/m.promotion.json", "registry._put", FLIP),
    Written("model/registry.json", "registry._put", UNFLIP),
    Written("scores.jsonl", "cli.predict._write", f"{PREDICT}.jsonl"),
    Written("scores.csv", "cli.predict._write", f"{PREDICT}.csv"),
    Written("scores.parquet", "cli.predict._write", f"{PREDICT}.parquet"),
    Written("imported.jsonl.gz", "corpus.store.write_corpus", f"{IMPORT} --out imported.jsonl.gz"),
    Written(
        "imported.manifest.json", "corpus.from_logs.import_logs", f"{IMPORT} --out imported.jsonl"
    ),
    Written("joined.jsonl", "corpus.store.write_corpus", f"{JOIN}.jsonl"),
    Written("joined.parquet", "corpus.store.write_corpus", f"{JOIN}.parquet"),
    Written("joined.manifest.json", "corpus.join._with_manifest", f"{JOIN}.jsonl"),
    Written("built.jsonl", "corpus.build._write_corpus", BUILD),
    Written("built.manifest.json", "corpus.build.build_corpus", BUILD),
    Written(
        "built.jsonl.parts/*.part",
        "corpus.parts.Parts.save",
        BUILD,
        without="built.jsonl.parts/*.part",
        codes=OF_A_CELL,
    ),
    Written("merged.jsonl", "corpus.store.write_lines", f"{MERGE}.jsonl"),
    Written("merged.jsonl.gz", "corpus.store.write_lines", f"{MERGE}.jsonl.gz"),
    Written("merged.parquet", "corpus.store.write_corpus", f"{MERGE}.parquet"),
    Written("merged.manifest.json", "corpus.merge.merge_corpora", f"{MERGE}.jsonl"),
    Written("coded.mp4", "recommend.apply.apply_answer", RECOMMEND),
    Written(
        "tried.parts/*.scan",
        "recommend.desk._ended_scan",
        OF_SEGMENTS,
        without="tried.parts/*.scan",
    ),
    Written("swept/sweep.json", "sweep.records.write_sweep", SWEEP),
    Written(
        "swept/fits/*.kept",
        "sweep.kept.Kept._save",
        SWEEP,
        without="swept/fits/*.kept",
        remade=True,
    ),
]

HELD = [TRAIN, CALIBRATE, ABLATE, PROMOTE, EXPORT, FLIP, UNFLIP, BUILD, SWEEP]
HELD += [RECOMMEND, OF_SEGMENTS]
"""Commands that keep others out of the folder they write in; of any others the last one wins."""


def is_held(command):
    return any(command.startswith(held) for held in HELD) or command == HOLD


# -- The machine ----------------------------------------------------------------------------------


class Server:
    """Forks that run loso, one command at a time, in a folder."""

    def __init__(self, filler):
        one_thread = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "200"}
        self.process = subprocess.Popen(
            [sys.executable, SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=one_thread,
        )
        self.filler = filler
        assert self.process.stdout.readline() == "{}\n"

    def ask(self, request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def run(self, command, folder, fault="", target="", when=""):
        return self.ask(
            {
                "words": command.split(),
                "folder": str(folder),
                "fault": fault,
                "target": target,
                "when": when,
                "filler": str(self.filler),
            }
        )

    def signal(self, stopped, signal):
        return self.ask({"pid": stopped["stopped"], "signal": signal})


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A small file system of its own where that can be had, else a folder."""
    path = tmp_path_factory.mktemp("disk")
    size = f"size={DISK_BYTES}"
    mounting = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", path]
    mounted = os.geteuid() == 0 and subprocess.run(mounting, check=False).returncode == 0
    yield path
    if mounted:
        subprocess.run(["umount", path], check=True)


@pytest.fixture(scope="module")
def server(disk):
    server = Server(disk / "filler")
    with server.process:  # which closes its stdin, and waits
        yield server
    assert server.process.returncode == 0


@pytest.fixture(scope="module")
def base(server, tmp_path_factory):
    """A folder with every file of TABLE, and what the commands take as input."""
    folder = tmp_path_factory.mktemp("base")
    rows = load_corpus(demo_corpus_path()).rows.drop("bits_per_pixel")
    some = rows["src"].unique().sort()[:4].implode()
    rows = rows.filter(pl.col("src").is_in(some), pl.col("frame_index") < 2)
    rows.write_ndjson(folder / "corpus.jsonl")
    rows.select("src").unique().with_columns(mos=3.5).write_csv(folder / "mos.csv")
    for name, odd in (("even", 0), ("odd", 1)):
        half = rows.filter(pl.col("frame_index") % 2 == odd)
        half.write_ndjson(folder / f"{name}.jsonl")
    picture = np.random.default_rng(0).integers(0, 255, (2, 96 * 64 * 3 // 2), dtype=np.uint8)
    (folder / "noise.yuv").write_bytes(picture.tobytes())
    (folder / "long.yuv").write_bytes(picture.tobytes() * 20)
    frames = [{"frameNum": 0, "metrics": {**dict.fromkeys(CANONICAL_6, 0.5), "vmaf": 90.0}}]
    for clip in ("ant_20", "bee_20"):
        text = json.dumps({"version": "3.0.0", "frames": frames})
        (folder / f"{clip}.json").write_text(text)
    _write_key(folder / "key.pem")
    other = TRAIN.replace("out-dir run", "out-dir other")
    wrote = set()
    for command in dict.fromkeys(
        [
            *[TRAIN.replace("epochs 2", "epochs 1"), other, *(row.command for row in TABLE)],
            *[PROMOTE],
        ]
    ):
        expected = 1 if command == HOLD else 0
        if "--sign" in command and not (folder / "key.pem").is_file():
            continue
        answer = server.run(command, folder)
        assert answer["code"] == expected, answer["err"]
        wrote |= {tuple(each) for each in answer["wrote"]}
        if command == HOLD:
            server.run(PROMOTE, folder)
        (folder / "model" / "model.sig").unlink(missing_ok=True)
    return folder, wrote


def _write_key(path):
    try:
        import model_signing  # noqa: F401
        from cryptography.hazmat.primitives import serialization as way
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        return
    key = ec.generate_private_key(ec.SECP256R1())
    no_words = way.NoEncryption()
    path.write_bytes(key.private_bytes(way.Encoding.PEM, way.PrivateFormat.PKCS8, no_words))


@pytest.fixture
def work(base, disk):
    """A copy of the base on the small file system, gone afterwards."""
    folder = disk / "work"
    shutil.copytree(base[0], folder)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)
    (disk / "filler").unlink(missing_ok=True)


def is_whole(path):
    match path.suffix:
        case ".json":
            return json.loads(path.read_text())
        case ".parquet":
            return pl.read_parquet(path.read_bytes()).height
        case ".jsonl":
            return [json.loads(line) for line in path.read_text().splitlines()]
        case _:
            return path.stat().st_size


def leftovers(folder):
    return sorted(path.name for path in folder.rglob(".*.tmp"))


def found_at(folder, row):
    found = [path for path in folder.glob(row.path) if path.is_file()]
    return found[0].read_bytes() if found else None


def prepare(row, work):
    """Leave in the folder what the command needs to have `row` to write."""
    if "--sign" in row.command and not (work / "key.pem").is_file():
        pytest.skip("model-signing is not installed")
    for path in work.glob(row.without) if row.without else ():
        path.unlink()


def of_row(row):
    return f"{row.path}-{row.command.split()[0]}"


# -- The table ------------------------------------------------------------------------------------


def sites_in_the_source():
    """Every function that calls write_atomic, write_hashed or write_json, as TABLE names them."""
    writers = {"write_atomic", "write_hashed", "write_json"}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        module = module.removesuffix(".__init__")
        stack = [(module, node) for node in ast.parse(path.read_text(encoding="utf-8")).body]
        while stack:
            place, node = stack.pop()
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                place = f"{place}.{node.name}"
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Name) and called.id in writers and module != "files":
                yield place
            stack += [(place, child) for child in ast.iter_child_nodes(node)]


def test_the_table_names_every_place_that_writes_a_file():
    assert set(sites_in_the_source()) == {row.site for row in TABLE}


def test_the_table_says_who_writes_each_file(base):
    _, wrote = base
    for row in TABLE:
        if row.name != "model.sig" or (base[0] / "key.pem").is_file():
            assert any(fnmatch(name, row.name) and site == row.site for name, site in wrote), row


WRITERS = {"write_text", "write_bytes", "write_parquet", "write_csv", "write_ndjson", "savez"}
COPIERS = {f"shutil.{name}" for name in ("copy", "copy2", "copyfile", "copytree", "move")}
OPENERS = {*("open", "io.open", "gzip.open", "os.fdopen", "builtins.open", "bz2.open", "lzma.open")}

ALLOWED = {
    # for reading alone
    "os.open(folder, os.O_RDONLY)",
    "os.open(path, flags if links else flags | getattr(os, 'O_NOFOLLOW', 0))",
    "os.open(self.files[name], flags | getattr(os, 'O_BINARY', 0))",
    "os.open(os.devnull, os.O_WRONLY)",
    # into memory
    "pl.DataFrame({'a': ['a']}).write_parquet(warm)",
    # into the folder of a cell, which is gone afterwards
    "(folder / 'model.json').write_bytes(content)",
}
"""Calls that could make a file under its own name, and do not."""


def written_at_once(source):
    """Calls that may make a file under any name but that of a temporary one."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        text, name, held = ast.unparse(node), ast.unparse(node.func), ""
        called = node.func.attr if isinstance(node.func, ast.Attribute) else name
        words = [ast.unparse(word) for word in node.args]
        by_name = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if called in WRITERS and (words or by_name):
            of = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            held = f"{of} {[*words, *by_name.values()][0]}"
        elif name in COPIERS:
            held = [*words, *by_name.values()][1]
        elif name == "os.open":
            held = words[0]
        elif called == "open" or name in OPENERS:
            of_path = name not in OPENERS  # path.open(mode), and open(path, mode)
            mode = by_name.get("mode", "".join(words[0:1] if of_path else words[1:2]) or "'r'")
            if mode[:1] in {*"'\""} and not {*mode} & {*"wxa+"}:
                continue
            held = name if of_path else [*words, *by_name.values()][0]
        if held and "temporary" not in held and "write_atomic(" not in held:
            yield text


@pytest.mark.parametrize(
    "call",
    [
        "open(path, 'w')",
        "open(path, mode='wb')",
        "open(path, 'r+')",
        "open(path, mode)",
        "path.open('w')",
        "path.open(mode='a')",
        "path.open(mode)",
        "io.open(path, 'x')",
        "gzip.open(path, 'wb')",
        "os.open(path, os.O_CREAT)",
        "os.fdopen(number, 'wb')",
        "shutil.copyfile(a, b)",
        "shutil.copy(a, b)",
        "shutil.move(a, dst=b)",
        "path.write_text(text)",
        "table.write_csv(file=path)",
    ],
)
def test_every_way_to_make_a_file_is_seen(call):
    assert list(written_at_once(call)) == [call]
    in_its_place = call.replace("path", "temporary").replace("b)", "temporary)")
    in_its_place = in_its_place.replace("number", "temporary")
    assert list(written_at_once(in_its_place)) == []


def test_all_is_written_under_a_temporary_name():
    """No other way to make a file is taken: what is opened for writing is `temporary`."""
    found = {
        call
        for path in sorted(PACKAGE.rglob("*.py"))
        for call in written_at_once(path.read_text(encoding="utf-8"))
    }
    assert found == ALLOWED


# -- Faults ---------------------------------------------------------------------------------------


def hold_refused(answer, code):
    assert "Traceback" not in answer["err"]
    assert answer["code"] == code, answer
    assert answer["err"].splitlines()[-1].startswith("loso: ")


def hold_unwritten(server, work, row, fault):
    prepare(row, work)
    before = found_at(work, row)
    answer = server.run(row.command, work, fault, row.name, "before")
    hold_refused(answer, row.codes[fault])
    assert found_at(work, row) == before


@pytest.mark.parametrize("row", TABLE, ids=of_row)
def test_a_full_disk_leaves_the_old_file(server, work, disk, row):
    if not os.path.ismount(disk):
        pytest.skip("to fill a file system, a small one must be mounted, which takes root")
    hold_unwritten(server, work, row, "full")
    assert leftovers(work) == []


@pytest.mark.parametrize("row", TABLE[::4], ids=of_row)
def test_a_limit_on_the_size_of_files_leaves_the_old_file(server, work, row):
    hold_unwritten(server, work, row, "limit")
    assert leftovers(work) == []


@pytest.mark.parametrize("row", TABLE, ids=of_row)
def test_a_folder_that_may_not_be_written_to_keeps_the_old_file(server, work, row):
    # Where nothing may be written, nothing may be removed: what was begun before is left.
    hold_unwritten(server, work, row, "deny")


@pytest.mark.parametrize("row", TABLE, ids=of_row)
def test_a_kill_between_write_and_rename_leaves_the_old_file(server, work, row):
    prepare(row, work)
    before = found_at(work, row)
    assert server.run(row.command, work, "kill", row.name, "written")["code"] == -SIGKILL
    assert found_at(work, row) == before
    assert leftovers(work)
    again = server.run(row.command, work)
    assert again["code"] == row.code, again["err"]
    assert leftovers(work) == []
    assert is_whole(next(iter(work.glob(row.path))))


IN_A_FOLDER = [row for row in TABLE if "/" in row.path]


@pytest.mark.parametrize("row", IN_A_FOLDER, ids=of_row)
def test_a_folder_that_is_removed_under_a_file_is_said(server, work, row):
    prepare(row, work)
    answer = server.run(row.command, work, "remove", row.name, "written")
    hold_refused(answer, row.codes["remove"])
    assert found_at(work, row) is None
    assert leftovers(work) == []


@pytest.mark.parametrize("row", [row for row in IN_A_FOLDER if is_held(row.command)], ids=of_row)
def test_a_folder_that_is_removed_between_files_is_said(server, work, row):
    prepare(row, work)
    answer = server.run(row.command, work, "remove", row.name, "before")
    if row.remade:
        assert answer["code"] == row.code, answer
        assert is_whole(next(iter(work.glob(row.path))))
        assert server.run(row.command, work)["code"] == row.code  # with what is left of it
    else:
        hold_refused(answer, row.codes["remove"])
    assert leftovers(work) == []


@pytest.mark.parametrize("command", HELD, ids=lambda command: " ".join(command.split()[:2]))
def test_a_second_one_in_the_folder_is_refused_until_the_first_is_dead(server, work, command):
    row = next(row for row in TABLE if row.command == command)
    prepare(row, work)
    stopped = server.run(command, work, "stop", row.name, "written")
    second = server.run(command, work)
    hold_refused(second, 3)
    assert "another process is using this folder" in second["err"]
    assert second["wrote"] == []
    assert server.signal(stopped, SIGKILL)["code"] == -SIGKILL
    third = server.run(command, work)
    assert third["code"] == row.code, third["err"]
    assert leftovers(work) == []


@pytest.mark.parametrize("row", [row for row in TABLE if not is_held(row.command)], ids=of_row)
def test_of_two_that_share_no_folder_the_last_one_wins(server, work, row):
    stopped = server.run(row.command, work, "stop", row.name, "written")
    assert server.run(row.command, work)["code"] == row.code
    assert is_whole(next(iter(work.glob(row.path))))
    first = server.signal(stopped, SIGCONT)
    assert first["code"] == row.code, first["err"]
    assert is_whole(next(iter(work.glob(row.path))))
    assert leftovers(work) == []


# -- The log of a run, which grows line by line ---------------------------------------------------


def log_of(folder):
    (log,) = (folder / "run" / "logs").glob("*.log")
    return log.read_text()


def test_a_full_disk_costs_the_log_its_last_lines_alone(server, work, disk):
    if not os.path.ismount(disk):
        pytest.skip("to fill a file system, a small one must be mounted, which takes root")
    hold_refused(server.run(RUN, work, "full", "losses.parquet", "before"), 3)
    assert "command loso run" in log_of(work)
    (disk / "filler").unlink()
    (work / "run" / "logs").rename(work / "logs")
    assert server.run(RUN, work)["code"] == 1
    assert "verdict HOLD" in log_of(work)


@pytest.mark.parametrize("place", ["run", "run/logs"])
def test_a_log_that_may_not_be_written_is_refused(server, work, place):
    (work / "run" / "logs").mkdir()
    hold_refused(server.run(RUN, work, "deny", f"{place}/any", "start"), 2)
