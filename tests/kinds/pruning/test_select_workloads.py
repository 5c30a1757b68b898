"""The workloads of methods that select: both sides read the same cache, and the budget and the bound are stated."""

import torch

from harness.kinds.pruning.select_workloads import read_share
from methods.pruning.kv_oracle_topk import KvOracleTopk
from methods.pruning.token_select import TokenSelect


def test_the_sides_agree_where_everything_is_read(tiny):
    first = next(iter(KvOracleTopk(tokens=2048).workloads(tiny)))
    torch.testing.assert_close(first.make()(), first.reference()(), atol=1e-5, rtol=1e-4)
    assert first.details["bytes_read_share"] == 1.0


def test_a_budget_in_tokens_is_used_and_the_bound_follows_from_the_bytes(tiny):
    workloads = list(TokenSelect(tokens=256).workloads(tiny))
    assert [w.details["slots"] for w in workloads] == [2048, 8192, 32768]
    for workload in workloads:
        share = 0.5 + 256 / workload.details["slots"]
        assert abs(workload.details["bound"] - 1 / share) < 0.01
    assert next(iter(TokenSelect().workloads(tiny))).details["tokens"] == 512


def test_sets_of_single_heads_read_their_groups_keys_again():
    assert read_share(torch.zeros(1, 4, 1, 10, dtype=torch.long), 2, 100) == 4 * 10 / (2 * 100)
    assert read_share(torch.zeros(1, 1, 1, 10, dtype=torch.long), 2, 100) == 10 / 100
