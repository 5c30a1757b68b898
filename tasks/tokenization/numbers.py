"""Sums with digits grouped from the left or from the right (arXiv:2402.14903), and which of two decimals is larger.

A separator every three digits forces a tokenizer's groups: from the right, operands and sum are aligned by place value
whatever their lengths. A tokenizer that isolates digits shows what a separator as such does, and no more.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from harness.errors import UsageError, unknown_name
from tasks.items import Row, choice_row, dataset, item_rng

SEPARATORS = {"comma": ",", "space": " ", "dec": ".", "hashtag": "#", "dollar": "$", "word": " and "}
FORMS = ("nosep", *(f"{name}_{direction}" for name in SEPARATORS for direction in ("l2r", "r2l")))
CHUNK = 3
OPTIONS = 4


def chunks(digits: str, direction: str) -> list[str]:
    """Groups of three digits; the short group is the last (``l2r``) or the first (``r2l``)."""
    first = len(digits) % CHUNK if direction == "r2l" else 0
    return [digits[:first]] * bool(first) + [digits[i : i + CHUNK] for i in range(first, len(digits), CHUNK)]


def written(value: int, form: str) -> str:
    """The number in one of :data:`FORMS`."""
    if form not in FORMS:
        raise unknown_name("number format", form, FORMS)
    name, _, direction = form.partition("_")
    return SEPARATORS[name].join(chunks(str(value), direction)) if direction else str(value)


def problem(rng: random.Random, first: int, second: int, total: int) -> tuple[int, int]:
    """Two addends with so many digits, whose sum has ``total``.

    As in the reference code: the shorter addend is drawn evenly, then the sum, so it is the sum that is even.
    """
    long, short = max(first, second), min(first, second)
    small = rng.randrange(10 ** (short - 1), min(10**short, 10**total - 10 ** (long - 1)))
    result = rng.randrange(max(10 ** (total - 1), 10 ** (long - 1) + small), min(10**total, 10**long + small))
    return (result - small, small) if first >= second else (small, result - small)


def triples(shortest: int, longest: int) -> list[tuple[int, int, int]]:
    """All lengths of two addends and their sum, evenly mixed."""
    lengths = range(shortest, longest + 1)
    found = [(a, b, max(a, b) + more) for a in lengths for b in lengths for more in (0, 1)]
    return random.Random("triples").sample(found, len(found))


def carries(a: int, b: int) -> list[bool]:
    """Whether each place, from the right, hands a one on."""
    found, carry = [], 0
    for place in range(max(len(str(a)), len(str(b)))):
        carry = (a // 10**place % 10 + b // 10**place % 10 + carry) // 10
        found.append(bool(carry))
    return found


def left_aligned(a: int, b: int) -> int:
    """What comes out where the shorter addend is put under the other's first digits."""
    width = max(len(str(a)), len(str(b)))
    return sum(int(str(x).ljust(width, "0")) for x in (a, b))


def near_misses(rng: random.Random, a: int, b: int) -> list[int]:
    """Wrong sums with as many digits as the right one, each a power of ten away: a carry too many or one too few."""
    right = a + b
    slips = [right + sign * 10**place for place in range(len(str(right))) for sign in (-1, 1)]
    return rng.sample([s for s in slips if len(str(s)) == len(str(right))], OPTIONS - 1)


def number_direction(
    n: int,
    seed: int,
    form: str,
    shots: int = 8,
    shortest: int = 7,
    longest: int = 9,
    answer_form: str = "",
    spread: bool = False,
    repeat: bool = False,
    **_: Any,
) -> dict[str, Any]:
    """``a+b=c`` after solved sums with the same numbers of digits.

    ``answer_form``: the sum's format where it is another; ``spread``: blanks around the signs (the control for more
    tokens as such); ``repeat``: the problem is written again in ``answer_form`` before its answer.
    """
    if not 2 <= shortest <= longest <= 15:
        raise UsageError(f"shortest={shortest} and longest={longest} must be 2 to 15 digits, in this order")
    lengths, out = triples(shortest, longest), answer_form or form
    plus, equals = (" + ", " = ") if spread else ("+", "=")

    def line(a: int, b: int) -> tuple[str, str]:
        """A problem up to where the answer begins, and what comes after it but the sum."""
        asked = f"{written(a, form)}{plus}{written(b, form)}{equals.rstrip()}"
        again = f"{written(a, out)}{plus}{written(b, out)}{equals}" if repeat else ""
        return asked, " " * spread + again

    def make(rng: random.Random, index: int) -> Row:
        triple = lengths[index % len(lengths)]
        # Formats are compared on the same sums: the random numbers do not depend on the format.
        problems: dict[tuple[int, int], None] = {}
        while len(problems) < shots + 1:
            problems[problem(rng, *triple)] = None
        *shown, (a, b) = problems
        solved = ["".join(line(x, y)) + written(x + y, out) for x, y in shown]
        asked, lead = line(a, b)
        wrong = [lead + written(w, out) for w in near_misses(rng, a, b)]
        context, carry = "\n".join([*solved, asked]), carries(a, b)
        row = choice_row(rng, context, lead + written(a + b, out), wrong, target=lead + written(a + b, out))
        row |= {"sum": str(a + b), "left_aligned": str(left_aligned(a, b)), "digits": triple[2], "carries": sum(carry)}
        row |= {"longer_sum": int(triple[2] > max(triple[:2])), "unequal": int(triple[0] != triple[1])}
        chunk_carry = any(carry[place] for place in range(CHUNK - 1, len(carry), CHUNK))
        start = len(context) - len(asked)
        return row | {"chunk_carry": int(chunk_carry), "span": [start, len(context)]}

    return dataset(f"number_direction_{shortest}_{longest}_{shots}", n, seed, make)


def decimals(rng: random.Random, longer_is_larger: bool) -> tuple[str, str]:
    """Two decimals with the same whole part: one digit after the point, and two (9.9 and 9.11)."""
    whole, tenth = rng.randrange(1, 100), rng.randrange(2, 10)
    fractions = range(10 * tenth + 1, 100) if longer_is_larger else range(11, 10 * tenth)
    return f"{whole}.{tenth}", f"{whole}.{rng.choice([f for f in fractions if f % 10])}"


def number_compare(n: int, seed: int, shots: int = 4, **_: Any) -> dict[str, Any]:
    """Two decimals whose fractions differ in length: which is larger? Items 2j and 2j + 1 ask in both orders.

    The options end their line, so that 9.1 is not scored as the beginning of 9.11.
    """

    def ask(numbers: Sequence[str]) -> str:
        return f"Which is larger, {numbers[0]} or {numbers[1]}?"

    def make(_: random.Random, index: int) -> Row:
        twin, swapped = divmod(index, 2)
        rng = item_rng("number_compare", seed, twin)
        asked = decimals(rng, twin % 2 == 0)
        shown: list[tuple[str, str]] = []
        while len(shown) < shots:
            one = decimals(rng, rng.random() < 0.5)
            shown += [one] * (one != asked)
        solved = [f"{ask(rng.sample(p, 2))} {max(p, key=float)}" for p in shown]
        asked = asked[::-1] if swapped else asked
        context, larger = "\n".join([*solved, ask(asked)]), max(asked, key=float)
        row = {"context": context, "choices": [f" {a}\n" for a in asked], "answer": asked.index(larger), "pair": twin}
        start = len(context) - len(f"{asked[0]} or {asked[1]}?")
        return row | {"longer_is_larger": int(twin % 2 == 0), "span": [start, len(context) - 1]}

    return dataset("number_compare", n, seed, make)
