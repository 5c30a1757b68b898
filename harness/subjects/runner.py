"""Runs one batch through a model with the zoo's cache: prefill, forwards of a few tokens or a draft tree, commits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.errors import Refused
from harness.subjects.attention import NAME, ForwardStep
from harness.subjects.cache import KVCache
from harness.subjects.few_rows import row_kernels


@dataclass
class Counts:
    """Work done: forward passes and the tokens that went through them (padding excluded).

    ``forward_s`` is the time spent in forwards after the prefill; on a device that computes on its own, in launching.
    """

    forwards: int = 0
    tokens: int = 0
    prefill_tokens: int = 0
    forward_s: float = 0.0


def pad_left(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Ids ``[B, T]`` padded on the left with 0, and the mask of real tokens (None where nothing was padded)."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=device)
    if all(len(row) == width for row in rows):
        return ids, None
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(width, device=device)[None] >= (width - lengths)[:, None]


@contextmanager
def head_inputs(model: Any) -> Iterator[list[Tensor]]:
    """While open, each forward appends the states ``[B, T, D]`` that enter the model's head."""
    caught: list[Tensor] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _module, inputs: caught.append(inputs[0]))
    try:
        yield caught
    finally:
        hook.remove()


@dataclass
class Runner:
    """Owns the cache of one batch of prompts. Forwards are followed by a :meth:`commit`; several may grow one tree."""

    model: Any
    new_cache: Callable[[], KVCache]
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        attention = self.model.config.get_text_config()._attn_implementation
        if attention != NAME:
            # Other attention would ignore the cache's masks and answer nonsense without a word.
            raise Refused(f"the model's attention was changed to {attention!r} after it was loaded; load it again")
        self.cache = self.new_cache()
        self.device = self.model.device
        self._dummy_mask = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=self.device)

    def prefill(self, prompts: Sequence[Sequence[int]], all_logits: bool = False) -> Tensor:
        """Forward the prompts and commit them; returns the last logits ``[B, V]``, or all of them ``[B, T, V]``."""
        ids, valid_BT = pad_left(prompts, self.device)
        logits = self.forward(ids, valid_BT=valid_BT, logits_to_keep=0 if all_logits else 1)
        self.counts.prefill_tokens += sum(len(p) for p in prompts)
        self.counts.forward_s = 0.0
        self.commit(valid_BT=valid_BT)
        return logits if all_logits else logits[:, -1]

    def forward(
        self,
        ids_BT: Tensor,
        valid_BT: Tensor | None = None,
        block_TM: Tensor | None = None,
        depth_M: Tensor | None = None,
        logits_to_keep: int = 0,
        embeds_BTD: Tensor | None = None,
    ) -> Tensor:
        """Logits ``[B, T, V]`` of new tokens. ``block_TM`` and ``depth_M`` give a tree (:class:`ForwardStep`).

        ``embeds_BTD``: what the model reads in place of the ids' own embeddings; the ids then give the shape alone.
        """
        cache = self.cache
        real = torch.ones_like(ids_BT, dtype=torch.bool) if valid_BT is None else valid_BT
        position_BT = cache.begin(real, None if depth_M is None else depth_M[-ids_BT.shape[1] :])
        cache.append_slots(valid_BT, position_BT)
        started = time.perf_counter()
        with row_kernels(ids_BT.numel(), self.model.dtype, self.device):
            out = self.model(
                input_ids=ids_BT if embeds_BTD is None else None,
                inputs_embeds=embeds_BTD,
                # A mask of four dimensions is passed on untouched; ours is made from the cache.
                attention_mask=self._dummy_mask,
                position_ids=position_BT,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=logits_to_keep,
                zoo_step=ForwardStep(cache, block_TM, valid_BT, depth_M),
            )
        self.counts.forward_s += time.perf_counter() - started
        self.counts.forwards += 1
        self.counts.tokens += ids_BT.numel() if valid_BT is None else int(valid_BT.sum())
        return out.logits  # type: ignore[no-any-return]

    def commit(self, path: Tensor | None = None, valid_BT: Tensor | None = None) -> None:
        """Keep the tokens since the last commit, or only those on ``path`` (indices into them, in order)."""
        if valid_BT is not None:
            count_B = valid_BT.sum(1)
        else:
            count = self.cache.pending if path is None else len(path)
            count_B = torch.full((self.cache.rows,), count, device=self.device)
        self.cache.commit(path)
        self.cache.advance(count_B)

    def select_rows(self, rows: Tensor) -> None:
        """Continue with these rows of the batch; a row may be taken more than once."""
        self.cache.select_rows(rows)

    def fork(self) -> Runner:
        """A runner that continues from here on its own, sharing what is held so far."""
        return Runner(self.model, self.cache.fork, self.counts)
