"""RTPurbo: which heads look far, what the indexer learns, and what a query reads."""

from dataclasses import replace

import pytest
import torch

from harness.kinds.pruning.head_mass import echo_mass, far_mass
from harness.kinds.pruning.indexer import Pairs, first_guess, fit, layer_indexers
from harness.kinds.pruning.unrotated import Rotation, rotation_of
from harness.subjects.views import QueryView
from methods.pruning.rtpurbo import RTPurbo, top_p


def view_of(slots=30, seed=0, layer=0, rotation=None):
    """A decoding query over four heads and two key heads; what it holds before the rotation, and after it."""
    generator = torch.Generator().manual_seed(seed)
    queries, keys = (torch.randn(1, heads, n, 8, generator=generator) for heads, n in ((4, 1), (2, slots)))
    return QueryView(layer, 2, "decode", queries, keys, None, slots - 1, 8**-0.5, {})


def no_rotation(length=64):
    return Rotation(torch.ones(length, 8), torch.zeros(length, 8))


def slots_of(chosen, head):
    index = chosen.index_BSTK[0, min(head, chosen.index_BSTK.shape[1] - 1), 0]
    used = torch.ones_like(index, dtype=torch.bool)
    if chosen.valid_BSTK is not None:
        used = chosen.valid_BSTK[0, min(head, chosen.valid_BSTK.shape[1] - 1), 0]
    return sorted(index[used].tolist())


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.999])
def test_top_p_is_the_shortest_run_that_reaches_p(p):
    scores = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)) * 2
    for row, chosen in zip(scores.softmax(-1), top_p(scores, p), strict=True):
        mass = row[chosen].sum()
        assert mass >= p - 1e-6 and mass - row[chosen].min() < p
        assert row[chosen].min() >= row[~chosen].max()


