"""BPE training by the library against the plain one, and its determinism."""

import pytest

from harness.errors import UsageError
from harness.kinds.tokenizer.bpe import PATTERNS, bpe_tokenizer, learn_merges, merges_of, train_bpe, word_counts
from harness.kinds.tokenizer.hostile import hostile_texts, lost
from harness.kinds.tokenizer.vocabulary import Specials
from harness.toolkit.corpora import documents

SPECIALS = Specials(("<p>", "<e>"), "<p>", ("<e>",))


@pytest.fixture(scope="module")
def texts():
    return [*documents("python_docs", "valid", 8_000), "1234 1234 5678 na\u00efve na\u00efve \U0001f600\U0001f600"]


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_the_library_learns_the_plain_merges(texts, pattern):
    some = texts if pattern != "none" else [t[:60] for t in texts]
    expected = learn_merges(word_counts(some, pattern), 150)
    assert merges_of(train_bpe(some, 256 + 150, pattern=pattern)) == expected
    assert len(expected) == 150


def test_training_stops_where_no_pair_is_frequent_enough():
    state = train_bpe(["abab"], 1000, min_frequency=2, pattern="none")
    assert merges_of(state) == [(b"a", b"b")] == learn_merges(word_counts(["abab"], "none"), 1000)
    assert merges_of(train_bpe(["abab"], 1000, min_frequency=1, pattern="none")) == [(b"a", b"b"), (b"ab", b"ab")]


def test_training_twice_gives_the_same_bytes(texts):
    assert train_bpe(texts, 600) == train_bpe(list(texts), 600)


def test_bytes_that_the_corpus_lacks_are_encodable():
    made = bpe_tokenizer(train_bpe(["only these words"], 300), SPECIALS, "bpe")
    assert {made.token_bytes(i) for i in range(256)} == {bytes([b]) for b in range(256)}
    assert lost(made) == []
    assert made.special_ids == {"<p>": made.vocab_size - 2, "<e>": made.vocab_size - 1}


@pytest.mark.parametrize(
    ("pattern", "text", "words"),
    [
        ("gpt2", "it's 123 x", ["it", "'s", "\u0120123", "\u0120x"]),
        ("digits", "ab 12", ["ab", "\u0120", "1", "2"]),
        ("cl100k", "IT'S 12345", ["IT", "'S", "\u0120", "123", "45"]),
        ("none", "it's 12", ["it's\u012012"]),
    ],
)
def test_patterns_cut_as_described(pattern, text, words):
    assert list(word_counts([text], pattern)) == words


def test_digits_pattern_learns_no_number_of_two_digits(texts):
    tokens = [left + right for left, right in merges_of(train_bpe(texts, 1200, pattern="digits"))]
    assert not [t for t in tokens if sum(chr(b).isdigit() for b in t) > 1]


def test_more_merges_never_make_a_text_longer(texts):
    sizes = [
        sum(len(made.encode(text)) for _, text in hostile_texts())
        for made in (bpe_tokenizer(train_bpe(texts, n), SPECIALS, "bpe") for n in (256, 300, 600))
    ]
    assert sizes[0] >= sizes[1] >= sizes[2]
    assert sizes[0] == sum(len(text.encode()) for _, text in hostile_texts())


def test_unknown_pattern_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'gpt2'"):
        train_bpe(["x"], 300, pattern="gpt3")
