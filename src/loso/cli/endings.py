"""How a command ends: its exit code, and the one message where it does not end well."""

from __future__ import annotations

import os
import sys
import time
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import typer

from loso.cli.console import listening, print_json, refuse
from loso.errors import BadUsage, CannotRun, Interrupted, LosoError
from loso.journal import LOG

__all__ = ["BROKEN_PIPE", "FAULT", "call"]

BROKEN_PIPE: Final = 141
"""What a shell sees of a program that a closed pipe ended: 128 + SIGPIPE."""

FAULT: Final = 70
"""A fault of loso itself: EX_SOFTWARE of sysexits.h."""

_log: Final = LOG.getChild("command")

_UsageError: Final = typer.BadParameter.__bases__[0]
"""The parser's refusals: typer has no public name for them, and moves them about."""


def call(app: typer.Typer) -> int:
    """Run the command line of this process and return its exit code, with all said.

    A refusal ends in one message, and with --json in one object too.
    """
    for stream in (sys.stdout, sys.stderr):  # names of files need not be text
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    started = time.monotonic()
    with listening() as asked:
        code = _run(app, asked)
        _log.info("exit code %d after %.1f s", code, time.monotonic() - started)
    return code


def _run(app: typer.Typer, asked: ExitStack) -> int:
    try:
        code = int(app(prog_name="loso", standalone_mode=False, obj=asked) or 0)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 (each ends the process, in its own way)
        return _ended_by(error)
    if code == Interrupted.exit_code:  # what the parser makes of KeyboardInterrupt
        return _ended_by(KeyboardInterrupt())
    return code


def _ended_by(error: BaseException) -> int:
    """Say what has ended the command, and return the exit code that goes with it."""
    if isinstance(error, SystemExit):
        if not isinstance(error.__context__, BrokenPipeError):  # what the parser makes of that
            raise error
        error = error.__context__
    if isinstance(error, BrokenPipeError):
        return _unheard()
    refusal = _as_refusal(error)
    if refusal is None:
        text = "".join(traceback.format_exception(error))
        sys.stderr.write(text)
        for line in text.splitlines():
            _log.error("%s", line)
        refuse(
            "this is a fault of loso itself; please report it with the lines above, the command "
            "line and what loso --version says"
        )
        return FAULT
    if "--json" in sys.argv[1:]:
        print_json(refusal.to_dict())
    refuse(str(refusal))
    return refusal.exit_code


def _as_refusal(error: BaseException) -> LosoError | None:
    """Return what an error means to people, or None where it is a fault of the program."""
    if isinstance(error, _UsageError):
        return _of_usage(error)
    match error:
        case LosoError():
            return error
        case KeyboardInterrupt():
            return Interrupted("stopped")
        case MemoryError():
            return CannotRun("out of memory")
        case OSError(errno=int(), filename=str(name)):
            from loso.files import os_refusal

            return os_refusal("be used", Path(name), error)
    return None


def _of_usage(error: Any) -> BadUsage:
    """Return what the parser says of a command line as a refusal in the manner of all others."""
    from loso.spelling import did_you_mean

    where = fix = ""
    if error.ctx is not None:
        where = error.ctx.command_path.partition(" ")[2]
        fix = f"{error.ctx.command_path} --help says what there is"
    problem = _lower(error.format_message())
    if hasattr(error, "possibilities"):  # an option that is not there
        problem = f"no such option {error.option_name}"
        options = error.ctx.command.params
        known = [name for option in options for name in option.opts if name.startswith("-")]
        if near := did_you_mean(error.option_name, known):
            fix = near
        elif error.ctx.parent is None:
            fix = "options stand after the command"
    elif (parameter := getattr(error, "param", None)) is not None:
        name = next((o for o in parameter.opts if o.startswith("-")), parameter.metavar)
        problem = f"{name}: {_lower(error.message)}" if error.message else f"{name} is missing"
    elif hasattr(error, "option_name"):
        problem = f"{error.option_name} needs a value"
    return BadUsage(problem.rstrip("."), where=where, fix=fix)


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _unheard() -> int:
    """Let what is still to be printed go nowhere: who read it is gone, and needs no message."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            os.dup2(nowhere, stream.fileno())
    return BROKEN_PIPE
