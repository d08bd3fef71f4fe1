"""Records in JSON: what a file holds, or one refusal that names the key."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from loso.errors import BadInput

__all__ = ["parse_record"]

_LONGEST_FOUND = 80

_R = TypeVar("_R", bound=BaseModel)


def parse_record(
    kind: type[_R],
    content: bytes,
    path: Path,
    *,
    refusal: type[BadInput] = BadInput,
    fix: str = "",
) -> _R:
    """Return the record of `kind` in `content`, which came from `path`.

    `refusal` names the first key that cannot be used, what it needs and what it holds.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the record"
        found = "" if first["type"] == "json_invalid" else repr(first["input"])[:_LONGEST_FOUND]
        raise refusal(
            f"{key} cannot be used: {first['msg']}", where=str(path), found=found, fix=fix
        ) from None
