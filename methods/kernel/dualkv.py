"""DualKV: the N responses of a group share one copy of their prompt, in training, exactly.

Under causal masking a prompt's hidden states are the same in all N copies, so N(P + R) tokens are repacked into
P + N R. A response token attends to two regions, the shared prompt and its own response so far:

    o = softmax([q K_prompt, q K_own]) [V_prompt, V_own],   rho = N (P + R) / (P + N R)

Each region is one attention call; outputs merge by their log-sum-exp. Backward, each region is differentiated under
the merged softmax, and the prompt's keys and values receive the sum over all responses and the prompt's own queries.
"""

from typing import Literal

import torch
from pydantic import Field
from torch.autograd.function import once_differentiable

from harness.catalog import method
from harness.kinds.kernel import KernelMethod, Layout, PackedGroup, merge_lse, region_backward, region_forward
from harness.kinds.kernel.group_checks import group_checks
from harness.kinds.kernel.group_workloads import attention_workload, policy_update_workload
from harness.kinds.kernel.triton_support import prefers_triton
from harness.kinds.kernel.whole_row import fused_attention, masked_attention


def regions(group: PackedGroup) -> list[tuple[slice, slice, bool]]:
    """``(query places, key places, causal)``: prompt over prompt, and responses over prompt (their own part is extra).

    A single response is an ordinary sequence: one causal region.
    """
    prompt, own = group.prompt_slice, group.response_slice
    if len(group.responses) == 1:
        whole = slice(prompt.start, own.stop)
        return [(whole, whole, True)]
    return [(prompt, prompt, True)] + ([(own, prompt, False)] if group.num_response_tokens else [])


class TwoRegionAttention(torch.autograd.Function):
    """Attention of a packed row ``q [1, H, T, D]``, ``k, v [1, G, T, D]``; returns ``[1, H, T, D]``."""

    @staticmethod
    def forward(ctx, query, key, value, layout: Layout, scale: float):  # type: ignore[no-untyped-def]
        """Prompts causally; responses over their prompt, merged with responses over themselves."""
        out, lse_parts = torch.empty_like(query), []
        for group in layout.groups:
            for rows, seen, causal in regions(group):
                out[:, :, rows], lse = region_forward(
                    query[:, :, rows], key[:, :, seen], value[:, :, seen], causal, scale
                )
                if not causal:
                    own = region_forward(*(group.to_rows(x[:, :, rows]) for x in (query, key, value)), True, scale)
                    out[:, :, rows], lse = merge_lse((out[:, :, rows], lse), tuple(map(group.from_rows, own)))
                lse_parts.append(lse)
        ctx.save_for_backward(query, key, value, out, torch.cat(lse_parts, -1))
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        """The regions' gradients under the merged ``out`` and ``lse``; they add up, in a fixed order."""
        query, key, value, out, lse = ctx.saved_tensors
        totals = tuple(torch.zeros_like(x) for x in (query, key, value))
        for group in ctx.layout.groups:
            for rows, seen, causal in regions(group):
                asking = [x[:, :, rows] for x in (grad, query)]
                done = [x[:, :, rows] for x in (out, lse)]
                parts = region_backward(*asking, key[:, :, seen], value[:, :, seen], *done, causal, ctx.scale)
                for total, place, part in zip(totals, (rows, seen, seen), parts, strict=True):
                    total[:, :, place] += part
                if not causal:
                    own = [group.to_rows(x[:, :, rows]) for x in (grad, query, key, value, out)]
                    own_lse = group.to_rows(done[1], padding=float("inf"))
                    parts = region_backward(*own, own_lse, True, ctx.scale)
                    for total, part in zip(totals, parts, strict=True):
                        total[:, :, rows] += group.from_rows(part)
        return *totals, None, None


PATHS = {"merge": TwoRegionAttention.apply, "mask": masked_attention, "triton": fused_attention}


@method(
    id="dualkv",
    kind="kernel",
    title="DualKV: shared-prompt attention for RL training",
    paper="arXiv:2605.15422",
    guarantee="exact",
    baseline="dualkv",
    claims=[
        {
            "metric": "speedup",
            "value": 1.63,
            "against": "FlashAttention on replicated prompts",
            "on": "policy update, Qwen3-8B GRPO, 32 responses, 8K context, 8 H100 (abstract; up to 2.09)",
        },
        {
            "metric": "speedup",
            "value": 3.82,
            "against": "FlashAttention with 4-way sequence parallelism",
            "on": "policy update, 30B mixture of experts, 16 H100 (abstract)",
        },
        {
            "metric": "speedup",
            "value": 3.74,
            "against": "FlashAttention-2, replicated",
            "on": "forward and backward, 28 responses, prompt of 16384, fp16, one H100 (repository)",
        },
    ],
    details={
        "baseline": "each workload's own reference: the same group, its prompt copied for every response",
        "grouping": "paper; equal prompt ids are compared, the release trusts a group's id",
        "path": "reconstruction: merge is two attention calls, mask is one, triton is one kernel as in the release",
        "backward": "reconstruction: each region's backward under the merged softmax, in a fixed order; no atomics",
        "loss": "on responses only; a loss on prompt tokens would have to be multiplied by N",
        "experts": "routing must not depend on the copy, and balance losses count fewer tokens",
    },
)
class DualKV(KernelMethod):
    """Attention of a group and a whole policy update, replicated against repacked."""

    path: Literal["auto", "merge", "mask", "triton"] = Field("auto", description="auto: triton on CUDA, else merge")

    sizes = tuple(
        {"groups": [(p, [r] * n)], "name": f"p{p}_r{r}_n{n}", "update_only": p > 256}
        for p, r, n in ((256, 32, 8), (256, 32, 1), (1024, 256, 16))
    )
    check_sizes = (
        {"groups": [(7, [5, 1, 0, 3])], "name": "ragged"},
        {"groups": [(17, [9] * 3)], "name": "p17_r9_n3"},
        {"groups": [(5, [3, 0, 1]), (9, [2]), (1, [4, 4])], "name": "three_groups"},
    )

    def attend(self, query, key, value, layout: Layout, scale: float):  # type: ignore[no-untyped-def]
        """Attention of a packed row by the chosen path."""
        best = "triton" if prefers_triton(query.device, query.dtype) else "merge"
        return PATHS[best if self.path == "auto" else self.path](query, key, value, layout, scale)

    def workloads_at(self, subject, size):  # type: ignore[no-untyped-def]
        """Attention of a short single group with the subject's heads, and one policy update of a small Llama."""
        arguments = (subject, self.attend, size["groups"], size["name"], {"path": self.path})
        if len(size["groups"]) == 1 and not size.get("update_only"):
            yield attention_workload(*arguments)
        yield policy_update_workload(*arguments)

    def checks(self, subject):  # type: ignore[no-untyped-def]
        """The kind's, and those of packed groups."""
        yield from super().checks(subject)
        yield from group_checks(subject, self.attend)
