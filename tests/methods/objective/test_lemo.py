"""LeMo: exact where nothing is left out, and what exactly is left out where something is."""

import itertools
from dataclasses import replace

import pytest
import torch

from harness.errors import Refused
from harness.kinds.checking import run_checks
from harness.kinds.objective.finetune import TextBatch
from harness.kinds.objective.saving import NarrowMlp, segmented_loss, subset_attention
from harness.measure.memory import tensor_bytes_peak
from harness.subjects.load import wrap_model
from harness.subjects.tiny import random_llama
from methods.objective.lemo import LeMo, block_scores, kept_tokens
from methods.objective.sft_ce import SftCe

OFF = {"keep": 1.0, "prune_ratio": 0.0, "segment": 1_000_000}


@pytest.fixture(scope="module")
def deep():
    """A subject of six layers, the fourth and the fifth of which are sparse."""
    model, tokenizer, length = random_llama(num_hidden_layers=6, intermediate_size=48)
    return wrap_model(model, tokenizer, "six-layers", length)


def text(lengths=(75, 50), width=75, seed=0):
    ids = torch.randint(256, (len(lengths), width), generator=torch.Generator().manual_seed(seed))
    return TextBatch.of((ids, torch.arange(width) < torch.tensor(lengths)[:, None]))


def gradients(method, subject, batch):
    """Loss and gradients, with adapters that are not zero."""
    model, trainable = method.learner(subject, 0)
    method.get_ready(model, itertools.repeat((batch.ids_BT, batch.mask_BT)))
    with torch.no_grad():
        for index, parameter in enumerate(trainable.values()):
            parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(index))
    with method.training(model, batch):
        loss = method.loss(model, batch)
        return [loss.detach(), *torch.autograd.grad(loss, list(trainable.values()))]


def test_with_everything_kept_it_is_plain_fine_tuning_bit_for_bit(deep):
    ours, theirs = gradients(LeMo(**OFF), deep, text()), gradients(SftCe(), deep, text())
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("segment", [7, 40, 149])
def test_the_loss_in_segments_is_the_loss(deep, segment):
    """Segments that do not divide the text, with padding and tokens that carry no loss."""
    batch = text()
    batch = replace(batch, weight_BT=batch.weight_BT * (torch.arange(75) % 3 > 0))
    ours = gradients(LeMo(**OFF | {"segment": segment}), deep, batch)
    torch.testing.assert_close(ours, gradients(SftCe(), deep, batch), rtol=1e-4, atol=1e-6)


def test_logits_of_the_whole_text_never_exist_at_one_time(deep):
    batch, model = text(), deep.model
    whole = 148 * 258 * 4

    def logits_of(loss):
        with torch.no_grad():
            return tensor_bytes_peak(lambda: loss(model, batch))

    plain = logits_of(SftCe().loss)
    assert plain - logits_of(lambda m, b: segmented_loss(m, b, 8)) > whole


