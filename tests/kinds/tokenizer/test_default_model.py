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
from harness.subjects.requests import ScoreRequest
from harness.toolkit.corpora import documents
from methods.tokenizer.bpe import Bpe
from methods.tokenizer.byte import Byte
from methods.tokenizer.dynamic_tokenization import DynamicTokenization
from methods.tokenizer.native import Native
from methods.tokenizer.number_direction import NumberDirection
from methods.tokenizer.stochastok import StochasTok
from methods.tokenizer.token_adapt import TokenAdapt
from methods.tokenizer.tst_numbers import TstNumbers
from methods.tokenizer.turkish_hybrid import TurkishHybrid

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


def test_rows_that_know_their_token_beat_those_that_do_not(subject):
    texts = [t for t in documents("python_docs", "test") if len(t) < 300][:6]
    artifact = Bpe().train(documents("python_docs", "train"), 0)
    found = []
    for method in (TokenAdapt(), Bpe(init="mean"), Bpe(init="random")):
        with applied([method], subject, lambda m, s: artifact) as changed:
            found.append(bits_per_byte(changed, texts))
    assert found == sorted(found)


def test_merged_contexts_are_shorter_and_without_merges_the_same(subject):
    ids = subject.tokenizer.encode(documents("python_source", "test")[0])[:200]
    request = ScoreRequest(context=tuple(ids[:150]), continuation=tuple(ids[150:]))
    before = subject.score([request])
    with applied([DynamicTokenization(merges=0)], subject) as changed:
        assert changed.score([request]) == before
    merge = DynamicTokenization().merge_of(subject.tokenizer)
    assert len(merge(request.context)) < 0.9 * len(request.context)
    with applied([DynamicTokenization()], subject) as changed:
        assert changed.score([request])[0].logprob < before[0].logprob


METHODS = [
    *(Native(), Byte(), Bpe(), StochasTok(), NumberDirection(), TstNumbers(), TstNumbers(option="A", mode="paper")),
    *(DynamicTokenization(), TurkishHybrid(), TokenAdapt(vocab_size=2000)),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.card.id)
def test_all_checks_pass(subject, method):
    for check in method.checks(subject):
        check.run()
