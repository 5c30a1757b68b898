"""A bandit whose answers can all be listed, so that gradients are exact."""

import itertools
from dataclasses import dataclass, replace

import pytest
import torch

from harness.kinds.objective.checks import random_batch


@dataclass(frozen=True)
class Bandit:
    """A tabular policy over at most ``length`` symbols, of which symbol 0 ends a sequence; rewards are random."""

    length: int = 3
    symbols: int = 4
    seed: int = 0

    def __post_init__(self):
        rng = torch.Generator().manual_seed(self.seed)
        ended = [(*body, 0) for n in range(self.length) for body in itertools.product(range(1, self.symbols), repeat=n)]
        full = list(itertools.product(range(1, self.symbols), repeat=self.length))
        sequences = ended + full
        states = {}
        state = torch.zeros(len(sequences), self.length, dtype=torch.long)
        ids, mask = state.clone(), torch.zeros(len(sequences), self.length, dtype=torch.bool)
        for row, sequence in enumerate(sequences):
            for t, symbol in enumerate(sequence):
                state[row, t] = states.setdefault(sequence[:t], len(states))
                ids[row, t], mask[row, t] = symbol, True
        held = {
            "ids_ST": ids,
            "mask_ST": mask,
            "state_ST": state,
            "table": torch.randn(len(states), self.symbols, generator=rng, dtype=torch.float64),
            "rewards_S": torch.rand(len(sequences), generator=rng, dtype=torch.float64),
        }
        for name, value in held.items():
            object.__setattr__(self, name, value)

    def logps(self, table):
        """Log-probabilities of each symbol of each sequence, 0 after the end."""
        picked = table.log_softmax(-1)[self.state_ST].gather(-1, self.ids_ST[..., None])[..., 0]
        return picked * self.mask_ST

    def batch(self, rows_GN):
        """Groups of these sequences, as a rollout batch at the snapshot."""
        index = rows_GN.flatten()
        groups = torch.arange(len(rows_GN)).repeat_interleave(rows_GN.shape[1])
        old = self.logps(self.table)[index]
        like = random_batch(sizes=(2,))
        return replace(
            like,
            prompt_ids_BP=torch.ones(len(index), 1, dtype=torch.long),
            prompt_mask_BP=torch.ones(len(index), 1, dtype=torch.bool),
            response_ids_BT=self.ids_ST[index],
            response_mask_BT=self.mask_ST[index],
            behavior_logps_BT=old,
            old_logps_BT=old,
            entropy_BT=torch.zeros_like(old),
            rewards_B=self.rewards_S[index],
            group_ids_B=groups,
            finished_B=torch.ones(len(index), dtype=torch.bool),
            hidden_BTD=None,
            logps_BTV=None,
            attention_BNN=None,
            values_BT=None,
        )

    def true_gradient(self):
        """Of the expected reward, by the policy's table."""
        table = self.table.clone().requires_grad_()
        expected = (self.logps(table).sum(1).exp() * self.rewards_S).sum()
        return torch.autograd.grad(expected, table)[0]

    def expected_gradient(self, weight_of, group_size):
        """Mean over all groups of so many sequences of the gradient of ``weight_of(batch) [B, T]`` times log p."""
        size = len(self.rewards_S)
        rows = torch.cartesian_prod(*[torch.arange(size)] * group_size).reshape(-1, group_size)
        weight = weight_of(self.batch(rows))
        chance = self.logps(self.table).sum(1).exp()[rows].prod(1)
        per_sequence = torch.zeros(size, self.length, dtype=torch.float64).index_add(
            0, rows.flatten(), weight * chance.repeat_interleave(group_size)[:, None]
        )
        table = self.table.clone().requires_grad_()
        return torch.autograd.grad((per_sequence * self.logps(table)).sum(), table)[0]


@pytest.fixture(scope="session")
def bandit():
    return Bandit
