"""Dictionaries of roots and affixes: where they come from, and the letter case of their language."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import UsageError

SHIPPED = {name: Path(__file__).with_name(f"lexicon_{name}.json") for name in ("tr", "en")}
Forms = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


class Lexicon(BaseModel):
    """A language's dictionary. The first form of an entry is its plain one; all forms of an entry share one id.

    ``roots``: a second form stands before vowels (kitap, kitab), or before an affix named in ``narrowing`` where it
    is the first one less its last vowel. ``affixes``: the forms that harmony and neighbours choose from.
    ``harmony_exceptions``: the vowel that counts as a root's last. ``pieces``: what spells everything else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    language: str
    casing: Literal["plain", "turkish"] = "plain"
    vowels: str = "aeiou"
    front: str = ""
    rounded: str = ""
    hard: str = ""
    harmony_exceptions: dict[str, str] = {}
    narrowing: tuple[str, ...] = ()
    roots: tuple[Forms, ...]
    affixes: tuple[Forms, ...]
    pieces: tuple[str, ...] = ()
    sample: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_entry_a_form(self) -> Lexicon:
        for kind, entries in (("roots", self.roots), ("affixes", self.affixes)):
            forms = [form for entry in entries for form in entry]
            twice = sorted({form for form in forms if forms.count(form) > 1}) if len(set(forms)) < len(forms) else []
            if twice:
                raise ValueError(f"{kind}: {', '.join(twice[:3])} stand in several places")
        return self

    @cached_property
    def units(self) -> frozenset[str]:
        """All forms of roots and affixes."""
        return frozenset(form for entry in (*self.roots, *self.affixes) for form in entry)

    def lower(self, text: str) -> str:
        """Lower case by the language's rules: Turkish has two letters i."""
        return (text.replace("İ", "i").replace("I", "ı") if self.casing == "turkish" else text).lower()

    def upper(self, text: str) -> str:
        """Upper case by the language's rules."""
        return (text.replace("i", "İ").replace("ı", "I") if self.casing == "turkish" else text).upper()

    def is_capital(self, character: str) -> bool:
        """Whether a character is the capital of another one and can be had back from it."""
        small = self.lower(character)
        return len(small) == 1 and small != character and self.upper(small) == character


def read_json(path: Path, what: str) -> object:
    """The contents of a user's JSON file; :class:`UsageError` of one line where there are none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{what} {str(path)!r} cannot be read: {' '.join(str(error).split())}") from error


def load_lexicon(name: str) -> Lexicon:
    """A shipped toy lexicon (``tr``, ``en``) or the user's JSON file; :class:`UsageError` where it is not one."""
    path = SHIPPED.get(name, Path(name).expanduser())
    if name not in SHIPPED and not path.is_file():
        raise UsageError(f"lexicon {name!r} is neither one of {', '.join(SHIPPED)} nor a file")
    try:
        return Lexicon.model_validate(read_json(path, "lexicon"))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(f"lexicon {name!r}: {place + ': ' if place else ''}{first['msg']}") from error
