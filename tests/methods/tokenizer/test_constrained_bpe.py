"""Constrained BPE: no learnt token begins with a vowel sign, on a synthetic abugida with known syllables."""

import json
import random

import pytest
from pydantic import ValidationError

from harness.kinds.tokenizer.bpe import merges_of, train_bpe
from harness.kinds.tokenizer.hostile import lost
from harness.kinds.tokenizer.vocabulary import segments
from harness.toolkit.corpora import documents
from methods.tokenizer.bpe import Bpe
from methods.tokenizer.constrained_bpe import EXTENDED, VOWEL_SIGNS, ConstrainedBpe, begins_with

CONSONANTS = "\u0915\u0916\u0917\u091a\u091c\u0924\u0926\u0928\u092a\u092c\u092e\u092f\u0930\u0932\u0935\u0938"
SIGNS = "\u093e\u093f\u0940\u0941\u0947\u094b"


def abugida(num_texts, seed):
    """Words of syllables, a consonant with or without a sign, from a small lexicon."""
    rng = random.Random(seed)
    syllables = [c + s for c in CONSONANTS for s in ("", *SIGNS)]
    lexicon = ["".join(random.Random(n).choices(syllables, k=2 + n % 3)) for n in range(200)]
    spelled = ["".join(rng.sample(syllables, len(syllables)))] if seed == 0 else []
    return spelled + [" ".join(rng.choices(lexicon, k=12)) for _ in range(num_texts)]


@pytest.fixture(scope="module")
def texts():
    return abugida(200, 0)


@pytest.fixture(scope="module")
def corpus(texts, tmp_path_factory):
    path = tmp_path_factory.mktemp("abugida") / "text.txt"
    path.write_text("\n\n".join(texts))
    return str(path)


def learnt(method, texts):
    return [a + b for a, b in merges_of(method.train(texts, 0))]


def starts_with_sign(made, texts):
    pieces = [piece for text in texts for piece in segments(made, text)]
    return sum(begins_with(VOWEL_SIGNS, piece) for piece in pieces) / len(pieces)


def test_no_learnt_token_begins_with_a_sign(texts):
    method = ConstrainedBpe(vocab_size=700)
    atoms = {s.encode() for s in SIGNS}
    tokens = learnt(method, texts)
    assert len(tokens) > 300
    assert {t for t in tokens if begins_with(VOWEL_SIGNS, t)} == atoms
    # Without the rule there are some, so the rule is what keeps them away.
    free = learnt(Bpe(vocab_size=700, pattern="marks"), texts)
    assert any(begins_with(VOWEL_SIGNS, t) and len(t) > 3 for t in free)


def test_hard_leaves_no_sign_alone(tiny, texts):
    unseen = abugida(50, 1)
    rates = []
    for hard in (False, True):
        method = ConstrainedBpe(vocab_size=440, hard=hard)
        rates.append(starts_with_sign(method.make(tiny.tokenizer, method.train(texts, 0)), unseen))
    assert rates[0] > 0 == rates[1]


def test_extended_signs_hold_the_marks_too():
    texts = ["\u0915\u094d\u0937 \u0928\u0902 " * 20]
    mark = "\u094d".encode()
    tokens = {signs: learnt(ConstrainedBpe(vocab_size=400, signs=signs), texts) for signs in ("vowels", "extended")}
    assert not [t for t in tokens["extended"] if begins_with(EXTENDED, t) and len(t) > 3]
    assert mark in tokens["vowels"] and begins_with(EXTENDED, mark) and not begins_with(VOWEL_SIGNS, mark)


def test_text_without_signs_gives_the_merges_of_bpe():
    texts = [t for t in documents("python_docs", "train", 30_000) if t.isascii()]
    assert merges_of(ConstrainedBpe(vocab_size=600).train(texts, 0)) == merges_of(train_bpe(texts, 600, 2, "marks"))


def test_every_text_comes_back(tiny, texts):
    method = ConstrainedBpe(vocab_size=600, hard=True)
    made = method.make(tiny.tokenizer, method.train(texts, 0))
    assert lost(made) == [] and made.vocab_size == 602


def test_merges_stay_within_morphemes_and_words_come_back(tiny, tmp_path):
    consonant, other, sign = CONSONANTS[0], CONSONANTS[1], SIGNS[0]
    word, parts = consonant + sign + other + sign + other, [consonant + sign + other, "\u0909" + other]
    table = tmp_path / "table.json"
    table.write_text(json.dumps({word: parts}))
    texts = [f"{word} {word} {parts[0]} {parts[1]}"] * 5
    method = ConstrainedBpe(vocab_size=400, morphemes=str(table))
    made = method.make(tiny.tokenizer, method.train(texts, 0))
    assert [p.decode() for p in segments(made, f"x {word}")][-3:] == [f" {parts[0]}", "", parts[1]]
    assert made.decode(made.encode(texts[0])) == texts[0] and lost(made) == []
    plain = ConstrainedBpe(vocab_size=400)
    assert segments(plain.make(tiny.tokenizer, plain.train(texts, 0)), word) == [word.encode()]
    for check in ConstrainedBpe(vocab_size=600, morphemes="hi", corpus="python_docs").checks(tiny):
        check.run()


def test_two_words_with_the_same_morphemes_are_declared_lossy(tiny, tmp_path):
    table = tmp_path / "table.json"
    table.write_text(json.dumps({CONSONANTS[0] * n: [CONSONANTS[0], CONSONANTS[1]] for n in (2, 3)}))
    assert not ConstrainedBpe(morphemes=str(table)).declared(tiny.tokenizer).lossless
    assert ConstrainedBpe(morphemes="hi").declared(tiny.tokenizer).lossless


def test_all_checks_pass_and_parameters_have_ranges(tiny, corpus):
    for check in ConstrainedBpe(vocab_size=600, corpus=corpus).checks(tiny):
        check.run()
    with pytest.raises(ValidationError):
        ConstrainedBpe(signs="all")
