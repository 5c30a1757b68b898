"""Spike: a trained byte-level architecture that is no transformers model passes through the protocols."""

import pytest
import torch

from harness.catalog.spec import parse_stack
from harness.errors import Refused
from harness.kinds.artifacts import ArtifactStore
from harness.kinds.stack import applied
from harness.subjects.requests import GenerateRequest, ScoreRequest

CONTEXT = tuple(b"the cat ")


@pytest.fixture(scope="module")
def trained(tiny, spike_zoo):
    """Method, subject and artifact; the artifact has been through the store's file."""
    (method,) = parse_stack("hnet@steps=80").build()
    store = ArtifactStore(seed=1)
    before = torch.random.get_rng_state()
    artifact = store.obtain(method, tiny)
    assert torch.equal(before, torch.random.get_rng_state())
    assert store.path(method, tiny).is_file()
    with applied([method], tiny, store.obtain) as subject:
        yield method, subject, artifact


def test_training_lowers_the_loss(trained):
    losses = trained[2]["losses"]
    assert sum(losses[-5:]) / 5 < 0.4 * losses[0]


def test_a_later_byte_never_changes_an_earlier_prediction(trained):
    subject = trained[1]
    ids = torch.tensor([[*b"the dog sat on the mat and the"]])
    with torch.inference_mode():
        logits = subject.model(ids)[0]
        for place in range(1, ids.shape[1]):
            changed = ids.clone()
            changed[0, place] = 200
            assert torch.allclose(subject.model(changed)[0][:, :place], logits[:, :place], atol=1e-6), place


def test_stepwise_equals_parallel_and_rows_are_independent(trained):
    model = trained[1].model
    ids = torch.tensor([list(b"the dog sat on t"), list(b"zq the mat the x")])
    with torch.inference_mode():
        whole, _, boundary, _ = model(ids)
        state, parts = None, []
        for start, stop in ((0, 5), (5, 6), (6, 7), (7, 12), (12, 16)):
            logits, _, _, state = model(ids[:, start:stop], state)
            parts.append(logits)
        assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-4)
        assert torch.allclose(model(ids[1:])[0], whole[1:], atol=1e-5)
    assert bool(boundary[:, 0].all()) and not bool(boundary.all())


def test_score_obeys_the_chain_rule_and_generate_agrees(trained):
    subject = trained[1]
    (row,) = subject.generate(GenerateRequest(prompts=[CONTEXT], max_new_tokens=8, ignore_eos=True))
    whole = ScoreRequest(context=CONTEXT, continuation=tuple(row.tokens))
    parts = [
        ScoreRequest(context=CONTEXT + whole.continuation[:i], continuation=whole.continuation[i : i + 1])
        for i in range(8)
    ]
    (score,) = subject.score([whole])
    assert score.is_greedy
    assert score.logprob == pytest.approx(sum(s.logprob for s in subject.score(parts, batch_size=3)), abs=1e-4)
    assert row.counts["tokens_forwarded"] == len(CONTEXT) + 7
    assert row.counts["main_forwards"] < row.counts["tokens_forwarded"]
    assert (row.text, len(row.stamps_s), row.steps) == (bytes(row.tokens).decode(), 8, [1] * 8)


def test_what_needs_a_cache_is_refused_in_one_line(trained, tiny):
    method, subject, artifact = trained
    for text in ("kv_streaming", "token_recycling", "awrs"):
        with (
            pytest.raises(Refused, match=r"^[^\n]*('kv_views'|both replace)[^\n]*$"),
            applied(parse_stack(text).build(), subject),
        ):
            pass
    with (
        pytest.raises(Refused, match="both replace the cache"),
        applied([*parse_stack("kv_streaming").build(), method], tiny, lambda *_: artifact),
    ):
        pass
    with pytest.raises(Refused, match="no key/value cache"):
        subject.new_cache()


def test_given_subject_stays_as_it_was(trained, tiny):
    method, _, artifact = trained
    asked = GenerateRequest(prompts=[CONTEXT], max_new_tokens=6)
    before = tiny.generate(asked)[0].tokens
    with pytest.raises(ZeroDivisionError), applied([method], tiny, lambda *_: artifact) as subject:
        assert subject.stack == (method.signature,)
        raise ZeroDivisionError
    assert tiny.generate(asked)[0].tokens == before


def test_probe_and_check(trained, tiny):
    method, subject, _ = trained
    (probe,), (check,) = method.probes(), method.checks(tiny)
    (figure,) = probe.measure(subject)
    assert 1 < figure.value <= figure.n
    assert check.name == "causal"
    check.run()


def test_ratio_loss_is_one_on_target():
    from spike_zoo.hnet_model import ratio_loss

    p = torch.tensor([[0.7, 0.1, 0.1, 0.1]])
    assert float(ratio_loss(p, p > 0.5, 4.0)) == pytest.approx(1.0)


def test_lm_eval_asks_it(trained):
    from lm_eval.api.instance import Instance

    from harness.evaluate.lm import ZooLM

    subject = trained[1]
    lm = ZooLM(subject=subject)
    ask = Instance("loglikelihood", {}, ("the cat", " sat"), 0)
    (score,) = subject.score([ScoreRequest(context=tuple(b"the cat"), continuation=tuple(b" sat"))])
    assert lm.loglikelihood([ask])[0] == pytest.approx((score.logprob, score.is_greedy))
    ask = Instance("generate_until", {}, ("the cat ", {"until": [" "], "max_gen_toks": 12}), 0)
    (text,) = lm.generate_until([ask])
    assert " " not in text and text
