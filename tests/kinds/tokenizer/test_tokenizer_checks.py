"""The checks pass on an honest method and catch each kind of dishonest one."""

from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import torch

from harness.errors import Refused, UsageError
from harness.kinds.stack import applied
from harness.kinds.tokenizer import Properties, Specials, TableTokenizer, TokenizerMethod
from harness.kinds.tokenizer.base import encode_all, forget_words, unseen_texts
from harness.kinds.tokenizer.checks import measured_properties
from methods.speculative.ar import Ar
from methods.speculative.token_recycling import TokenRecycling
from methods.tokenizer.byte import Byte
from methods.tokenizer.native import Native


def outcome(method, subject):
    """Which checks fail, by name."""
    failed = set()
    for check in method.checks(subject):
        try:
            check.run()
        except AssertionError:
            failed.add(check.name)
    return failed


def bytes_table(specials, encode=None):
    return TableTokenizer("b", [bytes([b]) for b in range(256)], encode or (lambda t: list(t.encode())), specials)


class Fake(TokenizerMethod):
    """Bytes with a fault of the test's choosing."""

    card = Byte.card
    properties = Properties(lossless=True, byte_complete=True)

    def make(self, tokenizer, artifact):
        return bytes_table(Specials.of(tokenizer), getattr(self, "encode", None))


def test_honest_methods_pass(subject):
    assert outcome(Byte(), subject) == set()
    assert outcome(Native(), subject) == set()
    assert outcome(Fake(), subject) == set()


def test_a_false_identity_is_caught(subject):
    @dataclass(frozen=True)
    class Claims(Fake):
        card = replace(Byte.card, identity={})

    assert outcome(Claims(), subject) == {"identity equals baseline"}


def test_a_lossy_encoder_is_caught(tiny):
    fake = Fake()
    fake.encode = lambda text: list(text.lower().encode())
    assert outcome(fake, tiny) == {"round trip of hostile texts"}


def test_a_random_encoder_is_caught(tiny):
    fake, calls = Fake(), []

    def encode(text):
        calls.append(text)
        return [*text.encode(), *([256] * (len(calls) % 2))]

    fake.encode = encode
    assert "same ids every time" in outcome(fake, tiny)


def test_token_bytes_that_are_not_the_texts_are_caught(tiny):
    class Swapped(TableTokenizer):
        def token_bytes(self, token_id):
            held = super().token_bytes(token_id)
            return {b"a": b"b", b"b": b"a"}.get(held, held)

    class Method(Fake):
        def make(self, tokenizer, artifact):
            made = bytes_table(Specials.of(tokenizer))
            made.__class__ = Swapped
            return made

    assert outcome(Method(), tiny) == {"token bytes are the text's bytes"}


def test_wrong_declarations_are_caught(tiny):
    class Method(Fake):
        def make(self, tokenizer, artifact):
            tokens = [*(bytes([b]) for b in range(255)), b"a b"]
            return TableTokenizer("w", tokens, lambda t: list(t.encode()), Specials.of(tokenizer))

    assert "vocabulary as declared" in outcome(Method(), tiny)


def test_a_method_that_touches_the_given_model_is_caught(tiny):
    class Method(Fake):
        @contextmanager
        def apply(self, subject, artifact=None):
            with torch.no_grad():
                subject.model.lm_head.weight.mul_(1.0)
            yield replace(subject)

    failed = outcome(Method(), tiny)
    assert failed == {"subject untouched after exit", "subject untouched after an exception"}


def test_a_copied_body_is_caught(tiny):
    class Method(Fake):
        @contextmanager
        def apply(self, subject, artifact=None):
            import copy

            yield replace(subject, model=copy.deepcopy(subject.model))

    assert outcome(Method(), tiny) == {"scores and generates over the new vocabulary"}


def test_properties_are_measured_not_claimed(incomplete, tiny):
    assert measured_properties(tiny.tokenizer) == Properties(lossless=True, byte_complete=True)
    found = measured_properties(incomplete)
    assert not found.lossless and not found.byte_complete and not found.crosses_words


def test_a_drafter_of_the_old_vocabulary_is_refused(tiny):
    with pytest.raises(Refused, match="write the tokenizer first"), applied([TokenRecycling(), Byte()], tiny):
        pass
    with applied([Ar(), Byte()], tiny) as changed:
        assert changed.stack == ("ar", "byte")


def test_a_missing_artifact_is_a_clear_error(tiny):
    class Trained(Fake):
        trains = True

    with pytest.raises(UsageError, match="zoo train byte"), Trained().apply(tiny):
        pass


def test_unseen_text_is_large_shuffled_and_not_trained_on(incomplete):
    from harness.toolkit.corpora import documents

    texts = unseen_texts()
    assert 500_000 < sum(len(t.encode()) for t in texts) <= 1_000_000
    assert not set(texts) & set(documents("python_docs", "train"))
    prose = [not t.count("\n") for t in texts]
    assert any(prose[:40]) and not all(prose[:40])
    assert encode_all(incomplete, texts[:3]) == sum(len(incomplete.encode(t)) for t in texts[:3])


def test_word_caches_are_emptied(incomplete, monkeypatch):
    cleared = []
    forget_words(incomplete)
    made = bytes_table(Specials.of(incomplete))
    forget_words(made)
    made.forget = lambda: cleared.append(1)
    forget_words(made)
    assert cleared == [1]
