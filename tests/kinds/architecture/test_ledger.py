"""FLOPs of a step against the closed formula, and budgets in FLOPs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.errors import Refused
from harness.kinds.method import PrepareContext
from methods.architecture.hamburger import Hamburger
from methods.architecture.tiny_llama import TinyLlama

SMALL = TinyLlama(hidden=16, layers=2, heads=2, batch=2, length=24)


def context(tiny, seed=0):
    return PrepareContext(seed, Path(), lambda name: tiny, lambda text: None)


def rows(batch, length):
    return torch.randint(0, 256, (batch, length)), torch.ones(batch, length, dtype=torch.bool)


@pytest.mark.parametrize(("hidden", "layers", "heads", "length"), [(16, 1, 1, 8), (32, 3, 2, 40), (64, 2, 4, 128)])
def test_a_llama_costs_what_the_formula_says(tiny, hidden, layers, heads, length):
    method = TinyLlama(hidden=hidden, layers=layers, heads=heads, batch=3, length=length)
    model = method.build(tiny).float()
    body = sum(p.numel() for n, p in model.named_parameters() if "embed" not in n and "norm" not in n)
    size = tiny.tokenizer.vocab_size
    a_token = 6 * body + 12 * layers * hidden * length + 6 * hidden * size
    assert method.flops_of_step(model, *rows(3, length)) == 3 * length * a_token
    assert method.step_flops(tiny) == 3 * length * a_token


def test_the_budget_buys_as_many_steps_as_it_pays_for(tiny):
    cost = SMALL.step_flops(tiny)
    artifact = replace(SMALL, flops=5.5 * cost, steps=400).prepare(tiny, context(tiny))
    assert len(artifact["stages"][0]["losses"]) == 5 and artifact["flops"] == 5 * cost
    same = replace(SMALL, steps=5).prepare(tiny, context(tiny))
    assert all(torch.equal(w, same["weights"][name]) for name, w in artifact["weights"].items())
    figures = {m.metric: m.value for m in SMALL.training_measurements(artifact)}
    assert figures["train_flops"] == 5 * cost and figures["updates"] == 5
    assert "flops" not in same and "train_flops" not in {m.metric for m in SMALL.training_measurements(same)}


def test_a_budget_below_one_step_is_refused(tiny):
    with pytest.raises(Refused, match="one step takes"):
        replace(SMALL, flops=10.0).prepare(tiny, context(tiny))


def test_counting_leaves_the_random_numbers_alone(tiny):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    SMALL.step_flops(tiny)
    assert torch.equal(torch.rand(2), expected)


def test_stages_of_unequal_cost_are_averaged(tiny):
    method = Hamburger(hidden=16, layers=2, heads=2, batch=2, length=24, conversion=0.5)
    torch.manual_seed(0)
    model, given = method.build(tiny).float(), rows(2, 24)
    plain = replace(method, max_steps=1).flops_of_step(model, *given)
    some, most = (replace(method, conversion=c).flops_of_step(model, *given) for c in (0.25, 0.75))
    assert plain < some < most and most - plain == pytest.approx(3 * (some - plain))
