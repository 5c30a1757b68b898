"""Taking tokens out of attention, the rankings that say which, and the probe's figures."""

from dataclasses import replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.objective.answer_masking import (
    AnswerMasking,
    prediction,
    predictors,
    reasoning_mask,
    received,
    rollout,
    saliency,
)
from harness.kinds.objective.rollouts import forward_responses, written_batch
from harness.kinds.objective.samplers import attention_by_layer, attention_maps, with_old_policy
from harness.toolkit.verifiable import verifiable_task
from methods.objective.flowtracer import answer_mask


@pytest.fixture(scope="module")
def written(tiny):
    """Written sums with prompts of several lengths, read by a random model."""
    batch = written_batch(tiny, verifiable_task("sums"), 4, 2, 3)
    return with_old_policy(batch, tiny.model, MethodSpec.parse("flowtracer").build())


def last_token(batch):
    return answer_mask(batch.response_mask_BT, batch.finished_B, 1)


def test_what_may_be_taken_lies_before_the_token_that_predicts_the_answer():
    mask = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    answer = torch.tensor([[0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0], [0] * 6]).bool()
    assert predictors(answer).tolist() == [[False, False, True, *[False] * 3], *[[False] * 6] * 2]
    assert reasoning_mask(mask, answer).tolist() == [[True, True, *[False] * 4], *[[False] * 6] * 2]


@torch.no_grad()
def test_with_nothing_hidden_the_prediction_is_the_models(tiny, written):
    found = prediction(tiny.model, written, torch.zeros_like(written.response_mask_BT))
    mask = written.response_mask_BT
    torch.testing.assert_close(found[mask], forward_responses(tiny.model, written, 1.0)[0][mask])


@torch.no_grad()
def test_nothing_later_depends_on_a_hidden_token_and_it_keeps_its_place(tiny, written):
    hidden = torch.zeros_like(written.response_mask_BT)
    hidden[:, 1] = True
    other = replace(written, response_ids_BT=written.response_ids_BT.index_fill(1, torch.tensor([1]), 65))
    ours, theirs = (prediction(tiny.model, batch, hidden) for batch in (written, other))
    long = written.lengths_B > 4
    torch.testing.assert_close(ours[long, 3:5], theirs[long, 3:5])
    plain = prediction(tiny.model, written, torch.zeros_like(hidden))
    torch.testing.assert_close(ours[:, :2], plain[:, :2])
    assert long.any() and not torch.allclose(ours[long, 3:5], plain[long, 3:5])


def test_received_attention_is_that_of_later_real_tokens():
    maps = torch.rand(2, 6, 6)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]).bool()
    found = received(maps, mask)
    assert found[0].tolist() == pytest.approx([float(maps[0, 3 + t :, 2 + t].sum()) for t in range(4)])
    assert found[1].tolist() == pytest.approx([float(maps[1, 3 + t : 5, 2 + t].sum()) for t in range(3)] + [0.0])


def test_rollout_multiplies_the_layers():
    layers = torch.rand(3, 2, 5, 5).tril()
    answer = torch.tensor([[0, 0, 1], [0, 1, 1]]).bool()
    unit = torch.eye(5)
    whole = ((layers[2] + unit) / 2) @ ((layers[1] + unit) / 2) @ ((layers[0] + unit) / 2)
    found = rollout(layers, answer)
    torch.testing.assert_close(found[0], whole[0, 4, 2:])
    torch.testing.assert_close(found[1], whole[1, 3:, 2:].sum(0))


def test_only_what_stands_before_the_answer_has_a_gradient(tiny, written):
    answer = last_token(written)
    found = saliency(tiny.model, written, answer)
    place = torch.arange(answer.shape[1])
    before = place < answer.long().argmax(1, keepdim=True)
    assert (found[before] > 0).all() and not found[~before].any()
    assert all(p.grad is None for p in tiny.model.parameters())


def test_maps_by_layer_have_the_maps_as_their_mean(tiny, written):
    layers = attention_by_layer(tiny.model, written, rows=3)
    assert len(layers) == tiny.model.config.num_hidden_layers
    torch.testing.assert_close(layers.mean(0), attention_maps(tiny.model, written, range(len(layers))))


@torch.no_grad()
def test_a_ranking_by_each_tokens_own_effect_costs_the_answer_most(tiny, written):
    method = MethodSpec.parse("flowtracer@problems=sums").build()
    probe = AnswerMasking(method, method.flow, last_token, share=0.01)
    mask, answer = written.response_mask_BT, last_token(written)
    chosen = written.response_ids_BT[..., None]
    plain = prediction(tiny.model, written, torch.zeros_like(mask)).gather(-1, chosen)[..., 0]
    own = torch.zeros(mask.shape)
    for t in range(mask.shape[1]):
        hidden = torch.zeros_like(mask)
        hidden[:, t] = mask[:, t]
        own[:, t] = ((plain - prediction(tiny.model, written, hidden).gather(-1, chosen)[..., 0]) * answer).sum(1)
    allowed = reasoning_mask(mask, answer)
    rows = allowed.any(1)
    found = probe.effects(tiny.model, written, {"most": own, "least": -own})
    lowest, highest = own.masked_fill(~allowed, torch.inf).amin(1), own.masked_fill(~allowed, -torch.inf).amax(1)
    torch.testing.assert_close(found["most"][1][rows], highest[rows], atol=1e-5, rtol=0)
    torch.testing.assert_close(found["least"][1][rows], lowest[rows], atol=1e-5, rtol=0)
    assert not found["most"][0][~rows].any() and rows.any()


def test_the_probe_gives_every_figure_of_every_ranking(tiny):
    method = MethodSpec.parse("flowtracer@max_new_tokens=8").build()

    def late(batch):
        place = torch.arange(batch.response_mask_BT.shape[1])
        return batch.response_mask_BT & (place == 5)

    found = AnswerMasking(method, method.flow, late, problems=12).measure(tiny)
    by_metric = {}
    for figure in found:
        by_metric.setdefault(figure.metric, {})[figure.phase] = figure
    phases = {"most credit", "least credit", "random", "attention received", "attention rollout", "gradient"}
    assert set(by_metric["answer_change_share"]) == set(by_metric["answer_logp_drop"]) == phases
    assert set(by_metric["answer_changes_over_random"]) == phases - {"random"}
    shares = {phase: figure.value for phase, figure in by_metric["answer_change_share"].items()}
    assert all(0 <= share <= 1 for share in shares.values())
    over = by_metric["answer_changes_over_random"]["most credit"]
    assert over.value == pytest.approx(shares["most credit"] - shares["random"]) and over.low <= over.value <= over.high


def test_without_an_answer_nothing_is_measured(tiny):
    method = MethodSpec.parse("flowtracer@max_new_tokens=4").build()
    nothing = lambda batch: torch.zeros_like(batch.response_mask_BT)  # noqa: E731
    assert AnswerMasking(method, method.flow, nothing, problems=3).measure(tiny) == []
