"""The cache against fresh forwards: growth, keeping, committing paths, rolling back, forks, rows, eviction."""

import functools

import pytest
import torch

from harness.kinds.pruning.base import keep_count, rank_slots
from harness.kinds.speculative.base import DraftTree, ancestors
from harness.subjects.cache import KVCache
from harness.subjects.kv_layer import KVLayer
from harness.subjects.runner import Runner, pad_left
from harness.subjects.views import Drop

PROMPT = [(13 * i) % 250 for i in range(30)]
TREE = DraftTree((5, 6, 7, 8, 9, 10), (-1, 0, 0, 2, 1, 3))


@pytest.fixture(autouse=True)
def no_gradients():
    """Caches are filled without a graph, as subjects do."""
    with torch.inference_mode():
        yield


def fresh(subject, ids):
    """Last logits of a whole text in a cache of its own."""
    return Runner(subject.model, subject.new_cache).prefill([ids])[0]


def start(subject, prompts=(PROMPT,), **cache):
    """A runner after its prompts."""
    runner = Runner(subject.model, functools.partial(subject.new_cache, **cache))
    runner.prefill(prompts)
    return runner


def feed(runner, *ids):
    """Forward tokens one by one (each for every row) and return the last logits."""
    for token in ids:
        rows = len(runner.cache.layers[0].keys)
        logits = runner.forward(torch.full((rows, 1), token))[:, -1]
        runner.commit()
    return logits


def close(ours, theirs):
    """Equal up to the rounding of another order of sums."""
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def every_other(view):
    """Evicts every second slot of a prompt without padding."""
    kept = torch.arange(0, view.num_slots, 2)
    return kept.expand(len(view.keys_BHND), view.keys_BHND.shape[1], -1), None


def test_buffers_grow_and_keep_what_they_hold():
    layer, seen = KVLayer(), []
    for step in range(40):
        new = torch.randn(2, 3, 1 + step % 9, 4)
        seen.append(new)
        keys, values = layer.update(new, -new)
    whole = torch.cat(seen, 2)
    assert torch.equal(keys, whole) and torch.equal(values, -whole)
    assert layer.length == whole.shape[2] <= layer.keys.shape[2] <= 2 * whole.shape[2]


def test_kept_slots_move_and_the_rest_is_freed():
    layer = KVLayer()
    keys = torch.randn(1, 2, 100, 4)
    layer.update(keys, keys)
    layer.keep(torch.tensor([[[1, 50, 99], [0, 2, 3]]]), None, room=8)
    held, _ = layer.live()
    assert torch.equal(held, torch.stack([keys[:, 0, [1, 50, 99]], keys[:, 1, [0, 2, 3]]], 1))
    assert layer.keys.shape[2] <= 3 + 64


@pytest.mark.parametrize("dropped", [[[3], [0]], [[9], [8]], [[0, 9, 4], [7, 8, 9]], [[8, 2, 9], [6, 5, 1]]])
def test_the_last_slots_fill_the_gaps_of_dropped_ones_and_nothing_else_moves(dropped):
    layer = KVLayer()
    layer.update(*(torch.randn(1, 2, 10, 4) for _ in range(2)))
    layer.position, layer.memory = torch.arange(10)[None, None], {"sum": torch.arange(20.0).view(1, 2, 10)}
    keys, values = (states.clone() for states in layer.live())
    buffer = layer.keys.data_ptr()
    layer.drop(torch.tensor([dropped]))
    left = 10 - len(dropped[0])
    assert layer.length == left and layer.keys.data_ptr() == buffer
    for head in range(2):
        held = layer.position[0, head].tolist()
        assert sorted(held) == sorted(set(range(10)) - set(dropped[head]))
        assert all(held[slot] == slot for slot in range(left) if slot not in dropped[head])
        assert torch.equal(layer.live()[0][0, head], keys[0, head, held])
        assert torch.equal(layer.live()[1][0, head], values[0, head, held])
        assert (layer.memory["sum"][0, head] - 10 * head).tolist() == held


