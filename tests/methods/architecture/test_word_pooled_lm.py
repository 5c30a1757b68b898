"""Learn Your Tokens: its checks, its places a word, and how it differs from HAT."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.kinds.architecture.held_out import forced_decoding
from harness.kinds.checking import run_checks
from harness.kinds.method import PrepareContext
from harness.kinds.stack import applied
from harness.subjects.requests import GenerateRequest, ScoreRequest
from methods.architecture.word_pooled_lm import WordPooledLM

SMALL = {"hidden": 32, "length": 48, "batch": 4, "learning_rate": 1e-2, "steps": 40}


@pytest.fixture(scope="module", params=[1, 4])
def trained(request, tiny):
    method = replace(WordPooledLM(prefixes=request.param).check_twin(), **SMALL)
    artifact = method.prepare(tiny, PrepareContext(0, Path(), lambda name: tiny, lambda text: None))
    losses = artifact["stages"][0]["losses"]
    assert sum(losses[-5:]) / 5 < losses[0] - 0.5
    with applied([method], tiny, lambda *_: artifact) as subject:
        yield subject


def test_all_checks_hold(tiny):
    assert not [f"{r.name}: {r.reason}" for r in run_checks(WordPooledLM(), tiny) if not r.passed]


def test_a_word_takes_as_many_places_as_it_has_prefixes(trained):
    text = trained.tokenizer.encode("the name of the file or nothing")
    row = forced_decoding(trained, text[:8], text[8:])[1]
    ends = sum(token >= 256 for token in text[8:-1])
    assert row.counts["kv_slots_per_token"] == trained.model.slots * ends / (len(text) - 9)
    assert row.counts["forwards"] == 2 + ends


def test_score_and_text_are_what_computing_from_scratch_gives(trained):
    history = trained.tokenizer.encode("the name ")
    (row,) = trained.generate(GenerateRequest(prompts=[history], max_new_tokens=16, ignore_eos=True))
    (score,) = trained.score([ScoreRequest(context=tuple(history), continuation=tuple(row.tokens))])
    total = 0.0
    for token in row.tokens:
        with torch.inference_mode():
            logits = trained.model(torch.tensor([history]))[0, -1]
        assert int(logits.argmax()) == token
        total += float(logits.log_softmax(-1)[token])
        history.append(token)
    assert score.is_greedy and score.logprob == pytest.approx(total, abs=1e-3)
