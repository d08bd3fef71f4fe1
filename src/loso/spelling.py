"""How names are spelt: the nearest known one to one that is not, and what a line can hold."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest", "spelt_out"]


def nearest(name: str, known: Iterable[str], *, least: float = 0.6) -> str | None:
    """Return the known name that is most like `name`, or None where none is.

    Upper and lower case are alike. A name that begins with it is most like it; else likeness is
    difflib's ratio, of which `least` is demanded.

    >>> nearest("libx246", ["libx264", "libvvenc"])
    'libx264'
    """
    import difflib  # most commands suggest nothing

    by_lower = {own.lower(): own for own in known}
    lower = name.lower()
    longer = [own for own in by_lower if own.startswith(lower)]
    cut_short = longer[:1] if len(lower.strip("-")) >= 2 else []
    near = cut_short or difflib.get_close_matches(lower, by_lower, n=1, cutoff=least)
    return by_lower[near[0]] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `did you mean X?` for the nearest known name, or nothing.

    >>> did_you_mean("hieght", ["width", "height"]), did_you_mean("mos", ["width", "height"])
    ('did you mean height?', '')
    """
    near = nearest(name, known)
    return f"did you mean {near}?" if near else ""


def spelt_out(text: str) -> str:
    r"""Return `text` as one line: what would end it, or move a terminal's cursor, is spelt out.

    >>> print(spelt_out("two\nlines, é"))
    two\nlines, é
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
