"""Vocabularies on bytes: special tokens, decomposition, refusals."""

import pytest

from harness.errors import UsageError
from harness.kinds.tokenizer.vocabulary import Specials, TableTokenizer, Vocabulary, segments, special_names, utf8
from harness.subjects.tiny import ByteIds


def table(tokens, specials=("<p>", "<e>")):
    longest = sorted(tokens, key=len, reverse=True)

    def encode(text):
        data, ids = text.encode(), []
        while data:
            token = next(t for t in longest if data.startswith(t))
            ids.append(tokens.index(token))
            data = data[len(token) :]
        return ids

    return TableTokenizer("table", tokens, encode, Specials(specials, specials[0], specials[1:2]))


def test_table_tokenizer_puts_specials_after_the_text_tokens():
    made = table([b"a", b"b", b"ab"])
    assert (made.vocab_size, made.prefix_id, made.eos_ids) == (5, 3, (4,))
    assert made.encode("abba") == [2, 1, 0]
    assert made.decode([3, 2, 1, 0, 4]) == "abba"
    assert [made.token_bytes(i) for i in range(5)] == [b"a", b"b", b"ab", None, None]
    assert segments(made, "aab") == [b"a", b"ab"]


def test_broken_utf8_is_decoded_with_replacement():
    made = table([bytes([b]) for b in range(256)])
    assert made.decode([0xC3]) == "\ufffd" and made.decode([0xC3, 0xA9]) == "\u00e9"


@pytest.mark.parametrize("text", ["\ud800", "ab\udfff"])
def test_lone_surrogates_are_refused_in_one_line(text):
    with pytest.raises(UsageError, match=rf"lone surrogate U\+D[8F].* at character {len(text) - 1}"):
        utf8(text)
    with pytest.raises(UsageError):
        table([b"a", b"b"]).encode(text)


def test_specials_keep_names_order_and_roles(incomplete):
    taken = Specials.of(incomplete)
    assert taken == Specials(("<|end|>", "<|start|>"), "<|start|>", ("<|end|>",))
    assert special_names(incomplete) == {"<|end|>": 0, "<|start|>": 1}
    assert Specials.of(ByteIds()) == Specials(("<prefix>", "<eos>"), "<prefix>", ("<eos>",))
    assert special_names(table([b"a"])) == {"<p>": 1, "<e>": 2}


def test_a_text_that_begins_with_an_ordinary_id_gets_a_special_for_it():
    class NoSpecials(ByteIds):
        vocab_size, eos_ids, prefix_id = 256, (), 0

    assert Specials.of(NoSpecials()) == Specials(("<prefix>",), "<prefix>", ())


def test_decomposition_follows_the_models_merges_across_words(incomplete):
    vocabulary = Vocabulary(incomplete)
    ids = vocabulary.decompose(b"the cat")
    assert b"".join(vocabulary.tokens[i] for i in ids) == b"the cat"
    assert ids == incomplete.encode("the cat")
    # A space in front belongs to the token, and a byte the vocabulary lacks is left out.
    assert vocabulary.tokens[vocabulary.decompose(b" the")[0]] == b" the"
    assert vocabulary.decompose(b"\x06the\xff") == vocabulary.decompose(b"the")
    assert vocabulary.decompose(b"\x06") == []


def test_decomposition_without_merges_is_the_longest_match():
    vocabulary = Vocabulary(table([b"a", b"b", b"ab", b"abb"]))
    assert vocabulary.decompose(b"abbab?a") == [3, 2, 0]


def test_of_equal_tokens_the_learnt_one_stands_for_the_bytes():
    assert Vocabulary(table([b"a", b"b", b"a"])).by_bytes == {b"a": 2, b"b": 1}
