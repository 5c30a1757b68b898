"""StochasTok: what expansion must keep, and the laws it draws from."""

import math
import random
from collections import Counter

import pytest
from scipy import stats
from tokenizers import Tokenizer as RustTokenizer

from harness.kinds.method import PrepareContext
from harness.kinds.stack import applied
from harness.kinds.tokenizer import Specials, Vocabulary, split_table
from harness.kinds.tokenizer.bpe import ByteLevelTokenizer, train_bpe
from harness.toolkit.corpora import documents
from methods.tokenizer.bpe import Bpe
from methods.tokenizer.stochastok import StochasTok, document_seed, expand

BPE = Bpe(vocab_size=500, train_bytes=40_000)


@pytest.fixture(scope="module")
def tokenizer():
    state = train_bpe(documents("python_docs", "train", 40_000), 700)
    return ByteLevelTokenizer(RustTokenizer.from_str(state), Specials(("<p>", "<e>"), "<p>", ("<e>",)), "bpe")


@pytest.fixture(scope="module")
def splits(tokenizer):
    return split_table(Vocabulary(tokenizer))


@pytest.mark.parametrize("proportion", [0.0, 0.1, 0.5, 1.0])
def test_text_bytes_and_bounds_are_kept(tokenizer, splits, proportion):
    for seed, text in enumerate(documents("python_docs", "test", 8_000)):
        ids = tokenizer.encode(text)
        made = expand(ids, splits, proportion, seed)
        assert tokenizer.decode(made) == text
        assert b"".join(tokenizer.token_bytes(i) for i in made) == text.encode()
        assert len(ids) <= len(made) <= len(ids) + math.floor(proportion * len(ids))
        assert (proportion > 0) or made == ids


def test_empty_and_unsplittable_texts(splits):
    assert expand([], splits, 1.0, 0) == []
    assert expand([65, 66, 67], {}, 1.0, 0) == [65, 66, 67]


def test_specials_are_never_made_nor_lost(tokenizer, splits):
    ids = [tokenizer.prefix_id, *tokenizer.encode("the number of items in the list"), tokenizer.eos_ids[0]]
    special = set(tokenizer.special_ids.values())
    for seed in range(50):
        assert [i for i in expand(ids, splits, 1.0, seed) if i in special] == [ids[0], ids[-1]]


def test_the_given_ids_stay_as_they_are(tokenizer, splits):
    ids = tokenizer.encode("the number of items in the list")
    kept = list(ids)
    expand(ids, splits, 1.0, 0)
    assert ids == kept


def test_splits_are_drawn_uniformly():
    splits = {0: [(1, 2), (3, 4), (5, 6), (7, 8)]}
    drawn = Counter(tuple(expand([0], splits, 1.0, seed)) for seed in range(4000))
    assert set(drawn) == {tuple(pair) for pair in splits[0]}
    assert stats.chisquare(list(drawn.values())).pvalue > 1e-3


def test_positions_are_drawn_uniformly_over_the_growing_list():
    # Splitting 0 gives 1 and 0 again: which of the places is split shows in the number of ones before each zero.
    first = Counter(expand([0, 9, 9, 9], {0: [(1, 1)]}, 0.25, seed)[0] for seed in range(4000))
    assert stats.chisquare([first[1], first[0]], [1000, 3000]).pvalue > 1e-3
    # Two attempts on [0, 0]: the second draws among three places if the first has split (it always does).
    splits = {0: [(1, 2)], 2: [(3, 4)]}
    drawn = Counter(tuple(expand([0, 0], splits, 1.0, seed)) for seed in range(6000))
    # After [1 2 0]: place 0 is spent, place 1 gives 1 3 4 0, place 2 gives 1 2 1 2; the mirror image likewise.
    expected = {(1, 2, 0): 1, (1, 3, 4, 0): 1, (1, 2, 1, 2): 2, (0, 1, 2): 1, (0, 1, 3, 4): 1}
    assert set(drawn) == set(expected)
    assert stats.chisquare([drawn[k] for k in expected], [1000 * v for v in expected.values()]).pvalue > 1e-3


def test_number_of_splits_agrees_with_a_simulation(tokenizer, splits):
    ids = tokenizer.encode(" ".join(documents("python_docs", "test", 3_000)))
    attempts = len(ids) // 2

    def simulated(rng):
        """Only what matters for the count: the multiset of tokens, one drawn at random each time."""
        held, done = list(ids), 0
        for _ in range(attempts):
            rng.shuffle(held)
            token = held.pop()
            pair = rng.choice(splits[token]) if token in splits else (token,)
            held.extend(pair)
            done += len(pair) - 1
        return done

    rng = random.Random(5)
    slow = [simulated(rng) for _ in range(8)]
    fast = [len(expand(ids, splits, 0.5, seed)) - len(ids) for seed in range(60)]
    mean = sum(slow) / len(slow)
    spread = stats.tstd(fast) * math.sqrt(1 / len(fast) + 1 / len(slow))
    assert abs(sum(fast) / len(fast) - mean) < 3 * spread


def test_the_seed_and_the_document_decide():
    method = StochasTok(proportion=1.0)
    assert document_seed(0, 0, 1) == document_seed(0, 0, 1)
    assert len({document_seed(s, e, d) for s in range(3) for e in range(3) for d in range(3)}) == 27
    assert document_seed(1, 11, 1) != document_seed(1, 1, 11)
    assert method.seed == 0


def test_tasks_read_as_the_baseline(tiny):
    assert StochasTok.changes == frozenset()
    with applied([StochasTok()], tiny) as changed:
        assert changed.model is tiny.model and changed.tokenizer is tiny.tokenizer


def test_workload_and_probe_expand(tiny, tmp_path):
    artifact = BPE.prepare(None, PrepareContext(0, tmp_path, lambda name: None, lambda name: None))
    with applied([BPE], tiny, lambda method, subject: artifact) as changed:
        plain = next(w for w in BPE.workloads(changed) if w.name == "encode").make()()
        (workload,) = StochasTok(proportion=0.5).workloads(changed)
        assert plain < workload.make()() <= 1.5 * plain
        found = {m.metric: m for p in StochasTok(proportion=0.5).probes() for m in p.measure(changed)}
    gap, growth = found["resegmentation_gap"], found["resegmentation_growth"]
    assert 0 < gap.low <= gap.value <= gap.high
    assert 1 < growth.value <= 1.5


def test_without_expansion_the_gap_is_nothing(tiny):
    probe = StochasTok(proportion=0.0).probes()[1]
    assert {m.metric: m.value for m in probe.measure(tiny)} == {"resegmentation_gap": 0, "resegmentation_growth": 1}


def test_all_checks_pass(tiny):
    for check in StochasTok().checks(tiny):
        check.run()
