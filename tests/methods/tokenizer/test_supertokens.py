"""Supertokens: chunks cover the text, one-word chunks are BPE, longer chunks give phrases."""

import numpy as np
import pytest
from pydantic import ValidationError

from harness.kinds.tokenizer.bpe import merges_of, train_bpe
from harness.kinds.tokenizer.hostile import lost
from harness.toolkit.corpora import documents
from methods.tokenizer.supertokens import Supertokens, chunks, word_starts

SMALL = Supertokens(vocab_size=800, train_bytes=60_000)


@pytest.fixture(scope="module")
def texts():
    return documents("python_docs", "train", 60_000)


def crossing(state):
    return sum(b" " in (a + b).strip() for a, b in merges_of(state))


def test_chunks_cover_the_text_and_have_their_mean(texts):
    text = " ".join(texts) + " \u65e5\u672c\u8a9e"
    free = list(chunks(text, 24.0, 0.0, np.random.default_rng(0)))
    assert "".join(free) == text and 22 < np.mean([len(c) for c in free]) < 26
    snapped = list(chunks(text, 24.0, 1.0, np.random.default_rng(0)))
    assert "".join(snapped) == text
    starts = set(word_starts(text))
    assert set(np.cumsum([len(c) for c in snapped]).tolist()) <= starts


def test_chunks_of_one_word_are_plain_bpe(texts):
    words = Supertokens(vocab_size=800, mean_chunk=1, snap=1.0)
    assert merges_of(words.train(texts, 0)) == merges_of(train_bpe(texts, 800))


def test_longer_chunks_give_more_tokens_with_blanks_inside(texts):
    counts = [crossing(Supertokens(vocab_size=800, mean_chunk=n, snap=1.0).train(texts, 0)) for n in (1, 6, 48)]
    assert 0 == counts[0] < counts[1] < counts[2]


def test_digits_stay_single_on_request():
    texts = ["on 2026 and 2026 it was 2026 again and again"] * 4
    for digits in (True, False):
        tokens = [a + b for a, b in merges_of(Supertokens(vocab_size=400, digits=digits).train(texts, 0))]
        assert any(sum(48 <= b < 58 for b in token) > 1 for token in tokens) is not digits


def test_the_seed_draws_the_chunks(texts):
    assert SMALL.train(texts, 0) == SMALL.train(texts, 0) != SMALL.train(texts, 1)


def test_all_checks_pass_and_parameters_have_ranges(tiny, texts):
    for check in SMALL.checks(tiny):
        check.run()
    assert lost(SMALL.make(tiny.tokenizer, SMALL.train(texts, 0))) == []
    for wrong in ({"mean_chunk": 0.5}, {"snap": 1.5}):
        with pytest.raises(ValidationError):
            Supertokens(**wrong)
