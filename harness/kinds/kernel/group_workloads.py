"""Workloads of kernels that serve groups of responses to one prompt: replicated against packed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.kinds.kernel.packed_model import Attend, packed_logprobs, replicated_logprobs, small_model
from harness.kinds.kernel.packing import GroupBatch, Layout, split_packed, split_replicated
from harness.kinds.method import Workload
from harness.subjects.subject import Subject

Lengths = Sequence[tuple[int, Sequence[int]]]
"""``(prompt length, response lengths)`` of each group."""

ATTENTION_ERROR = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}
UPDATE_ERROR = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""Bounds of the relative error by dtype. Whole models compute norms and rotary tables in float32 whatever their dtype,
and add gradients of the shared prompt in another order."""


def work_of(layout: Layout) -> dict[str, float]:
    """What packing saves: tokens, query-key pairs and their ratios, replicated over packed."""
    return {
        "rho": layout.rho,
        "tokens_packed": layout.num_tokens,
        "tokens_replicated": layout.num_replicated,
        "logits_packed": layout.num_logits,
        "logits_replicated": layout.num_logits_replicated,
        "logit_ratio": layout.num_logits_replicated / layout.num_logits,
    }


def random_tensor(seed: int, shape: Sequence[int], subject: Subject) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return made.to(device=subject.device, dtype=subject.dtype)


@dataclass(frozen=True)
class HeadShape:
    """Attention heads of a model."""

    heads: int
    groups: int
    width: int

    @classmethod
    def of(cls, subject: Subject) -> HeadShape:
        """The subject's own."""
        config = subject.model.config.get_text_config()
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        return cls(heads, getattr(config, "num_key_value_heads", None) or heads, width)

    def inputs(self, subject: Subject, tokens: int) -> list[Tensor]:
        """Random ``query [1,H,T,D]``, ``key, value [1,G,T,D]`` and output gradient, the same at every call."""
        heads = (self.heads, self.groups, self.groups, self.heads)
        return [random_tensor(seed, (1, h, tokens, self.width), subject) for seed, h in enumerate(heads)]

    def flops(self, layout: Layout) -> float:
        """Two products forward and five backward (the logits are made anew) for each query-key pair."""
        return 14.0 * layout.num_logits * self.heads * self.width

    def bytes_moved(self, layout: Layout, element: int) -> float:
        """q, k, v in, o out; then q, k, v, o, dO in and dq, dk, dv out: each once."""
        return float(layout.num_tokens * self.width * (6 * self.heads + 6 * self.groups) * element)


def forward_backward(attention: Callable[[Tensor, Tensor, Tensor], Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Output of an attention and its gradients, given query, key, value and the output's gradient."""
    query, key, value = (x.detach().requires_grad_() for x in inputs[:3])
    with torch.enable_grad():
        out = attention(query, key, value)
    return [out.detach(), *torch.autograd.grad(out, (query, key, value), inputs[3])]


def replicate_group(inputs: Sequence[Tensor], layout: Layout) -> list[Tensor]:
    """Packed inputs ``[1, H, T, D]`` of one group as those of the replicated batch, ``[S, H, L, D]``.

    In the output's gradient, the prompt's rows count in one copy only and padding counts nowhere, so that gradients
    summed over copies are the packed row's.
    """
    copies = [x[0][:, layout.replica_SL].transpose(0, 1).contiguous() for x in inputs]
    group, grad = layout.groups[0], copies[3]
    grad[1:, :, : group.prompt] = 0.0
    for row, length in enumerate(group.responses):
        grad[row, :, group.prompt + length :] = 0.0
    return copies


def attention_workload(
    subject: Subject, attend: Attend, lengths: Lengths, name: str, details: Mapping[str, Any]
) -> Workload:
    """Attention of one group, forward and backward, with the subject's heads.

    Both sides return the output and the gradients of query, key and value, prompt first, then the responses; the
    prompt's gradients of the replicated side are summed over its copies.
    """
    layout, shape = Layout.of(lengths, subject.device), HeadShape.of(subject)
    assert len(layout.groups) == 1
    group, scale = layout.groups[0], shape.width**-0.5

    def packed() -> Callable[[], list[Tensor]]:
        inputs = shape.inputs(subject, layout.num_tokens)

        def run() -> list[Tensor]:
            found = forward_backward(lambda q, k, v: attend(q, k, v, layout, scale), inputs)
            return [part for x in found for part in split_packed(x, group)]

        return run

    def replicated() -> Callable[[], list[Tensor]]:
        inputs = replicate_group(shape.inputs(subject, layout.num_tokens), layout)
        attention = functools.partial(F.scaled_dot_product_attention, is_causal=True, scale=scale, enable_gqa=True)

        def run() -> list[Tensor]:
            found = forward_backward(attention, inputs)
            return [part for i, x in enumerate(found) for part in split_replicated(x, group, sum_prompt=i > 0)]

        return run

    return Workload(
        name=f"attention_{name}",
        make=packed,
        reference=replicated,
        max_error=ATTENTION_ERROR[subject.dtype],
        units={"tokens": layout.num_response_tokens},
        flops=shape.flops(layout),
        bytes_moved=shape.bytes_moved(layout, subject.dtype.itemsize),
        details={**details, **work_of(layout)},
    )


def policy_loss(logp_SR: Tensor, advantage_S: Tensor, valid_SR: Tensor) -> Tensor:
    """On-policy GRPO loss: minus the sum over response tokens of ratio times advantage, the ratio being 1.

    A trainer divides by the step's token count at the end; before that, float16 gradients would vanish.
    """
    ratio_SR = torch.exp(logp_SR - logp_SR.detach())
    return -(ratio_SR * advantage_S[:, None] * valid_SR).sum()


def policy_update_workload(
    subject: Subject, attend: Attend, lengths: Lengths, name: str, details: Mapping[str, Any]
) -> Workload:
    """Log-probabilities, policy loss and all parameter gradients of a small Llama; its weights do not change.

    Both sides return the log-probabilities ``[S, R]``, the loss and the gradients in the order of the parameters.
    """
    layout = Layout.of(lengths, subject.device)

    def side(logprobs: Callable[[Any, GroupBatch], Tensor]) -> Callable[[], list[Tensor]]:
        model = small_model(subject)
        seeds = torch.Generator().manual_seed(1)
        ids_T = torch.randint(model.config.vocab_size, (layout.num_tokens,), generator=seeds).to(subject.device)
        advantage_S = random_tensor(2, (len(layout.responses),), subject)
        batch, weights = GroupBatch(ids_T, layout), list(model.parameters())

        def run() -> list[Tensor]:
            with torch.enable_grad():
                logp_SR = logprobs(model, batch)
                loss = policy_loss(logp_SR, advantage_S, layout.valid_SR)
            return [logp_SR.detach(), loss.detach(), *torch.autograd.grad(loss, weights)]

        return run

    return Workload(
        name=f"policy_update_{name}",
        make=lambda: side(lambda model, batch: packed_logprobs(model, batch, attend)),
        reference=lambda: side(replicated_logprobs),
        max_error=UPDATE_ERROR[subject.dtype],
        units={"tokens": layout.num_response_tokens},
        details={**details, **work_of(layout)},
    )
