"""WordPiece: the longest match from the left over bytes, nothing unknown."""

import pytest
from pydantic import ValidationError

from harness.kinds.tokenizer.hostile import hostile_texts, lost
from harness.kinds.tokenizer.vocabulary import segments
from harness.toolkit.corpora import documents
from methods.tokenizer.wordpiece import INSIDE, WordPiece

SMALL = WordPiece(vocab_size=900, train_bytes=60_000)


@pytest.fixture(scope="module")
def made(tiny):
    return SMALL.make(tiny.tokenizer, SMALL.train(documents("python_docs", "train", 60_000), 0))


def longest_match(word, tokens):
    """Greedy cutting, slowly: forms inside a word are those after the first 256 letters and their merges."""
    out, start = [], 0
    while start < len(word):
        mark = INSIDE if start else ""
        end = next(e for e in range(len(word), start, -1) if mark + word[start:e] in tokens)
        out.append(tokens[mark + word[start:end]])
        start = end
    return out


def test_encoding_is_the_longest_match_from_the_left(made):
    vocabulary = made.rust.get_vocab()
    for text in documents("python_docs", "test", 5_000):
        expected = [i for word in made.words(text) for i in longest_match(word, vocabulary)]
        assert made.encode(text) == expected


def test_every_text_comes_back_and_none_is_unknown(made):
    assert lost(made) == [] and made.rust.token_to_id("[UNK]") is None
    for _, text in hostile_texts():
        assert b"".join(segments(made, text)) == text.encode()


def test_text_that_looks_like_the_usual_mark_keeps_its_bytes(tiny):
    texts = ["## one ##one ### two # ##two"] * 20
    made = WordPiece(vocab_size=560).make(tiny.tokenizer, WordPiece(vocab_size=560).train(texts, 0))
    assert b"##" in made.tokens and segments(made, texts[0]) != list(texts[0])
    assert b"".join(segments(made, texts[0])) == texts[0].encode() and made.decode(made.encode(texts[0])) == texts[0]


def test_both_forms_of_each_byte_are_there(made):
    assert made.vocab_size == 902
    assert sorted(made.tokens[:256]) == sorted(made.tokens[256:512]) == [bytes([b]) for b in range(256)]


def test_learnt_tokens_shorten_the_text(made):
    text = "Return the number of items in the list."
    assert len(made.encode(text)) < len(text) / 2


def test_all_checks_pass_and_parameters_have_ranges(tiny):
    for check in SMALL.checks(tiny):
        check.run()
    named = {w.name: w for w in SMALL.workloads(tiny)}
    assert named["train"].make()() == named["train"].make()() and named["train"].reference()()
    with pytest.raises(ValidationError):
        WordPiece(vocab_size=511)
