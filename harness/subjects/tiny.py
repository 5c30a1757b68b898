"""Small models made in memory: checks and unit tests run on them, in milliseconds and without a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class ByteIds:
    """Ids 0-255 are bytes, 256 begins a text and 257 ends it. Lossless by construction."""

    name = "bytes"
    vocab_size = 258
    eos_ids = (257,)
    prefix_id = 256

    def encode(self, text: str) -> list[int]:
        """The text's UTF-8 bytes."""
        return list(text.encode("utf-8"))

    def decode(self, ids: Sequence[int]) -> str:
        """The bytes as text; what is not UTF-8 becomes U+FFFD."""
        return bytes(i for i in ids if i < 256).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes | None:
        """One byte, None for the special ids."""
        return bytes([token_id]) if token_id < 256 else None


def random_llama(seed: int = 0, **overrides: Any) -> tuple[Any, ByteIds, int]:
    """A random two-layer Llama with four query and two key/value heads over :class:`ByteIds`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": ByteIds.vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
        "bos_token_id": 256,
        "eos_token_id": 257,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**(settings | overrides)))
    return model, ByteIds(), model.config.max_position_embeddings
