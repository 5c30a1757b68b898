"""FASA: a few rotary frequencies of each head rank the tokens almost as well as the whole head does.

Chunk i of a head is the pair of channels that the rotation turns by one frequency; the logit is the sum over chunks of
alpha_i(t, j) = <q_t[pair i], k_j[pair i]>. Calibration finds the chunks whose own top tokens agree most with those of
the whole logit, CA_i = |TopK(sum alpha) & TopK(alpha_i)| / K; decoding ranks all keys by these chunks alone and reads
the best in full.
"""

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.pruning import QueryView, SelectionMethod, group_queries, logits, packed_keys
from harness.kinds.pruning.calibration import Calibrated
from harness.kinds.pruning.rotary_chunks import chunk_count, pair_channels


def agreement(query_HD: Tensor, keys_HND: Tensor, pairs_P2: Tensor, keep: int) -> Tensor:
    """Contextual agreement of each chunk, ``[H, P]``, for one query and the keys of its heads."""
    parts_HNP = (query_HD[:, None, pairs_P2] * keys_HND[:, :, pairs_P2]).sum(-1)
    best_HK = parts_HNP.sum(-1).topk(keep, -1).indices
    wanted_HN = torch.zeros(parts_HNP.shape[:2], device=parts_HNP.device).scatter_(1, best_HK, 1.0)
    chosen_HKP = parts_HNP.topk(keep, 1).indices
    return wanted_HN[:, :, None].expand_as(parts_HNP).gather(1, chosen_HKP).sum(1) / keep


@method(
    id="fasa",
    kind="pruning",
    title="FASA: frequency-aware sparse attention",
    paper="arXiv:2602.03152",
    guarantee="approximate",
    baseline="kv_full",
    identity={"keep_ratio": 1.0},
    needs="calibration of seconds",
    claims=[
        {
            "metric": "decode speed-up",
            "value": 2.56,
            "against": "full cache",
            "on": "AIME24 with 18.9 % of the cache (abstract)",
        }
    ],
    details={
        "num_chunks": "reference code: a quarter (16 of 64)",
        "pairing": "the model's own pairs; the release takes neighbouring channels of rotate-half tensors ('adjacent')",
        "K of the agreement": "ours: the run's own budget at the calibration length; the release has a list of K",
        "calibration": "ours: stretches of the Python documentation; the release: 8 examples of qasper",
        "dense_layers": "reference code: the first",
        "group": "'sum' is ours: one set a key/value head, by the sum of its heads over shared chunks",
        "packed channels": "ours: the chosen channels of all keys are kept a second time, side by side",
    },
)
class Fasa(Calibrated, SelectionMethod):
    """Score: the logit of the dominant chunks."""

    dense_layers: int = Field(1, ge=0, description="first layers that read everything")
    num_chunks: int = Field(0, ge=0, description="dominant chunks of each head; 0: a quarter of them")
    pairing: Literal["half", "adjacent"] = Field("half", description="channels of a chunk")
    group: Literal["head", "sum"] = Field("head", description="a set for each query head, or for each key/value head")
    chunks: Literal["calibrated", "random"] = Field("calibrated", description="random: the control")

    def check_twin(self):  # type: ignore[no-untyped-def]
        """With random chunks."""
        return replace(self, chunks="random")

    def prepare(self, subject, ctx):  # type: ignore[no-untyped-def]
        """Mean agreement ``[L, H, P]`` over texts and steps."""

        def measure(view: QueryView) -> Tensor:
            keep = int(self.budget(torch.tensor([view.num_slots])))
            keys = view.keys_BGND[0].repeat_interleave(view.per_group, 0).float()
            pairs = pair_channels(keys.shape[-1], self.pairing).to(keys.device)
            return agreement(view.queries_BHTD[0, :, 0].float(), keys, pairs, keep)

        return {"agreement_LHP": self.mean_of(subject, ctx.seed, measure)}

    def count(self, width: int) -> int:
        """Dominant chunks of a head of ``width`` channels."""
        return chunk_count(self.num_chunks, width, self.card.id)

    def channels(self, view: QueryView, artifact: object) -> Tensor:
        """Channels that score, ``[S, 2 C]`` with ``S`` query heads, or key/value heads for ``group`` "sum"."""
        heads, groups, width = view.queries_BHTD.shape[1], view.keys_BGND.shape[1], view.keys_BGND.shape[3]
        if self.chunks == "random":
            generator = torch.Generator().manual_seed(view.layer)
            rank_HP = torch.rand(heads, width // 2, generator=generator)
        else:
            rank_HP = artifact["agreement_LHP"][view.layer]  # type: ignore[index]
        if self.group == "sum":
            rank_HP = rank_HP.view(groups, -1, width // 2).mean(1)
        best = rank_HP.argsort(dim=-1, descending=True, stable=True)[:, : self.count(width)]
        return pair_channels(width, self.pairing)[best].flatten(1).to(view.keys_BGND.device)

    def relevance(self, view: QueryView, artifact: object) -> Tensor:
        """``[B, S, T, N]``: logits of the dominant chunks; with ``group`` "sum" added over a key/value head's heads."""
        if "channels" not in view.scratch:
            view.scratch["channels"] = self.channels(view, artifact)
        channel_SC = view.scratch["channels"]
        queries = group_queries(view).sum(2) if self.group == "sum" else view.queries_BHTD
        wanted = channel_SC[None, :, None].expand(len(queries), -1, queries.shape[2], -1)
        return logits(queries.gather(3, wanted)[:, :, None], packed_keys(view, channel_SC))[:, :, 0]

    def scored(self, view: QueryView) -> float:
        """The packed channels."""
        groups = view.keys_BGND.shape[1]
        sets = groups if self.group == "sum" else view.queries_BHTD.shape[1]
        return sets * self.count(view.keys_BGND.shape[3]) / (groups * view.keys_BGND.shape[3])
