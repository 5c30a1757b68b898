"""Methods that hold their budget while decoding: dropping in place holds and reads what ranking all slots anew does."""

import functools
from dataclasses import replace

import pytest
import torch

from harness.kinds.pruning import rank_slots
from harness.kinds.pruning.checks import kept_positions
from harness.subjects.runner import Runner
from methods.pruning.kv_h2o import KvH2o
from methods.pruning.kv_streaming import KvStreaming
from methods.pruning.kv_tova import KvTova

PROMPTS = [[(13 * i) % 250 for i in range(30)], [(7 * i) % 250 for i in range(12)]]


@pytest.mark.parametrize(
    "method",
    [KvH2o(keep_ratio=0.3), KvH2o(tokens=10, normalise=True), KvTova(keep_ratio=0.3), KvStreaming(tokens=9)],
    ids=lambda method: method.signature,
)
def test_steps_hold_what_ranking_all_slots_anew_would_hold(tiny, method):
    def anew(view):
        return rank_slots(method.scores(view), view.valid_BHN, method.budget(view.prompt_B))

    with method.apply(tiny) as pruned, torch.inference_mode():
        gathering = replace(pruned, new_cache=functools.partial(pruned.new_cache, evict=anew))
        ours, theirs = (Runner(subject.model, subject.new_cache) for subject in (pruned, gathering))
        for runner in (ours, theirs):
            runner.prefill(PROMPTS)
        room = ours.cache.allocated_bytes()
        for token in range(25):
            ids = torch.full((2, 1), token)
            both = [runner.forward(ids) for runner in (ours, theirs)]
            torch.testing.assert_close(both[0], both[1], atol=1e-4, rtol=1e-4)
            for runner in (ours, theirs):
                runner.commit()
            for row in range(2):
                assert kept_positions(ours.cache, row) == kept_positions(theirs.cache, row)
    assert ours.cache.allocated_bytes() == room
