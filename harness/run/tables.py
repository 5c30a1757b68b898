"""Tables that a user writes (suites, policies), checked against their models; a mistake is one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import UsageError, unknown_name


class Strict(BaseModel):
    """A table; an unknown name is an error, not silence."""

    model_config = ConfigDict(extra="forbid")


Table = TypeVar("Table", bound=Strict)


def read_tables(
    model: type[Table], loaded: Mapping[str, Any], what: str, inner: Callable[[Sequence[Any]], type[Strict]]
) -> Table:
    """Validate loaded tables. ``what`` names them (``suite smoke``); ``inner`` gives the model of a table below the
    first level from its place.

    Raises :class:`UsageError` for the first mistake; of an unknown field it names the nearest valid one.
    """
    try:
        return model(**loaded)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        if first["type"] == "extra_forbidden":
            table: type[Strict] = model if len(first["loc"]) == 1 else inner(first["loc"])
            raise unknown_name(f"field at {place} of {what}:", str(first["loc"][-1]), table.model_fields) from error
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{what}: {f'{place}: ' if place else ''}{message}") from error