@pytest.mark.parametrize(("heads", "groups", "tokens"), [(4, 4, 24), (9, 3, 21), (4, 1, 5)])
def test_block_scores_are_the_naive_ones(heads, groups, tokens):
    generator = torch.Generator().manual_seed(tokens)
    query, key = (torch.randn(2, n, tokens, 8, generator=generator) for n in (heads, groups))
    mask = torch.arange(tokens) < torch.tensor([[tokens], [tokens - 3]])
    found = block_scores(query, key, mask, 8)
    key = key.repeat_interleave(heads // groups, 1)
    pairs = torch.einsum("bhid,bhjd->bhij", query, key).relu().sum(1) * mask[:, :, None] * mask[:, None]
    for row in range(2):
        for r in range(-(-tokens // 8)):
            for c in range(-(-tokens // 8)):
                tile = pairs[row, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8]
                torch.testing.assert_close(found[row, r, c], tile.max())


def test_the_best_blocks_of_each_row_are_kept_in_ascending_order():
    mask = torch.arange(11) < torch.tensor([[11], [6]])
    kept = kept_tokens(torch.tensor([[1.0, 9.0, 5.0], [2.0, 3.0, 99.0]]), mask, 4, 0.7)
    assert kept.tolist() == [[4, 5, 6, 7, 8, 9, 10], [4, 5, 11, 11, 11, 11, 11]]
    assert kept_tokens(torch.zeros(2, 3), mask, 4, 1.0).tolist()[1] == [0, 1, 2, 3, 4, 5, *[11] * 5]
    assert kept_tokens(torch.zeros(1, 3), mask[:1], 4, 0.01).tolist() == [[0, 1, 2, 3]]


def test_kept_tokens_attend_as_the_subsequence_alone_and_others_get_nothing(deep):
    layer, hidden = deep.model.model.layers[3].self_attn, torch.randn(2, 20, 32)
    rotary = deep.model.model.rotary_emb(hidden, torch.arange(20)[None])
    index = torch.tensor([[1, 2, 7, 19], [0, 5, 20, 20]])
    out, _ = subset_attention(layer.forward, hidden, rotary, index)
    for row, places in enumerate([[1, 2, 7, 19], [0, 5]]):
        cos_sin = tuple(x[:, places] for x in rotary)
        alone, _ = layer(hidden[row : row + 1, places], position_embeddings=cos_sin, attention_mask=None)
        torch.testing.assert_close(out[row, places], alone[0])
        rest = [t for t in range(20) if t not in places]
        assert not out[row, rest].any()


def test_a_token_that_is_left_out_passes_through_the_layer_by_its_residual(deep):
    batch, seen = text(lengths=(75,), width=75), {}
    method = LeMo(keep=0.5, prune_ratio=0.0, block=16)
    model, _ = method.learner(deep, 0)
    layer = model.model.layers[3]
    hooks = [
        layer.register_forward_pre_hook(lambda _m, args: seen.update(inside=args[0])),
        layer.post_attention_layernorm.register_forward_pre_hook(lambda _m, args: seen.update(between=args[0])),
    ]
    with method.training(model, batch):
        model(batch.ids_BT)
    unchanged = (seen["inside"] == seen["between"]).all(-1)[0]
    for hook in hooks:
        hook.remove()
    sizes = {bool(v): n for v, n in zip(*unchanged.view(1, 75).unique(return_counts=True), strict=True)}
    assert sizes[False] in (32, 27) and sizes[True] == 75 - sizes[False]


def exact_mlp(mlp, x, grad):
    leaf = x.clone().requires_grad_()
    out = mlp(leaf)
    return out.detach(), torch.autograd.grad(out, leaf, grad)[0]


def narrow_mlp(mlp, x, grad, neurons, mask):
    leaf = x.clone().requires_grad_()
    out = NarrowMlp.apply(leaf, mlp, neurons, mask)
    return out.detach(), torch.autograd.grad(out, leaf, grad)[0]


def test_the_feed_forward_is_exact_and_its_backward_becomes_exact(deep):
    mlp = deep.model.model.layers[0].mlp
    x, grad = torch.randn(2, 9, 32), torch.randn(2, 9, 32)
    mask = torch.ones(2, 9, dtype=torch.bool)
    out, slope = exact_mlp(mlp, x, grad)
    errors = []
    for neurons in (5, 20, 40, 48):
        ours, found = narrow_mlp(mlp, x, grad, neurons, mask)
        assert torch.equal(ours, out)
        errors.append(float((found - slope).norm() / slope.norm()))
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-6 < errors[-2]


def test_padding_does_not_decide_which_neurons_are_kept(deep):
    mlp = deep.model.model.layers[0].mlp
    x, grad = torch.randn(1, 9, 32), torch.randn(1, 9, 32)
    mask = torch.arange(9)[None] < 5
    far = x.clone()
    far[:, 5:] *= 100
    ours, theirs = (narrow_mlp(mlp, given, grad, 6, mask)[1] for given in (x, far))
    torch.testing.assert_close(ours[:, :5], theirs[:, :5])


def test_layers_of_the_second_half_but_the_last_are_sparse():
    assert LeMo(keep=0.3).schedule(6) == [1, 1, 1, 0.3, 0.3, 1]
    assert LeMo(keep=0.3).schedule(2) == [1, 1]


@pytest.mark.parametrize("blocks", ["oracle", "predictor", "random"])
def test_sparse_gradients_differ_from_dense_ones_and_are_the_same_again(deep, blocks):
    method = LeMo(keep=0.5, block=16, blocks=blocks, predictor_steps=2)
    first, again, dense = (gradients(m, deep, text()) for m in (method, method, SftCe()))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.allclose(first[0], dense[0])


def test_predictors_learn_which_blocks_matter(deep):
    """Two texts by turns: after some steps the foreseen order of blocks is nearer to the true one than chance."""
    texts = [text(lengths=(96, 90), width=96, seed=seed) for seed in (0, 1)]
    method = LeMo(keep=0.5, block=8, blocks="predictor", predictor_steps=120)
    model, _ = method.learner(deep, 0)
    before = [p.clone() for p in model.parameters()]
    method.get_ready(model, itertools.cycle([(t.ids_BT, t.mask_BT) for t in texts]))
    assert not any(p.requires_grad for n, p in model.named_parameters() if "block_predictor" in n)
    found, mask = [], texts[0].mask_BT

    def both(attention, _args, kwargs):
        hidden = kwargs["hidden_states"]
        found.append([attention.block_predictor(hidden, mask), method.true_scores(attention, hidden, mask)])

    hook = model.model.layers[3].self_attn.register_forward_pre_hook(both, with_kwargs=True)
    with torch.no_grad():
        model(texts[0].ids_BT)
    hook.remove()
    foreseen, true = (scores.sum(1) for scores in found[0])
    for row in range(2):
        assert torch.corrcoef(torch.stack([foreseen[row], true[row]]))[0, 1] > 0.5
    own = [p for n, p in model.named_parameters() if "block_predictor" not in n]
    assert all(torch.equal(a, b) for a, b in zip(own, before, strict=True))


def saved_bytes(method, subject, batch):
    """Bytes that autograd holds for the backward of one step, weights not counted."""
    model, _ = method.learner(subject, 0)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held = {}

    def keep(x):
        held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), method.training(model, batch):
        loss = method.loss(model, batch)
    assert loss.requires_grad
    return sum(n for place, n in held.items() if place not in weights)


def test_each_part_holds_less(deep):
    batch = text(lengths=(256,), width=256)
    plain = saved_bytes(SftCe(), deep, batch)
    parts = [{"segment": 32}, {"prune_ratio": 0.8}, {"keep": 0.5}]
    assert all(saved_bytes(LeMo(**OFF | part, block=16), deep, batch) < plain for part in parts)
    assert saved_bytes(LeMo(block=16, segment=32), deep, batch) < 0.7 * plain


def test_evaluation_is_dense(deep, tmp_path):
    """Blocks are chosen with the future in view; a trained subject must not do so, and the layers are its own again."""
    from harness.kinds.invariants import assert_close, forced_logits
    from harness.kinds.method import PrepareContext

    method = LeMo(rows=2, length=64, steps=2, block=8, segment=16)
    artifact = method.prepare(deep, PrepareContext(0, tmp_path, lambda _: deep, lambda _: None))
    with method.apply(deep, artifact) as trained, SftCe().apply(deep, artifact) as plain:
        ids = [torch.arange(40).tolist()]
        assert_close("evaluation", forced_logits(trained, ids, [[1, 2]]), forced_logits(plain, ids, [[1, 2]]), 0.0)


def test_the_model_is_as_before_after_an_exception(deep):
    model, _ = LeMo().learner(deep, 0)
    with pytest.raises(RuntimeError, match="inside"), LeMo().training(model, text()):
        raise RuntimeError("inside")
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("options", [{}, {"checkpointing": True}, {"blocks": "predictor", "predictor_steps": 3}])
def test_its_checks_hold(deep, options):
    results = run_checks(LeMo(block=16, **options), deep)
    assert results and all(r.passed for r in results), [r for r in results if not r.passed]


def test_a_model_without_gates_is_refused(deep):
    model, _ = LeMo().learner(deep, 0)
    model.config.hidden_act = "gelu"
    with pytest.raises(Refused, match="SiLU"), LeMo().training(model, text()):
        pass
