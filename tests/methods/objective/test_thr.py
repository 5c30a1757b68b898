"""THR: scores by loops and as a directional derivative, thresholds and signs, NTHR, and the kind's checks."""

from dataclasses import replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.checking import run_checks
from harness.kinds.objective.checks import loss_and_gradient, moved_logps, random_batch, widened
from methods.objective.thr import influence


def made(text="thr"):
    return MethodSpec.parse(text).build()


def group(lengths=(3, 2, 4, 1), symbols=6, states=3, seed=0):
    """Laws of a linear head over frozen states, and responses of one prompt."""
    rng = torch.Generator().manual_seed(seed)
    hidden = torch.randn(len(lengths), max(lengths), states, generator=rng, dtype=torch.float64)
    head = torch.randn(symbols, states, generator=rng, dtype=torch.float64)
    ids = torch.randint(0, symbols, hidden.shape[:2], generator=rng)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return hidden, head, ids, mask, torch.tensor([True, False, True, False])


def laws(hidden, head):
    return (hidden @ head.T).log_softmax(-1)


def test_scores_against_four_loops():
    hidden, head, ids, mask, right = group()
    ids[0] = torch.arange(4)
    ids[1], ids[2] = 3, torch.tensor([4, 5, 0, 1])  # every symbol occurs, so no probability is left out
    logps = laws(hidden, head)
    error = torch.nn.functional.one_hot(ids, 6).double() - logps.exp()
    found = influence(hidden, logps, ids, mask, right)
    tokens = [(i, k) for i in range(4) for k in range(4) if mask[i, k]]
    for j, m in tokens:
        expected = sum(
            float(error[i, k] @ error[j, m]) * float(hidden[i, k] @ hidden[j, m]) / int(mask[i].sum())
            for i, k in tokens
            if right[i]
        )
        assert float(found[j, m]) == pytest.approx(expected, abs=1e-10)


def test_scores_predict_what_a_step_along_grpos_gradient_does_to_the_correct_responses():
    """With a linear head on frozen states, sum |A_j| (weight of j) THR is the derivative along the gradient."""
    hidden, head, ids, mask, right = group()
    ids[0] = torch.arange(4)
    ids[1], ids[2] = 3, torch.tensor([4, 5, 0, 1])
    adv = torch.where(right, 0.8, -0.8).double()
    length = mask.sum(1)

    def of_responses(weights):
        picked = laws(hidden, weights).gather(-1, ids[..., None])[..., 0] * mask
        return picked.sum(1) / length

    at = head.clone().requires_grad_()
    (direction,) = torch.autograd.grad((adv * of_responses(at)).mean(), at)
    step = 1e-5
    up, down = (of_responses(head + sign * step * direction)[right].sum() for sign in (1, -1))
    thr = torch.where(right[:, None], 1.0, -1.0) * influence(hidden, laws(hidden, head), ids, mask, right)
    predicted = ((adv.abs() / length / len(adv))[:, None] * thr * mask).sum()
    torch.testing.assert_close((up - down) / (2 * step), predicted, atol=1e-8, rtol=1e-6)


def test_leaving_out_symbols_that_do_not_occur_keeps_the_order_of_scores():
    hidden, head, ids, mask, right = group((9, 7, 8, 9), symbols=40, states=8)
    logps = laws(hidden, head)
    found = influence(hidden, logps, ids, mask, right)
    error = torch.nn.functional.one_hot(ids, 40).double() - logps.exp()
    moments = torch.einsum("r,rtv,rtd->vd", right / mask.sum(1), error * mask[..., None], hidden)
    whole = ((error @ moments) * hidden).sum(-1)
    assert float(torch.corrcoef(torch.stack([found[mask], whole[mask]]))[0, 1]) > 0.95


def test_a_token_of_a_correct_response_raises_itself():
    hidden, head, ids, _, _ = group()
    one = torch.zeros(4, 4, dtype=torch.bool)
    one[2, 0] = True
    assert float(influence(hidden, laws(hidden, head), ids, one, torch.tensor([False, False, True, False]))[2, 0]) > 0


