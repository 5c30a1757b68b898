"""Rollouts: the index convention, padding, and what is sampled against what the model says."""

import random
from types import SimpleNamespace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.errors import Refused
from harness.kinds.objective.checks import random_batch
from harness.kinds.objective.rollouts import (
    Sampling,
    chosen_logps,
    sample_responses,
    sampled_batch,
    token_logps,
    written_batch,
)
from harness.kinds.objective.samplers import with_old_policy
from harness.toolkit.verifiable import ToyTask

SAMPLING = Sampling(group_size=3, max_new_tokens=9, temperature=0.7)
METHOD = MethodSpec.parse("grpo@temperature=0.7").build()


class Successor:
    """A model whose next token is (previous + 1) mod V, with certainty."""

    vocab = 7

    def __call__(self, input_ids, logits_to_keep=0, **kwargs):
        sure = torch.nn.functional.one_hot((input_ids + 1) % self.vocab, self.vocab).float()
        return SimpleNamespace(logits=sure.log()[:, -logits_to_keep:])


class Mixed:
    """Problems of two and of four digits, so that prompts need padding."""

    def draw(self, rng):
        return tuple(rng.randrange(10) for _ in range(rng.choice((2, 4))))

    chat = False
    prompt, reward, written = ToyTask().prompt, ToyTask().reward, ToyTask().written


def test_index_convention_on_a_toy_that_counts():
    prompts = torch.tensor([[0, 5, 6], [2, 3, 4]])
    responses = torch.tensor([[0, 1, 2, 3], [5, 6, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]], dtype=torch.bool)
    logps = token_logps(Successor(), (prompts, torch.ones_like(prompts, dtype=torch.bool)), responses, 1.0)
    assert logps.shape == (2, 4, 7)
    assert torch.equal(chosen_logps(logps, responses)[mask], torch.zeros(int(mask.sum())))


@pytest.fixture(scope="module")
def batch(tiny):
    rng = random.Random(0)
    problems = [Mixed().draw(rng) for _ in range(5)]
    assert len({len(p) for p in problems}) == 2
    return sampled_batch(tiny, Mixed(), problems, SAMPLING, torch.Generator().manual_seed(0))


def test_law_that_drew_is_the_policy_read_back(tiny, batch):
    """Cached sampling with padded prompts against one forward over prompt and response."""
    read = with_old_policy(batch, tiny.model, METHOD)
    torch.testing.assert_close(read.old_logps_BT, batch.behavior_logps_BT, atol=1e-4, rtol=0)


def test_padded_prompts_read_as_alone(tiny, batch):
    read = with_old_policy(batch, tiny.model, METHOD)
    for row in range(0, batch.size, 4):
        prompt = batch.prompt_ids_BP[row][batch.prompt_mask_BP[row]][None]
        response = batch.response_ids_BT[row][batch.response_mask_BT[row]][None]
        whole = torch.ones_like(prompt, dtype=torch.bool)
        logps = token_logps(tiny.model, (prompt, whole), response, SAMPLING.temperature)
        alone = chosen_logps(logps, response)[0]
        torch.testing.assert_close(read.old_logps_BT[row, : len(alone)], alone, atol=1e-4, rtol=0)
        entropy = torch.distributions.Categorical(logits=logps[0]).entropy()
        torch.testing.assert_close(read.entropy_BT[row, : len(alone)], entropy, atol=1e-4, rtol=0)


def test_layout(batch, tiny):
    assert batch.group_ids_B.tolist() == [i // 3 for i in range(15)]
    assert batch.response_ids_BT.shape[1] <= SAMPLING.max_new_tokens
    assert bool((batch.behavior_logps_BT[~batch.response_mask_BT] == 0).all())
    assert bool((batch.lengths_B >= 1).all())


def test_a_response_ends_with_its_end_of_text(tiny):
    """With every second id an end, responses stop at the first one, which belongs to them."""

    class Ends:
        eos_ids = tuple(range(0, 258, 2))

    from dataclasses import replace

    subject = replace(tiny, tokenizer=Ends())
    ids, mask, _, finished = sample_responses(
        subject,
        [[1, 2, 3]] * 4,
        Sampling(group_size=4, max_new_tokens=3, temperature=1.0),
        torch.Generator().manual_seed(1),
    )
    assert finished.any() and not finished.all()
    for row, real, done in zip(ids.tolist(), mask.tolist(), finished.tolist(), strict=True):
        response = [i for i, m in zip(row, real, strict=True) if m]
        assert real == sorted(real, reverse=True)
        assert all(i % 2 for i in response[:-1])
        assert done == (response[-1] % 2 == 0)
        assert done or len(response) == 3


def test_same_generator_same_responses(tiny):
    def draw(seed):
        return sample_responses(tiny, [[1, 2], [3]], SAMPLING, torch.Generator().manual_seed(seed))[0]

    assert torch.equal(draw(4), draw(4))
    assert not torch.equal(draw(4), draw(5))


def test_sampling_follows_the_law(tiny):
    """First tokens of many samples against the model's own probabilities, by a chi-square bound."""
    many = Sampling(group_size=4000, max_new_tokens=1, temperature=0.5)
    ids, _, _, _ = sample_responses(tiny, [[7, 8, 9]], many, torch.Generator().manual_seed(0))
    with torch.no_grad():
        p = (tiny.model(torch.tensor([[7, 8, 9]])).logits[0, -1] / 0.5).softmax(-1).double()
    expected = 4000 * p
    big = expected > 10
    assert big.sum() > 3
    seen = torch.bincount(ids[:, 0], minlength=len(p)).double()
    statistic = ((seen - expected).square() / expected)[big].sum()
    cells = int(big.sum())
    assert float(statistic) < cells + 5 * (2 * cells) ** 0.5


def test_written_responses_are_graded_and_alike_for_every_subject(tiny):
    batch = written_batch(tiny, ToyTask(), 4, 6, seed=0)
    again = written_batch(tiny, ToyTask(), 4, 6, seed=0)
    assert torch.equal(batch.response_ids_BT, again.response_ids_BT)
    assert 0 < float(batch.rewards_B.mean()) < 1
    assert batch.group_ids_B.bincount().tolist() == [6] * 4
    ends = batch.response_ids_BT.gather(1, batch.lengths_B[:, None] - 1)
    assert bool((ends == tiny.tokenizer.eos_ids[0]).all())


def test_too_long_a_response_is_refused(tiny):
    with pytest.raises(Refused, match="holds 512"):
        sampled_batch(
            tiny,
            ToyTask(),
            [(1, 2, 3, 4)],
            Sampling(group_size=2, max_new_tokens=600, temperature=1.0),
            torch.Generator(),
        )


def test_minibatches_hold_whole_groups():
    batch = random_batch(sizes=(4, 5, 3))
    parts = batch.minibatches(2)
    assert sorted(torch.cat(parts).tolist()) == list(range(12))
    seen = [set(batch.group_ids_B[part].tolist()) for part in parts]
    assert len(seen) == 2 and not seen[0] & seen[1]
    assert len(batch.minibatches(9)) == 3
