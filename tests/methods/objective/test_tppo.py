"""T-PPO: EGAE's identities, windows that cover each token once, its reduction to PPO, and the kind's checks."""

import itertools
from dataclasses import replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.errors import Refused
from harness.kinds.checking import run_checks
from harness.kinds.method import PrepareContext
from harness.kinds.objective.checks import HashTask, loss_and_gradient, moved_logps, random_batch
from harness.kinds.objective.gae import gae
from harness.kinds.objective.loop import describe
from harness.kinds.objective.samplers import GroupSampler, with_old_policy

SMALL = "@updates=3@prompts_per_update=2@group_size=3@max_new_tokens=6"


def made(text="tppo"):
    method = MethodSpec.parse(text).build()
    object.__setattr__(method, "task", HashTask)
    return method


def unfinished(batch, done):
    return replace(batch, done_B=done, rewards_B=torch.where(done, batch.rewards_B, torch.zeros_like(batch.rewards_B)))


def test_a_response_that_goes_on_ends_in_its_last_value():
    batch = random_batch()
    batch = unfinished(batch, torch.zeros(batch.size, dtype=torch.bool))
    found, _ = made("tppo@lam=1").estimates(batch)
    for i, n in enumerate(batch.lengths_B.tolist()):
        value = batch.values_BT[i]
        assert float(found[i, n - 1]) == 0
        torch.testing.assert_close(found[i, :n], value[n - 1] - value[:n])
    zero, _ = gae(torch.zeros_like(found), batch.values_BT, batch.response_mask_BT, 1.0, 1.0, "zero")
    assert float(zero[0, int(batch.lengths_B[0]) - 1]) == -float(batch.values_BT[0, int(batch.lengths_B[0]) - 1])


def test_done_responses_have_ordinary_gae():
    batch = random_batch()
    done = torch.arange(batch.size) % 2 == 0
    mixed, _ = made().estimates(unfinished(batch, done))
    plain, _ = made("ppo_gae").estimates(batch)
    torch.testing.assert_close(mixed[done], plain[done])
    assert not torch.allclose(mixed[~done], plain[~done])


def test_with_perfect_values_only_the_missing_last_error_is_biased(bandit):
    """Over all continuations of a first symbol, EGAE and that error sum to the advantage of the symbol."""
    case, cut, lam = bandit(length=6, symbols=3), 3, 0.7
    chance = case.logps(case.table).sum(1).exp()
    value = {}
    for state in range(len(case.table)):
        through = (case.state_ST == state) & case.mask_ST
        value[state] = float((chance * case.rewards_S)[through.any(1)].sum() / chance[through.any(1)].sum())
    lengths = case.mask_ST.sum(1)
    goes_on = lengths > cut
    mask = case.mask_ST[:, :cut]
    values = torch.tensor([[value[int(s)] for s in row] for row in case.state_ST])
    batch = replace(
        case.batch(torch.arange(len(chance))[:, None]),
        response_mask_BT=mask,
        values_BT=values[:, :cut].double() * mask,
        rewards_B=torch.where(goes_on, torch.zeros_like(case.rewards_S), case.rewards_S),
        done_B=~goes_on,
    )
    found, _ = made(f"tppo@lam={lam}").estimates(replace(batch, response_mask_BT=mask))
    missing = torch.where(goes_on, values[:, cut] - values[:, cut - 1], torch.zeros(len(chance))).double()
    whole = found[:, 0] + lam ** (cut - 1) * missing
    for symbol in range(3):
        rows = case.ids_ST[:, 0] == symbol
        mean = float((chance * whole)[rows].sum() / chance[rows].sum())
        truth = float((chance * case.rewards_S)[rows].sum() / chance[rows].sum()) - value[int(case.state_ST[0, 0])]
        assert mean == pytest.approx(truth, abs=1e-6)


def windows(tiny, window, steps=6):
    method = made(f"tppo{SMALL}@window={window}")
    sampler, previous, found = method.sampler(tiny, 3), None, []
    for step in range(steps):
        batch, generated = sampler.sample(step, previous)
        previous = with_old_policy(batch, tiny.model, method, method.critic(tiny))
        found.append((previous, generated))
    return found


