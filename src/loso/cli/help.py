"""The help of a command: what it does, its options under their headings, in 80 columns too."""

from __future__ import annotations

import inspect
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

from loso.cli.console import terminal

__all__ = ["print_help"]

_LEFT: Final = 26
"""Most columns for an option and its value; where they take more, the text begins a line below."""

_HARD_SPACE: Final = "\N{NO-BREAK SPACE}"

_WORDS: Final = {int: "N", float: "NUM", Path: "PATH"}
"""What stands for a value where an option does not say."""


_Line = list[tuple[str, str]]
"""Parts of a line, each with its style on a terminal."""


def print_help(command: Any, ctx: Any) -> None:
    """Print the help of a command or of a group of them on stdout."""
    console = terminal()
    width = shutil.get_terminal_size((80, 24)).columns if console is None else console.width
    for line in _lines(command, ctx, max(width, 2 * _LEFT)):
        if console is None:
            sys.stdout.write("".join(text for text, _ in line) + "\n")
        else:
            from rich.text import Text

            console.print(Text.assemble(*line), soft_wrap=True)


def _lines(command: Any, ctx: Any, width: int) -> Iterator[_Line]:
    usage = textwrap.wrap(_usage(command, ctx), width, subsequent_indent=" " * 7)
    yield from ([(line, "bold")] for line in usage)
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield []
        yield from ([(line, "")] for line in textwrap.wrap(" ".join(paragraph.split()), width))
    sections = _sections(command, ctx)
    named = [len(left) for entries in sections.values() for left, _ in entries]
    first = max(length for length in named if length <= _LEFT)
    for title, entries in sections.items():
        yield []
        yield [(title, "bold")]
        for left, right in entries:
            yield from _entry(left, right, first, width)


def _usage(command: Any, ctx: Any) -> str:
    words = ["Usage:", ctx.command_path, "[OPTIONS]"]
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = _argument(parameter)
            words.append(name if parameter.required else f"[{name}]")
    return " ".join([*words, *["COMMAND"] * hasattr(command, "commands")])


def _sections(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Return what stands under each heading: commands, arguments, options by their panels."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, child in getattr(command, "commands", {}).items():
        title = getattr(child, "rich_help_panel", None)
        text = inspect.cleandoc(child.help or "").partition("\n\n")[0]
        found.setdefault(title if isinstance(title, str) else "Commands", []).append((name, text))
    for parameter in command.get_params(ctx):
        if getattr(parameter, "hidden", False):
            continue
        is_argument = parameter.param_type_name == "argument"
        title = parameter.rich_help_panel or ("Arguments" if is_argument else "Options")
        left = _argument(parameter) if is_argument else _option(parameter)
        found.setdefault(title, []).append((left, _about(parameter)))
    order = [*(t for t in ("Arguments", "Options") if t in found), *found]
    if hasattr(command, "commands"):
        order = [*(title for title in found if title != "Options"), "Options"]
    return {title: found[title] for title in order}


def _argument(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name.upper())
    return f"{name}..." if parameter.nargs != 1 and not name.endswith("...") else name


def _option(parameter: Any) -> str:
    names = ", ".join(sorted(parameter.opts, key=len))
    if parameter.secondary_opts:
        names += " / " + ", ".join(parameter.secondary_opts)
    return f"{names} {_value(parameter)}".rstrip()


def _value(parameter: Any) -> str:
    """Return what stands for an option's value; nothing for a flag, which has none."""
    if getattr(parameter, "is_flag", False):
        return ""
    if parameter.metavar is not None:
        return str(parameter.metavar)
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    kind = get_args(kind)[0] if get_args(kind) else kind  # of a list, what it is made of
    return _WORDS.get(kind, "TEXT") if isinstance(kind, type) else "TEXT"


def _about(parameter: Any) -> str:
    text = " ".join((parameter.help or "").split())
    if parameter.required:
        return f"{text} [required]"
    default = _default(parameter)
    return (
        f"{text} [default:{_HARD_SPACE}{default}]" if default and parameter.show_default else text
    )


def _default(parameter: Any) -> str:
    """Return an option's default as people write it, or nothing where it is off or not given."""
    if isinstance(shown := getattr(parameter, "show_default", None), str):
        return shown  # not given, it is that of the recipe
    value = parameter.default
    if value is None or value is False or value in ("", []):
        return ""
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def _entry(left: str, right: str, first: int, width: int) -> Iterator[_Line]:
    """Yield the lines of an entry whose text begins two columns after the `first` ones."""
    texts = textwrap.wrap(right, width - first - 4, break_on_hyphens=False) or [""]
    texts = [text.replace(_HARD_SPACE, " ") for text in texts]
    beside = texts.pop(0) if len(left) <= first else ""
    space = " " * (first + 2 - len(left)) if beside else ""
    yield [("  ", ""), (left, "cyan"), (f"{space}{beside}", "")]
    for text in texts:
        yield [(" " * (first + 4) + text, "")]
