"""Groups of responses to one prompt, packed into one row in which each prompt stands once.

N sequences of P + R tokens become P + N R: ``[prompt, r_1, ..., r_N]`` for each group, groups one after the other, no
padding. Every response continues at position P, so rotary positions are those of the replicated batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PackedGroup:
    """Where one group lies in the packed row: its first place, its prompt's length and its responses' lengths."""

    start: int
    prompt: int
    responses: tuple[int, ...]
    device: torch.device

    @property
    def num_response_tokens(self) -> int:
        """Tokens of all responses."""
        return sum(self.responses)

    @property
    def prompt_slice(self) -> slice:
        """The prompt's places."""
        return slice(self.start, self.start + self.prompt)

    @property
    def response_slice(self) -> slice:
        """The places of all responses, which are contiguous."""
        return slice(self.start + self.prompt, self.start + self.prompt + self.num_response_tokens)

    @property
    def is_even(self) -> bool:
        """Whether all responses have one length."""
        return min(self.responses) == max(self.responses)

    @cached_property
    def valid_NR(self) -> Tensor:
        """True where a response has a token."""
        length_N = torch.tensor(self.responses, device=self.device)
        return torch.arange(max(self.responses), device=self.device) < length_N[:, None]

    @cached_property
    def own_NR(self) -> Tensor:
        """Place of each response token among the group's responses; padding on the right repeats an earlier place."""
        return (self.valid_NR.flatten().cumsum(0).view(self.valid_NR.shape) - 1).clamp(min=0)

    def to_rows(self, own_1HTx: Tensor, padding: float | None = None) -> Tensor:
        """The group's response tokens ``[1, H, T, ...]`` as ``[N, H, R, ...]``.

        Padding repeats some token's values, or is ``padding``.
        """
        if self.is_even:
            heads, _, *rest = own_1HTx.shape[1:]
            return own_1HTx[0].reshape(heads, len(self.responses), -1, *rest).transpose(0, 1)
        rows = own_1HTx[0][:, self.own_NR].transpose(0, 1)
        if padding is None:
            return rows
        outside = ~self.valid_NR[:, None]
        return rows.masked_fill(outside if rows.dim() == 3 else outside[..., None], padding)

    def from_rows(self, x_NHRx: Tensor) -> Tensor:
        """The inverse of :meth:`to_rows`; padding is dropped."""
        heads_first = x_NHRx.transpose(0, 1)
        return (heads_first.flatten(1, 2) if self.is_even else heads_first[:, self.valid_NR])[None]


