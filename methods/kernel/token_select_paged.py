"""TokenSelect's kernels: score single slots of a paged cache, let the heads vote, and attend to the winners.

s_hj = q_h k_j over the slots between the first ``num_sinks`` and the last ``window`` of a request; the votes are
c_j = sum_h softmax_j(s_h); the ``topk`` highest are read with sinks and window. Keys and values lie anywhere in a pool
that requests share: a table gives each request's slots in the order of its text, -1 after the last.
"""

from collections.abc import Iterator, Mapping

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.kernel import KernelMethod
from harness.kinds.kernel.paged import paged_attention, paged_scores
from harness.kinds.kernel.paged_workloads import gathered_attention, paged_workloads


def soft_vote(logits_BHN: Tensor) -> Tensor:
    """Votes ``[B, N]``: each head spreads one vote over its slots; none where a request has no slots."""
    return logits_BHN.softmax(-1).nan_to_num(0.0).sum(1)


def slots_to_read(
    query_BHD: Tensor, key_PGD: Tensor, table_BN: Tensor, num_sinks: int, window: int, topk: int
) -> Tensor:
    """Slots ``[B, num_sinks + topk + window]`` of the pool, each once; -1 where a request has fewer."""
    place = torch.arange(table_BN.shape[1], device=table_BN.device)
    length_B1 = (table_BN >= 0).sum(1, keepdim=True)
    start_B1 = (length_B1 - window).clamp(min=num_sinks)
    middle_BN = (place >= num_sinks) & (place < start_B1)
    votes_BN = soft_vote(paged_scores(query_BHD, key_PGD, table_BN.masked_fill(~middle_BN, -1)))
    best = votes_BN.masked_fill(~middle_BN, -1.0).topk(min(topk, len(place)))
    found = table_BN.gather(1, best.indices).masked_fill(best.values < 0, -1)
    ends_BN = (place < num_sinks) | (place >= start_B1)
    order = ends_BN.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, : num_sinks + window]
    ends = table_BN.gather(1, order).masked_fill(~ends_BN.gather(1, order), -1)
    return torch.cat([ends, found], 1)


@method(
    id="token_select_paged",
    kind="kernel",
    title="TokenSelect's paged selection and attention",
    paper="arXiv:2411.02886",
    guarantee="approximate",
    baseline="token_select_paged",
    identity={"topk": 1_000_000},
    claims=[
        {
            "metric": "speedup",
            "value": 23.84,
            "against": "full attention",
            "on": "attention alone, long contexts, one GPU (abstract: 'up to 23.84x')",
        }
    ],
    details={
        "num_sinks, window, topk": "reference code: 128, 512 and 2048",
        "query head to key/value head": "by division; the released kernel takes the remainder, which is wrong",
        "reads": "each key/value head once for its group; the released kernel reads it anew for every query head",
        "scale": "reference code: none before the vote",
        "Triton": "on CUDA; elsewhere rows are gathered by torch, which copies them",
    },
)
class TokenSelectPaged(KernelMethod):
    """A decode step of one layer over a pool, against reading every slot; and attention over given slots alone."""

    num_sinks: int = Field(128, ge=0, description="first slots of a request that are always read")
    window: int = Field(512, ge=1, description="last slots that are always read")
    topk: int = Field(2048, ge=1, description="slots in between that are read")

    sizes = tuple({"slots": slots, "requests": 2} for slots in (8192, 32768))
    check_sizes = (
        {"slots": 50, "requests": 3, "num_sinks": 2, "window": 4, "topk": 7},
        {"slots": 9, "requests": 2, "num_sinks": 4, "window": 8, "topk": 3},
    )

    def workloads_at(self, subject, size: Mapping[str, int]) -> Iterator:  # type: ignore[no-untyped-def,type-arg]
        """The whole step, and its attention."""
        counts = {name: size.get(name, getattr(self, name)) for name in ("num_sinks", "window", "topk")}

        def choose(query_BHD: Tensor, key_PGD: Tensor, table_BN: Tensor) -> Tensor:
            return slots_to_read(query_BHD, key_PGD, table_BN, **counts)

        yield from paged_workloads(subject, {**size, **counts}, choose, paged_attention, gathered_attention)
