"""Tiny random models of several families: full attention, sliding windows in all or some layers, learnt positions."""

import pytest
import torch
import transformers

from harness.subjects.load import wrap_model

COMMON = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
SETTINGS = {
    "Llama": {},
    "Mistral": {"sliding_window": 8},
    "Qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "Qwen3": {"head_dim": 8},
    "Gemma3Text": {
        "head_dim": 8,
        "sliding_window": 8,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
}


@pytest.fixture(scope="session")
def make_model():
    """Builds a random transformers model from the name of its configuration class."""

    def make(name, **settings):
        config = getattr(transformers, f"{name}Config")(**settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return transformers.AutoModelForCausalLM.from_config(config).eval()

    return make


@pytest.fixture(scope="session", params=list(SETTINGS))
def family(request, make_model):
    """A subject of each family that is served; windows are 8 tokens."""
    return wrap_model(make_model(request.param, **(COMMON | SETTINGS[request.param])), None, request.param)
