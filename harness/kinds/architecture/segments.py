"""Segments of a text: where they begin, and the tables by which a batch of segmented rows is computed at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SURE = 0.05
"""Below this entropy, in nats, a token joins whatever segment is open."""
FALLING = 0.3
"""Below this part of the segment's highest entropy a token joins it as well."""


def entropies(logits_BTV: Tensor) -> Tensor:
    """Entropy in nats of the law from which each token comes, ``[B, T]``; a row's first token has none and gets 0."""
    logp = logits_BTV[:, :-1].float().log_softmax(-1)
    entropy_BT = -(logp.exp() * logp).sum(-1)
    return torch.cat([entropy_BT.new_zeros(len(entropy_BT), 1), entropy_BT], 1)


def segment_lengths(entropy_T: Sequence[float], longest: int) -> list[int]:
    """Lengths of the segments of one answer, from the entropy of each of its tokens.

    A token joins the open segment where that has fewer than ``longest`` tokens and the token's entropy is below
    :data:`SURE` or below :data:`FALLING` times the highest in the segment; else it begins the next one.
    """
    lengths: list[int] = []
    highest = 0.0
    for entropy in entropy_T:
        if lengths and lengths[-1] < longest and (entropy < SURE or entropy < FALLING * highest):
            lengths[-1] += 1
            highest = max(highest, entropy)
        else:
            lengths.append(1)
            highest = entropy
    return lengths


@dataclass(frozen=True)
class Layout:
    """Rows in slots: a token of a prompt has a slot of its own, the tokens of a segment share one.

    ``slot_BT`` and ``place_BT`` say where each token lies, ``end_BM`` is each slot's last token and with it the slot's
    position, ``size_BM`` its tokens (0: the row has no such slot). ``answer_BT`` marks the tokens that are written by
    segments, ``known_BT`` those of them after which it is known whether the segment ended.
    """

    slot_BT: Tensor
    place_BT: Tensor
    end_BM: Tensor
    size_BM: Tensor
    answer_BT: Tensor
    known_BT: Tensor

    @property
    def last_BT(self) -> Tensor:
        """Whether a token is the last of its slot."""
        return self.place_BT + 1 == self.size_BM.gather(1, self.slot_BT)


def lay_out(prompt_B: Sequence[int], lengths: Sequence[Sequence[int]], width: int, device: torch.device) -> Layout:
    """The layout of rows of ``width`` tokens: a prompt, segments of the given lengths, and padding on the right."""
    first = torch.ones(len(prompt_B), width, dtype=torch.bool)
    total_B = [prompt + sum(row) for prompt, row in zip(prompt_B, lengths, strict=True)]
    for number, (prompt, row) in enumerate(zip(prompt_B, lengths, strict=True)):
        at = prompt
        for length in row:
            first[number, at + 1 : at + length] = False
            at += length
    place = torch.arange(width).expand_as(first)
    slot = first.cumsum(1) - 1
    start = torch.where(first, place, 0).cummax(1).values
    total = torch.tensor(total_B)[:, None]
    real = place < total
    size = torch.zeros(len(prompt_B), int(slot.max()) + 1, dtype=torch.long)
    size.scatter_add_(1, slot, real.long())
    end = (size.cumsum(1) - 1).clamp(min=0)
    answer = real & (place >= torch.tensor(list(prompt_B))[:, None])
    # After the row's last token the text is cut, so nobody knows whether its segment would have gone on.
    known = answer & (place < total - 1)
    return Layout(*(table.to(device) for table in (slot, place - start, end, size, answer, known)))
