"""The oracle reads the highest logits of each head, and its counts say what that costs."""

import pytest
import torch

from harness.subjects.requests import GenerateRequest
from harness.subjects.views import QueryView
from methods.pruning.kv_oracle_topk import KvOracleTopk


def test_each_head_reads_its_highest_logits():
    generator = torch.Generator().manual_seed(0)
    queries, keys = (torch.randn(1, heads, n, 8, generator=generator) for heads, n in ((4, 1), (2, 20)))
    chosen = KvOracleTopk(tokens=6).select(QueryView(0, 1, "decode", queries, keys, None, 19, 1.0, {}))
    for head in range(4):
        logit = keys[0, head // 2] @ queries[0, head, 0]
        best = sorted(range(19), key=lambda j: -logit[j].item())[:5]
        assert sorted(chosen.index_BSTK[0, head, 0].tolist()) == sorted([*best, 19])


def test_prompt_and_first_layers_are_dense(tiny):
    view = QueryView(0, 2, "prefill", torch.randn(1, 4, 3, 8), torch.randn(1, 2, 9, 8), None, 0, 1.0, {})
    assert KvOracleTopk(tokens=2).select(view) is None
    view = QueryView(0, 2, "decode", torch.randn(1, 4, 1, 8), torch.randn(1, 2, 9, 8), None, 8, 1.0, {})
    assert KvOracleTopk(tokens=2, dense_layers=1).select(view) is None
    assert KvOracleTopk(tokens=9).select(view) is None
    assert KvOracleTopk(tokens=2).select(view) is not None


def test_what_was_read_is_counted(tiny):
    """Of 41 to 43 slots 10 are read, and half of the bytes to find them."""
    request = GenerateRequest(prompts=[list(range(40))], max_new_tokens=4, ignore_eos=True)
    with KvOracleTopk(tokens=10).apply(tiny) as pruned:
        counts = pruned.generate(request)[0].counts
    assert counts["kv_read_fraction"] == pytest.approx(0.5 + sum(10 / n for n in (41, 42, 43)) / 3)
    assert counts["kv_scored_fraction"] == 0.5 and counts["kv_kept_fraction"] == 1.0
    plain = tiny.generate(request)[0].counts
    assert (plain["kv_read_fraction"], plain["kv_scored_fraction"]) == (1.0, 0.0)
