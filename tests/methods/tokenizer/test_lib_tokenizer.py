"""LiB: the list and its invariants, what is learnt from a known lexicon, and encoding by the longest unit."""

import random
from dataclasses import replace

import pytest
from pydantic import ValidationError

from harness.kinds.tokenizer.boundaries import boundary_scores
from harness.kinds.tokenizer.hostile import lost
from harness.kinds.tokenizer.vocabulary import segments
from harness.toolkit.corpora import documents
from methods.tokenizer.lib_tokenizer import LibTokenizer, Reader

SMALL = LibTokenizer(vocab_size=500, documents=200, train_bytes=60_000)


@pytest.fixture(scope="module")
def lexicon():
    rng = random.Random(0)
    words = {"".join(rng.choice("abcdefghijklmnop") for _ in range(rng.randint(3, 6))) for _ in range(20)}
    return sorted(words)


@pytest.fixture(scope="module")
def sentences(lexicon):
    rng = random.Random(1)
    return [[rng.choice(lexicon) for _ in range(40)] for _ in range(60)]


def test_words_of_a_known_lexicon_are_recovered(tiny, sentences):
    method = LibTokenizer(documents=600, rho_out=0.01)
    made = method.make(tiny.tokenizer, method.train(["".join(words) for words in sentences[:50]], 0))
    unseen = sentences[50:]
    found = [[piece.decode() for piece in segments(made, "".join(words))] for words in unseen]
    scores = boundary_scores(found, unseen)
    # Frequent neighbours become phrases, so few cuts are wrong and some are missing.
    assert scores.precision > 0.9 and scores.f1 > 0.9


def test_list_ranks_and_lives_agree_after_every_document():
    texts = documents("python_docs", "train", 40_000)
    reader = Reader(SMALL, sorted({c for text in texts for c in text}))
    rng = random.Random(0)
    for text in texts[:80]:
        reader.read(text, rng)
        assert reader.ranks == {unit: i for i, unit in enumerate(reader.units)}
        assert len(reader.ranks) == len(reader.units) and set(reader.lives) <= set(reader.units)
        assert max(map(len, reader.units)) <= SMALL.max_len
        assert all(0 < life <= SMALL.life for life in reader.lives.values())


def test_a_unit_that_is_never_used_dies_within_its_life():
    reader = Reader(SMALL, ["a", "b", "z"])
    for n in range(SMALL.life + 1):
        assert ("z" in reader.ranks) or n >= SMALL.life - 2
        reader.read("abab", random.Random(n))
    assert "z" not in reader.ranks and {"a", "b"} <= set(reader.ranks)


def test_a_unit_that_does_not_help_moves_toward_the_tail():
    reader = Reader(replace(SMALL, rho_in=0.0), ["x", "y", *"abcdefgh", "bc", "ab", "q", "r", "s"])
    reader.read("abc", random.Random(0))  # ab|c and a|bc: two units each, bc has the smaller place
    assert reader.ranks["ab"] > 11
    other = Reader(replace(SMALL, rho_in=0.0), ["x", "y", *"abcdefgh", "ab", "q", "r", "s"])
    other.read("abc", random.Random(0))  # ab|c: two units; a|b|c: three
    assert other.ranks["ab"] < 10


def test_a_pair_enters_at_the_tail_when_met_twice_in_a_document():
    settings = replace(SMALL, rho_in=1.0)
    once, twice = Reader(settings, list("abcd")), Reader(settings, list("abcd"))
    once.read("abcd", random.Random(0))
    twice.read("abcdab", random.Random(0))
    assert "ab" not in once.ranks and "ab" in twice.ranks
    gap = Reader(settings, list("ab"))
    gap.read("a!?b a!?b", random.Random(0))
    assert "!?" in gap.ranks


def test_encoding_takes_the_longest_unit_and_loses_nothing(tiny):
    made = SMALL.make(tiny.tokenizer, ["th", "the", " the", "\u65e5\u672c"])
    assert segments(made, "then the th\u65e5\u672c\u65e5") == [
        b"the",
        b"n",
        b" the",
        b" ",
        b"th",
        "\u65e5\u672c".encode(),
        *(bytes([b]) for b in "\u65e5".encode()),
    ]
    assert lost(made) == []


def test_looking_ahead_takes_fewer_units_by_the_learnt_order(tiny):
    method = replace(SMALL, encoding="lookahead")
    units = method.train(documents("python_docs", "train", 40_000), 0)
    assert {"a", "b"} <= set(units)  # a byte's place in the list counts where two ways are equal
    ahead, longest = method.make(tiny.tokenizer, units), SMALL.make(tiny.tokenizer, units)
    assert ahead.tokens == longest.tokens and ahead.name != longest.name
    unseen = documents("python_docs", "test", 20_000)
    counts = [sum(len(made.encode(text)) for text in unseen) for made in (ahead, longest)]
    assert 0.9 * counts[1] < counts[0] < counts[1]
    assert lost(ahead) == []


def test_the_best_units_are_kept_and_bytes_count_toward_no_size():
    texts, quick = documents("python_docs", "train", 20_000), replace(SMALL, documents=50)
    units, all_units = replace(quick, vocab_size=266).train(texts, 0), quick.train(texts, 0)
    longer = [unit for unit in all_units if len(unit.encode()) > 1]
    assert [unit for unit in units if len(unit.encode()) > 1] == longer[:10] and len(longer) > 10
    assert [u for u in units if len(u) == 1 and u.isascii()] == [u for u in all_units if len(u) == 1 and u.isascii()]


def test_training_follows_the_seed():
    texts = documents("python_docs", "train", 40_000)
    assert SMALL.train(texts, 0) == SMALL.train(texts, 0) != SMALL.train(texts, 1)


def test_all_checks_pass_and_parameters_have_ranges(tiny):
    for check in SMALL.checks(tiny):
        check.run()
    train = next(w for w in SMALL.workloads(tiny) if w.name == "train")
    assert len(train.make()()) > 10 and train.reference()()
    for wrong in ({"rho_in": 2}, {"documents": 0}, {"life": 1}):
        with pytest.raises(ValidationError):
            LibTokenizer(**wrong)
