"""REINFORCE: its loss by loops, the running mean, and the kind's checks. Unbiasedness: test_unbiased.py."""

from dataclasses import replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.checking import run_checks
from harness.kinds.method import PrepareContext
from harness.kinds.objective.checks import HashTask, loss_and_gradient, moved_logps, random_batch
from methods.objective.reinforce import WithRunningMean


def made(text="reinforce"):
    return MethodSpec.parse(text).build()


def test_loss_against_loops():
    batch = random_batch(2)
    logp = moved_logps(batch)
    loss, _ = loss_and_gradient(made(), batch, logp)
    terms = [
        -float(batch.rewards_B[i]) * float(logp.detach()[i, t])
        for i in range(batch.size)
        for t in range(int(batch.lengths_B[i]))
    ]
    assert float(loss) == pytest.approx(sum(terms) / batch.size, abs=1e-12)


class Scripted:
    """A sampler whose batches have given mean rewards."""

    def __init__(self, means):
        self.means = means

    def sample(self, step, previous):
        batch = replace(random_batch(step), values_BT=None)
        return replace(batch, rewards_B=torch.full_like(batch.rewards_B, self.means[step])), 7


def test_the_running_mean_is_that_of_all_earlier_batches():
    sampler, previous = WithRunningMean(Scripted([0.5, 1.0, 0.0, 0.3])), None
    for step, expected in enumerate([None, 0.5, 0.75, 0.5]):
        previous, generated = sampler.sample(step, previous)
        assert generated == 7
        if expected is None:
            assert previous.values_BT is None
        else:
            assert torch.allclose(previous.values_BT, torch.tensor(expected).to(previous.values_BT))
    advantage = made("reinforce@baseline=running_mean").advantage(previous)
    assert torch.allclose(advantage, torch.tensor(0.3 - 0.5).double())
    assert torch.allclose(made().advantage(previous), torch.tensor(0.3).double())


def test_training_with_a_running_mean_judges_each_batch_by_those_before(tiny, monkeypatch, tmp_path):
    seen = []
    method = made("reinforce@baseline=running_mean@updates=3@prompts_per_update=2@group_size=4@max_new_tokens=4")
    object.__setattr__(method, "task", HashTask)
    rule = type(method).advantage
    monkeypatch.setattr(type(method), "advantage", lambda self, batch: seen.append(batch) or rule(self, batch))
    method.prepare(tiny, PrepareContext(0, tmp_path, None, None))
    means = [float(batch.rewards_B.mean()) for batch in seen]
    assert seen[0].values_BT is None
    assert float(seen[2].values_BT[0, 0]) == pytest.approx((means[0] + means[1]) / 2, abs=1e-6)


@pytest.mark.parametrize("spec", ["reinforce", "reinforce@baseline=running_mean"])
def test_checks(tiny, spec):
    assert [f"{r.name}: {r.reason}" for r in run_checks(made(spec), tiny) if not r.passed] == []
