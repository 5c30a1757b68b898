"""Scores against the log-softmax of one full forward."""

import pytest
import torch

from harness.errors import Refused
from harness.subjects.requests import Score, ScoreRequest
from harness.subjects.runner import Runner


def plain(subject, request):
    """One forward over context and continuation, without a cache of ours."""
    ids = [*request.context, *request.continuation]
    with torch.inference_mode():
        logp = subject.model(torch.tensor([ids])).logits[0].log_softmax(-1)[len(request.context) - 1 : -1]
    target = torch.tensor(request.continuation)
    return float(logp.gather(1, target[:, None]).sum()), bool((logp.argmax(-1) == target).all())


def ids(length, seed):
    """Random ids."""
    return tuple(torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


CONTEXTS = [ids(20, 0), ids(7, 1), ids(1, 2), ids(20, 3)]
REQUESTS = [
    ScoreRequest(context=CONTEXTS[row], continuation=ids(length, 10 + 7 * row + length))
    for row, length in [(0, 1), (1, 3), (0, 5), (2, 2), (0, 2), (3, 40), (1, 1), (0, 4), (2, 9), (1, 3)]
]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_scores_equal_a_full_forward(tiny, batch_size):
    """One-token and longer continuations, contexts shared by up to four, more continuations than a batch."""
    for request, score in zip(REQUESTS, tiny.score(REQUESTS, batch_size), strict=True):
        logprob, greedy = plain(tiny, request)
        assert score.logprob == pytest.approx(logprob, abs=1e-4)
        assert score.is_greedy == greedy


def test_the_greedy_continuation_is_recognised(tiny):
    from harness.subjects.requests import GenerateRequest

    text = tiny.generate(GenerateRequest(prompts=[CONTEXTS[0]], max_new_tokens=5, ignore_eos=True))[0].tokens
    other = [*text[:-1], (text[-1] + 1) % 256]
    scores = tiny.score([ScoreRequest(context=CONTEXTS[0], continuation=tuple(c)) for c in (text, other, text[:1])])
    assert [s.is_greedy for s in scores] == [True, False, True]


def test_an_empty_continuation_is_certain(tiny):
    assert tiny.score([ScoreRequest(context=CONTEXTS[0], continuation=())]) == [Score(0.0, True)]


def test_a_long_continuation_is_judged_in_chunks(tiny):
    request = ScoreRequest(context=ids(3, 5), continuation=ids(300, 6))
    assert tiny.score([request])[0].logprob == pytest.approx(plain(tiny, request)[0], rel=1e-5)


def test_a_shared_context_is_prefilled_once(tiny, monkeypatch):
    seen = []
    prefill = Runner.prefill
    monkeypatch.setattr(Runner, "prefill", lambda self, prompts: seen.append(len(prompts)) or prefill(self, prompts))
    tiny.score([ScoreRequest(context=CONTEXTS[0], continuation=ids(n, n)) for n in (1, 2, 3, 4)])
    assert seen == [1]


def test_a_subject_that_cannot_score_refuses(tiny):
    from dataclasses import replace

    mute = replace(tiny, capabilities=frozenset({"generate"}))
    with pytest.raises(Refused, match="scoring needs a subject with 'score'; tiny-random has generate"):
        mute.score(REQUESTS)
