"""Entropies on sources whose entropy is known, serialisations by hand, compression against the library itself."""

import math
import zlib
from collections import Counter

import numpy as np
import pytest

from harness.kinds.tokenizer.capacity import (
    Capacity,
    block_entropies,
    conditional,
    entropy_orders,
    fixed_width,
    gram_counts,
    pipeline,
    shuffled,
    training_ranks,
    utilisation,
    varint,
    varints,
)
from harness.subjects.tiny import ByteIds


def markov(length, seed):
    """Bits that repeat the bit two before with probability 0.9: a chain of order 2."""
    rng = np.random.default_rng(seed)
    out = [0, 1]
    for again in rng.random(length - 2) < 0.9:
        out.append(out[-2] if again else 1 - out[-2])
    return np.array(out)


def plug_in(ids_D, k):
    counts = Counter(tuple(ids[i : i + k]) for ids in ids_D for i in range(len(ids) - k + 1))
    total = sum(counts.values())
    return -sum(n / total * math.log2(n / total) for n in counts.values())


def test_block_entropies_are_those_of_counting():
    rng = np.random.default_rng(0)
    ids_D = [rng.integers(0, 5, size=n) for n in (40, 1, 3, 25, 100)]
    plain, corrected, density = block_entropies(ids_D)
    for k in range(1, 6):
        grams = [tuple(ids[i : i + k]) for ids in ids_D for i in range(len(ids) - k + 1)]
        assert plain[k - 1] == pytest.approx(plug_in([ids.tolist() for ids in ids_D], k))
        assert density[k - 1] == len(grams) / len(set(grams))
        more = (len(set(grams)) - 1) / (2 * len(grams) * math.log(2))
        assert corrected[k - 1] == pytest.approx(plain[k - 1] + more)
        assert sorted(list(gram_counts(ids_D))[k - 1]) == sorted(Counter(grams).values())


def test_a_chain_of_order_two_has_its_entropy_rate_from_the_third_order():
    rate = -(0.9 * math.log2(0.9) + 0.1 * math.log2(0.1))
    found = conditional(block_entropies([markov(200_000, 0)])[0])
    assert found[0] == pytest.approx(1, abs=0.01) and found[1] == pytest.approx(1, abs=0.01)
    assert found[2] == pytest.approx(rate, rel=0.01) and found[3] == pytest.approx(rate, rel=0.01)
    assert found == sorted(found, reverse=True)


def test_random_order_has_no_structure():
    ids_D = [markov(50_000, 1)]
    mixed = shuffled(ids_D)
    assert sorted(mixed[0]) == sorted(ids_D[0]) and [len(ids) for ids in mixed] == [50_000]
    assert conditional(block_entropies(mixed)[0]) == pytest.approx([1.0] * 5, abs=0.01)
    parts = shuffled([np.arange(3), np.arange(5)])
    assert [len(p) for p in parts] == [3, 5]


def test_other_names_of_the_ids_change_nothing():
    ids_D = [markov(2_000, 2)]
    renamed = block_entropies([7 - 3 * ids for ids in ids_D])
    assert all(a == pytest.approx(b) for a, b in zip(block_entropies(ids_D), renamed, strict=True))


def test_a_small_sample_loses_its_entropy_and_the_shuffled_column_shows_it():
    rng = np.random.default_rng(0)
    found = {(m.metric, m.phase): m.value for m in entropy_orders([rng.integers(0, 1000, size=2000)], 8000)}
    assert found["conditional_entropy_bits", "k4"] < 0.1
    assert found["conditional_entropy_shuffled_bits", "k4"] < 0.1 and found["grams_per_type", "k4"] < 1.01
    assert found["conditional_entropy_bits_per_byte", "k1"] == found["conditional_entropy_bits", "k1"] / 4


def test_utilisation_is_one_for_even_use_and_falls_with_the_order():
    even = {(m.metric, m.phase): m.value for m in utilisation([np.arange(64)], 64)}
    assert set(even.values()) == {1.0}
    uneven = {(m.metric, m.phase): m.value for m in utilisation([np.array([0, 0, 0, 1, 2])], 8)}
    assert 0 <= uneven["renyi2_efficiency", "nominal"] <= uneven["capacity_utilisation", "nominal"] <= 1
    assert uneven["capacity_utilisation", "seen"] > uneven["capacity_utilisation", "nominal"]


def test_serialisations():
    assert fixed_width(np.array([1, 258]), 300) == b"\x01\x00\x02\x01"
    assert fixed_width(np.array([1]), 256) == b"\x01" and len(fixed_width(np.array([1]), 70_000)) == 3
    assert [varint(n) for n in (0, 127, 128, 300)] == [b"\x00", b"\x7f", b"\x80\x01", b"\xac\x02"]
    assert varints(np.array([2, 0]), [5, 0, 300]) == b"\xac\x02\x05"
    ranks = training_ranks(ByteIds(), ["bbba"])
    assert (ranks[98], ranks[97], ranks[0]) == (0, 1, 2) and sorted(ranks) == list(range(258))


def test_the_pipeline_of_bytes_saves_nothing_by_itself():
    texts = ["one two three four " * 20, "five six seven"]
    found = {(m.metric, m.phase): m.value for m in pipeline(ByteIds(), texts, texts)}
    size = len(zlib.compress("".join(texts).encode(), 9))
    assert found["pipeline_bits_per_character", "zlib bytes"] == 8 * size / len("".join(texts))
    # Two bytes an id: the second is always zero.
    assert found["pipeline_saving", "zlib fixed"] < 0
    assert found["pipeline_bits_with_vocabulary", "zlib varint"] > found["pipeline_bits_per_character", "zlib varint"]


def test_the_probe_measures_a_subject(tiny):
    found = {(m.metric, m.phase): m.value for m in Capacity(max_bytes=20_000).measure(tiny)}
    assert 0 < found["capacity_utilisation", "nominal"] < found["capacity_utilisation", "seen"] < 1
    assert found["conditional_entropy_bits", "k2"] < found["conditional_entropy_shuffled_bits", "k2"]
