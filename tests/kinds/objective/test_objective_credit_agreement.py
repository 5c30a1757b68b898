"""Correlations over the tokens of a response, and the probe that holds token rewards against hidden scores."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.objective.checks import random_batch
from harness.kinds.objective.credit_agreement import CreditAgreement, correlations, ranks, token_scores
from harness.toolkit.pref_tokens import hidden_scores
from harness.toolkit.verifiable import verifiable_task


def made(text):
    return MethodSpec.parse(text).build()


def test_correlations_are_scipys_whatever_stands_at_padding():
    stats = pytest.importorskip("scipy.stats")
    mask = torch.arange(9)[None] < torch.tensor([9, 3, 6])[:, None]
    one, other = torch.randint(0, 4, (2, 3, 9), generator=torch.Generator().manual_seed(2)).double()
    one[~mask], other[~mask] = torch.nan, 1e9
    pearson = correlations(one, other, mask)
    spearman = correlations(ranks(one, mask), ranks(other, mask), mask)
    for i, n in enumerate(mask.sum(1).tolist()):
        pair = one[i, :n].numpy(), other[i, :n].numpy()
        assert float(pearson[i]) == pytest.approx(stats.pearsonr(*pair).statistic)
        assert float(spearman[i]) == pytest.approx(stats.spearmanr(*pair).statistic)


def test_a_constant_and_a_pair_of_tokens_have_no_correlation():
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
    one = torch.tensor([[0.1, 0.1, 0.1, 7], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]])
    found = correlations(one, torch.tensor([[1.0, 2, 3, 4]] * 4), mask)
    assert found[:2].isnan().all() and float(found[2]) == pytest.approx(1) and bool(found[3].isnan())


def test_a_token_is_worth_its_symbols_score_and_the_end_nothing(tiny):
    tokenizer, scores = tiny.text_tokenizer(), hidden_scores()
    ids = torch.tensor([[*tokenizer.encode("3+"), *tokenizer.eos_ids]])
    found = token_scores(tiny, verifiable_task("pref_tokens"), ids)
    assert found[0].tolist() == pytest.approx([scores["3"], scores["+"], 0.0])


@dataclass
class Knowing:
    """A method whose credit is the truth times a factor, but for the responses at even places: those have none."""

    subject: Any
    factor: float

    def task(self, held_out=False):
        assert held_out
        return verifiable_task("pref_tokens", held_out)

    def judged(self, batch, subject, seed):
        return replace(batch, guide_logps_BT=token_scores(subject, self.task(True), batch.response_ids_BT))

    def credit(self, batch):
        credit = self.factor * batch.guide_logps_BT
        credit[::2] = 0.3
        return credit


@pytest.mark.parametrize("factor", [2.0, -0.5])
def test_credit_that_is_the_truth_agrees_with_it_and_constant_credit_is_left_out(tiny, factor):
    figures = {m.metric: m for m in CreditAgreement(Knowing(tiny, factor), 0, responses=40).measure(tiny)}
    for metric in ("credit_pearson", "credit_spearman"):
        assert figures[metric].value == pytest.approx(math.copysign(1, factor)) and 10 <= figures[metric].n <= 20


def test_rto_credits_tokens_or_the_end_and_ppo_the_end():
    batch = random_batch()
    token, end = (made(f"rto@placement={p}") for p in ("token", "end"))
    dense, sparse, mask = token.credit(batch), end.credit(batch), batch.response_mask_BT
    last = torch.arange(mask.shape[1]) == batch.lengths_B[:, None] - 1
    torch.testing.assert_close(dense.sum(1), sparse.sum(1))
    assert not sparse[~last].any() and dense[mask & ~last].any() and not dense[~mask].any()
    ppo = made("ppo_gae")
    assert torch.equal(ppo.credit(batch), ppo.token_rewards(batch)) and ppo.judged(batch, None, 0) is batch


def test_rewards_of_a_trained_guide_agree_by_token_and_not_at_the_end(tiny):
    held = []

    def pearson(spec):
        method = made(spec)
        judges = held or held.append(method.judges(tiny, 0)) or held
        object.__setattr__(method, "judged", lambda batch, subject, seed: judges[0].judge(batch))
        (probe,) = method.prior_probes(0)
        return next(m for m in probe.measure(tiny) if m.metric == "credit_pearson")

    spec = "rto@problems=pref_tokens@dpo_learning_rate=3e-3@dpo_steps=40@dpo_pairs=8"
    token, end = pearson(spec), pearson(spec + "@placement=end")
    assert token.value > 0.4 and token.low > end.high and abs(end.value) < 0.3


def test_where_no_truth_is_known_nothing_is_asked():
    assert made("rto").prior_probes(0) == () and made("grpo@problems=pref_tokens").prior_probes(0) == ()
