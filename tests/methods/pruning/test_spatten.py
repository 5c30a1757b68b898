"""SpAtten against a slow forward that really works on the tokens and heads that are left."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from harness.errors import Refused
from harness.kinds.pruning import QueryView
from harness.kinds.pruning.cascade import Cascade, best_heads
from harness.kinds.pruning.checks import kept_positions
from harness.subjects.load import wrap_model
from harness.subjects.runner import Runner
from harness.subjects.tiny import random_llama
from methods.pruning.spatten import Spatten, layer_ratio, local_values

PROMPT = [(13 * i) % 250 for i in range(40)]
PRUNING = Spatten(token_end=0.3, head_end=0.5, token_free=0.2, head_free=0.2)


@pytest.fixture(scope="module")
def deep():
    """Four layers."""
    return wrap_model(random_llama(num_hidden_layers=4)[0], None, "four layers")


def slow_forward(model, ids, token_counts, head_counts, values_read=None):
    """Last logits, survivors and heads of each layer, and attention received, one head and one query at a time.

    ``values_read``: the last query of the last layer reads so many values, by its unchanged weights.
    """
    body = model.model
    hidden, place = body.embed_tokens(torch.tensor([ids]))[0], torch.arange(len(ids))
    received, given, alive = torch.zeros(len(ids)), torch.zeros(4), list(range(4))
    tokens, heads = [], []
    for index, layer in enumerate(body.layers):
        if token_counts[index] < len(place):
            order = sorted(range(len(place) - 1), key=lambda j: -received[j].item())[: token_counts[index] - 1]
            left = sorted([*order, len(place) - 1])
            hidden, place, received = hidden[left], place[left], received[left]
        alive = sorted(sorted(alive, key=lambda h: -given[h].item())[: head_counts[index]])
        tokens.append(place.tolist())
        heads.append(alive)
        x, attention = layer.input_layernorm(hidden), layer.self_attn
        cos, sin = body.rotary_emb(x[None], position_ids=place[None])
        q, k, v = (
            p(x).view(len(place), -1, 8).transpose(0, 1) for p in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k = (t[0] for t in apply_rotary_pos_emb(q[None], k[None], cos, sin))
        out = torch.zeros(len(place), 4, 8)
        for head in alive:
            for i in range(len(place)):
                weights = (k[head // 2, : i + 1] @ q[head, i] * 8**-0.5).softmax(0)
                received[: i + 1] += weights
                if values_read and i == len(place) - 1:
                    # Its own value and the others of the largest weights.
                    weights[:-1] *= weights[:-1] >= weights[:-1].sort().values[1 - values_read]
                out[i, head] = weights @ v[head // 2, : i + 1]
        given += out.abs().sum((0, 2))
        hidden = hidden + attention.o_proj(out.flatten(1))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return model.lm_head(body.norm(hidden))[-1], tokens, heads, received


class Watched(Cascade):
    """A cascade that keeps what was received after each layer."""

    def observe(self, view):
        super().observe(view)
        self.seen = [*getattr(self, "seen", []), self.prompt.tokens_B1N[:, 0]]


def prefilled(subject, method, prompts, cascade_class=Cascade):
    cascade = cascade_class(method, subject)
    with cascade.hooked(), torch.inference_mode():
        runner = Runner(subject.model, partial(subject.new_cache, **method.cache_options(subject, cascade)))
        logits = runner.prefill(prompts)
    return runner, logits, cascade


def test_the_schedule_is_flat_then_a_line():
    assert [layer_ratio(layer, 7, 0.3, 0.9, 0.5) for layer in range(7)] == pytest.approx(
        [1, 1, 1, 0.9, 0.9 - 0.4 / 3, 0.9 - 0.8 / 3, 0.5]
    )
    assert layer_ratio(1, 2, 0.15, 1.0, 0.4) == 0.4 and layer_ratio(0, 2, 0.15, 1.0, 0.4) == 1
    assert [Spatten(token_end=0.25).keep_tokens(29, 30, torch.tensor([n])).item() for n in (1, 4, 5)] == [1, 1, 2]


def test_the_prompt_is_what_the_slow_forward_makes_of_it(deep):
    token_counts = [int(PRUNING.keep_tokens(layer, 4, torch.tensor([40]))) for layer in range(4)]
    head_counts = [PRUNING.keep_heads(layer, 4, 4) for layer in range(4)]
    assert token_counts == [40, 40, 26, 12] and head_counts == [4, 4, 3, 2]
    runner, logits, _ = prefilled(deep, PRUNING, [PROMPT])
    with torch.inference_mode():
        wanted, tokens, heads, _ = slow_forward(deep.model, PROMPT, token_counts, head_counts)
    torch.testing.assert_close(logits[0], wanted, atol=1e-4, rtol=1e-4)
    assert kept_positions(runner.cache, 0) == [[[one, one]] for one in tokens]
    for layer in range(1, 4):
        assert runner.cache.layers[layer].notes["heads"][0].nonzero()[:, 0].tolist() == heads[layer]
        assert set(tokens[layer]) <= set(tokens[layer - 1]) and set(heads[layer]) <= set(heads[layer - 1])
        assert tokens[layer][-1] == 39


def test_attention_received_is_conserved_and_that_of_dense_attention_until_something_leaves(deep):
    """Every query of every head gives one: 4 heads times 40 queries a layer."""
    _, _, cascade = prefilled(deep, Spatten(token_end=1.0), [PROMPT], Watched)
    for layer, received in enumerate(cascade.seen):
        assert float(received.sum()) == pytest.approx((layer + 1) * 4 * 40, rel=1e-5)
    with torch.inference_mode():
        *_, wanted = slow_forward(deep.model, PROMPT, [40] * 4, [4] * 4)
    torch.testing.assert_close(cascade.seen[-1][0], wanted, atol=1e-4, rtol=1e-4)


def test_a_token_that_has_left_changes_nothing_above(deep):
    """Its state is overwritten before the layer that no longer holds it."""
    runner, before, _ = prefilled(deep, PRUNING, [PROMPT])
    gone = sorted(set(range(40)) - set(kept_positions(runner.cache, 0)[2][0][0]))

    def overwrite(_module, _args, output):
        output[:, gone] = 9.0
        return output

    hook = deep.model.model.layers[1].register_forward_hook(overwrite)
    try:
        _, after, _ = prefilled(deep, PRUNING, [PROMPT])
    finally:
        hook.remove()
    assert torch.equal(before, after)


def test_all_logits_have_the_prompt_s_length_and_the_last_are_the_same(deep):
    with PRUNING.apply(deep) as pruned, torch.inference_mode():
        every = Runner(pruned.model, pruned.new_cache).prefill([PROMPT, PROMPT[:9]], all_logits=True)
        last = Runner(pruned.model, pruned.new_cache).prefill([PROMPT, PROMPT[:9]])
    assert every.shape[:2] == (2, 40)
    torch.testing.assert_close(every[:, -1], last)


def test_the_bare_subject_is_left_alone_while_the_method_is_open(deep):
    with torch.inference_mode():
        before = Runner(deep.model, deep.new_cache).prefill([PROMPT])
        with PRUNING.apply(deep):
            assert torch.equal(Runner(deep.model, deep.new_cache).prefill([PROMPT]), before)


def test_pruned_heads_stay_pruned_while_decoding_and_in_forks(deep):
    with PRUNING.apply(deep) as pruned, torch.inference_mode():
        runner = Runner(pruned.model, pruned.new_cache)
        runner.prefill([PROMPT])
        fork = runner.fork()
        fork.select_rows(torch.tensor([0, 0]))
        given = []
        hook = deep.model.model.layers[3].self_attn.o_proj.register_forward_hook(lambda m, i, o: given.append(i[0]))
        try:
            runner.forward(torch.tensor([[5]]))
            fork.forward(torch.tensor([[5], [5]]))
        finally:
            hook.remove()
    silent = ~runner.cache.layers[3].notes["heads"][0]
    assert silent.sum() == 2
    for out in given:
        for row in out.unflatten(-1, (4, 8))[:, 0]:
            assert torch.equal(row.abs().sum(-1) == 0, silent)


def test_only_heads_that_are_left_can_be_chosen_and_ties_go_to_the_earlier():
    alive = torch.tensor([[True, False, True, True]])
    assert best_heads(torch.tensor([[1.0, 9.0, 1.0, 2.0]]), alive, 2).tolist() == [[True, False, False, True]]
    assert best_heads(torch.zeros(1, 4), alive, 4).tolist() == alive.tolist()


@pytest.mark.parametrize("value_keep", [0.2, 0.5])
def test_a_decoding_query_reads_its_most_probable_values_by_unchanged_weights(value_keep):
    subject = wrap_model(random_llama(num_hidden_layers=1)[0], None, "one layer")
    method = Spatten(value_keep=value_keep)
    with method.apply(subject) as pruned, torch.inference_mode():
        runner = Runner(pruned.model, pruned.new_cache)
        runner.prefill([PROMPT])
        logits = runner.forward(torch.tensor([[7]]))[0, -1]
    with torch.inference_mode():
        wanted = slow_forward(subject.model, [*PROMPT, 7], [41], [4], -int(-41 * value_keep // 1))[0]
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=1e-4)


def test_reading_all_values_is_exact_and_the_weights_read_are_counted():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(1, 4, 1, 20, generator=generator).softmax(-1)
    index, valid, mass = local_values(weights, None, torch.tensor([[20]]))
    assert valid is None and sorted(index[0, 0, 0].tolist()) == list(range(20))
    torch.testing.assert_close(mass, torch.ones(1, 4, 1))
    queries, keys = (torch.randn(1, heads, n, 8, generator=generator) for heads, n in ((4, 1), (2, 20)))
    view = QueryView(0, 1, "decode", queries, keys, None, 19, 0.5, {})
    for renormalize in (False, True):
        cascade = Cascade(Spatten(), None)
        chosen = Spatten(value_keep=0.25, renormalize=renormalize).select(view, cascade)
        assert chosen.index_BSTK.shape == (1, 4, 1, 5) and bool(cascade.scales) is not renormalize
        # All keys and a quarter of the values.
        assert chosen.scored + 5 / 20 == pytest.approx(0.5 + 0.5 * 5 / 20)


def test_models_of_another_build_are_refused(tiny):
    class Other:
        def get_decoder(self):
            return torch.nn.Linear(2, 2)

    cascade = Cascade(Spatten(), replace(tiny, model=Other()))
    with pytest.raises(Refused, match="not built like a Llama"), cascade.hooked():
        pass


@pytest.mark.parametrize(
    "method",
    [
        PRUNING,
        Spatten(token_end=0.01, head_end=0.01),
        Spatten(value_keep=0.3),
        Spatten(value_keep=0.3, renormalize=True),
    ],
    ids=lambda method: method.signature,
)
def test_all_checks_hold(tiny, method):
    for check in method.checks(tiny):
        check.run()