@dataclass(frozen=True, eq=False)
class Layout:
    """The packed row's geometry and its index tensors, made once a batch and shared by all layers."""

    groups: tuple[PackedGroup, ...]
    device: torch.device

    @classmethod
    def of(cls, lengths: Iterable[tuple[int, Sequence[int]]], device: torch.device) -> Layout:
        """From ``(prompt length, response lengths)`` of each group. An empty prompt is a ValueError."""
        groups, start = [], 0
        for prompt, responses in lengths:
            if prompt < 1 or not responses or min(responses) < 0:
                raise ValueError(f"a group needs a prompt of 1 token or more and a response; got {prompt}, {responses}")
            groups.append(PackedGroup(start, prompt, tuple(responses), device))
            start += prompt + sum(responses)
        return cls(tuple(groups), device)

    @property
    def responses(self) -> list[tuple[int, int, int]]:
        """``(first place, length, place of the group's last prompt token)`` of each response, in order."""
        found = []
        for group in self.groups:
            place = group.start + group.prompt
            for length in group.responses:
                found.append((place, length, group.start + group.prompt - 1))
                place += length
        return found

    @property
    def num_tokens(self) -> int:
        """Tokens of the packed row: sum of P + sum of R_i."""
        return sum(g.prompt + g.num_response_tokens for g in self.groups)

    @property
    def num_replicated(self) -> int:
        """Tokens of the replicated sequences, padding not counted."""
        return sum(len(g.responses) * g.prompt + g.num_response_tokens for g in self.groups)

    @property
    def num_response_tokens(self) -> int:
        """Tokens that carry loss."""
        return sum(g.num_response_tokens for g in self.groups)

    @property
    def rho(self) -> float:
        """Token work of replication over that of packing; N(P+R)/(P+NR) for one group of equal lengths."""
        return self.num_replicated / self.num_tokens

    @property
    def num_logits(self) -> int:
        """Query-key pairs of the packed row under causality: P(P+1)/2 + sum of R_i P + R_i(R_i+1)/2."""
        own = sum(r * g.prompt + r * (r + 1) // 2 for g in self.groups for r in g.responses)
        return own + sum(g.prompt * (g.prompt + 1) // 2 for g in self.groups)

    @property
    def num_logits_replicated(self) -> int:
        """Query-key pairs of the replicated sequences under causality."""
        return sum((g.prompt + r) * (g.prompt + r + 1) // 2 for g in self.groups for r in g.responses)

    @cached_property
    def position_T(self) -> Tensor:
        """Position of each packed token in its own sequence; restarts at P for every response."""
        runs = []
        for group in self.groups:
            runs.append(torch.arange(group.prompt))
            runs += [torch.arange(group.prompt, group.prompt + length) for length in group.responses]
        return torch.cat(runs).to(self.device)

    @cached_property
    def own_SR(self) -> Tensor:
        """Place of each response token, ``[S, R]``, padded on the right with the response's first place."""
        width = max(length for _, length, _ in self.responses)
        first_S = torch.tensor([min(first, self.num_tokens - 1) for first, _, _ in self.responses], device=self.device)
        return torch.where(self.valid_SR, first_S[:, None] + torch.arange(width, device=self.device), first_S[:, None])

    @cached_property
    def valid_SR(self) -> Tensor:
        """True where a response has a token."""
        length_S = torch.tensor([length for _, length, _ in self.responses], device=self.device)
        return torch.arange(int(length_S.max()), device=self.device) < length_S[:, None]

    @cached_property
    def replica_SL(self) -> Tensor:
        """Packed places of each response's whole sequence, prompt first, ``[S, L]``, padded on the right with 0."""
        rows = []
        for group in self.groups:
            prompt = torch.arange(group.start, group.start + group.prompt)
            place = group.start + group.prompt
            for length in group.responses:
                rows.append(torch.cat([prompt, torch.arange(place, place + length)]))
                place += length
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device)

    @cached_property
    def predictor_SR(self) -> Tensor:
        """Place whose logits predict each response token: the last prompt token for the first of every response.

        Rows at a response's end predict across a border and appear nowhere; padding points at the last prompt token.
        """
        last_S1 = torch.tensor([last for _, _, last in self.responses], device=self.device)[:, None]
        shifted = torch.cat([last_S1, self.own_SR[:, :-1]], 1)[:, : self.own_SR.shape[1]]
        return torch.where(self.valid_SR, shifted, last_S1)

    @cached_property
    def segment_S6(self) -> Tensor:
        """Prompts and responses, each with ``(place, length)`` of itself, of the keys it reads besides itself (its
        prompt) and of the queries that read it besides itself (its responses); length 0 where there are none."""
        rows = []
        for group in self.groups:
            prompt, own = (group.start, group.prompt), (group.response_slice.start, group.num_response_tokens)
            rows.append((*prompt, 0, 0, *own))
            place = own[0]
            for length in group.responses:
                rows.append((place, length, *prompt, 0, 0))
                place += length
        return torch.tensor(rows, device=self.device)

    @cached_property
    def mask_TT(self) -> Tensor:
        """The block mask, True where the row attends to the column: own prompt and own response, never later."""
        group_T, segment_T = self._labels
        place_T = torch.arange(self.num_tokens, device=self.device)
        visible = (segment_T[None] == segment_T[:, None]) | (segment_T < 0)[None]
        return visible & (group_T[None] == group_T[:, None]) & (place_T[None] <= place_T[:, None])

    @property
    def _labels(self) -> tuple[Tensor, Tensor]:
        """Group of each token, and its response's number (-1 in prompts)."""
        group_T = torch.empty(self.num_tokens, dtype=torch.long, device=self.device)
        segment_T = torch.full_like(group_T, -1)
        for number, group in enumerate(self.groups):
            group_T[group.start : group.response_slice.stop] = number
        for number, (first, length, _) in enumerate(self.responses):
            segment_T[first : first + length] = number
        return group_T, segment_T


@dataclass(frozen=True, eq=False)
class GroupBatch:
    """Packed ids with their layout, and the response tokens ``[S, R]`` in the order of the sequences."""

    ids_T: Tensor
    layout: Layout

    @property
    def target_SR(self) -> Tensor:
        """Response tokens; what stands in padded places means nothing."""
        return self.ids_T[self.layout.own_SR]

    def replicated(self) -> Tensor:
        """The batch a plain trainer forwards: ``[S, L]``, padded on the right; the padding's ids mean nothing."""
        return self.ids_T[self.layout.replica_SL]


def pack_groups(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], device: torch.device
) -> GroupBatch:
    """Pack sequences ``prompts[i] + responses[i]``; consecutive sequences with equal prompt ids form a group."""
    groups: list[tuple[Sequence[int], list[Sequence[int]]]] = []
    for prompt, response in zip(prompts, responses, strict=True):
        if not groups or list(groups[-1][0]) != list(prompt):
            groups.append((prompt, []))
        groups[-1][1].append(response)
    layout = Layout.of(((len(prompt), [len(r) for r in members]) for prompt, members in groups), device)
    ids = [token for prompt, members in groups for part in (prompt, *members) for token in part]
    return GroupBatch(torch.tensor(ids, device=device), layout)


def split_packed(x_1HTD: Tensor, group: PackedGroup) -> list[Tensor]:
    """A packed row of one group as its prompt ``[H, P, D]`` and its responses ``[H, R_i, D]``."""
    start, stop = group.start, group.response_slice.stop
    return list(x_1HTD[0, :, start:stop].split([group.prompt, *group.responses], dim=1))


def split_replicated(x_SHLD: Tensor, group: PackedGroup, sum_prompt: bool) -> list[Tensor]:
    """The same of a replicated batch ``[S, H, L, D]``, whose padding is dropped.

    The prompt is the first copy's, or the sum over copies (for gradients).
    """
    prompt = x_SHLD[:, :, : group.prompt].sum(0) if sum_prompt else x_SHLD[0, :, : group.prompt]
    own = [x_SHLD[i, :, group.prompt : group.prompt + length] for i, length in enumerate(group.responses)]
    return [prompt, *own]