@pytest.mark.parametrize("node", range(len(TREE.tokens)))
def test_committing_a_path_equals_a_fresh_forward_of_its_text(tiny, node):
    runner = start(tiny)
    path = TREE.path_to(node)
    runner.forward(
        torch.tensor([TREE.tokens]), block_TM=ancestors(TREE.parents, tiny.device), depth_M=torch.tensor(TREE.depth)
    )
    runner.commit(torch.tensor(path))
    text = PROMPT + [TREE.tokens[n] for n in path]
    close(feed(runner, 77)[0], fresh(tiny, [*text, 77]))
    assert runner.cache.seen_B.tolist() == [len(text) + 1]


def test_an_empty_path_rolls_a_forward_back(tiny):
    runner = start(tiny)
    runner.forward(torch.tensor([[1, 2, 3]]))
    runner.commit(torch.tensor([], dtype=torch.long))
    close(feed(runner, 9, 8)[0], fresh(tiny, [*PROMPT, 9, 8]))


def test_a_prefix_of_a_chain_is_kept(tiny):
    runner = start(tiny)
    runner.forward(torch.tensor([[1, 2, 3, 4]]))
    runner.commit(torch.tensor([0, 1]))
    close(feed(runner, 9)[0], fresh(tiny, [*PROMPT, 1, 2, 9]))


def test_interleaved_forks_do_not_see_each_other(tiny):
    runner = start(tiny)
    forks = [runner, runner.fork(), runner.fork()]
    texts = [[], [], []]
    for step in range(70):
        for index, fork in enumerate(forks):
            texts[index].append((step * 7 + index * 31) % 250)
            logits = feed(fork, texts[index][-1])
            if step % 23 == 0:
                close(logits[0], fresh(tiny, PROMPT + texts[index]))
        if step == 30:
            forks.append(forks[1].fork())
            texts.append(list(texts[1]))
    for fork, text in zip(forks, texts, strict=True):
        close(feed(fork, 1)[0], fresh(tiny, [*PROMPT, *text, 1]))


def last_four(view):
    """Keeps the latest four slots of one row, which have stayed in order."""
    kept = torch.arange(view.num_slots - 4, view.num_slots)
    return kept.expand(1, view.keys_BHND.shape[1], -1), None


def but_the_third(view):
    """Keeps four slots of the prompt, then drops a slot for each that came, which mixes their order."""
    if view.phase == "prefill":
        return last_four(view)
    return Drop(torch.full((1, view.keys_BHND.shape[1], 1), 2))


@pytest.mark.parametrize("evict", [last_four, but_the_third])
def test_a_fork_survives_eviction_in_its_origin(tiny, evict):
    """A cache that evicts while decoding rewrites its slots; a fork still holds the old ones."""
    settings = {"evict": evict, "evict_while_decoding": True}
    runner, alone = start(tiny, **settings), start(tiny, **settings)
    fork = runner.fork()
    feed(runner, 1, 2, 3, 4, 5)
    assert torch.equal(feed(fork, 9, 8), feed(alone, 9, 8))
    fork, alone = runner.fork(), start(tiny, **settings)
    feed(alone, 1, 2, 3, 4, 5)
    feed(fork, 50, 60, 70)
    assert torch.equal(feed(runner, 6), feed(alone, 6))


def test_dropping_and_keeping_the_same_slots_give_the_same_logits(tiny):
    """The oldest slot of each head goes, by its position; once in place, once by gathering those that stay."""

    def oldest_dropped(view):
        if view.phase == "prefill":
            return last_four(view)
        return Drop(view.position_BHN.argsort(-1)[..., : view.queries_BHTD.shape[2]])

    settings = {"evict_while_decoding": True}
    lazy, gathering = start(tiny, evict=oldest_dropped, **settings), start(tiny, evict=last_four, **settings)
    for token in range(12):
        close(feed(lazy, token), feed(gathering, token))
    tree = {"block_TM": ancestors(TREE.parents, tiny.device), "depth_M": torch.tensor(TREE.depth)}
    for path in ([], [0, 2], [0, 1, 4]):
        for runner in (lazy, gathering):
            runner.forward(torch.tensor([TREE.tokens]), **tree)
            runner.commit(torch.tensor(path, dtype=torch.long))
        close(feed(lazy, 5), feed(gathering, 5))
    held = [runner.cache.layers[1].position.sort(-1).values.tolist() for runner in (lazy, gathering)]
    assert held[0] == held[1] and lazy.cache.allocated_bytes() == gathering.cache.allocated_bytes()


