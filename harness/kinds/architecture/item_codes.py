"""Items as sequences of codes, told one after the other by beam search: what sets of vectors are held against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import Refused
from harness.kinds.architecture.blocks import Blocks, initial_std

LEVELS = 4
ROUNDS = 20


def nearest(x_ND: Tensor, centre_KD: Tensor) -> Tensor:
    """Index of the nearest centre, ``[N]``."""
    return torch.cdist(x_ND, centre_KD).argmin(1)


def centres(x_ND: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Lloyd's k-means from ``count`` random rows; a centre without rows stays where it is."""
    centre_KD = x_ND[torch.randperm(len(x_ND), generator=generator)[:count]].clone()
    for _ in range(ROUNDS):
        code_N = nearest(x_ND, centre_KD)
        for code in code_N.unique():
            centre_KD[code] = x_ND[code_N == code].mean(0)
    return centre_KD


def residual_codes(features_ID: Tensor, size: int, seed: int = 0) -> Tensor:
    """``[I, 4]``: three levels of k-means on what the levels before left over, then a number among equals.

    Item 0 is padding and has zeros. A :class:`Refused` where more than ``size`` items share three codes.
    """
    generator, rest, levels = torch.Generator().manual_seed(seed), features_ID[1:].clone(), list[Tensor]()
    for _ in range(LEVELS - 1):
        centre_KD = centres(rest, size, generator)
        levels.append(nearest(rest, centre_KD))
        rest = rest - centre_KD[levels[-1]]
    seen: dict[tuple[int, ...], int] = {}
    last = []
    for codes in torch.stack(levels, 1).tolist():
        last.append(seen.get(tuple(codes), 0))
        seen[tuple(codes)] = last[-1] + 1
    if max(last) >= size:
        raise Refused(f"{max(last) + 1} items share their first codes, and there are {size} codes a level; use more")
    codes_I4 = torch.stack([*levels, torch.tensor(last)], 1)
    return torch.cat([torch.zeros(1, LEVELS, dtype=torch.long), codes_I4])


class CodeRecommender(nn.Module):
    """A causal model over the codes of a history, which tells the codes of the next item one a forward."""

    codes_I4: Tensor

    def __init__(self, codes_I4: Tensor, size: int, blocks: Blocks) -> None:
        super().__init__()
        self.size, self.blocks = size, blocks
        self.register_buffer("codes_I4", codes_I4)
        self.embed = nn.Embedding(LEVELS * size, blocks.norm.normalized_shape[0])
        nn.init.normal_(self.embed.weight, std=initial_std(self.embed.embedding_dim))

    def _states(self, codes_BT: Tensor) -> Tensor:
        """``[B, T, D]`` after each code; place t is of level t mod 4."""
        level_T = torch.arange(codes_BT.shape[1], device=codes_BT.device) % LEVELS
        return self.blocks(self.embed(codes_BT + self.size * level_T))  # type: ignore[no-any-return]

    def _logits(self, state: Tensor, level: int) -> Tensor:
        """Logits ``[..., K]`` of the codes of one level."""
        return F.linear(state, self.embed.weight[level * self.size : (level + 1) * self.size])

    def loss(self, history_BL: Tensor, target_B: Tensor) -> Tensor:
        """Mean cross-entropy of the target's four codes."""
        count_B = (history_BL > 0).sum(1)
        rows = torch.arange(len(history_BL), device=history_BL.device)
        whole_BL = F.pad(history_BL, (0, 1)).index_put((rows, count_B), target_B)
        states_BTD = self._states(self.codes_I4[whole_BL].flatten(1))
        told = [
            F.cross_entropy(
                self._logits(states_BTD[rows, count_B * LEVELS - 1 + level], level).float(),
                self.codes_I4[target_B, level],
            )
            for level in range(LEVELS)
        ]
        return torch.stack(told).mean()

    def scores(self, history_BL: Tensor, beam: int) -> Tensor:
        """``[B, I]``: log-probabilities of the items that the beam ends with, -inf for the others; four forwards."""
        batch, count_B = len(history_BL), (history_BL > 0).sum(1)
        prefix_BW = torch.zeros(batch, 1, dtype=torch.long, device=history_BL.device)
        logp_BW = torch.zeros(batch, 1, device=history_BL.device)
        for level in range(LEVELS):
            width = prefix_BW.shape[1]
            state_BWD = self._after(history_BL, count_B, prefix_BW, level)
            grown_BWK = logp_BW[..., None] + self._logits(state_BWD, level).float().log_softmax(-1)
            key_BWK = prefix_BW[..., None] * self.size + torch.arange(self.size, device=history_BL.device)
            grown_BWK = grown_BWK.masked_fill(~self._valid(level)[key_BWK], -torch.inf)
            most = min(beam, width * self.size)
            logp_BW, best = grown_BWK.flatten(1).topk(most, dim=1)
            prefix_BW = key_BWK.flatten(1).gather(1, best)
        scores_BI = logp_BW.new_full((batch, len(self.codes_I4)), -torch.inf)
        return scores_BI.scatter_reduce(1, self._items()[prefix_BW], logp_BW, "amax")

    def _after(self, history_BL: Tensor, count_B: Tensor, prefix_BW: Tensor, level: int) -> Tensor:
        """States ``[B, W, D]`` after each history and the ``level`` codes of each of its prefixes."""
        batch, width = prefix_BW.shape
        power = self.size ** torch.arange(level - 1, -1, -1, device=prefix_BW.device)
        told_BWl = prefix_BW[..., None] // power % self.size
        codes_BT = F.pad(self.codes_I4[history_BL].flatten(1), (0, level))
        codes_BWT = codes_BT[:, None].repeat(1, width, 1)
        place_Bl = count_B[:, None] * LEVELS + torch.arange(level, device=prefix_BW.device)
        codes_BWT = codes_BWT.scatter(2, place_Bl[:, None].expand(-1, width, -1), told_BWl)
        states = self._states(codes_BWT.flatten(0, 1)).view(batch, width, codes_BWT.shape[-1], -1)
        return states[torch.arange(batch, device=prefix_BW.device), :, count_B * LEVELS - 1 + level]

    def _keys(self, level: int) -> Tensor:
        """The codes of every real item up to a level, as one number, ``[I - 1]``."""
        power = self.size ** torch.arange(level, -1, -1, device=self.codes_I4.device)
        return (self.codes_I4[1:, : level + 1] * power).sum(1)

    def _valid(self, level: int) -> Tensor:
        """Whether some item begins with these codes, by their number."""
        valid = torch.zeros(self.size ** (level + 1), dtype=torch.bool, device=self.codes_I4.device)
        valid[self._keys(level)] = True
        return valid

    def _items(self) -> Tensor:
        """The item of each number of four codes; 0 where there is none."""
        items = torch.zeros(self.size**LEVELS, dtype=torch.long, device=self.codes_I4.device)
        items[self._keys(LEVELS - 1)] = torch.arange(1, len(self.codes_I4), device=self.codes_I4.device)
        return items
