"""BPE as a method: prepared once, kept by torch.save, applied, timed."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from harness.kinds.method import PrepareContext
from harness.kinds.stack import applied
from harness.subjects.requests import GenerateRequest
from methods.tokenizer.bpe import Bpe
from methods.tokenizer.native import Native

SMALL = Bpe(vocab_size=600, train_bytes=60_000)


def context(folder, seed=0):
    return PrepareContext(seed, Path(folder), lambda name: None, lambda name: None)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return SMALL.prepare(None, context(tmp_path_factory.mktemp("bpe")))


def test_the_artifact_survives_torch_save(artifact, tmp_path):
    torch.save({"artifact": artifact}, tmp_path / "a.pt")
    assert torch.load(tmp_path / "a.pt", weights_only=True)["artifact"] == artifact


def test_prepared_twice_is_the_same_and_the_seed_picks_the_text(artifact, tmp_path):
    assert SMALL.prepare(None, context(tmp_path)) == artifact
    assert SMALL.prepare(None, context(tmp_path, seed=1)) != artifact


def test_different_trainings_have_different_names(tiny, artifact, tmp_path):
    other = SMALL.prepare(None, context(tmp_path, seed=1))
    names = {SMALL.make(tiny.tokenizer, state).name for state in (artifact, artifact, other)}
    assert len(names) == 2 and all(name.startswith("bpe-") for name in names)


def test_applied_the_model_speaks_the_new_vocabulary(tiny, artifact):
    with applied([SMALL], tiny, lambda method, subject: artifact) as changed:
        made = changed.tokenizer
        ids = made.encode("Return the number of items in the list.")
        assert len(ids) < 30 and made.decode(ids) == "Return the number of items in the list."
        assert made.vocab_size == 602 == changed.model.config.vocab_size
        row = changed.generate(GenerateRequest(prompts=[ids], max_new_tokens=6, ignore_eos=True))[0]
        assert row.text == made.decode(row.tokens) and len(row.tokens) == 6
    assert tiny.model.config.vocab_size == 258


def test_all_checks_pass(tiny):
    for check in SMALL.checks(tiny):
        check.run()


def test_without_a_pattern_tokens_cross_words(tiny):
    free = Bpe(vocab_size=800, pattern="none")
    assert free.declared(tiny.tokenizer).crosses_words and not SMALL.declared(tiny.tokenizer).crosses_words
    made = free.make(tiny.tokenizer, free.train(["one two three. " * 40, "one two four. " * 40], 0))
    assert any(b"e t" in token for token in made.tokens)


def test_workloads_pair_with_their_references(tiny):
    named = {w.name: w for w in SMALL.workloads(tiny)}
    native = {w.name: w for w in Native().workloads(tiny)}
    assert named["encode"].units == native["encode"].units
    assert 0 < named["encode"].make()() < native["encode"].make()()
    train = named["train"]
    assert train.make()() == train.reference()()
    assert train.units["bytes"] > 50_000


def test_parameters_have_ranges():
    for wrong in ({"vocab_size": 255}, {"min_frequency": 0}, {"pattern": "gpt3"}, {"train_bytes": 0}):
        with pytest.raises(ValidationError):
            Bpe(**wrong)
