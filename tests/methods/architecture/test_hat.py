"""HAT: its checks, its two rules, and its subject under lm-eval's questions."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.kinds.checking import run_checks
from harness.kinds.method import PrepareContext
from harness.kinds.stack import applied
from harness.subjects.requests import GenerateRequest, ScoreRequest
from methods.architecture.hat import Hat

SMALL = {"hidden": 40, "char_hidden": 32, "length": 48, "batch": 4, "learning_rate": 1e-2, "steps": 40}


def made(method, tiny):
    return method.prepare(tiny, PrepareContext(0, Path(), lambda name: tiny, lambda text: None))


@pytest.fixture(scope="module", params=["space", "parts"])
def trained(request, tiny):
    method = replace(Hat(rule=request.param).check_twin(), **SMALL)
    artifact = made(method, tiny)
    losses = artifact["stages"][0]["losses"]
    assert sum(losses[-5:]) / 5 < losses[0] - 0.5
    with applied([method], tiny, lambda *_: artifact) as subject:
        yield subject


def test_all_checks_hold(tiny):
    assert not [f"{r.name}: {r.reason}" for r in run_checks(Hat(), tiny) if not r.passed]


def test_the_score_is_the_log_likelihood_of_bytes_and_ends_of_words(trained):
    tokenizer = trained.tokenizer
    context, text = [tokenizer.prefix_id], tokenizer.encode("Return the name of the file.")
    (score,) = trained.score([ScoreRequest(context=tuple(context), continuation=tuple(text))])
    total = 0.0
    with torch.inference_mode():
        for token in text:
            total += float(trained.model(torch.tensor([context]))[0, -1].log_softmax(-1)[token])
            context.append(token)
    assert tokenizer.end_of_word in text and score.logprob == pytest.approx(total, abs=1e-3)


def test_greedy_text_is_what_computing_from_scratch_gives(trained):
    history = trained.tokenizer.encode("the name ")
    (row,) = trained.generate(GenerateRequest(prompts=[history], max_new_tokens=24, ignore_eos=True))
    for token in row.tokens:
        with torch.inference_mode():
            assert int(trained.model(torch.tensor([history]))[0, -1].argmax()) == token
        history.append(token)
    ends = sum(token >= 256 for token in row.tokens[:-1])
    assert row.counts["kv_slots_per_token"] == ends / 23 and row.counts["forwards"] <= 2 + ends
    assert row.text == bytes(token for token in row.tokens if token < 256).decode("utf-8", "replace")


def test_lm_eval_asks_it_across_a_cut_word(trained):
    from lm_eval.api.instance import Instance

    from harness.evaluate.lm import ZooLM

    lm, tokenizer = ZooLM(subject=trained), trained.tokenizer
    for context, continuation in (("the cat", " sat on"), ("the ca", "t sat")):
        whole, given = tokenizer.encode(context + continuation), tokenizer.encode(context)
        (score,) = trained.score([ScoreRequest(context=tuple(given), continuation=tuple(whole[len(given) :]))])
        asked = lm.loglikelihood([Instance("loglikelihood", {}, (context, continuation), 0)])
        assert asked[0] == pytest.approx((score.logprob, score.is_greedy))
        assert tokenizer.decode(whole[len(given) :]) == continuation
    options = {"until": ["e a"], "max_gen_toks": 30}
    (text,) = lm.generate_until([Instance("generate_until", {}, ("the ", options), 0)])
    assert "e a" not in text


def test_a_stop_string_may_span_words(trained):
    """Forced to write "a b c d e", it stops at a string of five words."""
    text = trained.tokenizer.encode("a b c d e f g h")
    request = GenerateRequest(prompts=[[256]], max_new_tokens=len(text), forced=[text], stop_strings=("b c d e f",))
    (row,) = trained.generate(request)
    assert (row.text, row.stop_reason) == ("a ", "stop")
