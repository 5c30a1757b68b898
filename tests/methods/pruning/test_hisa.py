"""HISA against the flat indexer: equal when the blocks hold everything, near when not, blind where it must be."""

from dataclasses import replace

import torch

from harness.subjects.views import QueryView
from methods.pruning.hisa import Hisa


def made_view(slots=64, new=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    queries, keys = (torch.randn(1, heads, n, 8, generator=generator) for heads, n in ((4, new), (2, slots)))
    allowed = None if new == 1 else torch.ones(new, slots, dtype=torch.bool).tril(slots - new)[None, None]
    return QueryView(0, 1, "decode", queries, keys, allowed, slots - new, 1.0, {})


def sets(selection, query=0):
    """Slots by key/value head."""
    valid = selection.valid_BSTK
    used = torch.ones_like(selection.index_BSTK, dtype=torch.bool) if valid is None else valid
    return [set(i[query][u[query]].tolist()) for i, u in zip(selection.index_BSTK[0], used[0], strict=True)]


def flat_scores(view, group, query=0):
    """The indexer's score of every token, by its definition."""
    heads = [view.keys_BGND[0, group] @ view.queries_BHTD[0, h, query] for h in (2 * group, 2 * group + 1)]
    return sum(h.clamp(min=0) for h in heads) / 2


def test_the_flat_indexer_reads_the_highest_scores():
    view = made_view()
    for group, chosen in enumerate(sets(Hisa(tokens=10, indexer="flat").select(view))):
        score = flat_scores(view, group)
        assert chosen == {63, *sorted(range(63), key=lambda j: -score[j].item())[:9]}


def test_blocks_that_hold_everything_make_it_flat():
    for new in (1, 3):
        view = made_view(new=new)
        flat = Hisa(tokens=10, indexer="flat").select(view)
        for page, blocks in ((8, 8), (10, 7), (64, 2)):
            ours = Hisa(tokens=10, page=page, blocks=blocks).select(replace(view, scratch={}))
            assert all(sets(ours, q) == sets(flat, q) for q in range(new))


def test_blocks_of_one_token_make_it_flat_where_nothing_is_forced_in():
    """The mean of a block of one is its token; the first and the own block are always there, and hardly count."""
    view = made_view()
    ours, flat = (Hisa(tokens=10, page=1, blocks=20, indexer=i).select(view) for i in ("hierarchical", "flat"))
    assert sets(ours) == sets(flat)


def test_every_token_comes_from_a_chosen_block_and_scores_no_higher_than_flat():
    view = made_view(slots=200, seed=3)
    method = Hisa(tokens=24, page=8, blocks=5)
    for group, (ours, flat) in enumerate(
        zip(sets(method.select(view)), sets(Hisa(tokens=24, indexer="flat").select(view)), strict=True)
    ):
        blocks = {slot // 8 for slot in ours}
        means = view.keys_BGND[0, group].view(25, 8, 8).mean(1)
        score = sum((means @ view.queries_BHTD[0, h, 0]).clamp(min=0) for h in (2 * group, 2 * group + 1))
        best = sorted(range(1, 24), key=lambda b: -score[b].item())[:3]
        assert blocks <= {0, 24, *best}
        token = flat_scores(view, group)
        got, limit = (sorted((float(token[j]) for j in one), reverse=True) for one in (ours, flat))
        assert sum(got) <= sum(limit) + 1e-5


def test_recall_grows_with_the_number_of_blocks():
    view = made_view(slots=256, seed=5)
    flat = sets(Hisa(tokens=32, indexer="flat").select(view))
    shares = []
    for blocks in (2, 4, 8, 16, 32):
        ours = sets(Hisa(tokens=32, page=8, blocks=blocks).select(replace(view, scratch={})))
        shares.append(sum(len(a & b) for a, b in zip(ours, flat, strict=True)))
    assert shares == sorted(shares) and shares[-1] == 2 * 32 and shares[0] < shares[-1]


def test_a_spike_among_opposite_keys_is_missed():
    """Means are no bound: this is how the method fails, and the flat indexer does not."""
    view = made_view(slots=128)
    keys = view.keys_BGND.clone()
    keys[0, 0, 40:48] = -4 * view.queries_BHTD[0, 0, 0]
    keys[0, 0, 44] = 5 * view.queries_BHTD[0, 0, 0]
    spiked = replace(view, keys_BGND=keys)
    assert 44 in sets(Hisa(tokens=8, indexer="flat").select(spiked))[0]
    assert 44 not in sets(Hisa(tokens=8, page=8, blocks=4).select(replace(spiked, scratch={})))[0]


def test_what_was_read_to_choose_is_counted():
    chosen = Hisa(tokens=16, page=8, blocks=4).select(made_view(slots=128))
    assert chosen.scored == (15 + 3 * 8 + 8) / (2 * 128)