def test_rows_can_be_dropped_repeated_and_reordered(tiny):
    prompts = [PROMPT, PROMPT[:11], PROMPT[5:9]]
    runner = start(tiny, prompts)
    runner.select_rows(torch.tensor([2, 0, 2]))
    logits = feed(runner, 3, 4)
    for row, source in enumerate((2, 0, 2)):
        close(logits[row], fresh(tiny, [*prompts[source], 3, 4]))


def test_positions_go_on_after_eviction(tiny):
    """The next token stands at the number of tokens seen, not of slots held."""
    runner = start(tiny, evict=every_other)
    assert runner.cache.layers[0].length == 15
    runner.forward(torch.tensor([[7]]))
    assert runner.cache.layers[0].position[0, 0].tolist() == [*range(0, 30, 2), 30]


def test_rows_of_different_lengths_are_evicted_under_left_padding(tiny):
    """Each row keeps half of its own tokens, the same as alone, and padding is dropped first."""

    def latest(view):
        return rank_slots(view.position_BHN.float().expand(-1, 2, -1), view.valid_BHN, keep_count(0.5, view.prompt_B))

    prompts = [PROMPT, PROMPT[:11], PROMPT[:1]]
    runner = start(tiny, prompts, evict=latest)
    logits = feed(runner, 3, 4)
    assert runner.cache.layers[0].length == 15 + 2
    for row, prompt in enumerate(prompts):
        alone = start(tiny, [prompt], evict=latest)
        close(logits[row], feed(alone, 3, 4)[0])
        layer = runner.cache.layers[1]
        held = layer.position[row, 0][layer.valid[row, 0]].tolist()
        assert held == alone.cache.layers[1].position[0, 0].tolist()
        assert held == [*range(len(prompt) - max(1, len(prompt) // 2), len(prompt) + 2)]


def test_bytes_count_what_is_held_and_what_is_allocated(tiny):
    full, half = start(tiny), start(tiny, evict=every_other)
    per_slot = 2 * 2 * 2 * 8 * 4  # keys and values, two layers, two heads, eight dimensions, four bytes
    assert full.cache.held_bytes() == 30 * per_slot
    assert half.cache.held_bytes() == 15 * per_slot
    assert half.cache.allocated_bytes() == (15 + 64) * per_slot
    assert half.cache.kept_slots() == 15


def test_left_padding_is_marked_and_equal_rows_are_not_padded():
    ids, valid = pad_left([[1, 2], [3]], torch.device("cpu"))
    assert ids.tolist() == [[1, 2], [0, 3]] and valid.tolist() == [[True, True], [False, True]]
    assert pad_left([[1], [2]], torch.device("cpu"))[1] is None


def test_counts_are_tokens_without_padding(tiny):
    runner = start(tiny, [PROMPT, PROMPT[:11]])
    feed(runner, 1)
    counts = runner.counts
    assert (counts.forwards, counts.prefill_tokens, counts.tokens) == (2, 41, 43)


def test_the_cache_factory_makes_independent_caches(tiny):
    one, other = tiny.new_cache(), tiny.new_cache()
    assert isinstance(one, KVCache) and one.layers[0] is not other.layers[0]


def test_rewound_rows_go_on_as_if_the_rest_had_not_been_read(tiny):
    runner = Runner(tiny.model, tiny.new_cache)
    runner.prefill([PROMPT])
    runner.select_rows(torch.zeros(2, dtype=torch.long))
    runner.cache.rewind(torch.tensor([3, 16]))
    rewound_BV = runner.forward(torch.tensor([[7], [7]]))[:, -1]
    for row, length in enumerate((3, 16)):
        assert torch.allclose(rewound_BV[row], fresh(tiny, [*PROMPT[:length], 7]), atol=1e-5)
