"""SuperBPE: the first stage is BPE, the second crosses words."""

import pytest
from pydantic import ValidationError

from harness.kinds.tokenizer.bpe import merges_of, train_bpe, word_counts
from harness.kinds.tokenizer.hostile import lost
from harness.kinds.tokenizer.intrinsics import measure_tokenizer
from harness.toolkit.corpora import documents
from methods.tokenizer.superbpe import SuperBpe

SMALL = SuperBpe(vocab_size=700, transition=500, train_bytes=40_000)


@pytest.fixture(scope="module")
def texts():
    return documents("python_docs", "train", 40_000)


def bytes_per_token(tiny, method, texts):
    made = method.make(tiny.tokenizer, method.train(texts, 0))
    found = measure_tokenizer(made, documents("python_docs", "test", 20_000))
    return next(m.value for m in found if m.metric == "bytes_per_token")


def test_the_first_merges_are_bpes_and_later_ones_cross_words(texts):
    merges = merges_of(SMALL.train(texts, 0))
    assert merges[: 500 - 256] == merges_of(train_bpe(texts, 500))
    crossing = [a + b for a, b in merges if b" " in (a + b).strip()]
    assert len(merges) == 700 - 256 and len(crossing) > 20
    assert all(a + b in [x + y for x, y in merges[244:]] for a, b in merges if b" " in (a + b).strip())


def test_without_a_second_stage_it_is_bpe(texts):
    method = SuperBpe(vocab_size=600, transition=600)
    assert method.train(texts, 0) == train_bpe(texts, 600)
    assert not method.declared(None).crosses_words and SMALL.declared(None).crosses_words


def test_text_gets_shorter_as_the_vocabulary_grows_and_than_bpe(tiny, texts):
    sizes = [bytes_per_token(tiny, SuperBpe(vocab_size=n, transition=500), texts) for n in (500, 600, 700)]
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[2] > bytes_per_token(tiny, SuperBpe(vocab_size=700, transition=700), texts)


def test_line_ends_digits_and_punctuation_are_never_joined(texts):
    words = list(word_counts(["one two,\nthree 12345 a... b  c"], "superbpe"))
    assert words == [
        "one\u0120two,",
        "\u010a",
        "three\u0120",
        "123",
        "45",
        "\u0120a",
        "...",
        "\u0120b",
        "\u0120",
        "\u0120c",
    ]


def test_all_checks_pass(tiny):
    for check in SMALL.checks(tiny):
        check.run()
    made = SMALL.make(tiny.tokenizer, SMALL.train(documents("python_docs", "train", 20_000), 0))
    assert lost(made) == []


def test_parameters_have_ranges():
    for wrong in ({"vocab_size": 255}, {"transition": 0}):
        with pytest.raises(ValidationError):
            SuperBpe(**wrong)
