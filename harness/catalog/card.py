"""The card of a method: its registry entry, its documentation page and the footnote of its leaderboard row.

The arguments of ``@method(...)`` are literals, so that the registry reads them without importing the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform

KINDS = ("pruning", "speculative", "decoding", "kernel", "tokenizer", "objective", "selection", "architecture")
GUARANTEES = ("exact", "distribution", "approximate")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a method declares about itself.

    ``guarantee``: ``exact`` (same output as the baseline), ``distribution`` (same output law) or ``approximate``.
    ``identity``: parameter values at which the method must equal its baseline; None where no such setting exists.
    ``claims``: the paper's figures, each with ``metric``, ``value``, ``against`` and ``on``; never shown as ours.
    ``details``: where each choice comes from, by name ("paper", "reference code", "reconstruction", ...).
    """

    id: str
    kind: str
    title: str
    guarantee: str
    baseline: str
    paper: str = ""
    needs: str = "training-free"
    identity: Mapping[str, Any] | None = None
    claims: Sequence[Mapping[str, Any]] = ()
    details: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"card {self.id!r}: kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.guarantee not in GUARANTEES:
            raise ValueError(f"card {self.id!r}: guarantee {self.guarantee!r} is not one of {', '.join(GUARANTEES)}")


CARD_FIELDS = frozenset(f.name for f in fields(Card))


@dataclass_transform(kw_only_default=True, frozen_default=True)
def method(**card: Any) -> Callable[[type[T]], type[T]]:
    """Give a class its card and make it a frozen, keyword-only pydantic dataclass whose fields are validated."""
    declared = Card(**card)

    def decorate(cls: type[T]) -> type[T]:
        from pydantic import ConfigDict
        from pydantic.dataclasses import dataclass as pydantic_dataclass

        config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
        made: Any = pydantic_dataclass(frozen=True, kw_only=True, config=config)(cls)
        made.card = declared
        return made  # type: ignore[no-any-return]

    return decorate
