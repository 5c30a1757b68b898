"""HAMburger: its checks, its budget, and what segments save once they are learnt."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.kinds.architecture.held_out import forced_decoding
from harness.kinds.method import PrepareContext
from methods.architecture.hamburger import Hamburger

PHRASE = "one two three; "


def made(method, tiny, seed=0):
    return method.prepare(tiny, PrepareContext(seed, Path(), lambda name: tiny, lambda text: None))


def test_all_checks_hold(tiny):
    for check in Hamburger().checks(tiny):
        check.run()


@pytest.mark.parametrize("shape", [{"max_steps": 2}, {"max_steps": 1}, {"features": 1}, {"micro_layers": 2}])
def test_other_shapes_train_and_write(tiny, shape):
    method = replace(Hamburger(**shape).check_twin(), confidence=0.0)
    with method.apply(tiny, made(method, tiny)) as trained:
        row = forced_decoding(trained, [1, 2, 3], list(range(24)))[1]
    assert row.counts["forwards"] == 24 / method.max_steps


def test_the_budget_is_shared_between_base_and_conversion(tiny):
    method = replace(Hamburger().check_twin(), steps=8, conversion=0.25)
    stages = made(method, tiny)["stages"]
    assert [(s["phase"], len(s["losses"])) for s in stages] == [("base", 6), ("conversion", 2)]
    assert [s["phase"] for s in made(replace(method, max_steps=1), tiny)["stages"]] == ["base"]
    assert [s["phase"] for s in made(replace(method, steps=1), tiny)["stages"]] == ["conversion"]


def test_foreseeable_text_takes_fewer_slots_and_is_still_right(tiny, tmp_path):
    """A phrase again and again: once the base is sure of it nearly every segment is full, and the text goes on."""
    (tmp_path / "a.txt").write_text("\n\n".join([PHRASE * 200] * 40), "utf-8")
    budget = {"steps": 240, "batch": 4, "length": 48, "hidden": 32, "learning_rate": 2e-2, "conversion": 0.35}
    method = replace(Hamburger(corpus=str(tmp_path)).check_twin(), **budget, confidence=0.5)
    text = tiny.text_tokenizer().encode(PHRASE * 6)
    with method.apply(tiny, made(method, tiny)) as trained:
        logits_TV, row = forced_decoding(trained, text[:30], text[30:])
    right = sum(best == token for best, token in zip(logits_TV.argmax(-1).tolist(), text[30:], strict=True))
    assert right > 0.8 * len(text[30:])
    assert row.counts["tokens_per_segment"] > 2.5 and row.counts["kv_slots_per_token"] < 0.4
