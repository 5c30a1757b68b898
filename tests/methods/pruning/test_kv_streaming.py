"""StreamingLLM keeps exactly the sinks and the latest tokens, after the prompt and while decoding."""

import pytest
import torch

from harness.kinds.pruning.checks import kept_positions
from harness.subjects.runner import Runner
from methods.pruning.kv_streaming import KvStreaming

PROMPT = [(13 * i) % 250 for i in range(30)]


def held(subject, method, prompts, new=0):
    """Positions held by each layer and head of one row, after some decoded tokens."""
    with method.apply(subject) as pruned, torch.inference_mode():
        runner = Runner(pruned.model, pruned.new_cache)
        runner.prefill(prompts)
        for token in range(new):
            runner.forward(torch.full((len(prompts), 1), token))
            runner.commit()
    return [kept_positions(runner.cache, row) for row in range(len(prompts))]


def everywhere(kept, wanted):
    """Whether every layer and head holds the same positions."""
    return all(heads == [wanted] * len(heads) for layer in kept for heads in layer)


@pytest.mark.parametrize("new", [0, 1, 2, 9, 40])
def test_sinks_and_the_latest_stay(tiny, new):
    kept = held(tiny, KvStreaming(keep_ratio=0.5), [PROMPT], new)[0]
    assert everywhere(kept, [0, 1, 2, 3, *range(30 + new - 11, 30 + new)])


def test_rows_of_a_batch_hold_their_own_budgets(tiny):
    kept = held(tiny, KvStreaming(keep_ratio=0.5), [PROMPT, PROMPT[:14], PROMPT[:3]], 3)
    assert everywhere(kept[0], [0, 1, 2, 3, *range(22, 33)])
    assert everywhere(kept[1], [0, 1, 2, 3, *range(14, 17)])
    assert everywhere(kept[2], [0])


def test_with_a_budget_below_the_sinks_the_first_tokens_stay(tiny):
    assert everywhere(held(tiny, KvStreaming(keep_ratio=0.1), [PROMPT], 2)[0], [0, 1, 2])


def test_without_sinks_only_the_latest_stay(tiny):
    kept = held(tiny, KvStreaming(keep_ratio=0.2, num_sinks=0), [PROMPT], 2)[0]
    assert everywhere(kept, list(range(26, 32)))


def test_a_full_budget_never_evicts(tiny):
    assert everywhere(held(tiny, KvStreaming(keep_ratio=1.0), [PROMPT], 5)[0], list(range(35)))


def test_what_was_dropped_is_not_read_again(tiny):
    """Two prompts that differ only in dropped tokens of a one-layer model continue alike."""
    from harness.subjects.load import wrap_model
    from harness.subjects.tiny import random_llama

    subject = wrap_model(random_llama(num_hidden_layers=1)[0], None, "one layer")
    other = [*PROMPT[:6], *[200, 201, 202, 203], *PROMPT[10:]]
    logits = []
    with KvStreaming(keep_ratio=0.5).apply(subject) as pruned, torch.inference_mode():
        for prompt in (PROMPT, other):
            runner = Runner(pruned.model, pruned.new_cache)
            runner.prefill([prompt])
            logits.append(runner.forward(torch.tensor([[9]])))
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=0)


def test_all_checks_hold(tiny):
    for method in (KvStreaming(), KvStreaming(keep_ratio=0.1), KvStreaming(keep_ratio=1.0)):
        for check in method.checks(tiny):
            check.run()
