"""Unigram: the best segmentation by brute force, drawn ones by their law, and sentencepiece as a cross-check."""

import itertools
import json
import math
import random
from collections import Counter
from dataclasses import replace

import pytest
from pydantic import ValidationError

from harness.kinds.tokenizer.adapters import from_sentencepiece, sentencepiece_scores, train_sentencepiece
from harness.kinds.tokenizer.bpe import train_bpe
from harness.kinds.tokenizer.hostile import lost
from harness.kinds.tokenizer.vocabulary import Specials
from harness.toolkit.corpora import documents
from methods.tokenizer import unigram as module
from methods.tokenizer.unigram import Unigram, draw_pieces

SMALL = Unigram(vocab_size=600, train_bytes=60_000)
SCORES = {"a": -1.0, "b": -1.5, "c": -3.0, "ab": -2.0, "bc": -2.2, "abc": -4.5}


@pytest.fixture(scope="module")
def texts():
    return documents("python_docs", "train", 60_000)


@pytest.fixture(scope="module")
def made(tiny, texts):
    return SMALL.make(tiny.tokenizer, SMALL.train(texts, 0))


def segmentations(word, scores):
    for cuts in itertools.product([False, True], repeat=len(word) - 1):
        at = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(word)]
        pieces = [word[a:b] for a, b in itertools.pairwise(at)]
        if all(piece in scores for piece in pieces):
            yield tuple(pieces)


def test_encoding_is_the_most_probable_segmentation(made):
    scores = dict(json.loads(made.rust.to_str())["model"]["vocab"])
    for word in ("\u0120return", "items", "\u0120unknown", "xyzzy"):
        best = max(sum(scores[p] for p in pieces) for pieces in segmentations(word, scores))
        found = [piece.value for piece in made.rust.model.tokenize(word)]
        assert sum(scores[p] for p in found) == pytest.approx(best)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_segmentations_are_drawn_by_their_probability(alpha):
    rng = random.Random(0)
    found = Counter(tuple(draw_pieces("abc", SCORES, 3, alpha, rng)) for _ in range(5000))
    weights = {p: math.exp(alpha * sum(SCORES[x] for x in p)) for p in segmentations("abc", SCORES)}
    for pieces, weight in weights.items():
        share = weight / sum(weights.values())
        assert abs(found[pieces] - 5000 * share) < 5 * math.sqrt(5000 * share * (1 - share)) + 1


def test_training_twice_gives_the_same_tokenizer_and_texts_come_back(made, texts):
    assert SMALL.train(texts, 0) == SMALL.train(texts, 0)
    assert lost(made) == [] and made.vocab_size == 602
    assert {bytes([b]) for b in range(256)} <= set(made.tokens)


def test_drawn_ids_spell_the_text_and_depend_on_the_seed(made):
    text = "Return the number of items."
    ids = made.encode(text)
    rewrite = SMALL.resegmenter(made)
    assert made.decode(rewrite(ids, 0)) == text and rewrite(ids, 0) == rewrite(ids, 0)
    assert len({tuple(rewrite(ids, document)) for document in range(20)}) > 3
    assert Unigram(alpha=50.0).resegmenter(made)(ids, 0) == ids


def test_sentencepiece_finds_tokens_of_like_use(tiny, made, texts):
    sentencepiece = pytest.importorskip("sentencepiece", reason="token-zoo[tokenizers] is not installed")
    model = train_sentencepiece(texts, 600)
    other = from_sentencepiece(
        sentencepiece.SentencePieceProcessor(model_proto=model), Specials.of(tiny.tokenizer), "sp"
    )
    unseen = documents("python_docs", "test", 20_000)
    ours, theirs = (sum(len(t.encode(text)) for text in unseen) for t in (made, other))
    # Of 600 tokens both spend 256 on bytes.
    assert 0.85 < ours / theirs < 1.15


def test_the_vocabulary_of_sentencepiece_is_used_over_bytes(tiny, texts):
    pytest.importorskip("sentencepiece", reason="token-zoo[tokenizers] is not installed")
    method = replace(SMALL, trainer="sentencepiece")
    other = method.make(tiny.tokenizer, method.train(texts, 0))
    assert method.train(texts, 0) == method.train(texts, 0)
    assert lost(other) == [] and {bytes([b]) for b in range(256)} <= set(other.tokens)
    assert 500 < len(other.tokens) <= 600
    assert set(sentencepiece_scores(train_sentencepiece(texts, 600))) <= set(other.tokens)


def test_training_is_timed_beside_sentencepiece_where_there_is_one(texts, monkeypatch):
    pytest.importorskip("sentencepiece", reason="token-zoo[tokenizers] is not installed")
    assert isinstance(SMALL.train_workload(texts).reference()(), bytes)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert SMALL.train_workload(texts).reference()() == train_bpe(texts, 600)


def test_all_checks_pass_and_parameters_have_ranges(tiny):
    for check in SMALL.checks(tiny):
        check.run()
    assert {p.name for p in SMALL.probes()} >= {"intrinsics", "resegmentation"}
    for wrong in ({"vocab_size": 256}, {"shrinking": 1.0}, {"alpha": -1}):
        with pytest.raises(ValidationError):
            Unigram(**wrong)
