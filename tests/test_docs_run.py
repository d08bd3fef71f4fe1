"""Every command line in the documents runs, in its order, and leaves what the documents say.

Each document is typed into a terminal of its own, in a folder with the files that its commands take
for granted (`supplies.py`). What is not done as it stands there is listed under Liberties. The exit
code is to be 0, unless a comment at the end of the line says another: `# exit code 1`.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
import typer

from documents import DOCUMENTS, FORMATS, ROOT, blocks, command_lines, each, split, table
from loso.cli import main
from loso.data import demo_corpus_path
from supplies import rows, supply, write_rows
from terminal import Terminal

UsageError = typer.BadParameter.__bases__[0]

# -- Liberties ------------------------------------------------------------------------------------

PLACES = {"/data/netflix": "data/netflix", "/path/to/the/fork": "fork", "/tmp": "tmp"}
"""Places outside of the reader's folder, and what stands for them in it."""

PORT = "8786"
"""Where the documents start a scheduler, as all do; here it gets a port that is free."""

LEARNERS = ("loso train", "loso run", "loso sweep", "loso corpus join")
"""Before these a corpus that a build has measured is replaced by a made-up one: two clips of eight
frames teach nothing, and no panel rated them."""


def more_words(name, asked):
    """What is added to a command line, so that it takes seconds."""
    if name == "loso sweep":
        return ["--pairs", "11"]  # of twelve sources, the most there are, the fewest that it takes
    if name == "loso recommend" and asked["model"]:
        return ["--target", "70"]  # a model of made-up rows promises little
    if name == "loso corpus build":
        # 1920x1080 is what is read, not what is coded twenty times
        large = asked["scale"] or any(clip.suffix == ".yuv" for clip in asked["clips"])
        return [*["--scale", "96x64"] * bool(large), *["--frames", "8"] * bool(asked["frames"])]
    return []


def smaller_demo(folder):
    """The demo on half of its sources and a tenth of its frames: 2 s instead of 70."""
    demo = pl.read_ndjson(demo_corpus_path())
    few = demo["src"].unique().sort()[:5].to_list()
    demo = demo.filter(pl.col("src").is_in(few), pl.col("frame_index") % 10 == 3)
    path = folder / "src" / "loso" / "data" / "demo.jsonl.gz"
    write_rows(path, demo.to_dicts())
    return path


def pip(call):
    """Install nothing, as all is there: only look at whether the extras that are named exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert call.words[1] == "install", call.text
    for name in call.words[2:]:
        found = re.fullmatch(r"(?:\.|loso)(?:\[([\w,]+)\])?", name)
        assert found, f"{call.text}: {name}"
        assert set((found[1] or "test").split(",")) <= project["optional-dependencies"].keys()
    return 0


def make(call):
    """Only say what would be done: `make test` is what runs this."""
    with (call.desk / "err").open("w") as err:
        command = ["make", "--dry-run", "--directory", ROOT, *call.words[1:]]
        return subprocess.run(command, stdout=err, stderr=err, check=False).returncode


def of_hardware(asked):
    """The encoders that a build asks for and that need hardware of their own."""
    found = [name for name in asked.get("encoder", ()) if "_" in name]
    assert all(re.search("_(nvenc|qsv|vaapi|videotoolbox)$", name) for name in found)
    return found


# -- What commands leave --------------------------------------------------------------------------


def files_of(title, writer=""):
    """The files in a table of docs/formats.md; with `writer`, those that it says to be its."""
    for file, *cells in table(FORMATS, title, "file"):
        if writer in cells[0]:
            yield file.strip("`").replace("{N}", "*").rstrip("/")


def manifest(asked):
    out = asked["out"]
    return [out.with_name(re.sub(r"\.jsonl(\.gz)?$", "", out.name) + ".manifest.json")]


def trained(asked):
    return [asked["out_dir"] / file for file in files_of("A run's folder", "training")]


def judged(asked):
    """All that a run's folder can hold; of the two verdicts, either."""
    files = {*files_of("A run's folder")} - {"PROMOTE.json", "HOLD.json"}
    return [asked["out_dir"] / file for file in (*files, "[PH]*O*.json")]


def drawn(asked):
    other = asked["other_dir"]
    return [
        asked["out"]
        or asked["run_dir"] / (f"against_{other.name}.html" if other else "report.html")
    ]


def exported(asked):
    absent = {"STEM.promotion.json"} | ({"model.sig"} if asked["sign"] is None else set())
    stem = asked["name"] or "fr_regressor_v2_ensemble_v1"
    files = {*files_of("A model folder")} - absent
    return [asked["out_dir"] / file.replace("STEM", stem) for file in files]


LEFT = {
    "loso corpus build": manifest,
    "loso corpus import": manifest,
    "loso corpus join": manifest,
    "loso corpus merge": manifest,
    "loso train": trained,
    "loso run": judged,
    "loso demo": judged,
    "loso sweep": lambda asked: [asked["out_dir"] / file for file in files_of("A sweep's folder")],
    "loso calibrate": lambda asked: [asked["loso_dir"] / "intervals.json"],
    "loso ablate": lambda asked: [asked["run_dir"] / "baselines.json"],
    "loso validate": lambda asked: [asked["loso_dir"] / "[PH]*O*.json"],
    "loso report": drawn,
    "loso export": exported,
    "loso registry flip": lambda asked: [asked["model_dir"] / "*.promotion.json"],
    "loso registry unflip": lambda asked: [asked["model_dir"] / "*.promotion.json"],
}
"""What stands there after a command, beside what its words and its output name."""


