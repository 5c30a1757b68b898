"""The default model's own tokenizer and what a swap costs it. Minutes of compute: run with -m slow."""

import math

import pytest

from harness.kinds.stack import applied
from harness.kinds.tokenizer import Vocabulary, split_table
from harness.kinds.tokenizer.checks import measured_properties, missing_bytes
from harness.kinds.tokenizer.consistency import log_probabilities
from harness.kinds.tokenizer.hostile import comes_back
from harness.subjects.catalog import DEFAULT_MODEL
from harness.subjects.load import load_subject
from harness.toolkit.corpora import documents
from methods.tokenizer.bpe import Bpe
from methods.tokenizer.byte import Byte
from methods.tokenizer.native import Native
from methods.tokenizer.stochastok import StochasTok

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def subject():
    return load_subject(DEFAULT_MODEL, device="cpu", dtype="float32")


def bits_per_byte(subject, texts):
    nats = -sum(log_probabilities(subject, [subject.tokenizer.encode(t) for t in texts]))
    return nats / math.log(2) / sum(len(t.encode()) for t in texts)


def test_its_vocabulary_lacks_bytes_and_says_so(subject):
    vocabulary = Vocabulary(subject.tokenizer)
    assert len(missing_bytes(vocabulary)) == 21
    assert subject.tokenizer.decode(subject.tokenizer.encode("a\x06b")) == "ab"
    assert not comes_back(subject.tokenizer, chr(0x40000))
    found = measured_properties(subject.tokenizer)
    assert not found.lossless and not found.byte_complete and not found.crosses_words


def test_every_token_of_two_bytes_or_more_splits(subject):
    vocabulary = Vocabulary(subject.tokenizer)
    long = [i for i, token in enumerate(vocabulary.tokens) if token and len(token) > 1]
    splits = split_table(vocabulary)
    assert set(splits) == set(long)
    assert sum(map(len, splits.values())) / len(long) == pytest.approx(2.20, abs=0.01)


def test_a_plain_swap_costs_more_the_further_it_goes(subject):
    texts = [t for t in documents("python_docs", "test") if len(t) < 300][:6]
    bpe = Bpe()
    artifact = bpe.train(documents("python_docs", "train"), 0)
    found = []
    for method in (Native(), bpe, Byte()):
        with applied([method], subject, lambda m, s: artifact) as changed:
            found.append(bits_per_byte(changed, texts))
    assert 0.5 < found[0] < found[1] < 3 < found[2]
    assert bits_per_byte(subject, texts) == found[0]


@pytest.mark.parametrize("method", [Native(), Byte(), Bpe(), StochasTok()], ids=lambda m: m.card.id)
def test_all_checks_pass(subject, method):
    for check in method.checks(subject):
        check.run()
