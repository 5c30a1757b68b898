"""Intrinsic figures against their formulas on small cases, and their intervals."""

import math

import numpy as np
import pytest
from scipy import stats

from harness.kinds.tokenizer.hostile import FIXED, comes_back, hostile_texts, lost
from harness.kinds.tokenizer.intrinsics import (
    Intrinsics,
    TransplantProbe,
    continued_words,
    measure_tokenizer,
    ratio,
    renyi_bits,
    shannon_bits,
    unicode_words,
    unreachable,
)
from harness.kinds.tokenizer.vocabulary import Specials, TableTokenizer
from harness.stats.rates import draw_weights
from harness.subjects.tiny import ByteIds


def figures(texts):
    return {m.metric: m for m in measure_tokenizer(ByteIds(), texts)}


def table(tokens):
    """A tokenizer that takes the longest of these tokens at each place."""
    longest = sorted(tokens, key=len, reverse=True)

    def encode(text):
        data, ids = text.encode(), []
        while data:
            token = next(t for t in longest if data.startswith(t))
            ids.append(tokens.index(token))
            data = data[len(token) :]
        return ids

    return TableTokenizer("table", tokens, encode, Specials(("<p>",), "<p>", ()))


def test_ratios_are_micro_averages():
    found = figures(["aa b", "caf\u00e9 xyz w", "q"])
    assert found["bytes_per_token"].value == 1.0
    assert found["fertility"].value == (4 + 11 + 1) / 6
    assert found["fertility"].n == 3
    assert found["tokens_per_character"].value == 16 / 15


def test_documents_without_words_are_left_out():
    assert figures(["aa b", " \n", ""])["fertility"].n == 1


def test_entropies_agree_with_their_definitions():
    found = figures(["aaab"])
    p = np.array([3, 1]) / 4
    assert found["unigram_entropy_bits"].value == pytest.approx(stats.entropy(p, base=2))
    renyi = math.log2((p**2.5).sum()) / (1 - 2.5)
    assert found["renyi_efficiency"].value == pytest.approx(renyi / math.log2(258))
    assert found["vocab_used_fraction"].value == 2 / 258
    assert found["renyi_efficiency_seen"].value == pytest.approx(renyi / math.log2(2))


def test_entropies_of_even_counts_are_the_logarithm():
    even = np.ones((2, 8))
    assert shannon_bits(even).tolist() == pytest.approx([3, 3])
    assert renyi_bits(even).tolist() == pytest.approx([3, 3])
    assert renyi_bits(np.array([5.0, 3, 2]), 1.0001) == pytest.approx(shannon_bits(np.array([5.0, 3, 2])), abs=1e-3)


def test_intervals_hold_the_value_and_shrink_with_documents():
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abc d"), size=60)) + " x" for _ in range(200)]
    few, many = figures(texts[:20]), figures(texts)
    for metric in ("fertility", "unigram_entropy_bits", "renyi_efficiency"):
        for found in (few, many):
            assert found[metric].low <= found[metric].value <= found[metric].high
        assert many[metric].high - many[metric].low < few[metric].high - few[metric].low


def test_the_interval_of_a_ratio_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        below = rng.poisson(20, size=60) + 1
        above = rng.binomial(below, 0.3)
        found = ratio("x", above, below, draw_weights(60, 300, seed=trial))
        hits += found.low <= 0.3 <= found.high
    assert 175 <= hits <= 199


def test_every_resample_draws_as_many_documents():
    weights = draw_weights(7, 50, seed=2)
    assert weights.sum(1).tolist() == [7.0] * 50
    assert (weights == draw_weights(7, 50, seed=2)).all() and not (weights == draw_weights(7, 50, seed=3)).all()


def test_the_hostile_texts_hold_what_they_should():
    texts = dict(hostile_texts())
    held = {byte for text in texts.values() for byte in text.encode()}
    # UTF-8 never uses these thirteen.
    assert set(range(256)) - held == {0xC0, 0xC1, *range(0xF5, 0x100)}
    assert {ord(c) >> 16 for text in texts.values() for c in text} == set(range(17))
    assert texts["empty"] == "" and "\r\n" in texts["crlf"] and "\u200d" in texts["zwj emoji"]
    assert len(FIXED) + 20 < len(texts)


def test_a_lossy_tokenizer_is_found_out(incomplete):
    assert lost(ByteIds()) == []
    assert not comes_back(incomplete, "a\x06b") and comes_back(incomplete, "the cat")
    found = {m.metric: m.value for m in measure_tokenizer(incomplete, ["the cat sat"])}
    assert 0 < found["bytes_lost_fraction"] < 1
    assert found["round_trip_fidelity"] == 1 - len(lost(incomplete)) / len(list(hostile_texts())) < 0.7


def test_probes_measure_subjects(tiny):
    found = {m.metric: m.value for m in Intrinsics(max_bytes=20_000).measure(tiny)}
    assert found["bytes_per_token"] == 1.0 and found["round_trip_fidelity"] == 1.0
    assert list(TransplantProbe().measure(tiny)) == []


def test_words_of_more_than_one_token_are_counted_where_they_stand():
    made = table([b"a", b"b", b"c", b" ", b" ab", b"b c", b"ab"])
    # ab| ab|c  and  a|b c: the first word is one token, the second two, the last two share a token.
    assert continued_words(made, "ab abc", made.encode("ab abc")) == (1, 2)
    assert continued_words(made, "ab c", [0, 5]) == (1, 2)
    assert continued_words(made, " ", made.encode(" ")) == (0, 0)
    lossy = table([b"x"])
    assert continued_words(lossy, "ab", [0]) == (0, 0)
    found = {m.metric: m.value for m in measure_tokenizer(ByteIds(), ["a bc d", "xyz"])}
    assert found["continued_word_share"] == 2 / 4


def test_words_by_unicodes_rules():
    assert unicode_words("It's 3.14, isn't it?") == 4
    assert unicode_words("\u6211\u662f\u4eba\u3002 ok") == 4
    found = {m.metric: m.value for m in measure_tokenizer(ByteIds(), ["\u6211\u662f"])}
    assert (found["fertility"], found["fertility_uax29"]) == (6.0, 3.0)


def test_ids_that_no_text_leads_to_are_counted():
    assert unreachable(table([b"a", b"b", b"ab"])).value == 0.0
    # The second "a" is never found; a broken character does not count.
    found = unreachable(table([b"a", b"b", b"a", b"\xc3"]))
    assert (found.value, found.n) == (1 / 3, 3)


def test_figures_of_another_corpus_are_named_after_it(tiny, tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("\n\n".join(f"paragraph {n} of my own text" * 20 for n in range(200)))
    found = Intrinsics(str(path)).measure(tiny)
    assert {m.phase for m in found} == {str(path)}
    assert {m.phase for m in Intrinsics(max_bytes=5_000).measure(tiny)} == {""}
