"""What stands in the documents: their headings, tables, blocks of code, and command lines.

An indented block is what a reader types into a shell, or saves: Python, JSON and TOML are told by
their content. A fenced block shows something, unless its first line names a language, or a line of
it begins with `$ `: then those lines are typed, and what stands between them is shown.
"""

import json
import re
import shlex
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import typer

from loso.cli import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "integrations" / "vmaf_fork")
    for path in folder.glob("*.md")
)
FORMATS, CLI = (ROOT / "docs" / f"{name}.md" for name in ("formats", "cli"))


def each(documents):
    """Run a test with each of the documents as its `path`."""
    return pytest.mark.parametrize("path", documents, ids=lambda path: str(path.relative_to(ROOT)))


# -- Headings and tables --------------------------------------------------------------------------


@cache
def sections(path):
    """The lines under each heading of a document, code blocks and lower headings left out."""
    found = {"": []}
    title = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            title = line.lstrip("#").strip().replace("`", "")
            assert title not in found, f"{path.name} has two sections {title!r}"
            found[title] = []
        elif not line.startswith("    "):
            found[title].append(line)
    return found


def table(path, title, first):
    """The cells of each row of the table in a section whose first column is headed `first`."""
    blocks = re.split(r"\n\n+", "\n".join(sections(path)[title]).strip())
    lines = [block.splitlines() for block in blocks if block.startswith(f"| {first} |")]
    assert len(lines) == 1, f"{path.name} {title!r} needs one table headed {first!r}"
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[0][2:]]


# -- Blocks of code -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A block that is typed or saved: `shell`, `python` or `data`, and its lines by their number.

    Of a session, only what is typed is there.
    """

    kind: str
    lines: dict[int, str]

    @property
    def text(self):
        return "\n".join(self.lines.values())


LANGUAGES = {"sh": "shell", "bash": "shell", "shell": "shell", "python": "python"}


def blocks(text):
    """The blocks of a document's text, in their order."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        start = at
        if fence := re.match(r"\s*```\s*(\w*)", lines[at]):
            at += 1
            while not lines[at].strip().startswith("```"):
                at += 1
            inside = {number: lines[number - 1] for number in range(start + 2, at + 1)}
            yield of_fence(fence[1], inside)
        elif lines[at].startswith("    "):
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                at += 1
            inside = {number: lines[number - 1][4:] for number in range(start + 1, at + 1)}
            text = "\n".join(inside.values())
            yield Block(kind_of(text), inside)
            continue
        at += 1


def of_fence(language, lines):
    if kind := LANGUAGES.get(language):
        return Block(kind, lines)
    typed, goes_on = {}, False
    for number, line in lines.items():
        if goes_on or line.startswith("$ "):
            typed[number] = re.sub(r"^[$>] ", "", line)
            goes_on = line.endswith("\\")
    return Block("shell" if typed and language in ("", "console") else "data", typed or lines)


def kind_of(text):
    for read in (json.loads, tomllib.loads):
        try:
            read(text)
        except ValueError:
            continue
        return "data"
    return "python" if re.search(r"^(import|from) \w", text, re.MULTILINE) else "shell"


# -- Command lines --------------------------------------------------------------------------------


def real(command):
    """The command itself, where what stands in the list is only its name and its line."""
    return command.load() if hasattr(command, "load") else command


def commands(command=None, words=("loso",)):
    """Every command of the program that does something, by its words, and the root."""
    command = real(command or typer.main.get_command(app))
    children = getattr(command, "commands", {})
    if not children or len(words) == 1:
        yield " ".join(words), command
    for name, child in children.items():
        yield from commands(child, (*words, name))


COMMANDS = dict(commands())


def command_lines(text):
    """Lines of code blocks that call loso, continued ones joined, each up to a pipe or its like."""
    typed = "\n".join(block.text for block in blocks(text) if block.kind == "shell")
    for line in re.findall(r"^\s*(loso .*)$", re.sub(r"\\\n\s*", "", typed), re.MULTILINE):
        words = shlex.split(line, comments=True)
        ends = [i for i, word in enumerate(words) if word[0] in "|>&;"]
        yield words[: min(ends, default=len(words))]


def split(words):
    """The name of the command that a command line calls, the command, and the words after it."""
    command, at = COMMANDS["loso"], 1
    while hasattr(command, "commands") and at < len(words) and not words[at].startswith("-"):
        assert words[at] in command.commands, f"no such command: {shlex.join(words)}"
        command, at = real(command.commands[words[at]]), at + 1
    return " ".join(words[:at]), command, words[at:]
