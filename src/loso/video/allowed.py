"""What ffmpeg may open: a regular file, whose content leads to no other.

Whatever a file is called, ffmpeg goes by its content: a playlist named .mp4 is a playlist.
"""

from __future__ import annotations

import re
import stat
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from loso.errors import BadClip
from loso.video.ffmpeg import FfmpegSession, demuxers_of

__all__ = ["guard", "has_control", "refuse_no_file", "refuse_playlist"]

_LISTS: Final = frozenset(
    {
        *("avisynth", "concat", "dash", "hls", "image2", "imf", "mlv", "rtp", "rtsp", "sap", "sdp"),
        *("vapoursynth", "vobsub", "webm_dash_manifest"),
    }
)
"""Demuxers of what can name other files: the hash of a list does not change with what it names."""


def has_control(name: str) -> bool:
    """Return whether a name holds a line end or another control character.

    It could pass for a line of a log, or move the cursor of whoever reads one.
    """
    return any(unicodedata.category(letter) == "Cc" for letter in name)


def refuse_no_file(path: Path) -> None:
    """Refuse, as BadClip, what is no regular file, or has a name that a log cannot hold."""
    if has_control(str(path.absolute())):
        raise BadClip(
            "its path holds a line end or another control character",
            where=repr(str(path)),
            fix="rename it",
        )
    try:
        path.name.encode()
        mode = path.stat().st_mode
    except UnicodeEncodeError:
        raise BadClip("its name is not UTF-8", where=repr(str(path)), fix="rename it") from None
    except (FileNotFoundError, NotADirectoryError):
        raise BadClip("no such file", where=str(path)) from None
    except OSError as error:
        raise BadClip(f"cannot be read ({error.strerror})", where=str(path)) from None
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "a pipe, a device or a socket"
        raise BadClip("not a regular file", where=str(path), found=found)


def guard(session: FfmpegSession) -> tuple[str, str]:
    """Return the option of an input that lets ffmpeg open nothing that can name other files."""
    allowed = (name for name in demuxers_of(session.ffmpeg) if name not in _LISTS)
    return "-format_whitelist", ",".join(allowed)


def refuse_playlist(refusal: BadClip, opening: Sequence[str], run: Callable[..., str]) -> None:
    """Refuse once more, and say why, what was refused for its kind; else return.

    `opening` are the arguments that open the file, `run` runs ffmpeg on it. What goes by a file's
    name, as a pattern of pictures does, ffmpeg does not tell: it is taken to be image2.
    """
    if "Format not on whitelist" not in refusal.problem:
        return
    said: list[str] = []

    def listen(line: str) -> bool:
        said.extend(re.findall(r"\] \[debug\] Format (\w+) probed with ", line)[:1])
        return True

    with suppress(BadClip):
        run("-loglevel", "level+debug", "-format_whitelist", "-", *opening, listen=listen)
    raise BadClip(
        f"is read as {said[0] if said else 'image2'}, which can name other files",
        where=refusal.where,
        fix="join them into one first",
    ) from None
