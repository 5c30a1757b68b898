"""Step access to a model: what is read in pieces equals what is read at once, and all work is counted."""

from dataclasses import replace

import pytest
import torch

from harness.errors import Refused
from harness.kinds.decoding import Continuation, StepModel, Strategy
from harness.kinds.decoding.decoder import StrategyDecoder
from harness.subjects.requests import GenerateRequest
from harness.subjects.sampling import Sampler

TEXT = [(7 * i) % 250 for i in range(11)]


def state_after(subject, text):
    """Logits and state after a text, by the bare model without a cache."""
    out = subject.model(torch.tensor([text]), output_hidden_states=True)
    return out.logits[0, -1], out.hidden_states[-1][0, -1]


def assert_state(out, subject, text):
    logits, hidden = state_after(subject, text)
    assert torch.allclose(out.logits_BV[0], logits, atol=1e-4)
    assert torch.allclose(out.hidden_BD[0], hidden, atol=1e-4)


@torch.inference_mode()
def test_a_text_read_in_pieces_is_forwarded_once(tiny):
    model = StepModel(tiny)
    for length in (3, 4, 9, 9, 11):
        assert_state(model.read(TEXT[:length]), tiny, TEXT[:length])
    assert model.runner.counts.tokens == 11 and model.runner.counts.forwards == 4


@torch.inference_mode()
def test_steps_go_on_from_the_cache_for_every_row(tiny):
    model = StepModel(tiny)
    model.read(TEXT[:5])
    model.runner.select_rows(torch.tensor([0, 0]))
    model.step(torch.tensor([[1], [2]]))
    out = model.step(torch.tensor([[3, 4], [5, 6]]))
    for row, rest in enumerate(([1, 3, 4], [2, 5, 6])):
        logits, hidden = state_after(tiny, [*TEXT[:5], *rest])
        assert torch.allclose(out.logits_BV[row], logits, atol=1e-4)
        assert torch.allclose(out.hidden_BD[row], hidden, atol=1e-4)


@torch.inference_mode()
def test_vectors_may_stand_for_tokens(tiny):
    ids = torch.tensor([[42]])
    own = tiny.model.get_input_embeddings()(ids)
    outs = []
    for embeds in (None, own, own * 2):
        model = StepModel(tiny)
        model.read(TEXT)
        outs.append(model.step(ids, embeds))
    assert torch.equal(outs[0].logits_BV, outs[1].logits_BV) and not torch.equal(outs[0].logits_BV, outs[2].logits_BV)
    assert_state(outs[0], tiny, [*TEXT, 42])


class Plain(Strategy):
    """Plain decoding, by steps."""

    def write(self, text):
        model, done = text.open(text.subject), False
        while not done:
            done = text.emit(text.pick(model.read(text.history).logits_BV[0]))


class Thrifty(Plain):
    """Writes no more than four tokens, and twice reads the prompt with a second model."""

    def write(self, text):
        text.spend_at_most(4)
        text.spend_at_most(9)
        assert text.room == min(4, text.request.max_new_tokens)
        for _ in range(2):
            text.open(text.subject).read(text.history)
        text.charge(7)
        super().write(text)
        assert text.room == 0


def written(strategy, subject, **settings):
    request = GenerateRequest(**({"prompts": [TEXT], "max_new_tokens": 12, "ignore_eos": True} | settings))
    return replace(subject, decoder=StrategyDecoder(strategy)).generate(request), subject.generate(request)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"repetition_penalty": 1.3},
        {"temperature": 0.9, "top_k": 20, "seed": 2},
        {"prompts": [TEXT, TEXT[:4], [3]], "temperature": 1.0},
        {"stop_strings": ("\x11",)},
        {"prompts": [TEXT], "forced": [[5] * 12]},
    ],
    ids=["greedy", "penalty", "sampled", "batch", "stop", "forced"],
)
def test_plain_decoding_by_steps_is_plain_decoding(tiny, extra):
    ours, theirs = written(Plain(), tiny, **extra)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.tokens, one.text, one.stop_reason) == (other.tokens, other.text, other.stop_reason)
        # A padded batch is forwarded to its last row's end, so only rows alone compare in what they cost.
        if len(ours) == 1:
            assert [one.counts[n] for n in ("forwards", "tokens_forwarded", "kv_bytes_held")] == [
                other.counts[n] for n in ("forwards", "tokens_forwarded", "kv_bytes_held")
            ]


def test_a_budget_is_only_lowered_and_all_work_is_charged(tiny):
    (row,), (plain,) = written(Thrifty(), tiny)
    parameters = sum(p.numel() for p in tiny.model.parameters())
    assert row.tokens == plain.tokens[:4] and row.stop_reason == "length"
    assert row.counts["forwards"] == 2 + 4
    assert row.counts["tokens_forwarded"] == 3 * len(TEXT) + 3
    assert row.counts["active_parameters_per_token"] == pytest.approx((6 * parameters + 7) / 4)
    assert written(Thrifty(), tiny, max_new_tokens=2)[0][0].tokens == plain.tokens[:2]


def test_a_row_s_own_random_stream_depends_on_seed_and_row_alone(tiny):
    def draws(seed, index, row_ids=None):
        request = GenerateRequest(prompts=[TEXT] * 2, max_new_tokens=1, seed=seed, row_ids=row_ids)
        return torch.rand(3, generator=Continuation(tiny, request, index, Sampler(request, tiny.device), 0.0).rng)

    assert torch.equal(draws(1, 0), draws(1, 1, row_ids=[4, 0]))
    assert not torch.equal(draws(1, 0), draws(1, 1)) and not torch.equal(draws(1, 0), draws(2, 0))


def test_a_model_with_too_short_a_context_is_refused(tiny):
    request = GenerateRequest(prompts=[TEXT], max_new_tokens=5)
    text = Continuation(tiny, request, 0, Sampler(request, tiny.device), 0.0)
    with pytest.raises(Refused, match=r"16 tokens .* context of 15"):
        text.open(replace(tiny, max_length=15))
    text.open(replace(tiny, max_length=16))
