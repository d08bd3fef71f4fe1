"""What commands share of the terminal: tables, colours, progress."""

import io
import re
import sys

import pytest

from loso.cli.console import answer, print_line, print_table

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class Screen(io.StringIO):
    """A stdout that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def on_screen(monkeypatch):
    """Call a function with a terminal of a width as stdout; return what it wrote."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def show(call, *, width=80):
        screen = Screen()
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "stdout", screen)
        call()
        return screen.getvalue()

    return show


HEADER = ("source", "rows", "what it is")
ROWS = [("ant", "7", "short"), ("[red]bee[/red]", "1200", "words " * 20)]


def draw():
    print_table(HEADER, ROWS, align="<><")


def test_a_table_is_aligned_columns_where_nobody_looks(capsys):
    draw()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["source          rows  what it is", "ant                7  short"]
    assert lines[2].startswith("[red]bee[/red]  1200  words words")
    assert all(line == line.rstrip() for line in lines)


def test_a_table_without_titles_has_no_line_for_them(capsys):
    print_table((), [("a", "1"), ("bb", "22")], align="<>")
    assert capsys.readouterr().out == "a    1\nbb  22\n"
    print_table((), [])
    print_table(("a", "b"), [])
    assert capsys.readouterr().out == "a  b\n"


@pytest.mark.parametrize("width", [30, 40, 80, 200])
def test_a_table_keeps_to_the_width_of_a_terminal_and_loses_nothing(on_screen, width):
    lines = ESCAPES.sub("", on_screen(draw, width=width)).splitlines()
    assert max(map(len, lines)) <= width
    assert re.sub(r"\s", "", "".join(lines)).count("words") == 20
    assert any(re.search(r"\b1200\b", line) for line in lines)  # a figure is never folded
    edge = next(line.index("rows") for line in lines if "rows" in line)
    joined = "".join(line[:edge].strip() for line in lines[2:])
    assert "red]bee[/red]" in joined.replace(" ", "")


def test_a_table_too_wide_for_its_terminal_is_a_block_a_row(on_screen):
    lines = ESCAPES.sub("", on_screen(draw, width=23)).splitlines()
    assert [line.rstrip() for line in lines[:4]] == [
        *("source      ant", "rows        7", "what it is  short", ""),
    ]
    assert max(map(len, lines)) <= 23
    assert [line.rstrip() for line in lines[4:8]] == [
        *(
            "source   [red]bee[/red]",
            "rows     1200",
            "what it  words words",
            "is       words words",
        ),
    ]


def test_a_table_of_pairs_too_wide_for_its_terminal_is_plain_columns(on_screen):
    out = on_screen(lambda: print_table((), [("a" * 9, "b" * 9)]), width=16)
    assert out.split() == ["a" * 9, "b" * 9]


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (24, ["an owl     1.5 0.9..2.1", "elephants    12 9.9..15"]),
        (20, ["an owl          1.5", "           0.9..2.1", "elephants        12"]),
        (18, ["an owl         1.5", "          0.9..2.1", "elephant        12"]),
    ],
)
def test_what_does_not_fit_is_folded_between_words_and_broken_last(on_screen, width, expected):
    def table():
        print_table(
            ("who", "how"), [("an owl", "1.5 0.9..2.1"), ("elephants", "12 9.9..15")], align="<>"
        )

    lines = ESCAPES.sub("", on_screen(table, width=width)).splitlines()
    assert [line.rstrip() for line in lines[1 : 1 + len(expected)]] == expected


def test_figures_stand_on_the_right_by_the_columns_they_take(capsys, on_screen):
    def table():
        print_table(("clip", "n"), [("é", "1"), ("映像", "22")], align="<>")

    table()
    assert capsys.readouterr().out == "clip   n\né      1\n映像  22\n"
    assert on_screen(table).splitlines()[1:] == ["é      1", "映像  22"]


def test_what_would_move_the_cursor_is_spelt_out(capsys, on_screen):
    def table():
        print_table(("name",), [("a\x1b[2Jb\nc",)])

    table()
    assert capsys.readouterr().out == "name\na\\x1b[2Jb\\nc\n"
    print_line("source: ", "a\x1b[2Jb\nc")
    assert capsys.readouterr().out == "source: a\\x1b[2Jb\\nc\n"
    assert "a\\x1b[2Jb\\nc" in on_screen(table)


def test_an_answer_is_green_or_red_on_a_terminal_alone(capsys, on_screen, monkeypatch):
    def say():
        print_line("gate: ", answer("FAIL", good=False))
        print_table((), [("one", answer("pass", good=True))])

    say()
    assert capsys.readouterr().out == "gate: FAIL\none  pass\n"
    assert on_screen(say) == "gate: \x1b[31mFAIL\x1b[0m\none  \x1b[32mpass\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert on_screen(say) == "gate: FAIL\none  pass\n"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert on_screen(say) == "gate: FAIL\none  pass\n"


def test_colour_can_be_asked_for_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    print_line(answer("pass", good=True))
    assert capsys.readouterr().out == "\x1b[32mpass\x1b[0m\n"


def test_a_long_line_is_folded_between_words(on_screen):
    out = on_screen(lambda: print_line("a sentence [bold]that is long"), width=20)
    assert out == "a sentence \n[bold]that is long\n"
