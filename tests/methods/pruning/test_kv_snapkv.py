"""SnapKV against a loop over heads and slots, and what its choice may depend on."""

from dataclasses import replace

import pytest
import torch

from harness.kinds.pruning.checks import kept_positions
from harness.subjects.runner import Runner
from methods.pruning.kv_snapkv import KvSnapKV


def naive_keep(view, row, keep_ratio, window, kernel):
    """The kept slots of one row by the definition: loops, softmax by softmax, zeros beyond the ends."""
    first = 0 if view.valid_BHN is None else int((~view.valid_BHN[row, 0]).sum())
    slots = view.num_slots
    budget = max(1, int(keep_ratio * (slots - first) + 1e-9))
    start = max(first, slots - window)
    kept = []
    for group in range(2):
        vote = [0.0] * slots
        for head in (2 * group, 2 * group + 1):
            for query in range(start, slots):
                keys = view.keys_BHND[row, group, first : query + 1]
                weights = (keys @ view.queries_BHTD[row, head, query] * view.scaling).softmax(-1).tolist()
                for slot, weight in enumerate(weights, first):
                    if slot < start:
                        vote[slot] += weight
        half = kernel // 2
        pooled = {j: sum(vote[max(0, j - half) : j + half + 1]) for j in range(first, start)}
        order = [*range(slots - 1, start - 1, -1), *sorted(pooled, key=lambda j: -pooled[j])]
        kept.append(sorted(order[:budget]))
    return kept


@pytest.mark.parametrize("padding", [(0, 0), (0, 13), (7, 30)])
@pytest.mark.parametrize(("window", "kernel"), [(4, 1), (4, 5), (8, 7), (1, 3)])
def test_the_kept_slots_are_those_of_the_definition(make_view, kept_slots, padding, window, kernel):
    view = make_view(padding=padding)
    method = KvSnapKV(keep_ratio=0.4, window=window, kernel=kernel)
    ours = kept_slots(method, view)
    assert ours == [naive_keep(view, row, 0.4, window, kernel) for row in range(2)]


def test_the_choice_does_not_depend_on_values_nor_on_queries_before_the_window(make_view, kept_slots):
    view, method = make_view(), KvSnapKV(keep_ratio=0.4, window=6)
    queries = view.queries_BHTD.clone()
    queries[:, :, :-6] = 7.0
    other = replace(view, values_BHND=-view.values_BHND, queries_BHTD=queries)
    assert kept_slots(method, other) == kept_slots(method, view) is not None
    queries[:, :, -1] *= -3.0
    assert kept_slots(method, replace(view, queries_BHTD=queries)) != kept_slots(method, view)


def test_a_slot_that_the_window_looks_at_stays_with_its_neighbours(make_view, kept_slots):
    view = make_view()
    keys = view.keys_BHND.clone()
    keys[:, :, 11] = 40 * view.queries_BHTD[:, ::2, -1]
    keys[:, :, 11] += 40 * view.queries_BHTD[:, 1::2, -1]
    kept = kept_slots(KvSnapKV(keep_ratio=0.25, window=1, kernel=5), replace(view, keys_BHND=keys))
    assert all({9, 10, 11, 12, 13} <= set(head) for row in kept for head in row)


def test_a_prompt_within_the_window_keeps_its_last_tokens(make_view, kept_slots):
    """The window counts towards the budget, so only a full budget keeps all of a short prompt."""
    view = make_view(slots=20)
    assert KvSnapKV(keep_ratio=1.0, window=32).evict(view) is None
    assert kept_slots(KvSnapKV(keep_ratio=0.5, window=32), view) == [[list(range(10, 20))] * 2] * 2


def test_the_cache_keeps_what_was_chosen_and_only_once(tiny):
    """Decoded tokens are appended and never evicted."""
    prompt = [(13 * i) % 250 for i in range(30)]
    with KvSnapKV(keep_ratio=0.3, window=4).apply(tiny) as pruned, torch.inference_mode():
        runner = Runner(pruned.model, pruned.new_cache)
        runner.prefill([prompt])
        first = kept_positions(runner.cache)
        for token in range(5):
            runner.forward(torch.tensor([[token]]))
            runner.commit()
    for before, after in zip(first, kept_positions(runner.cache), strict=True):
        for old, new in zip(before[0], after[0], strict=True):
            assert len(old) == 9 and old[-4:] == [26, 27, 28, 29]
            assert new == [*old, *range(30, 35)]


def test_all_checks_hold(tiny):
    for method in (KvSnapKV(), KvSnapKV(keep_ratio=0.3, window=4), KvSnapKV(keep_ratio=0.6, window=1, kernel=1)):
        for check in method.checks(tiny):
            check.run()
