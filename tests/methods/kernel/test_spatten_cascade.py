"""SpAtten's cascade: survivors are nested, the last token stays, and what left has no say."""

import pytest
import torch

from harness.kinds.checking import run_checks
from harness.kinds.kernel.cascade_workloads import cascade, written_out
from harness.kinds.kernel.importance import importance
from methods.kernel.spatten_cascade import SpattenCascade, keep_schedule, survivors


def layers_of(count=4, tokens=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(1, n, tokens, 8, generator=generator) for n in (4, 2, 2)] for _ in range(count)]


def run(layers, schedule):
    """Outputs, and the places that survived before each layer."""
    seen = []

    def noted(score, place, share, tokens):
        seen.append(survivors(score, place, share, tokens))
        return seen[-1]

    return cascade(layers, schedule, 0.3, importance, noted), seen


def test_the_schedule_is_dense_then_falls_to_the_last_share():
    assert keep_schedule(8, 0.25, 0.4) == pytest.approx([1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert keep_schedule(3, 0.0, 1.0) == [1.0] * 3
    assert keep_schedule(2, 1.0, 0.1) == [1.0, 1.0]


def test_the_best_survive_in_their_order_and_the_last_always():
    score, place = torch.tensor([3.0, 1.0, 3.0, 2.0, 0.0]), torch.tensor([2, 5, 6, 7, 9])
    assert survivors(score, place, 0.3, 10).tolist() == [2, 6, 9]
    assert survivors(score, place, 0.1, 10).tolist() == [9]
    assert survivors(score, place, 0.9, 10).tolist() == place.tolist()


def test_keeping_everything_is_dense_attention():
    layers = layers_of()
    found, _ = run(layers, [1.0] * 4)
    for out, (query, key, value) in zip(found, layers, strict=False):
        torch.testing.assert_close(out, written_out(query, key, value, 0.3)[0])
    assert found[-1].tolist() == list(range(30))


def test_survivors_are_nested_and_as_many_as_the_schedule_says():
    _, seen = run(layers_of(), [1.0, 0.7, 0.5, 0.2])
    sets = [set(places.tolist()) for places in seen]
    assert [len(s) for s in sets] == [21, 15, 6] and sets[0] > sets[1] > sets[2]
    assert all(29 in s for s in sets)


def test_the_first_choice_follows_the_first_layers_columns():
    layers = layers_of()
    _, seen = run(layers, [1.0, 0.5, 0.5, 0.5])
    columns = written_out(*layers[0], 0.3)[1][0]
    assert set(seen[0].tolist()) == {29, *columns[:-1].topk(14).indices.tolist()}


def test_what_has_left_has_no_say():
    layers = layers_of()
    found, seen = run(layers, [1.0, 0.5, 0.5, 0.5])
    gone = next(t for t in range(30) if t not in seen[0].tolist())
    for states in layers[1:]:
        for x in states:
            x[:, :, gone] += 5
    again, _ = run(layers, [1.0, 0.5, 0.5, 0.5])
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_its_checks_hold(tiny):
    results = run_checks(SpattenCascade(), tiny)
    assert results and all(r.passed for r in results), [r for r in results if not r.passed]
