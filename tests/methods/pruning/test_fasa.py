"""FASA: what a chunk is, what calibration finds, and the oracle as the case of all chunks."""

from dataclasses import replace

import pytest
import torch

from harness.errors import Refused
from harness.kinds.pruning.rotary_chunks import pair_channels
from harness.subjects.views import QueryView
from methods.pruning.fasa import Fasa, agreement
from methods.pruning.kv_oracle_topk import KvOracleTopk


def rotated(vector_D, position, base=100.0):
    """The rotate-half rotary embedding of a vector at a position."""
    half = len(vector_D) // 2
    angle = position * base ** (-torch.arange(half) / half)
    left, right = vector_D[:half], vector_D[half:]
    return torch.cat([left * angle.cos() - right * angle.sin(), right * angle.cos() + left * angle.sin()])


def chunk_products(query, key, pairing):
    pairs = pair_channels(len(query), pairing)
    return (query[pairs] * key[pairs]).sum(-1)


def test_a_chunk_depends_on_the_distance_of_two_tokens_only():
    """The model's own pairs do; neighbouring channels of rotate-half tensors do not."""
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 8, generator=generator)
    here = rotated(query, 9), rotated(key, 4)
    there = rotated(query, 29), rotated(key, 24)
    torch.testing.assert_close(chunk_products(*here, "half"), chunk_products(*there, "half"))
    assert (chunk_products(*here, "adjacent") - chunk_products(*there, "adjacent")).abs().max() > 0.1
    assert float(chunk_products(*here, "half").sum()) == pytest.approx(float(here[0] @ here[1]), abs=1e-5)


def test_agreement_is_1_for_the_chunk_that_holds_the_logits_and_chance_for_noise():
    generator = torch.Generator().manual_seed(1)
    keys = torch.randn(1, 200, 8, generator=generator)
    query = torch.zeros(1, 8)
    query[:, [2, 6]] = 5.0
    pairs = pair_channels(8, "half")
    found = agreement(query, keys, pairs, 20)
    assert found[0, 2] == 1.0 and found[0].max() <= 1
    assert agreement(torch.randn(1, 8, generator=generator), keys, pairs, 200).tolist() == [[1.0] * 4]
    # Ten of a hundred at random: a tenth on average, within three standard errors over 200 draws.
    draws = [
        agreement(
            torch.tensor([[9.0, 0, 0, 0, 9.0, 0.01, 0, 0]]), torch.randn(1, 100, 8, generator=generator), pairs, 10
        )
        for _ in range(200)
    ]
    assert float(torch.cat(draws)[:, 1].mean()) == pytest.approx(0.1, abs=3 * (0.1 * 0.9 / 10 / 200) ** 0.5)


def made_view(slots=50):
    generator = torch.Generator().manual_seed(slots)
    queries, keys = (torch.randn(1, heads, n, 8, generator=generator) for heads, n in ((4, 1), (2, slots)))
    return QueryView(3, 9, "decode", queries, keys, None, slots - 1, 1.0, {})


def test_with_all_chunks_it_is_the_oracle():
    ours = Fasa(num_chunks=4, chunks="random", tokens=12).select(made_view()).index_BSTK
    oracle = KvOracleTopk(tokens=12).select(made_view()).index_BSTK
    assert torch.equal(ours.sort(-1).values, oracle.sort(-1).values)


def test_one_set_a_group_ranks_by_the_sum_of_its_heads():
    chosen = Fasa(num_chunks=4, chunks="random", tokens=12, group="sum").select(made_view())
    view = made_view()
    for group in range(2):
        total = view.keys_BGND[0, group] @ view.queries_BHTD[0, 2 * group : 2 * group + 2, 0].sum(0)
        best = sorted(range(49), key=lambda j: -total[j].item())[:11]
        assert sorted(chosen.index_BSTK[0, group, 0].tolist()) == sorted([*best, 49])


def test_the_calibrated_chunks_score_and_are_counted():
    table = torch.zeros(9, 4, 4)
    table[3, :, 1], table[3, 0, 2] = 0.5, 0.9
    view = made_view()
    method = Fasa(num_chunks=1, tokens=12)
    chosen = method.select(view, {"agreement_LHP": table})
    scores = [view.keys_BGND[0, 0][:, c] @ view.queries_BHTD[0, h, 0, c] for h, c in ((0, [2, 6]), (1, [1, 5]))]
    for head, score in enumerate(scores):
        best = sorted(range(49), key=lambda j: -score[j].item())[:11]
        assert sorted(chosen.index_BSTK[0, head, 0].tolist()) == sorted([*best, 49])
    # Two of eight channels for each of four heads, of two heads' keys and values.
    assert chosen.scored == 4 * 2 / (2 * 2 * 8)


def test_calibration_is_reproducible_and_does_not_touch_the_model(tiny, calibration):
    short, context = calibration
    method = Fasa(**short)
    first, again = (method.prepare(tiny, context)["agreement_LHP"] for _ in range(2))
    config = tiny.model.config
    assert first.shape == (config.num_hidden_layers, config.num_attention_heads, config.head_dim // 2)
    assert torch.equal(first, again) and first.min() >= 0 and first.max() <= 1 and first.std() > 0


def test_more_chunks_than_a_head_has_are_refused():
    with pytest.raises(Refused, match="asks for 5 chunks; a head of this model has 4"):
        Fasa(num_chunks=5, chunks="random", tokens=12).select(made_view())


def test_a_quarter_of_the_chunks_is_the_default():
    assert Fasa().count(64) == 8 and Fasa().count(4) == 1
    view = replace(made_view(), layer=0)
    assert Fasa(tokens=12, chunks="random").select(view) is None
