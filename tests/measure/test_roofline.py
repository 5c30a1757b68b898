"""The ledger against numbers worked out by hand and against the real module; ceilings and labels on made-up figures."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from harness.errors import Refused
from harness.measure.roofline import (
    ModelShape,
    binding,
    decode_bytes_per_token,
    forward_bytes,
    forward_flops,
    mbu,
    mfu,
    model_shape,
)
from harness.subjects.tiny import random_llama

# hidden 32, ffn 64, 4 query and 2 kv heads of width 8, 2 layers, vocabulary 258, embeddings apart.
Q, KV, O, FFN = 32 * 32, 32 * 16, 32 * 32, 3 * 32 * 64
BODY = 2 * (Q + 2 * KV + O + FFN)  # 18432
HEAD = 258 * 32  # 8256
NORMS = 5 * 32
KV_SLOT = 2 * 2 * 8 * 4  # keys and values, 2 heads of width 8, float32


@pytest.fixture(scope="module")
def llama() -> Any:
    return random_llama()[0]


def test_shape_of_a_tiny_llama(llama: Any) -> None:
    shape = model_shape(llama)
    assert (shape.body_params, shape.head_params, shape.other_params) == (BODY, HEAD, NORMS) == (18432, 8256, 160)
    assert (shape.hidden, shape.heads, shape.kv_heads, shape.head_dim, shape.layers) == (32, 4, 2, 8, 2)
    assert shape.total_params == sum(p.numel() for p in llama.parameters()) == BODY + 2 * HEAD + NORMS
    assert shape.weight_bytes == 4 and shape.kv_bytes_per_slot == KV_SLOT


def test_tied_embeddings_count_once_in_parameters_and_once_as_head() -> None:
    model = random_llama(tie_word_embeddings=True)[0]
    shape = model_shape(model)
    assert shape.head_params == HEAD and shape.body_params == BODY
    assert shape.total_params == BODY + HEAD + NORMS


def test_bytes_a_number_follow_the_dtype() -> None:
    shape = model_shape(random_llama()[0].to(torch.bfloat16))
    assert shape.weight_bytes == 2 and shape.kv_bytes_per_slot == KV_SLOT / 2


def test_decode_flops_by_hand(llama: Any) -> None:
    # One token after 10 cached sees 11 positions in each of two layers.
    assert forward_flops(llama, 1, context=10) == 2 * (BODY + HEAD) + 4 * 4 * 8 * 11 * 2


def test_prefill_flops_by_hand(llama: Any) -> None:
    # Three tokens see 1 + 2 + 3 positions; logits of one position only.
    expected = 2 * (3 * BODY + HEAD) + 4 * 4 * 8 * 6 * 2
    assert forward_flops(llama, 3, logits=1) == expected
    assert forward_flops(llama, 3, logits=1, batch=4) == 4 * expected


def test_flops_agree_with_the_counter_of_torch() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = random_llama()[0]
    model.set_attn_implementation("eager")
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(input_ids=torch.arange(12)[None])
    # torch sees the whole square of the attention, the ledger its visible half.
    masked = 4 * 4 * 8 * (12 * 12 - 12 * 13 // 2) * 2
    assert counter.get_total_flops() == forward_flops(model, 12) + masked


def test_decoding_token_by_token_costs_what_one_prefill_costs(llama: Any) -> None:
    assert sum(forward_flops(llama, 1, context=i) for i in range(9)) == forward_flops(llama, 9)


def test_decode_bytes_by_hand(llama: Any) -> None:
    weights = 4 * (BODY + HEAD + NORMS)
    row, cached, written = 4 * 32, 10 * 2 * KV_SLOT, 2 * KV_SLOT
    assert decode_bytes_per_token(llama, 10) == weights + row + cached + written
    assert decode_bytes_per_token(llama, 10, batch=8) == weights / 8 + row + cached + written
    assert decode_bytes_per_token(llama, 10, batch=2, kv_bytes=100) == weights / 2 + row + 50 + written
    assert forward_bytes(llama, 5, logits=0) == weights - 4 * HEAD + 5 * (row + written)


def test_a_window_bounds_what_is_seen_and_read(llama: Any) -> None:
    windowed = replace(model_shape(llama), windows=(None, 4))
    # Six tokens from scratch: 21 pairs in the full layer, 1+2+3+4+4+4 = 18 in the windowed one.
    assert forward_flops(windowed, 6, logits=0) == 2 * 6 * BODY + 4 * 4 * 8 * (21 + 18)
    assert forward_flops(windowed, 2, context=3, logits=0) == 2 * 2 * BODY + 4 * 4 * 8 * ((4 + 5) + (4 + 4))
    saved = decode_bytes_per_token(llama, 10) - decode_bytes_per_token(windowed, 10)
    assert saved == 7 * KV_SLOT  # the window holds the new token and three before it


def test_layer_types_say_which_layers_have_a_window() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=12,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
    )
    shape = model_shape(Gemma2ForCausalLM(config))
    assert shape.windows == (8, None) and shape.head_dim == 12


def test_experts_are_refused(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama.config, "num_local_experts", 8, raising=False)
    with pytest.raises(Refused, match="8 experts"):
        model_shape(llama)


def test_utilisation_is_a_share_of_the_ceiling() -> None:
    assert mfu(flops=50.0, seconds=2.0, flops_per_second=100.0) == 0.25
    assert mbu(moved_bytes=300.0, seconds=2.0, bytes_per_second=200.0) == 0.75


def label(rate: float, **change: Any) -> Any:
    """A phase whose compute ceiling is 1000 and whose memory ceiling is 100 tokens per second."""
    figures = {"flops_per_token": 1.0, "bytes_per_token": 1.0, "flops_per_second": 1000.0, "bytes_per_second": 100.0}
    return binding(rate, **(figures | change))


def test_labels_follow_the_evidence() -> None:
    assert label(70.0).label == "memory"
    assert label(70.0).slack == {"compute": pytest.approx(1000 / 70), "memory": pytest.approx(100 / 70)}
    assert label(70.0, bytes_per_second=1000.0, flops_per_second=100.0).label == "compute"
    assert label(40.0).label == "overhead"
    assert label(55.0).label == "undetermined"
    assert label(70.0, flops_per_second=104.0).co_binding == ("compute", "memory")
    assert label(70.0).co_binding == ()


def test_power_binds_only_with_a_counter() -> None:
    power = {"joules_per_token": 1.0, "power_limit_w": 71.0}
    assert label(70.0, **power, energy_source="counter").label == "power"
    assert label(70.0, **power, energy_source="counter").ceilings["power"] == 71.0
    for source in ("model", "none"):
        found = label(70.0, **power, energy_source=source)
        assert found.label == "memory" and "power" not in found.ceilings


def test_scaling_joules_moves_the_power_ceiling_alone() -> None:
    one = label(10.0, joules_per_token=1.0, power_limit_w=60.0, energy_source="counter").ceilings
    two = label(10.0, joules_per_token=2.0, power_limit_w=60.0, energy_source="counter").ceilings
    assert two == {**one, "power": one["power"] / 2}


def test_a_ledger_needs_no_model() -> None:
    shape = ModelShape(4, 2, 1, 2, (None,), 100, 10, 1, 121, 0.5, 1.0)
    assert decode_bytes_per_token(shape, 3) == 0.5 * (111 + 4) + 3 * 4 + 4
