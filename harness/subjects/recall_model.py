"""The model ``tiny-recall``: a Llama of two layers whose weights are written down, not trained.

It is an induction circuit (Elhage et al. 2021, Olsson et al. 2022). Every token has a random code. Heads of the first
layer look one, two and three tokens back, by position alone, and lay the codes found there beside the token's own.
Heads of the second layer find the places in the text that were reached like the present one, and write the code of the
token that stands there: after ``number for baby is`` the digit that followed ``baby is`` before, however far away.

What a text says only once it looks up without fail at all lengths up to 8192 tokens. So whatever a pruned cache misses
is the pruning's doing. It says nothing sensible about texts that do not repeat themselves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.subjects.recall_words import RecallWords

LONGEST = 8192
CODE = 32
"""Dimensions of a token's code; a hidden state has blocks of so many."""
OWN, BEFORE, TWO_BEFORE, THREE_BEFORE, CONSTANT = range(5)
"""Blocks of a hidden state: the codes of this token and the three before it, and a constant."""
HEADS, GROUPS, HEAD_DIM = 4, 2, 128
ROPE_THETA = 1e10
"""Half of a head's pairs turn by less than 0.1 over the longest text: there, codes compare as if without a position."""
LOOKS_BACK = {0: BEFORE, 1: TWO_BEFORE, 2: THREE_BEFORE}
"""Query heads of the first layer, and the block to which each writes what it finds so many tokens back."""
LOOKS_UP = {0: (OWN, BEFORE), 2: (BEFORE, TWO_BEFORE)}
"""Query heads of the second layer, and the two blocks that each compares with those one token further back."""
GAINS = {0: 8.0, 2: 4.0}
"""So much larger than a token's own code is what they write; the more recent tokens weigh more."""
SHARPNESS = 30.0
"""Logits between a head's place and the next best."""
FAST_PAIRS = 8
"""Pairs of a head that turn fast enough to tell neighbouring positions apart."""
LOGIT_SCALE = 0.25
"""Of the final norm: small enough that other tokens keep a chance, so that margins say something."""


def block(number: int) -> slice:
    """The dimensions of a block."""
    return slice(number * CODE, (number + 1) * CODE)


def recall_llama(seed: int = 0) -> tuple[Any, RecallWords, int]:
    """The model, its vocabulary and its longest text; ``seed`` draws the codes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    words = RecallWords()
    config = LlamaConfig(
        vocab_size=words.vocab_size,
        hidden_size=5 * CODE,
        intermediate_size=CODE,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=GROUPS,
        head_dim=HEAD_DIM,
        max_position_embeddings=LONGEST,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        bos_token_id=words.prefix_id,
        eos_token_id=words.eos_ids[0],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        codes_VC = torch.randint(0, 2, (words.vocab_size, CODE)) * 2.0 - 1
    with torch.no_grad():
        _write(model, codes_VC)
    return model, words, LONGEST


def _write(model: Any, codes_VC: Tensor) -> None:
    """Put the circuit in place of the initial weights."""
    table = model.get_input_embeddings().weight
    table.zero_()
    table[:, block(OWN)] = codes_VC
    table[:, block(CONSTANT)] = 1.0
    first, second = model.model.layers
    for layer in (first, second):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            getattr(layer.self_attn, name).weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        for group in range(GROUPS):
            start = group * HEAD_DIM
            layer.self_attn.v_proj.weight[start : start + CODE, block(OWN)] = torch.eye(CODE)
    _look_back(first.self_attn, model.model.rotary_emb.inv_freq[:FAST_PAIRS])
    _look_up(second.self_attn)
    model.model.norm.weight.fill_(LOGIT_SCALE)


def _look_back(attention: Any, turns_P: Tensor) -> None:
    """Heads whose attention depends on the distance alone, by the pairs of a query and a key that turn fast.

    A key is (1, 0) in each pair, and a query the same turned back by ``distance`` positions, so their product is the
    sum of cos((d - distance) turn), largest at d = distance.
    """
    # The norm divides a first hidden state by this root: its code and its constant are of size 1, the rest is 0.
    root = (2 / 5) ** 0.5
    gap = float((1 - turns_P.cos()).sum()) / HEAD_DIM**0.5
    constant = CONSTANT * CODE
    for group in range(GROUPS):
        key = group * HEAD_DIM
        attention.k_proj.weight[key : key + FAST_PAIRS, constant] = root
    for head, distance in LOOKS_BACK.items():
        query = head * HEAD_DIM
        for part, values_P in ((0, (distance * turns_P).cos()), (HEAD_DIM // 2, -(distance * turns_P).sin())):
            start = query + part
            attention.q_proj.weight[start : start + FAST_PAIRS, constant] = values_P * root * SHARPNESS / gap
        attention.o_proj.weight[block(distance), query : query + CODE] = torch.eye(CODE) * root


def _look_up(attention: Any) -> None:
    """Heads that compare two codes with those one token further back, in the pairs that turn slowly."""
    places = (slice(HEAD_DIM // 2 - CODE, HEAD_DIM // 2), slice(HEAD_DIM - CODE, HEAD_DIM))
    scale = (SHARPNESS * HEAD_DIM**0.5 / CODE) ** 0.5
    for head, blocks in LOOKS_UP.items():
        key, query = (head // (HEADS // GROUPS)) * HEAD_DIM, head * HEAD_DIM
        for place, number in zip(places, blocks, strict=True):
            attention.q_proj.weight[query + place.start : query + place.stop, block(number)] = torch.eye(CODE) * scale
            attention.k_proj.weight[key + place.start : key + place.stop, block(number + 1)] = torch.eye(CODE) * scale
        attention.o_proj.weight[block(OWN), query : query + CODE] = torch.eye(CODE) * GAINS[head]
