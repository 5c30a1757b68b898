"""The layers against transformers' own Llama, and what they see."""

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaModel

from harness.errors import Refused
from harness.kinds.architecture.blocks import Blocks, causal_mask


@pytest.fixture(scope="module")
def vectors():
    return torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))


def test_they_are_the_layers_of_a_llama(vectors):
    blocks = Blocks(16, 2, 2)
    config = LlamaConfig(vocab_size=1, hidden_size=16, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    llama = LlamaModel(config)
    held = blocks.state_dict()
    assert set(llama.state_dict()) - set(held) == {"embed_tokens.weight"}
    llama.load_state_dict(held, strict=False)
    with torch.no_grad():
        assert torch.allclose(blocks(vectors), llama(inputs_embeds=vectors).last_hidden_state, atol=1e-5)


@pytest.mark.parametrize("window", [None, 3])
def test_a_cache_goes_on_where_it_stopped(vectors, window):
    blocks, cache = Blocks(16, 2, 2, window), DynamicCache()
    with torch.no_grad():
        parts = [blocks(part, cache=cache) for part in vectors.split((5, 1, 4, 2), dim=1)]
        assert torch.allclose(torch.cat(parts, 1), blocks(vectors), atol=1e-5)


def test_a_window_is_the_reach_of_one_layer(vectors):
    blocks = Blocks(16, 1, 2, window=3)
    changed = vectors.clone()
    changed[:, 4] += 1
    with torch.no_grad():
        moved = (blocks(changed) - blocks(vectors)).abs().amax((0, 2)) > 1e-6
    assert moved.tolist() == [place in (4, 5, 6) for place in range(12)]


def test_the_mask_by_hand():
    seen = causal_mask(2, 4, 2, torch.device("cpu"))[0, 0]
    assert seen.int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(Refused, match="18 is no multiple of twice the 4 heads"):
        Blocks(18, 1, 4)
