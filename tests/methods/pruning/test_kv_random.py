"""The random control: it depends on the seed, the layer, the head and the position, and on nothing else."""

from dataclasses import replace

from methods.pruning.kv_random import KvRandom


def test_the_last_token_stays_and_the_tokens_do_not_matter(make_view, kept_slots):
    kept = kept_slots(KvRandom(), make_view(seed=1))
    assert kept == kept_slots(KvRandom(), make_view(seed=2))
    assert all(head[-1] == 39 and len(head) == 20 for row in kept for head in row)
    assert kept[0] == kept[1]


def test_seeds_layers_and_heads_draw_their_own_sets(make_view, kept_slots):
    view = make_view()
    sets = {
        tuple(head)
        for seed in range(3)
        for layer in range(3)
        for head in kept_slots(KvRandom(seed=seed), replace(view, layer=layer))[0]
    }
    assert len(sets) == 3 * 3 * 2


def test_padding_does_not_move_the_set(make_view, kept_slots):
    padded = kept_slots(KvRandom(), make_view(slots=50, padding=(10, 0)))
    assert [[j - 10 for j in head] for head in padded[0]] == kept_slots(KvRandom(), make_view(slots=40))[0]


def test_every_position_is_kept_about_equally_often(make_view):
    view = make_view(slots=100)
    counts = sum((KvRandom(keep_ratio=0.5, seed=s).scores(view)[0, 0] > 0.5).long() for s in range(400))
    # Binomial with 400 draws at one half: five standard deviations are 50.
    assert counts[:-1].min() > 150 and counts[:-1].max() < 250
