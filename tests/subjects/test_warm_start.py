"""The warm-started model: deterministic, kept under its recipe, never half-written."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from harness.errors import EnvironmentFailed
from harness.subjects.catalog import MODELS
from harness.subjects.chain_sum_text import ChainSumText, CharIds
from harness.subjects.multi_select_text import InvertedSelectText, MultiSelectText
from harness.subjects.warm_start import (
    IGNORED,
    WarmStart,
    obtain_warm_start,
    sampled_accuracy,
    trace_batch,
    train_warm_start,
)

SMALL = WarmStart(hidden=16, intermediate=24, layers=1, heads=2, steps=3, batch=4, look_every=1, stop_at=0.0)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    return tmp_path / "models"


def test_made_once_and_kept_with_its_figures(cache):
    model, tokenizer, longest = obtain_warm_start(SMALL)
    (path,) = cache.iterdir()
    stamp = path.stat().st_mtime_ns
    again, _, _ = obtain_warm_start(SMALL)
    assert path.stat().st_mtime_ns == stamp
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert set(safe_open(path, "pt").metadata()) == {"steps", "sampled_accuracy", "cpu_seconds"}
    assert tokenizer.vocab_size == model.config.vocab_size
    assert longest == model.config.max_position_embeddings
    assert not model.training


def test_another_recipe_is_another_file(cache):
    obtain_warm_start(SMALL)
    obtain_warm_start(replace(SMALL, seed=1))
    assert len(list(cache.iterdir())) == 2


def test_weights_follow_from_the_recipe():
    before = torch.random.get_rng_state()
    first, _ = train_warm_start(SMALL)
    second, _ = train_warm_start(SMALL)
    other, _ = train_warm_start(replace(SMALL, seed=1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_a_warm_start_that_failed_leaves_no_file(cache):
    with pytest.raises(EnvironmentFailed, match="sampled accuracy"):
        obtain_warm_start(replace(SMALL, stop_at=0.9))
    assert not cache.exists() or not list(cache.iterdir())


def test_a_truncated_file_is_named(cache):
    obtain_warm_start(SMALL)
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(EnvironmentFailed, match="delete it"):
        obtain_warm_start(SMALL)


def test_labels_are_the_responses_and_their_end():
    import random

    ids, labels = trace_batch(SMALL, random.Random(0))
    end = CharIds.eos_ids[0]
    for row, label in zip(ids.tolist(), labels.tolist(), strict=True):
        kept = [i for i in label if i != IGNORED]
        assert label[:8] == [IGNORED] * 8
        assert CharIds().decode(row[:8]).endswith("=")
        assert kept == row[8 : 8 + len(kept)]
        assert kept[-1] == end and end not in kept[:-1]


def test_another_language_is_another_file_and_prompts_of_any_length_are_asked(cache):
    mixed = replace(SMALL, language=ChainSumText(operands=2, most=4))
    languages = (MultiSelectText(), InvertedSelectText())
    for recipe in (SMALL, mixed, *(replace(SMALL, language=language) for language in languages)):
        obtain_warm_start(recipe)
    assert len(list(cache.iterdir())) == 4


LANGUAGES = {
    "tiny-chain-sum": ChainSumText(),
    "tiny-chain-sum-mixed": ChainSumText(operands=2, most=6),
    "tiny-multi-select": MultiSelectText(),
    "tiny-multi-select-inverted": InvertedSelectText(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LANGUAGES)
def test_the_catalog_model_is_right_about_two_times_in_five(name):
    import random

    model, _, _ = MODELS[name].make()
    rng, language = random.Random(5), LANGUAGES[name]
    problems = [language.draw(rng, held_out=True) for _ in range(1000)]
    assert 0.3 < sampled_accuracy(model, language, problems, seed=1) < 0.55
