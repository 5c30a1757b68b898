"""Ways to hold fewer activations while a frozen model's adapters are trained: loss in segments, attention of a subset
of tokens, and a feed-forward layer that remembers a part of its neurons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from harness.errors import Refused
from harness.kinds.objective.finetune import TextBatch, tokens_of, weighted_nll


def segmented_loss(model: Any, batch: TextBatch, segment: int) -> Tensor:
    """The mean cross-entropy with logits of ``segment`` tokens at a time, made anew in the backward: exact."""
    hidden_BTH = model.get_decoder()(input_ids=batch.ids_BT, use_cache=False).last_hidden_state
    head = model.get_output_embeddings()
    parts = zip(
        hidden_BTH[:, :-1].flatten(0, 1).split(segment),
        batch.ids_BT[:, 1:].flatten().split(segment),
        batch.weight_BT[:, 1:].flatten().split(segment),
        strict=True,
    )

    def nll(hidden_NH: Tensor, target_N: Tensor, weight_N: Tensor) -> Tensor:
        return weighted_nll(head(hidden_NH), target_N, weight_N)

    total = torch.stack([checkpoint(nll, *part, use_reentrant=False) for part in parts]).sum()
    loss: Tensor = total / tokens_of(batch)
    return loss


def subset_attention(
    forward: Callable[..., tuple[Tensor, Any]],
    hidden_BTH: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    index_BK: Tensor,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """A self-attention layer's ``forward`` over a subset of its tokens at their positions; 0 for all others.

    ``index_BK`` holds the tokens of each row in ascending order; rows with fewer end in places of T, one past the last
    token. So causality among the tokens in their order is the only mask that is needed.
    """
    tokens = hidden_BTH.shape[1]
    place_BK1 = index_BK.clamp(max=tokens - 1)[..., None]

    def kept(x: Tensor) -> Tensor:
        whole = x.expand(len(index_BK), -1, -1)
        return whole.gather(1, place_BK1.expand(-1, -1, x.shape[-1]))

    kwargs |= {"attention_mask": None, "past_key_values": None}
    cos, sin = position_embeddings
    out, _ = forward(hidden_states=kept(hidden_BTH), position_embeddings=(kept(cos), kept(sin)), **kwargs)
    rows = out.new_zeros(len(index_BK), tokens + 1, out.shape[-1])
    return rows.scatter(1, index_BK[..., None].expand_as(out), out)[:, :tokens], None


@contextmanager
def other_forwards(changed: Mapping[Any, Callable[..., Any]]) -> Iterator[None]:
    """Modules with other forwards; their own come back on exit."""
    held = {module: vars(module).get("forward") for module in changed}
    for module, forward in changed.items():
        module.forward = forward
    try:
        yield
    finally:
        for module, before in held.items():
            del module.forward
            if before is not None:
                module.forward = before


def gated_layers(model: Any) -> Any:
    """The model's decoder layers; refuses those whose feed-forward part is not gated by SiLU."""
    layers, kind = model.get_decoder().layers, model.config.get_text_config().hidden_act
    if kind not in ("silu", "swish") or not hasattr(layers[0].mlp, "gate_proj"):
        raise Refused(f"a narrow backward needs feed-forward layers gated by SiLU; {type(model).__name__} has others")
    return layers


class NarrowMlp(torch.autograd.Function):
    """``down(SiLU(gate x) * up x)`` of frozen layers: forward exact, backward through the strongest neurons alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mlp: Any, neurons: int, mask_BT: Tensor) -> Tensor:
        """Keeps gate and up of the ``neurons`` with the largest ``|SiLU(gate)| + |up|`` over the real tokens."""
        gate, up = mlp.gate_proj(x), mlp.up_proj(x)
        active = F.silu(gate)
        strength = sum(part.masked_fill(~mask_BT[..., None], 0.0).flatten(0, -2).norm(dim=0) for part in (active, up))
        chosen = torch.as_tensor(strength).topk(neurons).indices.sort().values
        ctx.save_for_backward(gate[..., chosen], up[..., chosen], chosen)
        ctx.mlp = mlp
        out: Tensor = mlp.down_proj(active * up)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient of the input; those of the weights are not asked for."""
        gate, up, chosen = ctx.saved_tensors
        sigmoid = torch.sigmoid(gate)
        d_product = grad @ ctx.mlp.down_proj.weight[:, chosen]
        d_gate = d_product * up * sigmoid * (1 + gate * (1 - sigmoid))
        d_up = d_product * gate * sigmoid
        return d_gate @ ctx.mlp.gate_proj.weight[chosen] + d_up @ ctx.mlp.up_proj.weight[chosen], None, None, None
