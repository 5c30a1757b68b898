"""BPE training by the library and by the Python core against recounting, and determinism."""

from collections import Counter
from itertools import pairwise

import pytest
from tokenizers import Tokenizer as RustTokenizer

from harness.errors import UsageError
from harness.kinds.tokenizer.bpe import (
    PATTERNS,
    ByteLevelTokenizer,
    bpe_state,
    merges_of,
    pair_table,
    tokens_of,
    train_bpe,
    word_counts,
)
from harness.kinds.tokenizer.hostile import hostile_texts, lost
from harness.kinds.tokenizer.merging import PairTable, apply_merges, learn_merges
from harness.kinds.tokenizer.vocabulary import Specials
from harness.subjects.tokenizer import printable_to_byte
from harness.toolkit.corpora import documents

SPECIALS = Specials(("<p>", "<e>"), "<p>", ("<e>",))


@pytest.fixture(scope="module")
def texts():
    return [*documents("python_docs", "valid", 8_000), "1234 1234 5678 na\u00efve na\u00efve \U0001f600\U0001f600"]


def tokenizer(state):
    return ByteLevelTokenizer(RustTokenizer.from_str(state), SPECIALS, "bpe")


def recounted(texts, pattern, num_merges):
    """The merges by counting all pairs again before each."""
    ids = {token: i for i, token in enumerate(tokens_of(()))}
    printable = {c: bytes([b]) for c, b in printable_to_byte().items()}
    words = [([printable[c] for c in word], n) for word, n in word_counts(texts, pattern).items()]
    merges = []
    for _ in range(num_merges):
        counts = Counter()
        for word, n in words:
            for pair in pairwise(word):
                counts[pair] += n
        best = min(counts, key=lambda pair: (-counts[pair], ids[pair[0]], ids[pair[1]]))
        merges.append(best)
        ids.setdefault(best[0] + best[1], len(ids))
        words = [(joined(word, best), n) for word, n in words]
    return merges


def joined(word, pair):
    out = []
    while word:
        step = 2 if tuple(word[:2]) == pair else 1
        out.append(b"".join(word[:step]))
        word = word[step:]
    return out


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_the_library_learns_the_plain_merges(texts, pattern):
    some = texts if pattern in ("gpt2", "digits", "cl100k", "marks") else [t[:60] for t in texts]
    expected = recounted(some, pattern, 150)
    assert merges_of(train_bpe(some, 256 + 150, pattern=pattern)) == expected
    assert learn_merges(pair_table(some, pattern), 256 + 150) == expected
    assert len(expected) == 150


def test_training_stops_where_no_pair_is_frequent_enough():
    state = train_bpe(["abab"], 1000, min_frequency=2, pattern="none")
    assert merges_of(state) == [(b"a", b"b")] == learn_merges(pair_table(["abab"], "none"), 1000)
    assert merges_of(train_bpe(["abab"], 1000, min_frequency=1, pattern="none")) == [(b"a", b"b"), (b"ab", b"ab")]


def test_training_twice_gives_the_same_bytes(texts):
    assert train_bpe(texts, 600) == train_bpe(list(texts), 600)


def test_bytes_that_the_corpus_lacks_are_encodable():
    made = tokenizer(train_bpe(["only these words"], 300))
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
        for made in (tokenizer(train_bpe(texts, n)) for n in (256, 300, 600))
    ]
    assert sizes[0] >= sizes[1] >= sizes[2]
    assert sizes[0] == sum(len(text.encode()) for _, text in hostile_texts())


def test_unknown_pattern_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'gpt2'"):
        train_bpe(["x"], 300, pattern="gpt3")


def test_long_runs_merge_from_the_left():
    # "aaaa aaaa a": both pairs occur once, and the one with the smaller ids goes first.
    expected = [(b"a", b"a"), (b"aa", b"aa"), (b"aaaa", b"a"), (b"aaaa", b"aaaaa")]
    assert learn_merges(PairTable([b"a"], {(0,) * 9: 1}), 10, 1) == expected


def test_a_refused_pair_is_never_merged(texts):
    table = pair_table(texts, may_merge=lambda left, right: not right.startswith(b"e"))
    merges = learn_merges(table, 500)
    assert len(merges) == 244 and not [right for _, right in merges if right.startswith(b"e")]
    assert not [pair for pair in table.counts if table.tokens[pair[1]].startswith(b"e")]


def test_best_pairs_come_in_the_order_of_a_full_sort(texts):
    table = pair_table(texts)
    for _ in range(40):
        ordered = sorted(table.counts, key=lambda pair: (-table.counts[pair], pair))
        assert table.best(5) == ordered[:5]
        table.merge(ordered[3])


def test_counts_stay_those_of_the_words(texts):
    table = pair_table(texts)
    learn_merges(table, 400)
    state = bpe_state(learn_merges(pair_table(texts), 400))
    model = RustTokenizer.from_str(state).model
    counts = Counter()
    for word, n in word_counts(texts).items():
        for pair in pairwise(piece.id for piece in model.tokenize(word)):
            counts[pair] += n
    assert table.counts == counts


def test_training_work_grows_with_the_text_and_not_with_its_square(texts):
    def work(times):
        table = pair_table([" ".join(texts) + str(i) for i in range(times)], "none")
        learn_merges(table, 350)
        return table.touched

    assert work(8) <= 8.1 * work(1)


def test_first_merges_are_applied_before_anything_is_counted(texts):
    first = learn_merges(pair_table(texts), 350)
    table = pair_table(texts, first=first)
    assert table.tokens == tokens_of(first)
    assert learn_merges(table, 450) == learn_merges(pair_table(texts), 450)[len(first) :]


def test_merges_put_behind_the_library_encode_as_trained(texts):
    state = train_bpe(texts, 500)
    again = bpe_state(merges_of(state))
    assert merges_of(again) == merges_of(state)
    for _, text in hostile_texts():
        assert tokenizer(again).encode(text) == tokenizer(state).encode(text)


def test_applying_merges_in_python_is_the_librarys_encoding(texts):
    merges = merges_of(train_bpe(texts, 600))
    model = RustTokenizer.from_str(bpe_state(merges)).model
    ids = {token: i for i, token in enumerate(tokens_of(merges))}
    ranks = {(ids[a], ids[b]): (rank, ids[a + b]) for rank, (a, b) in enumerate(merges)}
    letters = {c: ids[bytes([b])] for c, b in printable_to_byte().items()}
    for word in [*word_counts(texts), "a" * 50, "\u0120" * 9]:
        row = [letters[c] for c in word]
        assert apply_merges(row, ranks) == [piece.id for piece in model.tokenize(word)]


def test_applying_merges_looks_at_each_place_a_few_times():
    class Counted(dict):
        asked = 0

        def __contains__(self, key):
            type(self).asked += 1
            return super().__contains__(key)

    asked = []
    for length in (64, 640):
        ranks = Counted({(0, 0): (0, 1), (1, 1): (1, 2), (2, 2): (2, 3)})
        Counted.asked = 0
        apply_merges([0] * length, ranks)
        asked.append(Counted.asked)
    assert asked[1] <= 11 * asked[0] <= 11 * 4 * 64
