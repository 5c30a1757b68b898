"""Texts that a careless tokenizer does not give back: the test set of the round trip."""

from __future__ import annotations

import random
from collections.abc import Iterator

from harness.errors import UsageError
from harness.kinds.tokenizer.vocabulary import utf8
from harness.subjects.tokenizer import Tokenizer

LONE_SURROGATES = ("\ud800", "a\udfffb", "\udc80")
"""Text that UTF-8 cannot write; a tokenizer has to refuse it."""

FIXED: dict[str, str] = {
    "empty": "",
    "space": " ",
    "nul": "a\x00b\x00",
    "control": "a\x06b",
    "crlf": "one\r\ntwo\r\n\r\nthree\n",
    "tabs": "\tif x:\n\t\treturn\t1\n",
    "byte order mark": "\ufeffstart",
    "replacement character": "a\ufffdb",
    "combining marks": "e\u0301a\u0308\u0323 n\u0303 Z\u0351\u034c\u036d\u0317",
    "composed": "\u00e9 \u00f1 \u1ea5 \uac01",
    "compatibility": "\ufb01le \u2460 \uff21\uff22 x\u00b2 \u212b",
    "zwj emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308",
    "flags and skin": "\U0001f1f9\U0001f1f7\U0001f1ee\U0001f1f3 \U0001f44d\U0001f3fd",
    "right to left": "\u05e9\u05dc\u05d5\u05dd \u202b\u0645\u0631\u062d\u0628\u0627\u202c abc",
    "mixed scripts": "abc \u0430\u0431\u0432 \u03b1\u03b2\u03b3 \u65e5\u672c\u8a9e \u0e20\u0e32\u0e29 \u0939\u093f",
    "case": "\u0130stanbul \u0131rmak STRASSE stra\u00dfe",
    "long run": "a" * 3000 + "!" * 500,
    "long blanks": "x" + " " * 300 + "y" + "\n" * 100 + "z",
    "trailing blank": "word  \n ",
    "numbers": "3.14159 1,000,000 0007 1e-9 12345678901234567890",
    "special look-alikes": "<|endoftext|> <s></s> <unk> <pad> [MASK] <|im_start|>user\n<|im_end|> <0x0A>",
    "space marks": "\u0120the \u2581the \u010a",
    "code": "def f(x):\n    return {'a': x**2}  # \u2014 done\n",
}


def hostile_texts() -> Iterator[tuple[str, str]]:
    """``(name, text)``: the fixed ones, runs of spaces, every byte UTF-8 can hold, and samples of every plane."""
    yield from FIXED.items()
    for n in range(1, 21):
        yield f"{n} spaces", f"a{' ' * n}b"
    for code in range(128):
        yield f"byte {code:#04x}", f"x{chr(code)}y"
    # The lead bytes 0xc2-0xf4 and the continuation bytes 0x80-0xbf, each at least once.
    yield "two bytes", "".join(map(chr, range(0x80, 0x800)))
    yield "three bytes", "".join(map(chr, [*range(0x800, 0xD800, 61), *range(0xE000, 0x10000, 61)]))
    rng = random.Random(0)
    for plane in range(1, 17):
        sample = [chr(plane * 0x10000 + rng.randrange(0x10000)) for _ in range(16)]
        yield f"plane {plane}", "".join([chr(plane * 0x10000), *sample, chr(plane * 0x10000 + 0xFFFF)])


def encoded(tokenizer: Tokenizer, text: str) -> list[int] | None:
    """Ids of the text; None where the tokenizer refuses it."""
    try:
        return tokenizer.encode(text)
    except UsageError:
        return None


def comes_back(tokenizer: Tokenizer, text: str) -> bool:
    """Whether decoding the ids of the text gives the text, byte for byte; not so where the tokenizer refuses it."""
    ids = encoded(tokenizer, text)
    return ids is not None and utf8(tokenizer.decode(ids)) == utf8(text)


def lost(tokenizer: Tokenizer) -> list[str]:
    """Names of the hostile texts that do not come back."""
    return [name for name, text in hostile_texts() if not comes_back(tokenizer, text)]