def test_every_token_is_new_once_and_unfinished_responses_go_on(tiny):
    found = windows(tiny, 2)
    for (batch, generated), (after, _) in itertools.pairwise(found):
        assert generated == int(batch.new_BT.sum()) and batch.size == 6
        going = batch.rows((~batch.over_B).nonzero()[:, 0])
        assert not going.rewards_B.any() and (going.lengths_B < 6).all()
        if going.size == 0:
            continue
        width = going.response_ids_BT.shape[1]
        same = going.response_mask_BT
        assert torch.equal(after.response_ids_BT[: going.size, :width][same], going.response_ids_BT[same])
        assert torch.equal(after.behavior_logps_BT[: going.size, :width][same], going.behavior_logps_BT[same])
        assert torch.equal(after.group_ids_B[: going.size], going.group_ids_B)
        assert torch.equal((after.response_mask_BT & ~after.new_BT).sum(1)[: going.size], going.lengths_B)
        assert after.new_BT[going.size :].equal(after.response_mask_BT[going.size :])
        for row, n in zip(after.prompt_ids_BP[: going.size], after.prompt_mask_BP[: going.size], strict=True):
            assert row[n].tolist() in [
                r[m].tolist() for r, m in zip(going.prompt_ids_BP, going.prompt_mask_BP, strict=True)
            ]
    assert any((~b.over_B).any() for b, _ in found) and any(b.over_B.any() for b, _ in found)


def test_tokens_that_were_prefilled_again_have_the_probabilities_they_were_drawn_with(tiny):
    for batch, _ in windows(tiny, 3):
        mask = batch.response_mask_BT
        torch.testing.assert_close(batch.old_logps_BT[mask], batch.behavior_logps_BT[mask], atol=1e-4, rtol=1e-4)


def test_a_window_as_long_as_responses_is_ppo(tiny):
    method = made(f"tppo{SMALL}@window=9@value_warmup=0")
    ours, count = method.sampler(tiny, 3).sample(2, None)
    theirs, other = GroupSampler(method, tiny, 3).sample(2, None)
    mask = theirs.response_mask_BT
    assert count == other and torch.equal(ours.response_mask_BT, mask) and ours.over_B.all()
    assert torch.equal(ours.response_ids_BT, theirs.response_ids_BT)
    assert torch.equal(ours.rewards_B, theirs.rewards_B) and torch.equal(ours.prompt_ids_BP, theirs.prompt_ids_BP)
    batch = random_batch()
    whole = replace(batch, fresh_BT=torch.ones_like(batch.response_mask_BT), done_B=torch.ones_like(batch.finished_B))
    ppo = made("ppo_gae@lam=1")
    one, two = (loss_and_gradient(replace(m, lam=1.0), b, moved_logps(b)) for m, b in ((method, whole), (ppo, batch)))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    now = batch.values_BT + 0.1
    assert torch.equal(method.value_loss(now, whole), ppo.value_loss(now, batch))


def test_only_new_tokens_are_trained_and_only_done_responses_teach_the_critic():
    batch = random_batch(sizes=(6, 6))
    done = torch.arange(12) % 3 == 0
    fresh = torch.arange(7)[None] >= torch.arange(12)[:, None] % 4
    batch = replace(unfinished(batch, done), fresh_BT=fresh)
    _, gradient = loss_and_gradient(made(), batch, moved_logps(batch))
    assert not gradient[~batch.new_BT].any() and gradient[batch.new_BT].any()
    now = (batch.values_BT + 0.05).requires_grad_()
    (values,) = torch.autograd.grad(made().value_loss(now, batch), now)
    assert values[done][batch.response_mask_BT[done]].all() and not values[~done].any()
    nothing = replace(batch, done_B=torch.zeros_like(done))
    assert float(made().value_loss(now, nothing).detach()) == 0


def test_the_policy_rests_in_the_warm_up(tiny, tmp_path):
    method = made(f"tppo{SMALL}@value_warmup=0.9@window=3")
    state = method.prepare(tiny, PrepareContext(0, tmp_path, None, None))["state"]
    assert all(torch.equal(value, tiny.model.state_dict()[name]) for name, value in state.items())


def test_the_audit_is_of_the_policy_after_the_warm_up(tiny):
    _, probe = made("tppo").probes()
    figures = {m.metric: m.value for m in probe.measure(tiny)}
    assert figures["effective_tokens"] > 0 and 0 < figures["positive_gradient_share"] < 1


def test_slots_are_used_better_in_short_windows(tiny):
    mean = {}
    for window in (1, 6):
        used = [describe(batch)["slot_utilisation"] for batch, _ in windows(tiny, window)]
        mean[window] = sum(used) / len(used)
    assert mean[1] == 1.0 > mean[6]


def test_a_window_that_does_not_divide_the_length_is_refused(tiny):
    with pytest.raises(Refused, match="do not divide"):
        made("tppo@max_new_tokens=10@window=4").sampler(tiny, 0)


@pytest.mark.parametrize("spec", ["tppo", "tppo@window=3@detach_critic=false@aggregation=seq@value_warmup=0"])
def test_checks(tiny, spec):
    assert [f"{r.name}: {r.reason}" for r in run_checks(MethodSpec.parse(spec).build(), tiny) if not r.passed] == []
