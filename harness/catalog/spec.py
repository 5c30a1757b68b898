"""How methods are written: ``kv_snapkv@keep_ratio=0.25@window=32`` and, stacked, ``kv_streaming+token_recycling``."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.catalog.card import GUARANTEES
from harness.catalog.registry import Entry, find
from harness.errors import UsageError, unknown_name


def _value(text: str) -> Any:
    lowered = {"true": True, "false": False, "none": None}
    if text.lower() in lowered:
        return lowered[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _written(value: Any) -> str:
    """A value as :func:`_value` reads it back; text that holds a mark is quoted."""
    return repr(value) if isinstance(value, str) and any(mark in value for mark in "@+'\"=") else str(value)


def _split(text: str, mark: str) -> list[str]:
    """Split at ``mark`` outside quotes and brackets; a plus within a number (1e+5) does not count."""
    parts, depth, quote = [""], 0, ""
    for place, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == mark and depth == 0 and not (mark == "+" and text[place + 1 : place + 2].isdigit()):
            parts.append("")
            continue
        parts[-1] += char
    return parts


@dataclass(frozen=True)
class MethodSpec:
    """A method's id and the parameters that differ from its defaults."""

    id: str
    params: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> MethodSpec:
        """Read ``id@name=value@name=value``."""
        method_id, *parts = _split(text.strip(), "@")
        params = {}
        for part in parts:
            name, equals, value = part.partition("=")
            if not equals or not name:
                raise UsageError(f"cannot read {part!r} in {text!r}; write parameters as {method_id}@name=value")
            params[name.strip()] = _value(value.strip())
        find(method_id)
        return cls(method_id, params)

    def __str__(self) -> str:
        return "@".join([self.id, *(f"{k}={_written(v)}" for k, v in sorted(self.params.items()))])

    @property
    def entry(self) -> Entry:
        """The catalog's entry of this method."""
        return find(self.id)

    def build(self) -> Any:
        """Make the method object; parameters are validated against the class's ranges."""
        from pydantic import ValidationError

        cls = self.entry.load()
        known = getattr(cls, "__dataclass_fields__", {})
        for name in self.params:
            if name not in known:
                raise unknown_name(f"parameter of {self.id}", name, known, f"zoo info {self.id} shows all")
        try:
            return cls(**self.params)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(p) for p in first["loc"]) or "parameters"
            raise UsageError(
                f"{self.id}: {where}={first.get('input')!r}: {first['msg']} (zoo info {self.id} shows the ranges)"
            ) from error


@dataclass(frozen=True)
class Stack:
    """Methods applied one after the other to a bare subject."""

    specs: tuple[MethodSpec, ...]

    def __str__(self) -> str:
        return "+".join(str(s) for s in self.specs)

    def build(self) -> tuple[Any, ...]:
        """Make the method objects in the order in which they are applied."""
        return tuple(spec.build() for spec in self.specs)

    @property
    def kind(self) -> str:
        """The kind of the last method: a stack competes where its last method does."""
        return self.specs[-1].entry.card.kind

    @property
    def guarantee(self) -> str:
        """The weakest guarantee of its methods: pruning and then speculating is no longer exact."""
        return max((spec.entry.card.guarantee for spec in self.specs), key=GUARANTEES.index)

    @property
    def baseline(self) -> Stack:
        """What the stack is measured against: the last method's baseline, bare."""
        return Stack((MethodSpec(self.specs[-1].entry.card.baseline),))


def parse_stack(text: str) -> Stack:
    """Read ``a@x=1+b``; an unknown id or a malformed part is a :class:`UsageError`."""
    if not text.strip():
        raise UsageError("an empty method name; zoo list shows the methods")
    return Stack(tuple(MethodSpec.parse(part) for part in _split(text, "+")))
