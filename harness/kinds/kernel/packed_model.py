"""Runs a transformers model over a packed row, with an attention that knows the row's layout.

The model's attention implementation is swapped for one that takes the layout as a keyword of the forward and falls
back to transformers' SDPA without it, so that one model serves both the packed and the replicated side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from harness.errors import Refused
from harness.kinds.kernel.packing import GroupBatch, Layout
from harness.subjects.subject import Subject

NAME = "zoo_packed"

Attend = Callable[[Tensor, Tensor, Tensor, Layout, float], Tensor]
"""``(query [1,H,T,D], key [1,G,T,D], value, layout, scale) -> out [1,H,T,D]`` over a packed row."""


@dataclass(frozen=True)
class PackedStep:
    """What the attention of one packed forward must know."""

    layout: Layout
    attend: Attend


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed_step: PackedStep | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention of a packed row ``[1, H, T, D]``; returns ``[1, T, H, D]``. Plain SDPA without a ``packed_step``."""
    if packed_step is None:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if dropout or softcap is not None or sliding_window is not None:
        raise Refused("a packed row needs full attention without dropout, soft cap or sliding window")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return packed_step.attend(query, key, value, packed_step.layout, scale).transpose(1, 2), None


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def packed_model(model: Any) -> Iterator[Any]:
    """The model with :func:`packed_attention`; its own attention is put back on exit."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield model
    finally:
        model.set_attn_implementation(before)


def _token_logp(logits_KV: Tensor, row_S: Tensor, token_S: Tensor) -> Tensor:
    """Log-probability of tokens under rows of logits; a row may serve many tokens."""
    exact = logits_KV.to(torch.promote_types(logits_KV.dtype, torch.float32))
    return exact[row_S, token_S] - exact.logsumexp(-1)[row_S]


def packed_logprobs(model: Any, batch: GroupBatch, attend: Attend) -> Tensor:
    """Log-probabilities ``[S, R]`` of the response tokens, 0 in padded places; the model runs on the packed row.

    ``model`` is inside :func:`packed_model`. Logits are made only for rows that predict a response token; the first
    token of every response of a group is predicted by one shared row. The balance losses of a mixture of experts
    count tokens, so they see fewer than in the replicated batch.
    """
    layout = batch.layout
    valid_SR = layout.valid_SR
    row_K, index_M = torch.unique(layout.predictor_SR[valid_SR], return_inverse=True)
    out = model(
        input_ids=batch.ids_T[None],
        position_ids=layout.position_T[None],
        # A mask of four dimensions is passed on untouched; the attention takes the layout instead.
        attention_mask=torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=layout.device),
        use_cache=False,
        logits_to_keep=row_K,
        packed_step=PackedStep(layout, attend),
    )
    logp_M = _token_logp(out.logits[0], index_M, batch.target_SR[valid_SR])
    return logp_M.new_zeros(valid_SR.shape).masked_scatter(valid_SR, logp_M)


def replicated_logprobs(model: Any, batch: GroupBatch) -> Tensor:
    """The plain way to the same figures: every response with a copy of its prompt, padded on the right.

    Under causal attention right padding needs no mask. Logits are made from the shortest prompt's end on.
    """
    layout = batch.layout
    prompt_S = torch.tensor([g.prompt for g in layout.groups for _ in g.responses], device=layout.device)
    ids_SL = batch.replicated()
    first = int(prompt_S.min()) - 1
    keep = torch.arange(first, ids_SL.shape[1], device=layout.device)
    logits = model(input_ids=ids_SL, use_cache=False, logits_to_keep=keep).logits
    valid_SR = layout.valid_SR
    column_SR = (prompt_S - 1 - first)[:, None] + torch.arange(valid_SR.shape[1], device=layout.device)
    row_SR = torch.arange(len(ids_SL), device=layout.device)[:, None] * len(keep) + column_SR
    logp_M = _token_logp(logits.flatten(0, 1), row_SR[valid_SR], batch.target_SR[valid_SR])
    return logp_M.new_zeros(valid_SR.shape).masked_scatter(valid_SR, logp_M)


def small_model(subject: Subject, seed: int = 0, **overrides: Any) -> Any:
    """A random four-layer Llama of 1.9 million parameters on the subject's device and dtype, for timed updates."""
    settings: dict[str, Any] = {
        "vocab_size": 1024,
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "attn_implementation": NAME,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**(settings | overrides)))
    return model.eval().to(device=subject.device, dtype=subject.dtype)
