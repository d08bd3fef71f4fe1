"""Whole examples become inputs that somebody who means harm, or a failing disk, could have made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

__all__ = ["mangle"]

_TOKENS = (
    *(b"", b"\0", b"\n", b"\r\n", b",", b'"', b"{", b"}", b"[", b"]", b":", b"<", b">", b"&x;"),
    *(b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 30, b"9" * 5000, b"null", b"true", b"\xff\xfe"),
    *(b"\xef\xbb\xbf", b"\\ud800", b"\\u0000", b"\x1b[31m", b"_" * 250, b"../", b"[" * 2000),
    *(b"PAR1", b"\x1f\x8b", b"<!DOCTYPE a [<!ENTITY x 'y'>]>", b"\xf0\x9f\x90\x9d", b"%s{0}{src}"),
)
_ODD: tuple[Any, ...] = (
    *(None, True, False, "", "x", "x" * 5000, "\ud800", "a\nb\x1b[31m", "../../x", "NaN", "1"),
    *(0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, 5e-324, 1e-320),
    *(float("nan"), float("inf"), [], {}, [[]], [None], {"": {}}, [0] * 500, {"a": [1, "b"]}),
)


def mangle(example: bytes, random: Random) -> bytes:
    """Return `example` with one to four changes, of its bytes or of the JSON that it is."""
    for _ in range(random.randint(1, 4)):
        ways = [_in_json, _in_json, _in_bytes] if _is_json(example) else [_in_bytes]
        example = random.choice(ways)(example, random)
    return example


def _is_json(data: bytes) -> bool:
    return data[:1] in {b"{", b"["}


def _in_bytes(data: bytes, random: Random) -> bytes:
    start = random.randint(0, len(data))
    end = min(len(data), start + random.choice((0, 1, 1, 2, 4, 8, 64, 1024)))
    way = random.randint(0, 6)
    if way == 0:
        return data[:start]
    if way == 1:
        return data[:start] + data[end:]
    if way == 2:
        return data[:end] + data[start:]
    if way == 3:
        return data[:start] + random.randbytes(end - start) + data[end:]
    if way == 4 and data:
        at = min(start, len(data) - 1)
        return data[:at] + bytes([data[at] ^ 1 << random.randint(0, 7)]) + data[at + 1 :]
    return data[:start] + random.choice(_TOKENS) + data[end:]


def _in_json(data: bytes, random: Random) -> bytes:
    """Change one value of one line, or of the whole where that is one document."""
    lines = [data]
    try:
        value = json.loads(data)
        at = 0
    except (ValueError, RecursionError):
        lines = data.split(b"\n")
        at = random.randrange(len(lines))
        try:
            value = json.loads(lines[at])
        except (ValueError, RecursionError):
            return _in_bytes(data, random)
    places = list(_places(value))
    if not places:
        return _in_bytes(data, random)
    random.choice(places)(random)
    try:
        lines[at] = json.dumps(value).encode()
    except (ValueError, RecursionError):
        return _in_bytes(data, random)
    return b"\n".join(lines)


def _places(value: Any, depth: int = 0) -> Iterator[Callable[[Random], None]]:
    """Yield what changes each value inside of `value`."""
    keys = list(value) if isinstance(value, dict) else []
    keys = list(range(len(value))) if isinstance(value, list) else keys
    for key in keys if depth < 50 else ():

        def change(random: Random, key: Any = key) -> None:
            way = random.randint(0, 5)
            if way == 0:
                del value[key]
            elif way == 1 and isinstance(value, dict):
                value[random.choice(("x", "", "\ud800", f"{key} ", "vmaf"))] = value.pop(key)
            elif way == 2:
                value[key] = [value[key]]
            elif way == 3 and isinstance(value, list):
                value.append(value[key])
            else:
                value[key] = random.choice(_ODD)

        yield change
        yield from _places(value[key], depth + 1)