def test_without_threshold_and_p_it_is_grpo():
    batch = random_batch()
    ours = loss_and_gradient(made("thr@p=0@threshold=all"), batch, moved_logps(batch))
    theirs = loss_and_gradient(made("grpo"), batch, moved_logps(batch))
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_weights_are_zero_or_one_plus_or_minus_p_by_the_signs_of_thr():
    batch = random_batch()
    weight, mask = made("thr@p=0.2").token_weight(batch, None, 0.0), batch.response_mask_BT
    rows = batch.group_ids_B == 1
    right = batch.rewards_B[rows] >= 0.5
    score = influence(batch.hidden_BTD[rows], batch.logps_BTV[rows], batch.response_ids_BT[rows], mask[rows], right)
    tau = max(0.0, min(float(score[i][mask[rows][i]].mean()) for i in right.nonzero()[:, 0]))
    thr = torch.where(right[:, None], score, -score)
    expected = (thr.abs() > tau) * (1 + 0.2 * thr.sign())
    torch.testing.assert_close(weight[rows][mask[rows]], expected[mask[rows]])
    assert {0.8, 1.2} <= {round(float(w), 6) for w in weight[mask]}


def test_a_quantile_drops_so_many_tokens_of_each_mixed_group():
    batch = random_batch(sizes=(4, 5))
    batch = replace(batch, rewards_B=(torch.arange(9) % 2).double())
    weight, mask = made("thr@threshold=quantile@quantile=0.5").token_weight(batch, None, 0.0), batch.response_mask_BT
    for g in (0, 1):
        rows = batch.group_ids_B == g
        kept = (weight[rows][mask[rows]] > 0).double().mean()
        assert 0.4 < float(kept) <= 0.55


def test_groups_with_one_outcome_keep_their_weights():
    batch = random_batch()
    assert (made().token_weight(batch, None, 0.0)[batch.group_ids_B == 2] == 1).all()


def test_nthr_changes_wrong_responses_only_and_by_how_hard_the_prompt_is():
    batch = random_batch(sizes=(4, 5))
    rows, mask = (batch.group_ids_B == 0).nonzero()[:, 0], batch.response_mask_BT
    right = torch.zeros(9, dtype=torch.bool).index_fill(0, rows[:1], True)
    batch = replace(batch, rewards_B=right.double())
    every = made("thr@variant=nthr@threshold=all").token_weight(batch, None, 0.0)
    assert (every[rows[1:]] == 0.5).all() and (every[rows[0]] == 1).all() and (every[batch.group_ids_B == 1] == 1).all()
    one = (batch.hidden_BTD[rows], batch.logps_BTV[rows], batch.response_ids_BT[rows], mask[rows], right[rows])
    score = influence(*one, by_length=False)
    tau = max(0.0, float(score[0][mask[rows[0]]].mean()) * 0.1)
    expected = torch.where(score > tau, 0.5, 1.0)[1:]
    found = made("thr@variant=nthr@tau_scale=0.1").token_weight(batch, None, 0.0)[rows[1:]]
    assert torch.equal(found[mask[rows[1:]]], expected[mask[rows[1:]]].double())


def test_scores_do_not_see_order_or_padding():
    batch = random_batch()
    weight, order = made().token_weight(batch, None, 0.0), torch.randperm(batch.size)
    mask = batch.response_mask_BT
    moved = made().token_weight(batch.rows(order), None, 0.0)
    torch.testing.assert_close(moved[mask[order]], weight[order][mask[order]])
    wide = made().token_weight(widened(batch, 3, 5.0), None, 0.0)[:, :-3]
    torch.testing.assert_close(wide[mask], weight[mask])


def test_the_shuffled_control_gives_other_tokens_the_same_histogram():
    batch = random_batch(sizes=(6, 2), width=12)
    ours, theirs = (made(f"thr@shuffle={s}").token_weight(batch, None, 0.0) for s in ("false", "true"))
    mask = batch.response_mask_BT
    torch.testing.assert_close(ours[mask].sort().values, theirs[mask].sort().values)
    assert not torch.equal(ours[mask], theirs[mask])


@pytest.mark.parametrize("spec", ["thr", "thr@variant=nthr@threshold=quantile@shuffle=true"])
def test_checks(tiny, spec):
    assert [f"{r.name}: {r.reason}" for r in run_checks(made(spec), tiny) if not r.passed] == []
