"""R2R: the ends of routing, what is counted, the trained router, and the checks."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.catalog.spec import MethodSpec
from harness.errors import Refused, UsageError
from harness.kinds.artifacts import ArtifactStore
from harness.kinds.checking import run_checks
from harness.kinds.decoding import Continuation
from harness.kinds.decoding.divergence import labelled_tokens
from harness.kinds.invariants import random_ids
from harness.kinds.method import PrepareContext
from harness.kinds.stack import applied
from harness.subjects.requests import GenerateRequest
from harness.subjects.runner import Runner
from harness.subjects.sampling import Sampler
from harness.toolkit.small_models import open_small
from harness.toolkit.students import TeacherText
from methods.decoding.r2r import R2R

SMALL = "noised:0.08"
SETTINGS = {"texts": 10, "new_tokens": 8, "branch_tokens": 4, "hidden": 16, "blocks": 1, "epochs": 12}


def asked(subject, tokens=20, **rest):
    return GenerateRequest(
        prompts=[random_ids(subject, 12, 5)], max_new_tokens=tokens, **({"ignore_eos": True, "seed": 3} | rest)
    )


def routed(subject, request, **settings):
    with R2R(**({"small": SMALL, "router": "random"} | settings)).apply(subject) as routing:
        return routing.generate(request)[0]


def test_all_checks_hold(tiny):
    results = run_checks(R2R(), tiny)
    assert not [f"{r.name}: {r.reason}" for r in results if not r.passed]


@pytest.mark.parametrize("router", ["random", "entropy", "oracle"])
@pytest.mark.parametrize("extra", [{}, {"temperature": 0.9, "top_p": 0.9}], ids=["greedy", "sampled"])
def test_a_threshold_of_zero_is_the_large_model_and_one_out_of_reach_the_small(tiny, router, extra):
    request = asked(tiny, **extra)
    large, small = tiny.generate(request)[0].tokens, open_small(SMALL, tiny).generate(request)[0].tokens
    assert large != small
    assert routed(tiny, request, router=router, threshold=0.0).tokens == large
    assert routed(tiny, request, router=router, threshold=1e9).tokens == small


@pytest.mark.parametrize("extra", [{}, {"repetition_penalty": 1.4}], ids=["greedy", "penalty"])
def test_the_oracle_calls_the_large_model_where_the_best_tokens_differ_and_writes_its_text(tiny, extra):
    request, small = asked(tiny, **extra), open_small(SMALL, tiny)
    row, plain = routed(tiny, request, router="oracle"), tiny.generate(request)[0].tokens
    assert row.tokens == plain
    differ = 0
    for place, token in enumerate(plain):
        step = replace(request, prompts=[[*request.prompts[0], *plain[:place]]], max_new_tokens=1)
        if extra:  # the penalty is that of the whole text, which is the prompt of this request
            assert tiny.generate(step)[0].tokens == [token]
        differ += small.generate(step)[0].tokens != [token]
    assert 0 < differ < len(plain)
    assert row.counts["large_model_share"] == differ / len(plain)


def test_both_caches_hold_what_a_fresh_prefill_of_the_text_holds(tiny):
    request = asked(tiny, tokens=25)
    with R2R(small=SMALL, router="random").apply(tiny) as routing, torch.inference_mode():
        text = Continuation(routing, request, 0, Sampler(request, tiny.device), 0.0)
        routing.decoder.strategy.write(text)
    for model, subject in zip(text.models, (open_small(SMALL, tiny), tiny), strict=True):
        assert len(text.row.tokens) < model.held < len(text.history)
        fresh = Runner(subject.model, subject.new_cache)
        with torch.inference_mode():
            fresh.prefill([text.history[: model.held]])
        for ours, theirs in zip(model.runner.cache.layers, fresh.cache.layers, strict=True):
            for got, wanted in zip(ours.live(), theirs.live(), strict=True):
                assert torch.allclose(got, wanted, atol=1e-4)


def test_the_large_model_reads_each_token_once_and_only_when_it_is_called(tiny):
    request = asked(tiny)
    sizes = [sum(p.numel() for p in s.model.parameters()) for s in (open_small("layers:1", tiny), tiny)]
    never, half, always = (routed(tiny, request, small="layers:1", threshold=t) for t in (2.0, 0.5, 0.0))
    for row in (never, half, always):
        share, after = row.counts["large_model_share"], len(row.tokens) - 1
        assert row.counts["forwards"] == share * len(row.tokens)
        assert row.counts["active_parameters_per_token"] == pytest.approx(sizes[0] + share * sizes[1])
        assert row.counts["tokens_forwarded"] - row.prompt_tokens <= after
    assert never.counts["tokens_forwarded"] == 12 and always.counts["tokens_forwarded"] == 12 + 19
    assert 0 == never.counts["large_model_share"] < half.counts["large_model_share"] < 1


def test_the_share_falls_with_the_threshold(tiny):
    request = asked(tiny, tokens=15)
    for router, thresholds in (("entropy", (0.0, 1.0, 2.0, 9.0)), ("random", (0.0, 0.3, 0.7, 1.1))):
        # The text must not depend on the threshold, or shares are of different texts.
        forced = replace(request, forced=[tiny.generate(request)[0].tokens])
        shares = [routed(tiny, forced, router=router, threshold=t).counts["large_model_share"] for t in thresholds]
        assert shares == sorted(shares, reverse=True) and shares[0] == 1 and shares[-1] == 0


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A router trained on a few answers, through the store, with the method it belongs to."""
    method = R2R(small=SMALL, **SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield method, ArtifactStore().obtain(method, tiny)


def test_training_records_labels_and_router(trained):
    method, artifact = trained
    found = {m.metric: m.value for m in method.training_measurements(artifact)}
    assert 0 < found["critical_token_share"] <= found["differing_token_share"] < 1
    assert 0.01 <= artifact["threshold"] <= 0.99 and artifact["tokens"] > 0
    assert found["router_recall"] >= 0.95 or artifact["threshold"] == 0.5
    assert 0 <= found["router_false_alarm_share"] <= 1


@pytest.mark.parametrize(("threshold", "share"), [(0.0, 1.0), (1.5, 0.0)])
def test_a_trained_router_is_used_and_obeys_its_threshold(tiny, trained, threshold, share):
    method, artifact = trained
    with replace(method, threshold=threshold).apply(tiny, artifact) as routing:
        assert routing.generate(asked(tiny))[0].counts["large_model_share"] == share
    with method.apply(tiny, artifact) as routing:
        state = routing.generate(asked(tiny))[0]
        assert state.tokens == routing.generate(asked(tiny))[0].tokens


def test_the_router_sees_at_inference_what_it_was_trained_on(tiny, trained):
    """The score while decoding equals the score of the same place of a text that is read at once."""
    method, artifact = trained
    request = asked(tiny)
    answer = tiny.generate(request)[0].tokens
    text = TeacherText(tuple(request.prompts[0]), tuple(answer), torch.empty(0))
    places = labelled_tokens(tiny, open_small(SMALL, tiny), [text], lambda a, b: True, 2, method.top_logits)
    scores = []
    with replace(method, threshold=0.0).apply(tiny, artifact) as routing:
        inner = routing.decoder.strategy.score
        routing.decoder.strategy.score = lambda *seen: scores.append(inner(*seen)) or scores[-1]
        assert routing.generate(request)[0].tokens == answer
        with torch.no_grad():
            wanted = inner.args[1](places.features).sigmoid().tolist()
    assert scores == pytest.approx(wanted, abs=1e-4)


def test_it_needs_an_artifact_where_something_is_trained_and_only_there(tiny):
    assert R2R().trains and R2R(router="entropy").trains and not R2R(router="oracle", small="layers:1").trains
    with pytest.raises(Refused, match="needs an artifact"), applied([R2R()], tiny):
        pass
    with applied([R2R(router="oracle", small="layers:1")], tiny) as routing:
        assert routing.generate(asked(tiny))[0].tokens == tiny.generate(asked(tiny))[0].tokens


def test_without_a_neural_router_only_the_small_model_is_made(tiny):
    context = PrepareContext(0, Path(), lambda name: tiny, lambda text: {"made by": text})
    assert R2R(router="entropy").prepare(tiny, context) == {"small": {"made by": "distillspec"}}


def test_a_small_model_with_a_short_context_is_refused_in_one_line(tiny):
    request = asked(tiny)
    with R2R(small="layers:1", router="oracle").apply(tiny) as routing:
        routing.decoder.strategy.small = replace(routing.decoder.strategy.small, max_length=20)
        with pytest.raises(Refused, match=r"32 tokens .* exceed the context of 20") as error:
            routing.generate(request)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["r2r@router=fate", "r2r@recall=0", "r2r@texts=1"])
def test_parameters_are_validated(text):
    with pytest.raises(UsageError):
        MethodSpec.parse(text).build()
