"""Plain decoding, batches and draft trees on several families of models, sliding windows included."""

import functools

import pytest
import torch

from harness.errors import Refused
from harness.kinds.speculative.base import DraftTree, ancestors
from harness.subjects import grouped
from harness.subjects.cache import KVCache
from harness.subjects.grouped import grouped_attention, long_cache_kernels, quickest
from harness.subjects.load import wrap_model
from harness.subjects.requests import GenerateRequest
from harness.subjects.runner import Runner

PROMPTS = [list(range(5, 18)), [3, 4, 5], [(7 * i) % 60 + 2 for i in range(50)]]
TREE = DraftTree((5, 6, 7, 8, 9, 10, 11, 12), (-1, 0, 0, 1, 2, 2, 3, 6))


def tokens_of(subject, prompts, count=14):
    """Greedy texts of a fixed length."""
    request = GenerateRequest(prompts=prompts, max_new_tokens=count, ignore_eos=True)
    return [row.tokens for row in subject.generate(request)]


def tree_logits(subject, prompt, tree, new_cache=None):
    """Logits of a tree after a prompt, in one forward."""
    with torch.inference_mode():
        runner = Runner(subject.model, new_cache or subject.new_cache)
        runner.prefill([prompt])
        block, depth = ancestors(tree.parents, subject.device), torch.tensor(tree.depth)
        return runner.forward(torch.tensor([tree.tokens]), block_TM=block, depth_M=depth)[0]


