"""Spike: a constrained sampler passes through the protocols."""

import itertools
import math

import pytest
import torch

from harness.catalog.spec import parse_stack
from harness.errors import Refused, UsageError
from harness.kinds.checking import run_checks
from harness.kinds.stack import applied
from harness.subjects.load import wrap_model
from harness.subjects.requests import GenerateRequest, ScoreRequest
from harness.subjects.tiny import ByteIds, random_llama

PROMPT = list(b"cabbages and carrots")
WORDS = ("a", "bb", "ca")


@pytest.fixture(scope="module")
def letters():
    """A tiny Llama that says a, b, c or end-of-text nearly always, so that whole strings can be enumerated."""
    model, tokenizer, length = random_llama()
    bias = torch.full((ByteIds.vocab_size,), -40.0)
    bias[[*b"abc", 257]] = 0.0
    head = torch.nn.Linear(model.config.hidden_size, ByteIds.vocab_size)
    head.weight.data, head.bias.data = model.lm_head.weight.data * 0.3, bias
    model.lm_head = head
    return wrap_model(model, tokenizer, "letters", length)


def request(**changes):
    settings = {"prompts": [PROMPT], "max_new_tokens": 3, "temperature": 1.0, "seed": 3}
    return GenerateRequest(**settings | changes)


def exact_masses(subject):
    """Probability of each allowed string with its end-of-text, by the subject's own scorer."""
    asked = [ScoreRequest(context=tuple(PROMPT), continuation=(*word.encode(), 257)) for word in WORDS]
    return {word: math.exp(score.logprob) for word, score in zip(WORDS, subject.score(asked), strict=True)}


@pytest.mark.parametrize("max_rejects", [2, 3, math.inf])
@pytest.mark.parametrize("passes", [(1, 3, 4), (0,), (), (0, 1, 2, 3, 4, 5)])
def test_step_is_properly_weighted_for_every_order(max_rejects, passes):
    from spike_zoo.awrs import recursive_step

    p = [0.4, 0.25, 0.15, 0.1, 0.07, 0.03]
    mass = [0.0] * len(p)
    for order in itertools.permutations(range(len(p))):
        rest, chance = 1.0, 1.0
        for token in order:
            chance *= p[token] / rest
            rest -= p[token]
        token, weight = recursive_step(order, p, passes.__contains__, max_rejects)
        mass[token] += chance * weight
    assert mass == pytest.approx([x * (i in passes) for i, x in enumerate(p)], abs=1e-12)


@pytest.mark.parametrize("before", ["", "kv_snapkv@keep_ratio=0.3@window=4+"])
def test_particles_carry_the_mass_of_whole_strings(letters, before):
    """E[w 1{string}] equals the scorer's probability, on the full cache and on a pruned one."""
    stack = parse_stack(f"{before}awrs@choices={WORDS!r}@particles=1200@resample_below=0")
    assert stack.kind == "decoding"
    with applied(stack.build(), letters) as subject, torch.inference_mode():
        exact = exact_masses(subject)
        crowd, constraint, runner, _ = subject.decoder.population(subject, request(), 0)
        if before:
            assert max(abs(exact[w] - x) for w, x in exact_masses(letters).items()) > 1e-3
            assert runner.cache.kept_slots() < runner.cache.seen_B.float().mean()
    assert constraint.calls < 1200 * 3 * 6
    for word in WORDS:
        weights = torch.tensor([math.exp(x.log_weight) if x.prefix == word.encode() else 0.0 for x in crowd])
        error = weights.std() / len(crowd) ** 0.5
        assert abs(weights.mean() - exact[word]) < 4 * error + 1e-6, word


def test_resampled_particles_take_their_cache_with_them(letters):
    """The text a particle holds scores, by the scorer, what the decoder's own logits said of its last token."""
    words = tuple("".join(w) for w in itertools.product("abc", repeat=3))
    (awrs,) = parse_stack(f"awrs@choices={words!r}@particles=40@resample_below=1.0").build()
    with applied([awrs], letters) as subject, torch.inference_mode():
        crowd, _, runner, _ = subject.decoder.population(subject, request(max_new_tokens=4), 0)
        last = runner.forward(torch.tensor([[97]] * 40))[:, -1]
        for particle, logits_V in zip(crowd, last, strict=True):
            ids = torch.tensor([[*PROMPT, *particle.prefix, 97]])
            assert torch.allclose(logits_V, letters.model(ids).logits[0, -1], atol=1e-4)
    assert len({particle.prefix for particle in crowd}) > 5


def test_only_allowed_texts_come_out_and_resampling_estimates_the_mass(letters):
    (awrs,) = parse_stack(f"awrs@choices={WORDS!r}@particles=64").build()
    asked = request(prompts=[PROMPT] * 6)
    with applied([awrs], letters) as subject:
        rows, again = subject.generate(asked), subject.generate(asked)
        total = sum(exact_masses(subject).values())
    assert {row.text for row in rows} <= set(WORDS)
    assert len({row.counts["log_ml"] for row in rows}) == 6
    assert [row.tokens for row in rows] == [row.tokens for row in again]
    mean = sum(math.exp(row.counts["log_ml"]) for row in rows) / 6
    assert mean == pytest.approx(total, rel=0.25)
    assert all(len(row.stamps_s) == len(row.tokens) == sum(row.steps) for row in rows)


def test_a_row_does_not_depend_on_its_batch(letters):
    (awrs,) = parse_stack(f"awrs@choices={WORDS!r}@particles=3").build()
    with applied([awrs], letters) as subject:
        both = subject.generate(request(prompts=[PROMPT, PROMPT[4:]]))
        alone = subject.generate(request(prompts=[PROMPT[4:]], row_ids=[1]))
    assert both[1].tokens == alone[0].tokens


def test_without_choices_greedy_is_the_baseline(tiny):
    asked = request(temperature=0.0, max_new_tokens=12)
    with applied(parse_stack("awrs").build(), tiny) as subject:
        assert subject.generate(asked)[0].tokens == tiny.generate(asked)[0].tokens
    assert tiny.stack == ()


def test_a_dead_population_yields_nothing(letters):
    with applied(parse_stack("awrs@choices=('abcabc',)").build(), letters) as subject:
        (row,) = subject.generate(request(max_new_tokens=4))
    assert (row.stop_reason, row.tokens, row.text) == ("dead", [], "")


@pytest.mark.parametrize("text", ["token_recycling+awrs", "awrs+token_recycling", "awrs+awrs"])
def test_two_decoders_are_refused_in_one_line(tiny, text):
    with pytest.raises(Refused, match=r"^[^\n]+$"), applied(parse_stack(text).build(), tiny):
        pass


def test_checks_run(tiny):
    assert [result.outcome for result in run_checks(parse_stack("awrs").build()[0], tiny)] == ["passed"]


def test_parameters_are_validated():
    with pytest.raises(UsageError, match="particles"):
        parse_stack("awrs@particles=0").build()
