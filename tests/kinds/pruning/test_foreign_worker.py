"""How presses are written, and the worker on a model of this environment, with presses that are stood in for."""

from contextlib import contextmanager

import pytest
import torch

from harness.kinds.invariants import random_ids
from harness.kinds.pruning.foreign import press_spec, worker
from harness.subjects.requests import ScoreRequest
from harness.subjects.tiny import random_llama

TOKENS = [7, 200, 3, 90, 41]


class Crop:
    """Leaves the last slots of each layer: ``kept`` by layer."""

    def __init__(self, kept):
        self.kept = kept

    @contextmanager
    def __call__(self, model):
        def crop(module, inputs, kwargs, output):
            layer = kwargs["past_key_values"].layers[module.layer_idx]
            kept = self.kept[module.layer_idx]
            layer.keys, layer.values = layer.keys[:, :, -kept:], layer.values[:, :, -kept:]

        hooks = [b.self_attn.register_forward_hook(crop, with_kwargs=True) for b in model.model.layers]
        yield
        for hook in hooks:
            hook.remove()


@pytest.fixture
def at_work(monkeypatch):
    """A worker on the tiny model, whose press keeps these many slots of each layer."""

    def make(kept):
        monkeypatch.setattr(worker, "made", lambda spec, ratio: Crop(kept))
        at_work = worker.Worker()
        at_work.model = random_llama()[0].eval()
        at_work.press({"name": "SnapKVPress", "options": {}}, 0.5)
        return at_work

    return make


def stepwise(at_work, tokens):
    """Log-probability of tokens that are read one by one."""
    total = 0.0
    for token in tokens:
        total += float(at_work.last.log_softmax(-1)[token])
        at_work.step(token)
    return total


def test_a_press_is_read_with_its_options_and_what_it_wraps():
    assert press_spec("TOVAPress") == press_spec("TOVA") == {"name": "TOVAPress", "options": {}}
    inner = {"name": "SnapKVPress", "options": {"window_size": 32}}
    wrapped = {"name": "AdaKVPress", "options": {"alpha_safeguard": 0.3}, "inner": inner}
    assert press_spec("AdaKV(SnapKV(window_size=32), alpha_safeguard=0.3)") == wrapped
    assert worker.names(wrapped) == ["AdaKVPress", "SnapKVPress"]


@pytest.mark.parametrize("text", ["", "SnapKV(", "1 + 1", "a.b", "AdaKV(SnapKV, TOVA)", "SnapKV(window_size=open())"])
def test_what_is_no_press_is_refused(text):
    with pytest.raises(ValueError, match=r"cannot read the press"):
        press_spec(text)


@pytest.mark.parametrize("keep_ratio", [1e-6, 0.1, 0.25, 0.3, 0.5, 0.999, 1.0])
def test_the_ratio_gives_our_budget_however_a_press_rounds(keep_ratio):
    for length in (1, 2, 3, 49, 160, 1000):
        keep = max(1, int(keep_ratio * length + 1e-9))
        ratio = worker.ratio_for(keep_ratio, length)
        assert int(length * (1 - ratio)) == round(length * (1 - ratio)) == keep
        assert (ratio == 0) == (keep == length)


@pytest.mark.parametrize(("name", "why"), [("DecodingPress", "while decoding"), ("FinchPress", "other positions")])
def test_presses_that_do_not_act_once_and_in_place_are_refused(name, why):
    with pytest.raises(ValueError, match=why):
        worker.Worker().press({"name": name, "options": {}}, 0.5)


def test_without_a_press_scores_are_the_plain_models(tiny, at_work):
    context = random_ids(tiny, 40, 0)
    plain = tiny.score([ScoreRequest(context=tuple(context), continuation=tuple(TOKENS[:n])) for n in (1, 5)])
    whole = at_work((1000, 1000))
    held = whole.prefill(context)
    assert held["slots"] == 40 and held["bytes"] == 40 * 2 * 2 * 2 * 8 * 4
    for (logprob, greedy), score in zip(whole.score([TOKENS[:1], TOKENS]), plain, strict=True):
        assert abs(logprob - score.logprob) < 1e-4 and greedy == score.is_greedy


@pytest.mark.parametrize("kept", [(12, 12), (20, 5)])
def test_a_score_is_what_steps_would_have_seen_also_where_layers_differ(tiny, at_work, kept):
    pruned = at_work(kept)
    held = pruned.prefill(random_ids(tiny, 40, 0))
    assert held["slots"] == sum(kept) / 2
    (short, _), (whole, _), again = pruned.score([TOKENS[:2], TOKENS, TOKENS])
    assert again[0] == whole < short
    assert abs(stepwise(pruned, TOKENS) - whole) < 1e-4


def test_greedy_text_is_scored_as_greedy_and_slots_grow(tiny, at_work):
    pruned = at_work((12, 12))
    held, written = pruned.prefill(random_ids(tiny, 40, 1)), []
    for _ in range(4):
        written.append(held["next"])
        held = pruned.step(held["next"])
    assert held["slots"] == 16
    pruned.prefill(random_ids(tiny, 40, 1))
    other = [*written[:3], (written[3] + 1) % 258]
    assert [greedy for _, greedy in pruned.score([written, other])] == [True, False]


def test_masked_slots_are_held_but_do_not_count(tiny, at_work):
    whole = at_work((1000, 1000))
    whole.prefill(random_ids(tiny, 40, 0))
    gone = (torch.zeros(6, dtype=torch.long), torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([1, 2, 3, 4, 5, 5]))
    whole.model.model.layers[0].self_attn.masked_key_indices = gone
    held = whole.step(3)
    assert held["slots"] == 41 - (5 / 2) / 2 and held["bytes"] == 41 * 2 * 2 * 2 * 8 * 4
    assert [len(part) for _, part in whole._parts(TOKENS)] == [1] * 5
    assert whole.prefill([1, 2, 3])["slots"] == 3
