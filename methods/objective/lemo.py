"""LeMo (Jenga): fine-tuning in which uninformative blocks of tokens take no part in a layer's attention.

S_rc = max over a tile of blocks r and c of sum_h ReLU(q_h k_h), on q and k before rotation; a block's informativeness
is I_c = sum_r S_rc. A layer's attention sees the best blocks only, at their positions; a token that is left out passes
through the residual unchanged. The feed-forward layer's backward goes through its strongest neurons, and the loss is
taken in segments. All this while training: what is evaluated is the ordinary, dense model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.objective.block_predictor import hang_predictors
from harness.kinds.objective.finetune import FineTuningMethod, TextBatch
from harness.kinds.objective.saving import NarrowMlp, gated_layers, other_forwards, segmented_loss, subset_attention
from harness.toolkit.rows import Batch


def block_scores(query_BHTD: Tensor, key_BGTD: Tensor, mask_BT: Tensor, block: int) -> Tensor:
    """``S [B, C, C]`` float32, a row of blocks at a time; padding counts as 0, query head h meets key h // (H / G)."""
    rows, tokens = mask_BT.shape
    room = -tokens % block
    key = key_BGTD.repeat_interleave(query_BHTD.shape[1] // key_BGTD.shape[1], 1)
    query, key = (F.pad(x.float() * mask_BT[:, None, :, None], (0, 0, 0, room)) for x in (query_BHTD, key))
    scores = []
    for part in query.split(block, 2):
        met = (part @ key.transpose(2, 3)).relu_().sum(1)
        scores.append(met.amax(1).view(rows, -1, block).amax(2))
    return torch.stack(scores, 1)


def kept_tokens(score_BC: Tensor, mask_BT: Tensor, block: int, keep: float) -> Tensor:
    """Tokens ``[B, K]`` of each row's best blocks, ascending; places of T where a row has fewer.

    Of a row's ``n`` blocks with real tokens, ``max(1, floor(keep n))`` are kept.
    """
    tokens, blocks = mask_BT.shape[1], score_BC.shape[1]
    real_BC = F.pad(mask_BT, (0, blocks * block - tokens)).view(-1, blocks, block).any(-1)
    count_B = (keep * real_BC.sum(1) + 1e-9).floor().clamp(min=1)
    order = score_BC.masked_fill(~real_BC, -torch.inf).argsort(dim=1, descending=True, stable=True)
    chosen_BC = order.argsort(1) < count_B[:, None]
    chosen_BT = chosen_BC.repeat_interleave(block, 1)[:, :tokens] & mask_BT
    place = torch.arange(tokens, device=mask_BT.device).where(chosen_BT, tokens)
    return place.sort(1).values[:, : int(chosen_BT.sum(1).max())]


@method(
    id="lemo",
    kind="objective",
    title="LeMo: fine-tuning with less token involvement",
    paper="arXiv:2501.09767",
    guarantee="approximate",
    baseline="sft_ce",
    identity={"keep": 1.0, "prune_ratio": 0.0, "segment": 1_000_000},
    needs="minutes of training",
    claims=[
        {
            "metric": "memory",
            "value": 1.93,
            "against": "other fine-tuning systems",
            "on": "up to (abstract)",
        },
        {"metric": "speedup", "value": 1.36, "against": "other fine-tuning systems", "on": "up to (abstract)"},
    ],
    details={
        "blocks": "ours: informativeness itself (oracle); the paper's trained predictors are an option",
        "predictors": "reference code: two branches of three layers; neurons that stay inactive are not removed",
        "keep": "reference code: a share of the blocks; the paper tunes a threshold a layer",
        "dense layers": "reference code: 0 to 14 of 32 and the last; here the first half and the last",
        "leakage": "blocks are chosen with later tokens in view; evaluation is dense, so nothing leaks into it",
        "neurons": "reference code: |SiLU(gate)| + |up| over the batch, the largest fifth",
        "loss": "mean over the true number of labels; the release divides by the number of tokens",
        "kernels": "ours: gathered and scattered by torch; the paper has blocks addressed by kernels",
        "quality": "a third party's run: 4 % worse perplexity than plain adapters, at 39 % less memory",
    },
)
class LeMo(FineTuningMethod):
    """Layers after the first half, but the last, attend to a part of the blocks while training."""

    block: int = Field(64, ge=1, description="tokens of a block")
    keep: float = Field(0.5, gt=0, le=1, description="part of the blocks that take part in a sparse layer's attention")
    prune_ratio: float = Field(0.8, ge=0, lt=1, description="part of the neurons the backward leaves out")
    segment: int = Field(2048, ge=1, description="tokens whose logits exist at one time")
    blocks: Literal["oracle", "predictor", "random"] = Field("oracle", description="how; random is the control")
    predictor_steps: int = Field(400, ge=1, description="steps in which predictors are trained, the model frozen")

    def loss(self, model: Any, batch: TextBatch) -> Tensor:
        """In segments, where the batch is longer than one."""
        if self.segment >= batch.ids_BT[:, 1:].numel():
            return super().loss(model, batch)
        return segmented_loss(model, batch, self.segment)

    def schedule(self, layers: int) -> list[float]:
        """The part of the blocks that each layer's attention sees."""
        return [self.keep if layers // 2 <= layer < layers - 1 else 1.0 for layer in range(layers)]

    def get_ready(self, model: Any, rows: Iterator[Batch]) -> None:
        """Predictors of the sparse layers, where blocks are chosen by them."""
        if self.blocks == "predictor":
            layers = model.get_decoder().layers
            sparse = [x.self_attn for x, keep in zip(layers, self.schedule(len(layers)), strict=True) if keep < 1]
            hang_predictors(model, sparse, self.block, islice(rows, self.predictor_steps), self.true_scores)

    @contextmanager
    def training(self, model: Any, batch: TextBatch) -> Iterator[None]:
        """Sparse attention and narrow feed-forward layers, put back on exit."""
        layers, changed = gated_layers(model), {}
        for number, (layer, keep) in enumerate(zip(layers, self.schedule(len(layers)), strict=True)):
            if keep < 1:
                changed[layer.self_attn] = partial(self._attend, layer.self_attn, batch, keep, number)
            if self.prune_ratio > 0:
                changed[layer.mlp] = partial(self._feed, layer.mlp, batch.mask_BT)
        with other_forwards(changed):
            yield

    def _attend(self, attention, batch, keep, number, hidden_states, position_embeddings, **kwargs):  # type: ignore[no-untyped-def]
        score_BC = self.informativeness(attention, hidden_states, batch, number)
        index_BK = kept_tokens(score_BC, batch.mask_BT, self.block, keep)
        forward = partial(type(attention).forward, attention)
        return subset_attention(forward, hidden_states, position_embeddings, index_BK, **kwargs)

    @torch.no_grad()
    def informativeness(self, attention: Any, hidden_BTH: Tensor, batch: TextBatch, number: int) -> Tensor:
        """``I [B, C]`` of a layer's input, or random numbers that follow from the text and the layer."""
        rows, tokens = batch.ids_BT.shape
        if self.blocks == "random":
            seed = int(batch.ids_BT[batch.mask_BT].sum()) * 1000 + number
            blocks = -(-tokens // self.block)
            return torch.rand(rows, blocks, generator=torch.Generator().manual_seed(seed)).to(hidden_BTH.device)
        if self.blocks == "predictor":
            return attention.block_predictor(hidden_BTH, batch.mask_BT).sum(1)
        return self.true_scores(attention, hidden_BTH, batch.mask_BT).sum(1)

    def true_scores(self, attention: Any, hidden_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        """``S [B, C, C]`` of a layer's input."""
        shape = (*mask_BT.shape, -1, attention.head_dim)
        heads = [project(hidden_BTH).view(shape) for project in (attention.q_proj, attention.k_proj)]
        return block_scores(*(x.transpose(1, 2) for x in heads), mask_BT, self.block)

    def _feed(self, mlp: Any, mask_BT: Tensor, x: Tensor) -> Tensor:
        neurons = max(1, int((1 - self.prune_ratio) * mlp.gate_proj.out_features + 1e-9))
        return NarrowMlp.apply(x, mlp, neurons, mask_BT)
