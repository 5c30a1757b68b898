"""TOVA against a loop over heads, and the budget it holds while decoding."""

import pytest
import torch

from harness.kinds.pruning.checks import kept_positions
from harness.subjects.runner import Runner
from methods.pruning.kv_tova import KvTova


@pytest.mark.parametrize("padding", [(0, 0), (3, 25)])
def test_the_last_query_decides_for_all_heads(make_view, kept_slots, padding):
    view = make_view(padding=padding)
    kept = kept_slots(KvTova(keep_ratio=0.3), view)
    for row, first in enumerate(padding):
        votes = torch.zeros(40)
        for head in range(4):
            keys = view.keys_BHND[row, head // 2, first:]
            votes[first:] += (keys @ view.queries_BHTD[row, head, -1] * view.scaling).softmax(-1)
        order = sorted(range(first, 39), key=lambda j: -votes[j].item())
        wanted = sorted([39, *order[: int(0.3 * (40 - first)) - 1]])
        assert kept[row] == [wanted, wanted]


def test_each_step_evicts_by_its_own_query(tiny):
    """The budget is held, and what has been dropped never comes back."""
    prompt = [(7 * i) % 250 for i in range(30)]
    with KvTova(keep_ratio=0.3).apply(tiny) as pruned, torch.inference_mode():
        runner = Runner(pruned.model, pruned.new_cache)
        runner.prefill([prompt])
        before = kept_positions(runner.cache)
        for step in range(4):
            runner.forward(torch.tensor([[step]]))
            runner.commit()
            after = kept_positions(runner.cache)
            for old, new in zip(before, after, strict=True):
                assert len(new[0][0]) == 9 and new[0][0][-1] == 30 + step
                assert set(new[0][0]) < {*old[0][0], 30 + step}
            before = after
