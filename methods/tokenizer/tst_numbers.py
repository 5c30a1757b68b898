"""Triadic suffix tokenization: each group of three digits carries its order of magnitude.

12345678.1234 is 12m 345k 678 . 123p 4pp: integers are grouped from the right with suffixes none, k, m, b, t, q
(10^0 to 10^15), fractions from the left with p, pp, ... A token is a pair (digits, magnitude), or with option A the
digits followed by a marker. With level l >= 0 for integer groups and l < 0 for fractions, and n digits in a group,
its last digit counts 10^(3 l), in a fraction 10^(3 (l + 1) - n).
"""

from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Literal, NamedTuple

from pydantic import Field

from harness.catalog import method
from harness.kinds.tokenizer import Properties, TokenizerMethod
from harness.kinds.tokenizer.checks import measured_properties
from harness.kinds.tokenizer.numbers import Number, NumberTable, chunk, digit_strings

INTEGER_DIGITS, FRACTION_DIGITS = 18, 15


class Group(NamedTuple):
    """Digits and their level: 0 for ones, 1 for thousands, ..., -1 for the first group of a fraction, -2, ..."""

    digits: str
    level: int


def groups(integer: str, fraction: str, size: int) -> list[Group]:
    """The groups of a number, the greatest first."""
    whole = chunk(integer, size, from_right=True)
    parts = chunk(fraction, size, from_right=False)
    return [Group(d, len(whole) - 1 - i) for i, d in enumerate(whole)] + [Group(d, -1 - i) for i, d in enumerate(parts)]


def value(held: list[Group], size: int) -> Fraction:
    """The number that groups stand for, exactly; ValueError for groups that no number has."""
    for left, right in pairwise(held):
        if right.level != left.level - 1 or (left.level < 0 and len(left.digits) != size):
            raise ValueError(f"{right} cannot follow {left}")
        if right.level >= 0 and len(right.digits) != size:
            raise ValueError(f"{right} needs {size} digits after {left}")
    if not held or not held[0].level >= 0 >= held[-1].level:
        raise ValueError(f"{held} has no group of ones")
    powers = [g.level * size if g.level >= 0 else (g.level + 1) * size - len(g.digits) for g in held]
    return sum((int(g.digits) * Fraction(10) ** p for g, p in zip(held, powers, strict=True)), Fraction(0))


def plain_form(number: Number, size: int) -> tuple[str, str] | None:
    """Integer and fraction digits of the paper's form: no exponent, no needless zero, fractions padded to groups.

    None for what is written so long that it need not be looked at.
    """
    if len(number.integer + number.fraction) > 100 or len(number.exponent) > 3:
        return None
    exponent = int(number.exponent or 0) - len(number.fraction)
    integer, _, fraction = f"{Decimal(f'{number.integer}{number.fraction}e{exponent}'):f}".partition(".")
    fraction = fraction.rstrip("0")
    return integer.lstrip("0") or "0", fraction.ljust(-(-len(fraction) // size) * size, "0")


@method(
    id="tst_numbers",
    kind="tokenizer",
    title="Triadic suffix tokenization of numbers",
    paper="arXiv:2604.11582",
    guarantee="approximate",
    baseline="native",
    details={
        "claims": "none: the paper defers its validation",
        "lossless": "reconstruction: first and last groups keep their length, plain digits with one point alone; "
        "signs, separators and exponents are text, so every numeral comes back as it was written",
        "paper": "separators dropped, exponents expanded, fractions padded: 0.1 and 0.10 become one",
        "exponents": "ours: expanded exactly; the author's converter goes through a float of six decimals",
        "trailing zeros": "ours, mode paper: dropped before padding, so that equal numbers have equal ids",
        "range": "paper: 10^-15 to 10^18; beyond it the base tokenizer writes the number (the converter: e18, e21)",
        "vocabulary": "ours: 1,110 digit strings a level in both modes, where the paper counts 1,000",
        "text": "ours: the magnitude is not part of a token's text, so decoding gives digits",
        "embeddings": "a pair begins with the row of its digits, a marker of option A with the mean row; no training",
    },
)
class TstNumbers(TokenizerMethod):
    """The base tokenizer with groups of ``group_size`` digits that know their magnitude."""

    mode: Literal["lossless", "paper"] = Field("lossless", description="paper: equal numbers have equal ids")
    option: Literal["A", "B"] = Field("B", description="B: (digits, magnitude) is one id; A: digits, then a marker")
    group_size: Literal[1, 2, 3] = Field(3, description="digits of a group")

    def declared(self, tokenizer) -> Properties:  # type: ignore[no-untyped-def]
        """The base tokenizer's, but mode ``paper`` loses how a number was written."""
        found = measured_properties(tokenizer)
        kept = found.lossless and self.mode == "lossless"
        return Properties(lossless=kept, byte_complete=found.byte_complete, crosses_words=found.crosses_words)

    def groups_of(self, number: Number) -> list[Group] | None:
        """The groups of a number, None beyond the range."""
        written = number.integer, number.fraction
        form = written if self.mode == "lossless" else plain_form(number, self.group_size)
        if form is None or len(form[0]) > INTEGER_DIGITS or len(form[1]) > FRACTION_DIGITS:
            return None
        return groups(*form, self.group_size)

    def make(self, tokenizer, artifact):  # type: ignore[no-untyped-def]
        """The base tokenizer with these groups as tokens."""
        table, strings = NumberTable(tokenizer), digit_strings(self.group_size)
        levels = range(-FRACTION_DIGITS // self.group_size, -(-INTEGER_DIGITS // self.group_size))
        point = table.held(".")
        if self.option == "B":
            pairs = {(text, level): [table.added(text)] for level in levels for text in strings}
        else:
            digits, markers = {t: table.added(t) for t in strings}, {n: [table.added("")] for n in levels if n}
            pairs = {(t, n): [digits[t], *markers.get(n, [])] for n in levels for t in strings}

        def cut(number: Number) -> list[int] | None:
            held = self.groups_of(number)
            if held is None:
                return None
            ids = [[*([point] if g.level == -1 else []), *pairs[g]] for g in held]
            return [i for part in ids for i in part]

        plain = self.mode == "lossless"
        return table.tokenizer(f"tst-{self.mode}-{self.option}-{self.group_size}", cut, plain)
