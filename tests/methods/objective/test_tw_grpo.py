"""TW-GRPO: both divergences by loops, the scaling, what ended responses do, and the kind's checks."""

import math
from dataclasses import replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.checking import run_checks
from harness.kinds.objective.checks import loss_and_gradient, moved_logps, random_batch
from harness.kinds.objective.frozen import frozen_stages
from harness.kinds.objective.update import frozen_batch
from methods.objective.tw_grpo import divergence, position_weights

RULES = [(rule, ended) for rule in ("kl", "released") for ended in ("exclude", "uniform")]


def made(text="tw_grpo"):
    return MethodSpec.parse(text).build()


def case(lengths=(6, 4, 4, 2), width=7, symbols=5, seed=0):
    rng = torch.Generator().manual_seed(seed)
    laws = (2 * torch.randn(len(lengths), width, symbols, generator=rng, dtype=torch.float64)).log_softmax(-1)
    return laws, torch.arange(width)[None] < torch.tensor(lengths)[:, None]


def oracle(laws, alive, rule, ended, t):
    """D at one position, by loops."""
    symbols = laws.shape[-1]
    rows = [laws[i, t].tolist() if alive[i, t] else [-math.log(symbols)] * symbols for i in range(len(laws))]
    if ended == "exclude":
        rows = [row for i, row in enumerate(rows) if alive[i, t]]
    if not alive[:, t].any():
        return 0.0
    total = 0.0
    for row in rows:
        for v in range(symbols):
            if rule == "released":
                d = min(max(sum(r[v] for r in rows) / len(rows) - row[v], -11), 11)
                total += math.exp(d) - d - 1
            else:
                mean = sum(math.exp(r[v]) for r in rows) / len(rows)
                total += math.exp(row[v]) * (row[v] - math.log(mean))
    return total / len(rows)


@pytest.mark.parametrize(("rule", "ended"), RULES)
def test_divergence_against_loops(rule, ended):
    laws, alive = case()
    expected = [oracle(laws, alive, rule, ended, t) for t in range(7)]
    assert divergence(laws, alive, rule, ended).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("rule", "ended"), RULES)
def test_weights_reach_both_ends_and_are_one_where_laws_agree(rule, ended):
    laws, alive = case()
    weights = position_weights(laws, alive, 1.7, rule, ended)
    compared = weights[:6]
    assert float(compared.min()) == pytest.approx(1) and (weights >= 1).all()
    assert float(weights.max()) == pytest.approx(1.7, abs=1e-6)
    same = laws[:1].expand_as(laws)
    equal = torch.ones_like(alive)
    assert torch.allclose(position_weights(same, equal, 1.7, rule, ended), torch.ones(7).double(), atol=1e-6)


@pytest.mark.parametrize(("rule", "ended"), RULES)
def test_order_of_the_group_and_longer_padding_change_no_weight(rule, ended):
    laws, alive = case(width=40)
    order = torch.tensor([2, 0, 3, 1])
    weights = position_weights(laws, alive, 1.4, rule, ended)
    torch.testing.assert_close(position_weights(laws[order], alive[order], 1.4, rule, ended), weights)
    short = position_weights(laws[:, :6], alive[:, :6], 1.4, rule, ended)
    torch.testing.assert_close(weights[:6], short)


def test_the_honest_divergence_is_at_most_the_log_of_the_groups_size():
    sure = torch.full((4, 1, 4), -80.0).double()
    sure[torch.arange(4), 0, torch.arange(4)] = 0.0
    found = divergence(sure.log_softmax(-1), torch.ones(4, 1, dtype=torch.bool), "kl", "exclude")
    assert float(found) == pytest.approx(math.log(4))


def test_the_released_rule_weighs_up_the_tails_of_long_responses():
    """Laws that agree as much everywhere; one of eight responses ends halfway."""
    rng = torch.Generator().manual_seed(0)
    common = 4 * torch.randn(20, 200, generator=rng, dtype=torch.float64)
    laws = (common + torch.randn(8, 20, 200, generator=rng, dtype=torch.float64)).log_softmax(-1)
    alive = torch.arange(20)[None] < torch.tensor([20] * 7 + [10])[:, None]
    released, intended = (position_weights(laws, alive, 1.7, "released", ended) for ended in ("uniform", "exclude"))
    assert released[10:].mean() - released[:10].mean() > 0.3
    assert abs(float(intended[10:].mean() - intended[:10].mean())) < 0.3


def test_positions_of_a_single_response_weigh_one():
    laws, alive = case(lengths=(6, 4, 4, 2))
    assert (position_weights(laws, alive, 1.4, "kl", "exclude")[4:] == 1).all()
    assert torch.equal(position_weights(laws[:1], alive[:1], 1.4, "kl", "exclude"), torch.ones(7).double())


@pytest.mark.parametrize("ended", ["exclude", "uniform"])
def test_w_max_one_is_grpo_over_tokens(ended):
    batch = random_batch()
    ours = loss_and_gradient(made(f"tw_grpo@w_max=1@ended={ended}"), batch, moved_logps(batch))
    theirs = loss_and_gradient(made("grpo@aggregation=token"), batch, moved_logps(batch))
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_responses_of_a_group_share_their_weights_and_groups_do_not():
    batch = random_batch()
    batch = replace(batch, response_mask_BT=torch.ones_like(batch.response_mask_BT))
    weight = made().token_weight(batch, None, 0.0)
    for group in range(3):
        rows = weight[batch.group_ids_B == group]
        assert (rows == rows[0]).all() and rows.max() > 1.3
    assert len(weight.unique(dim=0)) == 3


def test_the_shuffled_control_has_the_same_weights_in_other_places():
    batch = random_batch()
    ours, theirs = (made(f"tw_grpo@shuffle={s}").token_weight(batch, None, 0.0) for s in ("false", "true"))
    mask = batch.response_mask_BT
    assert sorted(ours[mask].tolist()) == sorted(theirs[mask].tolist()) and not torch.equal(ours, theirs)


def test_inverted_questions_with_soft_grades_give_part_rewards_and_weights(tiny):
    method = made("tw_grpo@problems=multi_select_inverted_soft")
    frozen = frozen_stages(method, frozen_batch(method, tiny), 0.0)
    grades = set(frozen.batch.rewards_B.tolist())
    assert {0.0, 1.0} < grades and min(grades) == 0 and max(grades) == 1
    assert frozen.adv_BT.any() and (frozen.weight_BT > 1).any()


@pytest.mark.parametrize("spec", ["tw_grpo", "tw_grpo@divergence=released@ended=uniform@shuffle=true"])
def test_checks(tiny, spec):
    assert [f"{r.name}: {r.reason}" for r in run_checks(made(spec), tiny) if not r.passed] == []
