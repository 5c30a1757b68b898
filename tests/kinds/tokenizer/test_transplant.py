"""The transplant: exact copies, means, specials by role, a shared body, an untouched original."""

import pytest
import torch
from torch import nn

from harness.errors import Refused
from harness.kinds.tokenizer.transplant import plan_rows, special_sources, transplant
from harness.kinds.tokenizer.vocabulary import Specials, TableTokenizer, Vocabulary
from harness.subjects.runner import Runner
from harness.subjects.tiny import ByteIds, random_llama

TOKENS = [b"cat", b"the cat", b"\x06", b" the", b"z\xffq", b"\xc3\xa9", b"t"]


def logits(model, subject, ids):
    with torch.inference_mode():
        return Runner(model, subject.new_cache).prefill([ids], all_logits=True)[0]


def made_from(tokenizer, tokens=TOKENS, names=("<|start|>", "<|end|>")):
    return TableTokenizer("made", tokens, lambda text: [], Specials(names, names[0], names[1:]))


def test_onto_the_same_tokenizer_gives_bit_identical_logits(subject):
    old = subject.tokenizer
    model, report = transplant(subject.model, old, old)
    ids = [old.prefix_id, *old.encode("the cat sat on the table")]
    assert torch.equal(logits(subject.model, subject, ids)[:, : old.vocab_size], logits(model, subject, ids))
    assert (report.shared + report.special, report.composed, report.fallback) == (old.vocab_size, 0, 0)
    assert report.old_norms == report.new_norms


def test_rows_are_copied_mixed_or_averaged(subject):
    old, new = subject.tokenizer, made_from(subject.tokenizer)
    held = Vocabulary(old)
    model, report = transplant(subject.model, old, new)
    for was, now in (
        (subject.model.model.embed_tokens.weight, model.model.embed_tokens.weight),
        (subject.model.lm_head.weight, model.lm_head.weight),
    ):
        assert now.shape == (len(TOKENS) + 2, was.shape[1])
        assert torch.equal(now[3], was[held.by_bytes[b" the"]]) and torch.equal(now[6], was[held.by_bytes[b"t"]])
        assert torch.equal(now[new.prefix_id], was[old.prefix_id])
        assert torch.equal(now[new.eos_ids[0]], was[old.eos_ids[0]])
        parts = was[old.encode("the cat")]
        assert len(parts) > 1
        torch.testing.assert_close(now[1], parts.mean(0))
        torch.testing.assert_close(now[2], was[: old.vocab_size].mean(0))
    assert (report.special, report.fallback) == (2, 2)
    assert report.shared + report.composed + 4 == new.vocab_size


def test_tied_stays_tied_and_the_body_is_shared(subject):
    model, _ = transplant(subject.model, subject.tokenizer, made_from(subject.tokenizer))
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == subject.model.config.tie_word_embeddings
    own = {id(p) for p in subject.model.parameters()}
    fresh = [name for name, p in model.named_parameters() if id(p) not in own]
    assert set(fresh) <= {"model.embed_tokens.weight", "lm_head.weight"}
    assert model.model.layers is subject.model.model.layers


def test_the_given_model_is_not_touched(subject):
    before = {name: (id(p), p._version, p.clone()) for name, p in subject.model.named_parameters()}
    config = subject.model.config.to_dict()
    model, _ = transplant(subject.model, subject.tokenizer, made_from(subject.tokenizer))
    nn.init.zeros_(model.model.embed_tokens.weight)
    assert subject.model.config.to_dict() == config
    assert model.config.vocab_size == 9 and model.vocab_size == 9
    assert subject.model.model.embed_tokens.num_embeddings == config["vocab_size"]
    for name, p in subject.model.named_parameters():
        assert (id(p), p._version) == before[name][:2] and torch.equal(p, before[name][2])


def test_gradients_reach_the_new_rows_only(subject):
    model, _ = transplant(subject.model, subject.tokenizer, made_from(subject.tokenizer))
    model.model.embed_tokens.weight.sum().backward()
    assert model.model.embed_tokens.weight.grad is not None
    assert subject.model.model.embed_tokens.weight.grad is None


def test_specials_are_matched_by_name_then_by_role(incomplete):
    assert special_sources(incomplete, made_from(incomplete)) == {7: 1, 8: 0}
    # A byte tokenizer's names are others: its prefix and end get the old prefix and end.
    assert special_sources(incomplete, ByteIds()) == {256: 1, 257: 0}
    third = made_from(incomplete, names=("<|start|>", "<|end|>", "<|tool|>"))
    assert plan_rows(None, incomplete, third).missing.tokens[-1] is None


def test_leading_spaces_are_part_of_the_bytes(incomplete):
    held = Vocabulary(incomplete)
    plan = plan_rows(None, incomplete, made_from(incomplete, [b" the", b"the", "\u0120the".encode()]))
    assert plan.kept[0] == held.by_bytes[b" the"]
    assert plan.kept.get(1) != plan.kept[0]
    # The printable form of " the" is a text of its own: its bytes are c4 a0 and the letters.
    assert plan.kept.get(2) != plan.kept[0] and plan.special == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_shared_rows_are_exact_in_every_dtype(subject, dtype):
    model, _ = transplant(subject.model.to(dtype), subject.tokenizer, made_from(subject.tokenizer))
    was, now = subject.model.lm_head.weight, model.lm_head.weight
    subject.model.float()
    assert now.dtype == dtype and torch.equal(now[3], was[Vocabulary(subject.tokenizer).by_bytes[b" the"]])


def test_an_output_bias_follows_its_rows():
    model, old, _ = random_llama()
    model.lm_head.bias = nn.Parameter(torch.arange(258.0))
    new = TableTokenizer("two", [b"a", b"ab"], lambda text: [], Specials.of(old))
    made, _ = transplant(model, old, new)
    assert made.lm_head.bias.tolist() == [97.0, 97.5, 256.0, 257.0]


def test_models_without_plain_layers_are_refused(subject):
    model, old, _ = random_llama()
    model.lm_head = nn.Sequential(nn.Linear(32, 258))
    with pytest.raises(Refused, match="no plain embedding"):
        transplant(model, old, old)
    small, _, _ = random_llama(vocab_size=200)
    with pytest.raises(Refused, match="200 embedding rows"):
        transplant(small, old, old)
