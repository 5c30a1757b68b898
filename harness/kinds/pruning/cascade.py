"""Tokens and heads that leave the model on the way: what layer l drops, no later layer computes.

Hooks narrow the prompt's hidden states before a layer, so attention, feed-forward and cache of that layer and all
later ones hold the tokens that are left. A token that has left keeps the state it left with. Heads that have left give
zeros to the output projection, also while decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.errors import Refused
from harness.kinds.method import Artifact, Check
from harness.kinds.pruning.base import PROMPT_CAUSALITY, PruningMethod, by_query_head, column_sums, rank_slots
from harness.subjects.cache import KVCache
from harness.subjects.subject import Subject
from harness.subjects.views import LayerView


def best_heads(sum_BH: Tensor, alive_BH: Tensor, count: int) -> Tensor:
    """The ``count`` heads of the largest sums among those alive, ``[B, H]`` bool; ties go to the earlier head."""
    order = sum_BH.masked_fill(~alive_BH, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    return torch.zeros_like(alive_BH).scatter(1, order[:, :count], True) & alive_BH


@dataclass
class Prompt:
    """What is known of the prompt on its way up.

    ``origin_BN``: the place in the prompt of each slot that is left, T for padding. ``left_BTD``: the states with which
    tokens left. ``tokens_B1N`` and ``heads_BH``: attention received, and output given, so far.
    """

    length: int
    origin_BN: Tensor
    left_BTD: Tensor
    tokens_B1N: Tensor
    heads_BH: Tensor
    alive_BH: Tensor


@dataclass
class Cascade:
    """The hooks of one open method. Importance is summed over layers: of a token, the attention it receives from the
    heads that are left; of a head, the size of what it gives. The last token always stays.

    ``scales`` holds what the outputs of the running forward's heads are multiplied by, ``[B, H, T]`` a layer.
    """

    method: CascadeMethod
    subject: Subject
    scales: dict[int, Tensor] = field(default_factory=dict)
    cache: KVCache | None = None
    prompt: Prompt | None = None
    _hooks: list[Any] = field(default_factory=list)

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """The model with its hooks; they are gone on exit."""
        decoder = self.subject.model.get_decoder()
        try:
            for index, layer in enumerate(self._layers(decoder)):
                hook = self._layer_hook(index)
                self._hooks.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
                self._hooks.append(layer.self_attn.o_proj.register_forward_pre_hook(self._heads_hook(index)))
            self._hooks.append(decoder.norm.register_forward_pre_hook(self._put_back))
            yield
        finally:
            for hook in self._hooks:
                hook.remove()
            self._hooks.clear()

    def _layers(self, decoder: Any) -> list[Any]:
        layers = list(getattr(decoder, "layers", []))
        if not layers or not hasattr(decoder, "norm") or not all(hasattr(one, "self_attn") for one in layers):
            raise Refused(
                f"tokens cannot leave between the layers of {self.subject.name}: it is not built like a Llama"
            )
        return layers

    @property
    def num_layers(self) -> int:
        """Layers of the model."""
        return int(self.subject.model.config.get_text_config().num_hidden_layers)

    @property
    def num_heads(self) -> int:
        """Query heads of a layer."""
        return int(self.subject.model.config.get_text_config().num_attention_heads)

    def observe(self, view: LayerView) -> None:
        """Add a layer's attention to the importance of the prompt's tokens; it drops no slot of the layer itself."""
        if self.prompt is not None:
            received_BHN = column_sums(by_query_head(view)) * self.prompt.alive_BH[..., None]
            self.prompt.tokens_B1N = self.prompt.tokens_B1N + received_BHN.sum(1, keepdim=True)

    def _layer_hook(self, index: int) -> Callable[..., Any]:
        def narrow(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden = args[0]
            cache = kwargs["past_key_values"]
            # The bare subject may run while the method is open, with a cache of its own.
            ours = getattr(getattr(cache, "evict", None), "__self__", None) is self
            self.cache = cache if ours else None
            if self.cache is None or self.cache.phase == "decode":
                return None
            if index == 0:
                self.prompt = self._begin(hidden)
                return None
            hidden = self._drop_tokens(index, hidden)
            assert self.prompt is not None
            count = self.method.keep_heads(index, self.num_layers, self.num_heads)
            self.prompt.alive_BH = best_heads(self.prompt.heads_BH, self.prompt.alive_BH, count)
            self.cache.layers[index].notes["heads"] = self.prompt.alive_BH
            origin = self.prompt.origin_BN.clamp(max=self.prompt.length - 1)
            turned = tuple(
                t.expand(len(hidden), -1, -1).gather(1, origin[..., None].expand(-1, -1, t.shape[-1]))
                for t in kwargs["position_embeddings"]
            )
            places = kwargs["position_ids"].expand(len(hidden), -1).gather(1, origin)
            return (hidden, *args[1:]), kwargs | {"position_embeddings": turned, "position_ids": places}

        return narrow

    def _begin(self, hidden_BTD: Tensor) -> Prompt:
        batch, length = hidden_BTD.shape[:2]
        heads, device = self.num_heads, hidden_BTD.device
        return Prompt(
            length,
            torch.arange(length, device=device).expand(batch, -1),
            hidden_BTD.new_zeros(batch, length + 1, hidden_BTD.shape[2]),
            torch.zeros(batch, 1, length, device=device),
            torch.zeros(batch, heads, device=device),
            torch.ones(batch, heads, dtype=torch.bool, device=device),
        )

    def _drop_tokens(self, index: int, hidden_BTD: Tensor) -> Tensor:
        """Narrow the states, and the slots that the layer is about to hold, to the tokens that are left."""
        prompt, cache = self.prompt, self.cache
        assert prompt is not None and cache is not None
        below, layer = cache.layers[index - 1], cache.layers[index]
        length_B = below.position.amax(dim=(1, 2)) + 1
        score = prompt.tokens_B1N.clone()
        score[..., -1] = torch.inf
        keep = rank_slots(score, below.valid, self.method.keep_tokens(index, self.num_layers, length_B))
        if keep is None:
            layer.position, layer.valid = below.position, below.valid
            return hidden_BTD
        index_B1K, layer.valid = keep
        place = index_B1K[:, 0]
        wide = prompt.origin_BN[..., None].expand_as(hidden_BTD)
        prompt.left_BTD.scatter_(1, wide, hidden_BTD)
        layer.position = below.position.gather(2, index_B1K)
        prompt.tokens_B1N = prompt.tokens_B1N.gather(2, index_B1K)
        origin = prompt.origin_BN.gather(1, place)
        prompt.origin_BN = origin if layer.valid is None else origin.masked_fill(~layer.valid[:, 0], prompt.length)
        return hidden_BTD.gather(1, place[..., None].expand(-1, -1, hidden_BTD.shape[2]))

    def _heads_hook(self, index: int) -> Callable[..., Any]:
        def weigh(_module: Any, args: tuple[Any, ...]) -> Any:
            cache = self.cache
            if cache is None:
                return None
            given_BTHD = args[0].unflatten(-1, (self.num_heads, -1))
            alive_BH = cache.layers[index].notes.get("heads")
            if alive_BH is not None:
                given_BTHD = given_BTHD * alive_BH[:, None, :, None]
            if cache.phase == "prefill" and self.prompt is not None:
                size_BTH = given_BTHD.float().abs().sum(-1)
                valid = cache.layers[index].valid
                size_BTH = size_BTH if valid is None else size_BTH * valid[:, 0, :, None]
                self.prompt.heads_BH = self.prompt.heads_BH + size_BTH.sum(1)
            scale_BHT = self.scales.pop(index, None)
            if scale_BHT is not None:
                given_BTHD = given_BTHD * scale_BHT.transpose(1, 2)[..., None].to(given_BTHD.dtype)
            return (given_BTHD.flatten(2), *args[1:])

        return weigh

    def _put_back(self, _module: Any, args: tuple[Any, ...]) -> Any:
        """All tokens of the prompt again, those that have left with the states they left with."""
        prompt, self.prompt = self.prompt, None
        if prompt is None or args[0].shape[1] == prompt.length:
            return None
        wide = prompt.origin_BN[..., None].expand_as(args[0])
        return (prompt.left_BTD.scatter(1, wide, args[0])[:, : prompt.length], *args[1:])


class CascadeMethod(PruningMethod):
    """A method that drops tokens and heads between the layers. A subclass says how many each layer has left."""

    replaces: ClassVar[frozenset[str]] = frozenset({"cache", "layers"})

    def keep_tokens(self, layer: int, num_layers: int, length_B: Tensor) -> Tensor:
        """Tokens that reach the layer, of prompts of ``length_B``."""
        return length_B

    def keep_heads(self, layer: int, num_layers: int, heads: int) -> int:
        """Query heads that are left in the layer, of ``heads``."""
        return heads

    @contextmanager
    def apply(self, subject: Subject, artifact: Artifact = None) -> Iterator[Subject]:
        """The subject with hooks on its layers and a cache that shows them the prompt."""
        cascade = Cascade(self, subject)
        with cascade.hooked(), super().apply(subject, cascade) as pruned:
            yield pruned

    def cache_options(self, subject: Subject, artifact: Cascade) -> dict[str, Any]:
        """A cache that reports to the open method's cascade."""
        return {"evict": artifact.observe}

    def checks(self, subject: Subject) -> Iterable[Check]:
        """The kind's invariants, but for the prompt's causality: which tokens stay is decided by later ones."""
        return [check for check in super().checks(subject) if check.name != PROMPT_CAUSALITY]
