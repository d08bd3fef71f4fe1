"""Commands that load when they are called, and what is added to every one of them."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from loso.errors import BadUsage

__all__ = ["CONTEXT", "Command", "Group", "Verb"]

CONTEXT: Final = {"help_option_names": ["-h", "--help"]}


class Command(TyperCommand):
    """A command with what every one has: --quiet, --log-file, and help that fits 80 columns."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params.extend(_common())

    def get_params(self, ctx: Any) -> Any:
        """Return the options and arguments."""
        parameters: Any = super().get_params(ctx)
        for option in parameters:
            if "--help" in option.opts:
                option.rich_help_panel = _PANEL
        return parameters

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 (the parser's shape)
        """Print the help."""
        _help(self, ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the words of a command line; BadUsage where one is no text."""
        for word in args:
            try:
                word.encode()
            except UnicodeEncodeError:
                raise BadUsage(
                    "not UTF-8, and records say which files they speak of",
                    where=repr(word),
                    fix="rename it",
                ) from None
        return super().parse_args(ctx, args)


class Group(TyperGroup):
    """Commands under one name; called without one it prints its help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 (the parser's shape)
        """Print the help."""
        _help(self, ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Print the help where nothing is asked: exit 2."""
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), nl=False)
            raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first word names; BadUsage where there is none."""
        word = args[0]
        known = self.list_commands(ctx)
        if word not in known and not word.startswith("-") and not ctx.resilient_parsing:
            from loso.spelling import did_you_mean

            raise BadUsage(
                "no such command",
                where=ctx.command_path.partition(" ")[2],
                expected="one of " + " ".join(known),
                found=word,
                fix=did_you_mean(word, known),
            )
        return super().resolve_command(ctx, args)


def _help(command: Any, ctx: Any) -> None:
    from loso.cli.help import print_help

    print_help(command, ctx)


class Verb(TyperCommand):
    """A verb whose module loads when it is called: start-up must not grow with every verb.

    `home` is the module in loso.cli and the name there of what it calls, such as `train:run`.
    """

    def __init__(self, name: str, home: str, text: str, *, panel: str) -> None:
        super().__init__(name, help=text, rich_help_panel=panel)
        self.home = home

    def load(self) -> Any:
        """Return the real command, with what every command has."""
        module, name = self.home.split(":")
        found = getattr(import_module(f"loso.cli.{module}"), name)
        if not isinstance(found, typer.Typer):
            single = typer.Typer(add_completion=False, context_settings=CONTEXT)
            single.command(self.name)(found)
            found = single
        for command in found.registered_commands:
            command.cls = Command
        return typer.main.get_command(found)

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Return the context of the real command."""
        return self.load().make_context(*args, **extra)


# -- What every command has -----------------------------------------------------------------------


def _hush(context: typer.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing and isinstance(context.obj, ExitStack):
        from loso.cli.console import hushed

        context.obj.enter_context(hushed())


def _keep_log(context: typer.Context, path: Path | None) -> None:
    if path is None or context.resilient_parsing or not isinstance(context.obj, ExitStack):
        return
    import shlex

    from loso import __version__
    from loso.journal import LOG, journal

    context.obj.enter_context(journal(path))
    words = shlex.join(["loso", *sys.argv[1:]])
    LOG.getChild("command").info("loso %s: %s", __version__, words)


_PANEL: Final = "Every command"


def _template(
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            callback=_hush,
            expose_value=False,
            is_eager=True,
            help="No progress and no hints on stderr; warnings and refusals stay.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
    log_file: Annotated[
        Path | None,
        typer.Option(
            "--log-file",
            metavar="FILE",
            callback=_keep_log,
            expose_value=False,
            is_eager=True,
            help="Append what is said here, with UTC times.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
) -> None:
    """Stand for every command: only its options are taken from it."""


def _common() -> list[Any]:
    """Return new options --quiet and --log-file."""
    holder = typer.Typer(add_completion=False)
    holder.command()(_template)
    return list(typer.main.get_command(holder).params)
