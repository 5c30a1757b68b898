"""Vocabularies on bytes: what each id stands for, which ids are special, and the tokenizers the zoo makes itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.errors import UsageError
from harness.subjects.tokenizer import Tokenizer, printable_to_byte


def utf8(text: str) -> bytes:
    """The text's bytes; a lone surrogate, which UTF-8 cannot write, is a :class:`UsageError` of one line."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the text has a lone surrogate U+{ord(text[error.start]):04X} at character {error.start}, "
            "which UTF-8 cannot write; remove it"
        ) from error


def special_names(tokenizer: Tokenizer) -> dict[str, int]:
    """Special ids by name: the tokenizer's own names, else ``<prefix>``, ``<eos>`` and ``<special-ID>``."""
    if isinstance(tokenizer, TableTokenizer):
        return dict(tokenizer.special_ids)
    inner = getattr(tokenizer, "inner", None)
    names: dict[str, int] = {}
    for token_id in range(tokenizer.vocab_size):
        if tokenizer.token_bytes(token_id) is None:
            plain = {tokenizer.prefix_id: "<prefix>"} | dict.fromkeys(tokenizer.eos_ids[:1], "<eos>")
            name = inner.convert_ids_to_tokens(token_id) if inner is not None else plain.get(token_id)
            names[str(name or f"<special-{token_id}>")] = token_id
    return names


@dataclass(frozen=True)
class Specials:
    """Special tokens that a new tokenizer takes over: their names in order, and who begins and ends a text."""

    names: tuple[str, ...]
    prefix: str
    eos: tuple[str, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Specials:
        """Those of a tokenizer; where an ordinary id begins its texts, a special of that role is added."""
        ids = special_names(tokenizer)
        by_id = {i: name for name, i in ids.items()}
        prefix = by_id.get(tokenizer.prefix_id, "<prefix>")
        names = tuple(sorted(ids, key=lambda name: ids[name]))
        return cls(
            names if prefix in ids else (*names, prefix),
            prefix,
            tuple(by_id[i] for i in tokenizer.eos_ids if i in by_id),
        )


class TableTokenizer:
    """Text tokens by their bytes (ids 0 to n-1), then the special ones. Text that looks like a special stays text.

    ``encode_text`` gives ids of valid text; ``forget`` empties its memory of words, so that timed calls are alike.
    """

    def __init__(
        self,
        name: str,
        tokens: Sequence[bytes],
        encode_text: Callable[[str], list[int]],
        specials: Specials,
        forget: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.tokens = tuple(tokens)
        self.special_ids: Mapping[str, int] = {n: len(self.tokens) + k for k, n in enumerate(specials.names)}
        self.prefix_id = self.special_ids[specials.prefix]
        self.eos_ids = tuple(self.special_ids[n] for n in specials.eos)
        self.vocab_size = len(self.tokens) + len(self.special_ids)
        self._encode_text = encode_text
        self.forget = forget

    def encode(self, text: str) -> list[int]:
        """Ids of the text; :class:`UsageError` where it holds a lone surrogate."""
        utf8(text)
        return self._encode_text(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; special ids give nothing, bytes that are not UTF-8 become U+FFFD."""
        return b"".join(self.tokens[i] for i in ids if i < len(self.tokens)).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes | None:
        """The bytes of one id; None for a special id."""
        return self.tokens[token_id] if token_id < len(self.tokens) else None


class Vocabulary:
    """A tokenizer's ids as bytes, looked up once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.tokens = tuple(tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size))

    @cached_property
    def by_bytes(self) -> dict[bytes, int]:
        """Id of each byte string; of equal ones the last, as byte fallbacks come before learnt tokens."""
        return {token: i for i, token in enumerate(self.tokens) if token}

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest token."""
        return max(map(len, self.by_bytes), default=0)

    @cached_property
    def _merges(self) -> Callable[[bytes], list[int]] | None:
        """The merges of a byte-level BPE model without its pre-tokenizer; None for other tokenizers."""
        inner = getattr(self.tokenizer, "inner", None)
        backend = getattr(inner, "backend_tokenizer", None)
        if backend is None or not getattr(self.tokenizer, "_byte_level", False):
            return None
        table = {byte: character for character, byte in printable_to_byte().items()}
        return lambda data: [piece.id for piece in backend.model.tokenize("".join(table[b] for b in data))]

    def decompose(self, data: bytes) -> list[int]:
        """Ids whose bytes make up ``data``: by the model's merges, else the longest match from the left.

        A byte that no token holds is left out.
        """
        if self._merges is not None:
            return self._merges(data)
        ids, start = [], 0
        while start < len(data):
            for end in range(min(len(data), start + self.longest), start, -1):
                token_id = self.by_bytes.get(data[start:end])
                if token_id is not None:
                    ids.append(token_id)
                    start = end
                    break
            else:
                start += 1
        return ids


def segments(tokenizer: Tokenizer, text: str) -> list[bytes]:
    """The byte string that each id of the text covers, in order; a special id covers none."""
    return [tokenizer.token_bytes(i) or b"" for i in tokenizer.encode(text)]
