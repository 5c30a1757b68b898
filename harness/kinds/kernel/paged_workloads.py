"""Workloads of decoding from a pool of slots: a step that reads some of them against one that reads all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.kinds.kernel.group_workloads import ATTENTION_ERROR, HeadShape, random_tensor
from harness.kinds.kernel.roofline import ridge_figures
from harness.kinds.method import Workload
from harness.subjects.subject import Subject

Choose = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(query [B, H, D], key [P, G, D], table [B, N]) -> slots [B, K]``; -1 is no slot."""
Attend = Callable[[Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""``(query, key, value [P, G, D], slots, scale) -> (out [B, H, D], lse [B, H])``."""


def gathered_attention(query_BHD: Tensor, key_PGD: Tensor, value_PGD: Tensor, slot_BK: Tensor, scale: float) -> Tensor:
    """The library's attention over a copy of the chosen rows, ``[B, H, D]``."""
    key, value = (x[slot_BK.clamp(min=0)].transpose(1, 2) for x in (key_PGD, value_PGD))
    seen = (slot_BK >= 0)[:, None, None]
    out = F.scaled_dot_product_attention(query_BHD[:, :, None], key, value, seen, scale=scale, enable_gqa=True)
    return out[:, :, 0]


def pool_inputs(subject: Subject, size: Mapping[str, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values and a table of scattered slots, with the subject's heads; later requests are shorter."""
    shape, requests, slots = HeadShape.of(subject), size["requests"], size["slots"]
    query = random_tensor(0, (requests, shape.heads, shape.width), subject)
    key, value = (random_tensor(seed, (requests * slots, shape.groups, shape.width), subject) for seed in (1, 2))
    order = torch.randperm(requests * slots, generator=torch.Generator().manual_seed(3)).view(requests, slots)
    length = slots - torch.arange(requests) * (slots // 8)
    table = order.masked_fill(torch.arange(slots) >= length[:, None], -1)
    return query, key, value, table.to(subject.device)


def paged_workloads(
    subject: Subject, size: Mapping[str, int], choose: Choose, attend: Attend, plain: Callable[..., Tensor]
) -> Iterator[Workload]:
    """The whole step, whose result differs by design, and attention over the chosen slots, which must be exact."""
    shape, element, scale = HeadShape.of(subject), subject.dtype.itemsize, HeadShape.of(subject).width ** -0.5
    row, slots, requests = shape.groups * shape.width * element, size["slots"], size["requests"]
    read = min(slots, size["num_sinks"] + size["window"] + size["topk"])
    each = 2.0 * shape.heads * shape.width * requests
    # Keys are read to be scored, then the chosen ones again with their values.
    flops, moved = each * (slots + 2 * read), float(requests * row * (slots + 2 * read))
    whole = each * 2 * slots, float(requests * row * 2 * slots)
    details = {**size, "slots_read": read, **ridge_figures(flops, moved, *whole)}

    def step() -> Callable[[], Tensor]:
        query, key, value, table = pool_inputs(subject, size)
        return lambda: attend(query, key, value, choose(query, key, table), scale)[0]

    def every_slot() -> Callable[[], Tensor]:
        query, key, value, table = pool_inputs(subject, size)
        return lambda: attend(query, key, value, table, scale)[0]

    def chosen(function: Callable[..., Tensor]) -> Callable[[], Tensor]:
        query, key, value, table = pool_inputs(subject, size)
        slot_BK = choose(query, key, table)
        return lambda: function(query, key, value, slot_BK, scale)

    yield Workload(
        name=f"decode step, {slots} slots",
        make=step,
        reference=every_slot,
        units={"tokens": requests},
        flops=flops,
        bytes_moved=moved,
        details=details,
    )
    yield Workload(
        name=f"attention, {read} of {slots} slots",
        make=lambda: chosen(lambda *inputs: attend(*inputs)[0]),
        reference=lambda: chosen(plain),
        max_error=ATTENTION_ERROR[subject.dtype],
        units={"tokens": requests},
        flops=each * 2 * read,
        bytes_moved=float(requests * row * 2 * read),
        details=details,
    )
