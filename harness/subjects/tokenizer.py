"""What a subject needs of a tokenizer, and the adapter for the ones that come with a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back. All comparisons between tokenizers are made on bytes."""

    name: str

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end a generation."""

    @property
    def prefix_id(self) -> int:
        """Id that stands before a text with no context, so that its first token can be scored."""

    def encode(self, text: str) -> list[int]:
        """Ids of the text, without special tokens."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; special ids give nothing."""

    def token_bytes(self, token_id: int) -> bytes | None:
        """The bytes one id stands for; None for a special id."""


def in_chat(tokenizer: Any, messages: Sequence[dict[str, str]]) -> str | None:
    """Messages in the model's chat format, up to where its answer begins; None where it has none."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    return str(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True))


@lru_cache(maxsize=1)
def printable_to_byte() -> dict[str, int]:
    """The GPT-2 table that writes each byte as a printable character, inverted."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


class PretrainedTokenizer:
    """A transformers tokenizer behind the zoo's interface; ``model_eos`` are further ids that the model ends with."""

    def __init__(self, inner: Any, name: str = "native", model_eos: Sequence[int] = ()) -> None:
        self.inner = inner
        self.name = name
        self.model_eos = tuple(model_eos)

    @property
    def vocab_size(self) -> int:
        """Number of ids, added ones included."""
        return len(self.inner)

    @cached_property
    def eos_ids(self) -> tuple[int, ...]:
        """The tokenizer's end-of-text id, then the model's others (chat models end a turn with an id of its own)."""
        own = () if self.inner.eos_token_id is None else (int(self.inner.eos_token_id),)
        return tuple(dict.fromkeys((*own, *self.model_eos)))

    @cached_property
    def prefix_id(self) -> int:
        """bos if there is one, else eos, as lm-eval's own model does."""
        first = self.inner.bos_token_id if self.inner.bos_token_id is not None else self.inner.eos_token_id
        return int(first if first is not None else 0)

    @cached_property
    def _rust(self) -> Any:
        """The Rust tokenizer inside; None where there is none."""
        from tokenizers import Tokenizer as RustTokenizer

        backend = getattr(self.inner, "backend_tokenizer", None)
        return backend if isinstance(backend, RustTokenizer) else None

    def encode(self, text: str) -> list[int]:
        """Ids of the text, without special tokens and whole, however long it is."""
        if self._rust is None:
            return list(self.inner.encode(text, add_special_tokens=False))
        # Asked by itself and without offsets: on documents of a few kB the library around it takes a third of the time.
        self._rust.no_truncation()
        self._rust.no_padding()
        return list(self._rust.encode_batch_fast([text], add_special_tokens=False)[0].ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special ids left out and spaces untouched."""
        return str(self.inner.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(self.inner.all_special_ids) | frozenset(self.inner.added_tokens_decoder)

    @cached_property
    def _byte_level(self) -> bool:
        """Whether the vocabulary is written in the GPT-2 byte alphabet (rather than with metaspaces)."""
        return "\u0120" in "".join(self.inner.convert_ids_to_tokens(range(min(2000, self.vocab_size))))

    def token_bytes(self, token_id: int) -> bytes | None:
        """The bytes of one id, for byte-level vocabularies and for metaspace ones with byte fallback."""
        if token_id in self._special:
            return None
        token = self.inner.convert_ids_to_tokens(int(token_id))
        if self._byte_level:
            table = printable_to_byte()
            return bytes(table[c] for c in token)
        if re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", token):
            return bytes([int(token[3:5], 16)])
        return bytes(token.replace("\u2581", " "), "utf-8")

    def apply_chat_template(self, messages: Any, **kwargs: Any) -> str:
        """The model's own chat format as text."""
        return str(self.inner.apply_chat_template(messages, tokenize=False, **kwargs))

    @property
    def chat_template(self) -> Any:
        """The model's template, None where it has none."""
        return getattr(self.inner, "chat_template", None)
