"""The plain model of the kind, a small Llama over the subject's tokenizer, for architectures that change one part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from harness.errors import Refused
from harness.kinds.architecture.base import ArchitectureMethod
from harness.kinds.architecture.blocks import initial_std
from harness.kinds.architecture.training import causal_loss
from harness.subjects.load import wrap_model
from harness.subjects.subject import Subject

SMALL: dict[str, Any] = {"steps": 3, "batch": 2, "length": 24, "hidden": 16, "layers": 2, "heads": 2}
"""The shape and the budget of the checks."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LlamaMethod(ArchitectureMethod):
    """A Llama with tied embeddings, as many key/value heads as heads, and inner layers four times as wide."""

    hidden: int = Field(128, ge=8, description="width of the model")
    layers: int = Field(4, ge=1, description="layers of the model")
    heads: int = Field(4, ge=1, description="attention heads; they divide the width into even parts")

    def config(self, subject: Subject) -> Any:
        """The transformers configuration for the subject's tokenizer and context."""
        if self.hidden % (2 * self.heads):
            raise Refused(f"{self.card.id}: hidden={self.hidden} is no multiple of twice heads={self.heads}")
        tokenizer = subject.text_tokenizer()
        return LlamaConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=self.hidden,
            intermediate_size=4 * self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=subject.max_length,
            initializer_range=initial_std(self.hidden),
            tie_word_embeddings=True,
            bos_token_id=tokenizer.prefix_id,
            eos_token_id=list(tokenizer.eos_ids) or None,
        )

    def build(self, subject: Subject) -> Any:
        """The Llama with random weights."""
        return LlamaForCausalLM(self.config(subject)).to(subject.device)

    def loss(self, model: Any, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Cross-entropy of the next token."""
        return causal_loss(model, ids_BT, mask_BT)

    def subject_of(self, subject: Subject, model: Any) -> Subject:
        """Scored and decoded as any causal model of the zoo."""
        return wrap_model(model, subject.text_tokenizer(), subject.name, subject.max_length)

    def check_twin(self) -> LlamaMethod:
        """Two narrow layers and three steps."""
        return replace(self, **SMALL)
