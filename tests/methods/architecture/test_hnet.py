"""H-Net: its checks, its subject under lm-eval's questions, its budget of chunks, what it refuses."""

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.catalog.spec import parse_stack
from harness.errors import Refused, UsageError
from harness.kinds.architecture.chunk_probe import f1
from harness.kinds.architecture.held_out import forced_decoding
from harness.kinds.artifacts import ArtifactStore
from harness.kinds.checking import run_checks
from harness.kinds.method import PrepareContext
from harness.kinds.stack import applied
from harness.measure.decode import utilisation
from harness.subjects.requests import GenerateRequest, ScoreRequest
from methods.architecture.hnet import HNet

SMALL = {"hidden": 32, "main_hidden": 40, "length": 48, "batch": 4, "learning_rate": 1e-2}


def made(method, tiny, seed=0):
    return method.prepare(tiny, PrepareContext(seed, Path(), lambda name: tiny, lambda text: None))


@pytest.fixture(scope="module")
def small():
    return replace(HNet().check_twin(), **SMALL, steps=40)


@pytest.fixture(scope="module")
def trained(tiny, small, tmp_path_factory):
    """Made and read back by the store, as everyone gets it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        store, before = ArtifactStore(seed=1), torch.random.get_rng_state()
        store.obtain(small, tiny)
        assert torch.equal(before, torch.random.get_rng_state()) and store.path(small, tiny).is_file()
        with applied([small], tiny, store.obtain) as subject:
            yield subject


@pytest.mark.parametrize("stages", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_all_checks_hold(tiny, stages):
    assert not [f"{r.name}: {r.reason}" for r in run_checks(HNet(stages=stages), tiny) if not r.passed]


def test_the_score_is_the_log_likelihood_of_every_byte(trained):
    text, start = b"Return the name of the file.", trained.tokenizer.prefix_id
    (score,) = trained.score([ScoreRequest(context=(start,), continuation=tuple(text))])
    total = 0.0
    for place in range(len(text)):
        with torch.inference_mode():
            logits = trained.model(torch.tensor([[start, *text[:place]]]))[0, -1]
        total += float(logits.log_softmax(-1)[text[place]])
    assert score.logprob == pytest.approx(total, abs=1e-3)
    assert 1 < -score.logprob / math.log(2) / len(text) < 8.1


def test_greedy_text_is_what_computing_from_scratch_gives(trained):
    history = list(b"the name ")
    (row,) = trained.generate(GenerateRequest(prompts=[history], max_new_tokens=20, ignore_eos=True))
    for token in row.tokens:
        with torch.inference_mode():
            assert int(trained.model(torch.tensor([history]))[0, -1].argmax()) == token
        history.append(token)


def test_the_main_network_runs_once_a_chunk(trained):
    text = list(b"the name of the file, or zero")
    row = forced_decoding(trained, text[:9], text[9:])[1]
    ids = torch.tensor([text[:-1]])
    with torch.inference_mode():
        chunks = trained.model.routed(ids, torch.ones_like(ids, dtype=torch.bool))[1][0].b_BT[0, 9:]
    assert row.counts["tokens_forwarded"] == 9 + 19 and row.counts["forwards"] == 1 + int(chunks.sum())
    assert row.counts["kv_slots_per_token"] == int(chunks.sum()) / 19


def test_lm_eval_asks_it(trained):
    from lm_eval.api.instance import Instance

    from harness.evaluate.lm import ZooLM

    lm = ZooLM(subject=trained)
    (score,) = trained.score([ScoreRequest(context=tuple(b"the cat"), continuation=tuple(b" sat"))])
    asked = lm.loglikelihood([Instance("loglikelihood", {}, ("the cat", " sat"), 0)])
    assert asked[0] == pytest.approx((score.logprob, score.is_greedy))
    (text,) = lm.generate_until([Instance("generate_until", {}, ("the ", {"until": [" "], "max_gen_toks": 12}), 0)])
    assert " " not in text


def test_a_model_of_several_rates_has_no_utilisation(trained):
    assert utilisation(lambda: nullcontext(trained), None) == []


def test_ids_of_another_tokenizer_and_caches_are_refused_in_one_line(trained):
    with pytest.raises(UsageError, match=r"^id 4711 is none of the 258 of this model's tokenizer bytes$"):
        trained.generate(GenerateRequest(prompts=[[4711]], max_new_tokens=2))
    with pytest.raises(Refused, match="no key/value cache"):
        trained.new_cache()


@pytest.mark.parametrize("stack", ["kv_streaming", "token_recycling"])
def test_what_needs_a_cache_cannot_follow_or_precede_it(trained, tiny, small, stack):
    others = parse_stack(stack).build()
    with pytest.raises(Refused, match=r"^[^\n]*('kv_views'|both replace)[^\n]*$"), applied(others, trained):
        pass
    with pytest.raises(Refused, match="both replace"), applied([*others, small], tiny, lambda *_: None):
        pass


def test_a_main_network_that_is_too_narrow_is_refused(tiny):
    with pytest.raises(Refused, match="width 16 is narrower than its encoder's 128"):
        HNet(main_hidden=16).build(tiny)


def test_the_probe_counts_chunks(trained, small):
    figures = {(m.metric, m.phase): m.value for m in small.probes()[-1].measure(trained)}
    assert figures["bytes_per_chunk", ""] > 1
    assert all(0 <= figures["boundary_f1", phase] <= 1 for phase in ("at blanks", "after blanks"))
    assert f1({1, 2, 3}, {2, 3, 4, 5, 6}) == 0.5 and f1({1}, {2}) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("target", [2.0, 4.0])
def test_the_share_of_boundaries_comes_to_its_target(tiny, target):
    method = replace(HNet().check_twin(), **SMALL, steps=400, target=target, alpha=0.3)
    with method.apply(tiny, made(method, tiny)) as subject:
        figures = {m.metric: m.value for m in method.probes()[-1].measure(subject)}
    assert 0.8 * target < figures["bytes_per_chunk"] < 1.25 * target
