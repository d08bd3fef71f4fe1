"""A document's blocks, typed into one terminal from top to bottom, by a real shell.

Programs that are named as served are answered by this process: the shell finds a shim in their
place, which hands over its words, its folder, its environment and its stdin, and prints what it is
told to. So `loso` needs no start of its own, and what a shell does to its words is still done.
"""

import os
import shlex
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from documents import blocks

LONGEST_S = 300
"""A shell that takes longer hangs."""

SHIM = """\
#!/bin/bash
call=$(mktemp -d "$CALLS/XXXXXX")
printf '%s\\0' "${0##*/}" "$@" > "$call/words"
env -0 > "$call/environment"
pwd > "$call/folder"
cat > "$call/stdin"
touch "$call/out" "$call/err"
mkfifo "$call/code"
echo "$call" >&"$ASK"
read -r code < "$call/code"
cat "$call/out"
cat "$call/err" >&2
exit "$code"
"""

FIRST = (
    "set -eE; trap 'export LINE=$LINENO' DEBUG; trap 'kill $(jobs -p) 2> /dev/null || true' EXIT; "
    """trap 'echo "line $LINENO: exit code $?: $BASH_COMMAND"' ERR"""
)
"""What the shell does before it is typed into: it stops at the first failure, and says where."""


def script_of(text):
    """What is typed of a document's text, each line where it stands in the document."""
    lines = [FIRST, *[""] * (len(text.splitlines()) + 1)]
    for block in blocks(text):
        if block.kind == "shell":
            for number, line in block.lines.items():
                assert number > 1, "a document begins with its title"
                lines[number - 1] = line
        elif block.kind == "python":
            typed = {n: line for n, line in block.lines.items() if block.text.strip()}
            last = max(n for n, line in typed.items() if line.strip())
            lines[min(typed) - 2] = "python - <<'END'"
            for number in range(min(typed), last + 1):
                lines[number - 1] = typed[number]
            lines[last] = "END"
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Call:
    """One call of a served program; `line` is that of the document where it begins."""

    words: list[str]
    folder: Path
    environment: dict[str, str]
    line: int
    desk: Path
    """Where its stdin lies, and where `out` and `err` are to be written."""

    @property
    def text(self):
        return shlex.join(self.words)


@dataclass
class Terminal:
    """A terminal in `folder`, where `served` answers for the programs that it names.

    Each of them takes a Call, writes its `out` and `err`, and returns an exit code.
    """

    folder: Path
    served: dict
    calls: list = field(default_factory=list)

    def type(self, text):
        """Type a document's blocks; return the shell's exit code and all that it showed."""
        private = self.folder.with_name(f"{self.folder.name}.terminal")
        for name in ("bin", "calls", "home"):
            (private / name).mkdir(parents=True)
        for name in self.served:
            (private / "bin" / name).write_text(SHIM)
            (private / "bin" / name).chmod(0o755)
        (private / "script").write_text(script_of(text))
        lines = text.splitlines()
        ask, asked = os.pipe()
        environment = {
            **os.environ,
            "PATH": f"{private / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(private / "home"),
            "CALLS": str(private / "calls"),
            "ASK": str(asked),
        }
        with (
            (private / "shown").open("w+", encoding="utf-8") as shown,
            subprocess.Popen(
                ["bash", private / "script"],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=shown,
                stderr=subprocess.STDOUT,
                pass_fds=[asked],
                start_new_session=True,
            ) as shell,
        ):
            os.close(asked)
            hung = threading.Timer(LONGEST_S, end, [shell])
            hung.start()
            try:
                with os.fdopen(ask) as desks:
                    for desk in desks:
                        self.answer(Path(desk.rstrip("\n")), lines)
                shell.wait()
            finally:
                hung.cancel()
                end(shell)
            shown.seek(0)
            return shell.returncode, shown.read()

    def answer(self, desk, lines):
        words = (desk / "words").read_text(encoding="utf-8").split("\0")[:-1]
        pairs = (desk / "environment").read_text(encoding="utf-8").split("\0")[:-1]
        environment = dict(pair.split("=", 1) for pair in pairs)
        line = int(environment["LINE"])
        while lines[line - 2].endswith("\\"):  # the shell counts a continued line by its last
            line -= 1
        folder = Path((desk / "folder").read_text(encoding="utf-8").rstrip("\n"))
        call = Call(words, folder, environment, line, desk)
        self.calls.append(call)
        code = self.served[words[0]](call)
        (desk / "code").write_text(f"{code}\n")


def end(shell):
    """End a shell and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(shell.pid, signal.SIGKILL)