def test_plain_decoding_equals_transformers(family):
    ours = tokens_of(family, PROMPTS[2:])[0]
    theirs = family.model.generate(
        torch.tensor(PROMPTS[2:]), max_new_tokens=14, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert ours == theirs[0, len(PROMPTS[2]) :].tolist()


def test_a_batch_of_three_lengths_equals_its_rows(family):
    assert tokens_of(family, PROMPTS) == [tokens_of(family, [prompt])[0] for prompt in PROMPTS]


def test_a_tree_equals_its_paths_forwarded_alone(family):
    logits_NV = tree_logits(family, PROMPTS[2], TREE)
    for node in range(len(TREE.tokens)):
        text = PROMPTS[2] + [TREE.tokens[n] for n in TREE.path_to(node)]
        with torch.inference_mode():
            alone = Runner(family.model, family.new_cache).prefill([text])[0]
        torch.testing.assert_close(logits_NV[node], alone, atol=1e-4, rtol=0)


def test_a_window_is_measured_in_the_text_when_slots_are_evicted(family):
    """Every third slot stays: fewer than the window are left, and the oldest of them lie outside it.

    Evicting what no later query can see must change nothing, and neither must what the window hides be seen again.
    """

    def every_third(view):
        kept = torch.arange(view.num_slots - 1, -1, -3).flip(0)
        return kept.expand(1, view.keys_BHND.shape[1], -1), None

    def masked(subject, index_dropped):
        """The same, without eviction: dropped slots are marked as padding after the prompt."""
        runner = Runner(subject.model, subject.new_cache)
        runner.prefill([PROMPTS[0]])
        for layer in runner.cache.layers:
            layer.valid = torch.ones(1, 1, layer.length, dtype=torch.bool)
            layer.valid[..., index_dropped] = False
        return runner.forward(torch.tensor([[9]]))

    layers = family.new_cache.args[0]
    with torch.inference_mode():
        pruned = Runner(family.model, functools.partial(KVCache, layers, evict=every_third))
        pruned.prefill([PROMPTS[0]])
        assert pruned.cache.layers[0].length == 5
        stays = set(range(12, -1, -3))
        dropped = [i for i in range(13) if i not in stays]
        torch.testing.assert_close(pruned.forward(torch.tensor([[9]])), masked(family, dropped), atol=1e-4, rtol=0)


def test_wide_forwards_take_the_library_kernel_and_agree(family):
    """Forty tokens at once, after a prompt and under left padding, against one forward of the whole text."""
    tail = [(11 * i) % 60 + 2 for i in range(40)]
    with torch.inference_mode():
        for prompts in (PROMPTS[:1], PROMPTS):
            runner = Runner(family.model, family.new_cache)
            runner.prefill(prompts)
            logits = runner.forward(torch.tensor([tail] * len(prompts)))
            for row, prompt in enumerate(prompts):
                whole = Runner(family.model, family.new_cache).prefill([prompt + tail], all_logits=True)[0]
                torch.testing.assert_close(logits[row], whole[len(prompt) :], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Mamba", {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}),
        ("Bloom", {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
        (
            "GptOss",
            {
                "vocab_size": 64,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 8,
                "num_local_experts": 2,
                "num_experts_per_tok": 1,
                "pad_token_id": 0,
            },
        ),
    ],
)
def test_what_the_zoo_cannot_serve_is_refused_in_one_line(make_model, name, settings):
    """No attention at all, a bias by distance, and learnt sinks that our attention would lose."""
    model = make_model(name, **settings)
    with pytest.raises(Refused, match=type(model).__name__) as refusal:
        wrap_model(model, None, name)
    assert "\n" not in str(refusal.value)


def test_learnt_positions_are_served(make_model):
    settings = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    model = make_model("GPT2", bos_token_id=0, eos_token_id=1, initializer_range=0.3, **settings)
    with torch.inference_mode():
        whole = model(torch.tensor([PROMPTS[0]])).logits[0]
        subject = wrap_model(model, None, "gpt2")
        runner = Runner(subject.model, subject.new_cache)
        first = runner.prefill([PROMPTS[0][:6]], all_logits=True)[0]
        rest = runner.forward(torch.tensor([PROMPTS[0][6:]]))[0]
    torch.testing.assert_close(torch.cat([first, rest]), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("slots", [40, 1030, 4200])
@pytest.mark.parametrize("new", [1, 3])
def test_every_path_of_few_queries_gives_the_same_attention(slots, new):
    """Short, long and very long caches are multiplied in different ways in half precision; buffers have spare room."""
    generator = torch.Generator().manual_seed(slots)
    query = torch.randn(2, 4, new, 16, generator=generator).bfloat16()
    keys, values = (torch.randn(2, 2, slots + 9, 16, generator=generator).bfloat16()[:, :, :slots] for _ in range(2))
    mask = torch.ones(new, slots, dtype=torch.bool).tril(slots - new)[None, None]
    with long_cache_kernels(query, slots):
        ours = grouped_attention(*quickest(query, keys, values), mask, 0.25, None)
    wide = (t.float() for t in (query, keys.repeat_interleave(2, 1), values.repeat_interleave(2, 1)))
    wanted = torch.nn.functional.scaled_dot_product_attention(*wide, attn_mask=mask, scale=0.25)
    torch.testing.assert_close(ours.float(), wanted, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("slots", [9, 12, 25])
def test_long_caches_are_multiplied_in_chunks(slots, monkeypatch):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, length, 8) for heads, length in ((6, 1), (2, slots), (2, slots)))
    mask = (torch.arange(slots) > 2)[None, None, None]
    whole = grouped_attention(query, key, value, mask, 0.3, None)
    assert grouped.chunk_size(query, slots) == slots
    monkeypatch.setattr(grouped, "CHUNKED_SLOTS", 9)
    monkeypatch.setattr(grouped, "CHUNK", 4)
    assert grouped.chunk_size(query, slots) == 4 and grouped.chunk_size(query.bfloat16(), slots) == slots
    assert torch.allclose(grouped_attention(query, key, value, mask, 0.3, None), whole, atol=1e-6)


def test_the_librarys_switch_is_as_before_once_attention_is_done():
    states = torch.zeros(1, 1, 1, 8, dtype=torch.bfloat16)
    before = torch.backends.mkldnn.set_flags(False)
    try:
        with long_cache_kernels(states, 5000):
            assert torch.backends.mkldnn.enabled
        assert not torch.backends.mkldnn.enabled
        with long_cache_kernels(states, 10):
            assert not torch.backends.mkldnn.enabled
    finally:
        torch.backends.mkldnn.set_flags(before[0])