def test_top_p_of_1_is_everything_and_peaked_queries_read_less():
    scores = torch.randn(1, 40, generator=torch.Generator().manual_seed(1))
    assert top_p(scores * 50, 1.0).all() and top_p(scores * 50, 1e-6).sum() == 1
    sizes = [int(top_p(scores * heat, 0.9).sum()) for heat in (8.0, 4.0, 2.0, 1.0, 0.1)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


def test_the_rotation_is_undone(tiny):
    rotation, seen = rotation_of(tiny, "test"), {}
    attention = tiny.model.model.layers[0].self_attn
    hooks = [
        attention.q_proj.register_forward_hook(lambda m, i, o: seen.update(query=o)),
        attention.k_proj.register_forward_hook(lambda m, i, o: seen.update(key=o)),
    ]
    from harness.kinds.pruning.calibration import watch_prompts

    def look(view):
        if view.layer == 0:
            for name, states in (("query", view.queries_BHTD), ("key", view.keys_BHND)):
                plain = seen[name].unflatten(-1, (states.shape[1], -1)).transpose(1, 2)
                torch.testing.assert_close(rotation.undone(states, 0), plain, atol=1e-5, rtol=1e-5)
                torch.testing.assert_close(rotation.undone(states[:, :, 9:], 9), plain[:, :, 9:], atol=1e-5, rtol=1e-5)
            seen["looked"] = True

    try:
        watch_prompts(tiny, [list(range(20))], look)
    finally:
        for hook in hooks:
            hook.remove()
    assert seen["looked"]


def test_masses_are_attention_to_the_first_span_and_beyond_the_window(make_view):
    view = replace(make_view(slots=20), queries_BHTD=make_view(slots=20).queries_BHTD)
    echo, far = echo_mass(view, 4), far_mass(view, 4, 6)
    for head in range(4):
        rows = []
        for query in range(16, 20):
            logits = view.keys_BHND[0, head // 2, : query + 1] @ view.queries_BHTD[0, head, query] * view.scaling
            rows.append(logits.softmax(0))
        assert float(echo[head]) == pytest.approx(float(sum(row[:4].sum() for row in rows)) / 4, abs=1e-6)
        wanted = sum(float(row[: query - 5].sum()) for query, row in zip(range(16, 20), rows, strict=True)) / 4
        assert float(far[head]) == pytest.approx(wanted, abs=1e-6)


def planted(rank, width=8, heads=2, tokens=48):
    """Texts whose attention comes from ``rank`` directions of the states."""
    generator = torch.Generator().manual_seed(3)
    true = torch.randn(heads, 2, rank, width, generator=generator)
    visible = torch.ones(tokens, tokens).tril().bool()
    texts = []
    for _ in range(3):
        query, key = torch.randn(2, heads, tokens, width, generator=generator)
        blank = Pairs(query, key, torch.zeros(heads, tokens, tokens), visible, 0.5)
        texts.append(replace(blank, attention_HTN=blank.scores(true).softmax(-1)))
    return texts, true


def test_the_loss_is_0_for_the_true_projections_and_positive_for_others():
    texts, true = planted(4)
    assert abs(float(texts[0].divergence(true))) < 1e-5
    assert float(texts[0].divergence(0.5 * true)) > 0.1


def test_training_finds_a_planted_indexer():
    texts, _ = planted(4)
    start = first_guess(texts, 4)
    weights, losses = fit(start, texts, 400, 0.1)
    assert losses[-1] < 1e-3 < losses[0] and float(texts[0].divergence(weights)) < 1e-3
    assert torch.equal(fit(start, texts, 0, 1.0)[0], start)


def test_the_first_guess_of_all_channels_is_the_whole_product():
    texts, _ = planted(4)
    guess = first_guess(texts, 8)
    whole = (texts[0].query_HTD @ texts[0].key_HND.mT * 0.5).masked_fill(~texts[0].visible_TN, -torch.inf)
    torch.testing.assert_close(texts[0].scores(guess), whole, atol=1e-3, rtol=1e-3)


def test_local_heads_read_their_ends_and_retrieval_heads_what_the_indexer_says():
    """With the identity as projection and no rotation, the indexer's score is the logit."""
    view, eye = view_of(), torch.eye(8).expand(1, 2, 8, 8)
    heads = torch.tensor([[False, False, True, False], [False] * 4])
    indexers = layer_indexers(heads, eye, 2)
    method = RTPurbo(num_sinks=2, window=3, p=0.6)
    chosen = method.select(view, indexers, no_rotation())
    ends = [0, 1, 27, 28, 29]
    chance = (view.keys_BGND[0, 1] @ view.queries_BHTD[0, 2, 0] * view.scaling).softmax(0)
    found, mass = set(), 0.0
    for slot in chance.argsort(descending=True).tolist():
        if mass < 0.6:
            found.add(slot)
            mass += float(chance[slot])
    for head in range(4):
        assert slots_of(chosen, head) == (sorted({*ends, *found}) if head == 2 else ends)
    assert chosen.scored == 8 / (2 * 2 * 8)
    assert slots_of(method.select(replace(view, layer=1), indexers, no_rotation()), 0) == ends


def test_projected_keys_are_made_once_and_grow_with_the_cache():
    weights = torch.randn(2, 2, 3, 8, generator=torch.Generator().manual_seed(5))
    (indexer,) = layer_indexers(torch.tensor([[True, False, False, True]]), weights, 2)
    whole, scratch = view_of(slots=30), {}
    for slots in (20, 21, 30):
        part = replace(whole, keys_BGND=whole.keys_BGND[:, :, :slots], committed=slots - 1, scratch=scratch)
        ours = indexer.keys(part, no_rotation())
    for place, group in enumerate((0, 1)):
        torch.testing.assert_close(ours[place], whole.keys_BGND[0, group] @ weights[place, 1].T)
    assert scratch["indexed_rows"] == 29


def test_heads_are_chosen_one_by_one_or_by_group(tiny):
    mass = torch.tensor([[0.9, 0.0, 0.1, 0.2], [0.3, 0.8, 0.0, 0.0]])
    alone = RTPurbo(retrieval=0.25).heads(tiny, mass)
    assert alone.tolist() == [[True, False, False, False], [False, True, False, False]]
    groups = RTPurbo(retrieval=0.5, unit="group").heads(tiny, mass)
    assert groups.tolist() == [[True, True, False, False], [True, True, False, False]]


@pytest.mark.parametrize("scorer", ["needle", "remote_mass"])
def test_preparing_is_reproducible_and_lowers_the_loss(tiny, calibration, scorer):
    short, context = calibration
    fields = {name: short[name] for name in ("corpus", "texts", "text_tokens")}
    method = RTPurbo(**fields, scorer=scorer, retrieval=0.5, span=8, window=8, steps=60, lr=0.02, index_dim=2)
    first, again = (method.prepare(tiny, context) for _ in range(2))
    assert first["mass_LH"].shape == (2, 4) and first["mass_LH"].min() > 0 and first["mass_LH"].max() < 1
    assert first["weights"].shape == (4, 2, 2, 8) and len(first["losses"]) == 60
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["losses"][-10:].mean() < 0.9 * first["losses"][:2].mean()
    assert not any(p.grad is not None for p in tiny.model.parameters())
    with method.apply(tiny, first) as opened, torch.inference_mode():
        opened.score([], 1)


def test_without_retrieval_heads_nothing_is_trained(tiny, calibration):
    short, context = calibration
    fields = {name: short[name] for name in ("corpus", "texts", "text_tokens")}
    artifact = RTPurbo(**fields, retrieval=0.0, span=8).prepare(tiny, context)
    assert artifact["weights"].numel() == 0 and len(artifact["losses"]) == 0


@pytest.mark.parametrize(
    "method",
    [RTPurbo(), RTPurbo(retrieval=0.5, num_sinks=2, window=5, p=0.5), RTPurbo(retrieval=0.0, num_sinks=1, window=4)],
    ids=lambda method: method.signature,
)
def test_all_checks_hold(tiny, method):
    for check in method.checks(tiny):
        check.run()
