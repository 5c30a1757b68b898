"""Sampling follows the law of transformers' warpers, and a row's text does not depend on its batch."""

import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from harness.errors import UsageError
from harness.subjects.requests import GenerateRequest
from harness.subjects.sampling import Sampler

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7, 8], [9], [1, 2, 3, 4, 5, 6, 7]]


def sampler(**settings):
    """A sampler for a row whose text is not used."""
    return Sampler(GenerateRequest(prompts=[[0]], max_new_tokens=1, **settings), CPU)


@pytest.mark.parametrize(
    ("settings", "warpers"),
    [
        ({"temperature": 0.7}, [TemperatureLogitsWarper(0.7)]),
        ({"temperature": 1.0, "top_k": 5}, [TopKLogitsWarper(5)]),
        ({"temperature": 1.0, "top_p": 0.8}, [TopPLogitsWarper(0.8)]),
        (
            {"temperature": 1.5, "top_k": 9, "top_p": 0.9, "repetition_penalty": 1.3},
            [
                RepetitionPenaltyLogitsProcessor(1.3),
                TemperatureLogitsWarper(1.5),
                TopKLogitsWarper(9),
                TopPLogitsWarper(0.9),
            ],
        ),
    ],
)
def test_the_law_is_that_of_the_warpers(settings, warpers):
    logits, history = 3 * torch.randn(40, generator=torch.Generator().manual_seed(0)), [3, 3, 17]
    wanted = LogitsProcessorList(warpers)(torch.tensor([history]), logits[None].clone())[0].softmax(-1)
    torch.testing.assert_close(sampler(**settings).probabilities(logits, history), wanted)


def test_draws_follow_the_law():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])
    drawn = sampler(temperature=1.0, seed=1)
    counts = torch.zeros(5)
    for _ in range(4000):
        counts[drawn.pick(logits, [0])] += 1
    expected = 4000 * logits.softmax(-1)
    chi = float(((counts - expected) ** 2 / expected).sum())
    assert chi < 18.5  # the 0.999 quantile with four degrees of freedom


def test_greedy_is_one_hot_and_ignores_the_seed():
    logits = torch.tensor([0.0, 3.0, 1.0])
    assert sampler(seed=9).probabilities(logits, [0]).tolist() == [0.0, 1.0, 0.0]
    assert sampler(seed=9).pick(logits, [0]) == 1


def test_a_penalty_acts_on_greedy_text_too():
    logits = torch.tensor([0.0, 3.0, 2.9])
    assert sampler(repetition_penalty=1.5).pick(logits, [1]) == 2


def test_a_row_draws_the_same_text_in_any_batch(tiny):
    """The batch's size, its order and its other rows do not matter; the row's number does."""
    settings = {"max_new_tokens": 8, "temperature": 1.0, "seed": 4, "ignore_eos": True}
    rows = tiny.generate(GenerateRequest(prompts=PROMPTS, **settings))
    for number, row in enumerate(rows):
        alone = tiny.generate(GenerateRequest(prompts=[PROMPTS[number]], row_ids=[number], **settings))[0]
        assert alone.tokens == row.tokens
    swapped = tiny.generate(GenerateRequest(prompts=PROMPTS[::-1], row_ids=[2, 1, 0], **settings))
    assert [row.tokens for row in swapped[::-1]] == [row.tokens for row in rows]


def test_equal_prompts_draw_different_texts_and_seeds_matter(tiny):
    settings = {"max_new_tokens": 12, "temperature": 1.0, "ignore_eos": True}
    twice = [
        [row.tokens for row in tiny.generate(GenerateRequest(prompts=[[1, 2]] * 2, seed=seed, **settings))]
        for seed in (0, 0, 1)
    ]
    assert twice[0] == twice[1] != twice[2]
    assert twice[0][0] != twice[0][1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": [[]], "max_new_tokens": 1}, "a prompt has no tokens"),
        ({"prompts": [], "max_new_tokens": 1}, "a prompt has no tokens"),
        ({"prompts": [[1]], "max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"prompts": [[1]], "max_new_tokens": 1, "temperature": -1.0}, "temperature must not be negative"),
    ],
)
def test_impossible_requests_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        GenerateRequest(**settings)
