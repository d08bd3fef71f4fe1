"""Records in JSON: what a file holds, or one refusal that names the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema

from loso.errors import BadInput

__all__ = ["OneFault", "first_fault", "parse_record"]

_LONGEST_FOUND: Final = 80
_COLLECTIONS: Final = {"dict", "frozenset", "list", "set", "tuple"}

_R = TypeVar("_R", bound=BaseModel)


def _stop_early(part: Any) -> None:
    if isinstance(part, dict):
        if part.get("type") in _COLLECTIONS:
            part["fail_fast"] = True
        for inner in part.values():
            _stop_early(inner)
    elif isinstance(part, list | tuple):
        for inner in part:
            _stop_early(inner)


class OneFault:
    """Beside BaseModel: of the faults in a list or an object, the first one alone is kept.

    pydantic keeps them all: a list of a million zeros where objects belong takes it a gigabyte.
    """

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Return pydantic's schema, with collections that stop at their first fault."""
        schema = handler(source)
        _stop_early(schema)
        return schema


def first_fault(error: ValidationError) -> tuple[str, str, str]:
    """Return the first key that cannot be used, what it needs, and what it holds, shortened."""
    first = error.errors(include_url=False)[0]
    found = "" if first["type"] == "json_invalid" else repr(first["input"])[:_LONGEST_FOUND]
    return ".".join(map(str, first["loc"])), first["msg"], found


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
        key, message, found = first_fault(error)
        raise refusal(
            f"{key or 'the record'} cannot be used: {message}",
            where=str(path),
            found=found,
            fix=fix,
        ) from None
