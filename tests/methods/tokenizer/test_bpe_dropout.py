"""BPE-dropout: between BPE and bytes, seeded, with the Rust library's law."""

import random
from collections import Counter

import pytest
from pydantic import ValidationError

from harness.kinds.tokenizer.bpe import train_bpe
from harness.kinds.tokenizer.merging import apply_merges
from harness.toolkit.corpora import documents
from methods.tokenizer.bpe import Bpe
from methods.tokenizer.bpe_dropout import BpeDropout

SIZES = {"vocab_size": 600, "train_bytes": 60_000}
SENTENCE = "Return the number of items in the list, or None."


@pytest.fixture(scope="module")
def made(tiny):
    method = BpeDropout(**SIZES)
    return method.make(tiny.tokenizer, method.train(documents("python_docs", "train", 60_000), 0))


def drawn(made, dropout, seed=0, text=SENTENCE):
    return BpeDropout(dropout=dropout).drawer(made)(text, random.Random(seed))


def test_the_tokenizer_is_bpe(tiny, made):
    texts = documents("python_docs", "train", 60_000)
    assert BpeDropout(**SIZES).train(texts, 0) == Bpe(**SIZES).train(texts, 0)


def test_no_dropout_is_bpe_and_full_dropout_bytes(made):
    assert drawn(made, 0.0) == made.encode(SENTENCE)
    assert [made.tokens[i] for i in drawn(made, 1.0)] == [bytes([b]) for b in SENTENCE.encode()]


def test_more_dropout_gives_more_tokens_of_the_same_bytes(made):
    lengths = []
    for dropout in (0.0, 0.1, 0.5, 1.0):
        draws = [drawn(made, dropout, seed) for seed in range(20)]
        assert all(made.decode(ids) == SENTENCE for ids in draws)
        lengths.append(sum(map(len, draws)))
    assert lengths == sorted(lengths) and len(set(lengths)) == 4


def test_segmentations_follow_the_papers_law():
    """Merges ab, then abc; or bc: at each step every occurrence is dropped with p = 0.4 and the best one left goes."""
    ranks = {(0, 1): (0, 3), (3, 2): (1, 4), (1, 2): (2, 5)}
    rng = random.Random(0)
    found = Counter(tuple(apply_merges([0, 1, 2], ranks, 0.4, rng)) for _ in range(10_000))
    expected = {(4,): 0.6 * 0.6, (3, 2): 0.6 * 0.4, (0, 5): 0.4 * 0.6, (0, 1, 2): 0.4 * 0.4}
    assert set(found) == set(expected)
    assert all(abs(found[ids] / 10_000 - share) < 0.02 for ids, share in expected.items())


def test_a_document_is_drawn_alike_under_one_seed(made):
    rewrite = BpeDropout(dropout=0.5).resegmenter(made)
    ids = made.encode(SENTENCE)
    assert rewrite(ids, 3) == rewrite(ids, 3)
    assert len({tuple(rewrite(ids, document)) for document in range(8)}) > 4
    assert made.decode(rewrite(ids, 0)) == SENTENCE
    assert rewrite(ids, 0) != BpeDropout(dropout=0.5, seed=1).resegmenter(made)(ids, 0)


def test_all_checks_pass_and_the_gap_is_measured(tiny):
    method = BpeDropout(**SIZES, dropout=0.5)
    for check in method.checks(tiny):
        check.run()
    with method.apply(tiny, method.train(documents("python_docs", "train", 20_000), 0)) as changed:
        found = {
            m.metric: m.value for m in next(p for p in method.probes() if p.name == "resegmentation").measure(changed)
        }
    assert found["resegmentation_growth"] > 1.1 and found["resegmentation_gap"] > 0


def test_the_workload_draws(tiny):
    method = BpeDropout(**SIZES)
    encode = next(w for w in method.workloads(tiny) if w.name == "encode")
    texts = documents("python_docs", "test", 5_000)
    made = method.make(tiny.tokenizer, train_bpe(texts, 500))
    call = method.encode_call(made, texts)
    assert call() == call() > sum(len(made.encode(text)) for text in texts)
    assert encode.units["bytes"] > 500_000
    with pytest.raises(ValidationError):
        BpeDropout(dropout=1.5)
