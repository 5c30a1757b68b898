"""LZ-aware BPE: plain BPE with one candidate, and the least compressed size at every step."""

import zlib
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from harness.kinds.tokenizer.bpe import merges_of, pair_table, word_ids
from harness.kinds.tokenizer.hostile import lost
from harness.kinds.tokenizer.merging import learn_merges
from harness.toolkit.corpora import documents
from methods.tokenizer.lz_bpe import LzBpe, Stream, choose

SMALL = LzBpe(vocab_size=290, candidates=5, validation_bytes=4_000, train_bytes=40_000)


@pytest.fixture(scope="module")
def texts():
    return documents("python_docs", "train", 40_000)


def joined(words, pair, made):
    """Words with the pair merged from the left, slowly."""
    out = []
    for word in words:
        new, at = [], 0
        while at < len(word):
            step = 2 if tuple(word[at : at + 2]) == pair else 1
            new.append(made if step == 2 else word[at])
            at += step
        out.append(tuple(new))
    return out


def test_one_candidate_is_plain_bpe(texts):
    counted, held = SMALL.divide(texts)
    assert counted + held == texts and 4_000 <= sum(map(len, held)) < 8_000
    one = merges_of(replace(SMALL, candidates=1).train(texts, 0))
    assert one == learn_merges(pair_table(counted), 290)
    assert one != merges_of(SMALL.train(texts, 0))


def test_every_merge_has_the_least_size_of_its_candidates(texts):
    counted, held = SMALL.divide(texts)
    table, words = pair_table(counted), list(word_ids(held))
    for left, right in merges_of(SMALL.train(texts, 0)):
        sizes = {}
        for pair in table.best(5):
            flat = [i for word in joined(words, pair, len(table.tokens)) for i in word]
            sizes[pair] = len(zlib.compress(np.array(flat, dtype="<u2").tobytes(), 6))
        pair = (table.by_bytes[left], table.by_bytes[right])
        assert sizes[pair] == min(sizes.values())
        assert pair == min(sizes, key=sizes.__getitem__)  # of equals the more frequent
        words = joined(words, pair, len(table.tokens))
        table.merge(pair)


@pytest.mark.parametrize("words", [[(1, 1, 1, 1, 1), (1,), (1, 1)], [(2, 1), (1, 2, 1, 1)], [(3,)]])
def test_the_stream_merges_from_the_left_and_within_words(words):
    ids, first = Stream(words).merged((1, 1), 9)
    expected = joined(words, (1, 1), 9)
    assert ids.tolist() == [i for word in expected for i in word]
    assert first.tolist() == [at == 0 for word in expected for at in range(len(word))]


def test_training_stops_where_no_pair_is_frequent_enough():
    table = pair_table(["ab cd"])
    assert choose(table, Stream(word_ids(["ab"])), 4, 2, 6) is None
    assert merges_of(LzBpe().train(["abab abab", "abab"], 0))[0] == (b"a", b"b")


def test_all_checks_pass(tiny, texts):
    for check in SMALL.checks(tiny):
        check.run()
    made = SMALL.make(tiny.tokenizer, SMALL.train(texts, 0))
    assert lost(made) == []
    train = next(w for w in SMALL.workloads(tiny) if w.name == "train")
    assert train.make()() and train.reference()()


def test_parameters_have_ranges():
    for wrong in ({"candidates": 0}, {"vocab_size": 70_000}, {"level": 10}):
        with pytest.raises(ValidationError):
            LzBpe(**wrong)
