"""Which objectives follow the gradient of the expected reward: every group of every answer of a bandit, enumerated."""

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.objective.frozen import frozen_loss, frozen_stages


def ascent(spec, groups_are_batches=False):
    """What the objective weighs each log-probability with, a group being the whole batch."""
    method = MethodSpec.parse(spec).build()

    def weight_of(batch):
        groups = len(torch.unique(batch.group_ids_B))
        frozen = frozen_stages(method, batch, 0.0)
        if groups_are_batches:
            count = torch.zeros(groups).double().index_add(0, batch.group_ids_B, batch.lengths_B.double())
            return batch.response_mask_BT * frozen.adv_BT / count[batch.group_ids_B][:, None]
        logp = batch.old_logps_BT.clone().requires_grad_()
        return -torch.autograd.grad(frozen_loss(method, frozen, logp), logp)[0] * groups

    return weight_of


def cosine(ours, theirs):
    return float(torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0))


@pytest.mark.parametrize(
    ("spec", "factor"), [("rloo", 1.0), ("reinforce", 1.0), ("dr_grpo@max_new_tokens=5", 2 / 3 / 5)]
)
def test_sums_over_tokens_are_unbiased(bandit, spec, factor):
    case = bandit()
    found = case.expected_gradient(ascent(spec), 3)
    torch.testing.assert_close(found, factor * case.true_gradient(), atol=1e-12, rtol=0)


def test_means_over_tokens_are_biased_in_direction(bandit):
    case = bandit()
    truth = case.true_gradient()
    assert cosine(case.expected_gradient(ascent("rloo"), 3), truth) > 1 - 1e-12
    assert cosine(case.expected_gradient(ascent("rloo@aggregation=seq"), 3), truth) < 0.99
    assert cosine(case.expected_gradient(ascent("rloo", groups_are_batches=True), 3), truth) < 0.9999


def test_the_deviation_of_the_group_biases_grpo(bandit):
    case = bandit()
    assert cosine(case.expected_gradient(ascent("grpo"), 3), case.true_gradient()) < 0.99


def test_the_enumeration_is_complete(bandit):
    case = bandit()
    assert float(case.logps(case.table).sum(1).exp().sum()) == pytest.approx(1, abs=1e-12)
    assert len(case.rewards_S) == 1 + 3 + 9 + 27