# -- The reader -----------------------------------------------------------------------------------


@dataclass
class Reader:
    """Who types a document in `folder`: answers for `loso`, and notes down what goes wrong."""

    folder: Path
    lines: list[str]
    measured: list[Path] = field(default_factory=list)
    """Corpora of real clips, the latest last."""
    wrong: list[str] = field(default_factory=list)

    def loso(self, call):
        """Run a command line of loso here and return what the shell is to hear of it."""
        name, command, rest = split(call.words)
        asked = asked_of(name, command, rest)
        before = asked.get("corpus")
        if name in LEARNERS and before and call.folder / before in self.measured:
            write_rows(call.folder / before, rows())
            self.measured.remove(call.folder / before)
        words = [*call.words, *(more_words(name, asked) if asked else [])]
        code, out, err = spoken(call, words)

        wanted = self.wanted(call)
        if code == 3 and any(f"{coder}: does not work here" in err for coder in of_hardware(asked)):
            self.stand_in(call.folder / asked["out"], asked["encoder"])
            return 0
        if code != wanted:
            self.say(call, f"exit code {code}, not {wanted}", out, err)
            return code or 1
        for path in (*LEFT.get(name, lambda _: [])(asked), *named_in(out + err, words)):
            if not list(call.folder.glob(str(path))):
                self.say(call, f"no {path}", out, err)
        if name == "loso corpus build" or (  # and what is merged of such
            name == "loso corpus merge"
            and {call.folder / s for s in asked["shards"]} & {*self.measured}
        ):
            self.measured.append(call.folder / asked["out"])
        return 0

    def wanted(self, call):
        """The exit code that the document gives a command line."""
        at = call.line - 1
        while self.lines[at].endswith("\\"):
            at += 1
        found = re.search(r"#.*\bexit code (\d+)", self.lines[at])
        return int(found[1]) if found else 0

    def stand_in(self, out, encoders):
        """Write what a machine with the hardware would have measured: other encoders' numbers."""
        measured = [json.loads(line) for line in self.measured[-1].read_text().splitlines()]
        first = measured[0]["encoder"]
        made = [
            {k: v.replace(first, encoder) if isinstance(v, str) else v for k, v in row.items()}
            for encoder in encoders
            for row in measured
            if row["encoder"] == first
        ]
        write_rows(out, made)
        self.measured.append(out)

    def say(self, call, problem, out, err):
        self.wrong.append(f"line {call.line}: {call.text}\n{problem}\n{out[-2000:]}{err[-2000:]}")


def asked_of(name, command, rest):
    """What a command line asks for, by the names of its parameters; nothing where it is refused."""
    if name == "loso":
        return {}
    try:
        return command.make_context(name, list(rest)).params
    except (UsageError, typer.Exit):
        return {}


def named_in(text, words):
    """The files that a command says it wrote, and those that its words name to be written."""
    yield from re.findall(r"^wrote ([^;\n]+)", text, re.MULTILINE)
    for option, value in pairwise(words):
        if option in ("--out", "--out-dir", "--log-file"):
            yield value


def spoken(call, words):
    """Run a command line in this process; return its exit code and what it prints."""
    changed = {k: v for k, v in call.environment.items() if os.environ.get(k) != v}
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            path = call.desk / name.removeprefix("std").replace("in", "stdin")
            stream = stack.enter_context(path.open(mode, encoding="utf-8"))
            patch.setattr(sys, name, stream)
        patch.setattr(sys, "argv", words)
        patch.chdir(call.folder)
        for name, value in changed.items():
            patch.setenv(name, value)
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    return code, *((call.desk / name).read_text(encoding="utf-8") for name in ("out", "err"))


# -- The documents --------------------------------------------------------------------------------


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def typed(path):
    return [b for b in blocks(path.read_text(encoding="utf-8")) if b.kind != "data"]


@each([path for path in DOCUMENTS if typed(path)])
def test_every_command_of_a_document_runs(path, tmp_path, monkeypatch):
    text = path.read_text(encoding="utf-8")
    folder = tmp_path / "reader"
    folder.mkdir()
    for place in PLACES.values():
        (folder / place).mkdir(parents=True)
    supply(folder, text)
    (folder / "integrations").symlink_to(ROOT / "integrations")
    demo = smaller_demo(folder)
    monkeypatch.setattr("loso.data.demo_corpus_path", lambda: demo)

    places = "|".join(map(re.escape, PLACES))
    text = re.sub(rf"(?<![\w.])({places})\b", lambda found: str(folder / PLACES[found[0]]), text)
    text = text.replace(PORT, free_port())
    reader = Reader(folder, text.splitlines())
    terminal = Terminal(folder, {"loso": reader.loso, "make": make, "pip": pip})
    code, shown = terminal.type(text)
    if reader.wrong or code:
        pytest.fail("\n".join([path.name, *(reader.wrong or [shown])]), pytrace=False)
    calls = [call.text for call in terminal.calls if call.words[0] == "loso"]
    assert len(calls) >= len(list(command_lines(text))), "a command line was passed over"
