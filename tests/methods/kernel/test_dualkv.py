"""DualKV equals replicated prompts: attention, log-probabilities, loss and every gradient."""

import copy

import pytest
import torch

from harness.catalog import find, parse_stack
from harness.errors import Refused, UsageError
from harness.kinds.kernel import Layout, pack_groups, result_error
from harness.kinds.kernel.group_workloads import policy_loss
from harness.kinds.kernel.packed_model import NAME, packed_logprobs, packed_model, replicated_logprobs
from harness.measure.memory import tensor_bytes_peak
from harness.subjects.tiny import random_llama
from methods.kernel.dualkv import DualKV, TwoRegionAttention, masked_attention

CPU = torch.device("cpu")
PATHS = ("merge", "mask")
"""What runs on any device; ``triton`` has tests of its own."""
SHAPES = {
    "even": [(6, [4, 4, 4])],
    "ragged": [(7, [5, 1, 0, 11])],
    "single": [(9, [4])],
    "shortest": [(1, [1])],
    "all empty": [(3, [0, 0])],
    "several groups": [(37, [5, 1, 0, 11]), (2, [3]), (1, [2, 2]), (5, [0]), (4, [0, 1])],
}


def inputs(lengths, heads=9, groups=3, dtype=torch.float64, seed=0):
    """A layout with random query, key and value ``[1, H, T, 8]``."""
    layout = Layout.of(lengths, CPU)
    generator = torch.Generator().manual_seed(seed)
    shapes = [(1, n, layout.num_tokens, 8) for n in (heads, groups, groups)]
    return layout, [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def obvious(query, key, value, layout, scale):
    """The oracle: every row's softmax over its own keys, one row at a time."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    rows = []
    for group in layout.groups:
        rows += [range(group.start, place + 1) for place in range(group.start, group.start + group.prompt)]
        first = group.start + group.prompt
        for length in group.responses:
            prompt = range(group.start, group.start + group.prompt)
            rows += [[*prompt, *range(first, first + n)] for n in range(1, length + 1)]
            first += length
    out = []
    for place, seen in enumerate(rows):
        seen = torch.tensor(list(seen))
        logits = query[:, :, place : place + 1] @ key[:, :, seen].transpose(2, 3) * scale
        out.append(logits.softmax(-1) @ value[:, :, seen])
    return torch.cat(out, 2)


def gradients(function, layout, tensors):
    """Output and gradients under a fixed random output gradient."""
    leaves = [x.clone().requires_grad_() for x in tensors]
    out = function(*leaves, layout, 0.4)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("heads", "groups"), [(9, 3), (2, 2), (4, 1)])
def test_attention_and_its_gradients_equal_the_oracle(path, shape, heads, groups):
    layout, tensors = inputs(SHAPES[shape], heads, groups)
    ours = gradients(DualKV(path=path).attend, layout, tensors)
    torch.testing.assert_close(ours, gradients(obvious, layout, tensors), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("path", PATHS)
def test_gradcheck(path):
    layout, tensors = inputs([(3, [2, 0, 1]), (2, [2])], 3, 1)
    leaves = [x.requires_grad_() for x in tensors]
    assert torch.autograd.gradcheck(lambda q, k, v: DualKV(path=path).attend(q, k, v, layout, 0.4), leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_both_paths_agree_in_every_dtype(dtype):
    layout, tensors = inputs(SHAPES["several groups"], dtype=dtype)
    bound = {torch.float32: 1e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    merged = gradients(TwoRegionAttention.apply, layout, tensors)
    assert result_error(merged, gradients(masked_attention, layout, tensors)) < bound
    assert {x.dtype for x in merged} == {dtype}


def test_a_group_of_one_is_the_plain_path_bit_for_bit():
    layout, tensors = inputs(SHAPES["single"], dtype=torch.float32)

    def plain(query, key, value, layout, scale):
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=True
        )

    assert layout.rho == 1.0
    ours, theirs = gradients(TwoRegionAttention.apply, layout, tensors), gradients(plain, layout, tensors)
    assert torch.equal(ours[0], theirs[0])
    assert result_error(ours, theirs) < 1e-6


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("path", PATHS)
def test_flex_attention_under_the_same_mask_gives_the_same(path):
    """A peer on any device: torch's attention with a mask that is a function, not compiled."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    layout, tensors = inputs(SHAPES["several groups"], dtype=torch.float32)
    mask_TT, tokens = layout.mask_TT, layout.num_tokens
    blocks = create_block_mask(lambda b, h, q, k: mask_TT[q, k], None, None, tokens, tokens, device="cpu")
    expected = flex_attention(*tensors, block_mask=blocks, scale=0.4, enable_gqa=True)
    torch.testing.assert_close(DualKV(path=path).attend(*tensors, layout, 0.4), expected, rtol=1e-5, atol=1e-5)


def test_an_unknown_path_is_a_usage_error():
    with pytest.raises(UsageError, match="path"):
        parse_stack("dualkv@path=fused").build()


def test_the_fused_path_is_refused_where_it_cannot_run(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    layout, tensors = inputs(SHAPES["even"], dtype=torch.float32)
    with pytest.raises(Refused, match="Triton"):
        DualKV(path="triton").attend(*tensors, layout, 0.4)
    assert torch.equal(*(DualKV(path=p).attend(*tensors, layout, 0.4) for p in ("auto", "merge")))


def model_of(dtype=torch.float64):
    """Three layers, nine query and three key/value heads, as the specification measured."""
    model, _, _ = random_llama(
        hidden_size=72, num_hidden_layers=3, num_attention_heads=9, num_key_value_heads=3, initializer_range=0.1
    )
    return model.to(dtype)


def sequences(seed=0):
    """Prompts and ragged responses in four groups, one of them of a single response."""
    generator = torch.Generator().manual_seed(seed)
    prompts, responses = [], []
    for length, own in ((37, (5, 1, 0, 11)), (3, (4,)), (8, (2, 6)), (1, (3, 0, 3))):
        prompt = torch.randint(256, (length,), generator=generator).tolist()
        for n in own:
            prompts.append(prompt)
            responses.append(torch.randint(256, (n,), generator=generator).tolist())
    return prompts, responses


def one_by_one(model, prompts, responses):
    """The oracle: every sequence alone, through the model's ordinary forward."""
    width = max(map(len, responses))
    rows = []
    for prompt, response in zip(prompts, responses, strict=True):
        logp = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
        own = [logp[len(prompt) - 1 + t, token] for t, token in enumerate(response)]
        rows.append(torch.stack([*own, *[logp.new_zeros(())] * (width - len(own))]))
    return torch.stack(rows)


def update(model, logp_SR, batch):
    """Log-probabilities, loss and all parameter gradients of one policy update."""
    advantage = torch.linspace(-1, 1, len(logp_SR), dtype=logp_SR.dtype)
    loss = policy_loss(logp_SR, advantage, batch.layout.valid_SR)
    return [logp_SR.detach(), loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.parametrize("path", PATHS)
def test_a_whole_update_equals_the_replicated_one(path):
    model = model_of()
    prompts, responses = sequences()
    batch = pack_groups(prompts, responses, CPU)
    expected = update(model, one_by_one(model, prompts, responses), batch)
    with packed_model(model):
        ours = update(model, packed_logprobs(model, batch, DualKV(path=path).attend), batch)
        replicated = update(model, replicated_logprobs(model, batch), batch)
    # The library computes norms and rotary tables in float32 whatever the model's type.
    assert result_error(ours, expected) < 1e-6
    assert result_error(replicated, expected) < 1e-6
    assert all(float(g.abs().max()) > 0 for g in ours[2:])


def test_padding_of_the_log_probabilities_is_zero_and_no_response_gives_none():
    model = model_of()
    with packed_model(model):
        batch = pack_groups(*sequences(), CPU)
        logp_SR = packed_logprobs(model, batch, TwoRegionAttention.apply)
        assert not logp_SR[~batch.layout.valid_SR].any()
        assert (logp_SR[batch.layout.valid_SR] < 0).all()
        empty = packed_logprobs(model, pack_groups([[1, 2]], [[]], CPU), TwoRegionAttention.apply)
    assert empty.shape == (1, 0)


@pytest.mark.parametrize("path", PATHS)
def test_a_response_never_changes_the_others_and_the_prompts_last_token_changes_all(path):
    model, attend = model_of(torch.float32), DualKV(path=path).attend
    prompts, responses = [[5, 6, 7]] * 3, [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    with packed_model(model), torch.no_grad():
        before = packed_logprobs(model, pack_groups(prompts, responses, CPU), attend)
        for j in range(3):
            other = [[t + 50 for t in r] if i == j else r for i, r in enumerate(responses)]
            after = packed_logprobs(model, pack_groups(prompts, other, CPU), attend)
            assert [bool(torch.equal(a, b)) for a, b in zip(before, after, strict=True)] == [i != j for i in range(3)]
        moved = packed_logprobs(model, pack_groups([[5, 6, 99]] * 3, responses, CPU), attend)
    real = before != 0
    assert (moved != before)[real].all()


@pytest.mark.parametrize("path", PATHS)
def test_the_order_of_responses_does_not_matter(path):
    model, attend = model_of(), DualKV(path=path).attend
    prompt, responses = [5, 6, 7], [[1, 2, 3], [], [4], [6, 7, 8, 9]]
    with packed_model(model), torch.no_grad():
        forth = packed_logprobs(model, pack_groups([prompt] * 4, responses, CPU), attend)
        back = packed_logprobs(model, pack_groups([prompt] * 4, responses[::-1], CPU), attend)
    torch.testing.assert_close(forth, back.flip(0), rtol=1e-9, atol=1e-9)


def test_the_model_is_as_before_once_the_packed_one_is_left():
    model = model_of(torch.float32)
    ids = torch.arange(9)[None]
    before, name, weights = model(ids).logits, model.config._attn_implementation, copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="inside"), packed_model(model):
        assert model.config._attn_implementation == NAME
        torch.testing.assert_close(model(ids).logits, before)
        raise RuntimeError("inside")
    assert model.config._attn_implementation == name
    assert torch.equal(model(ids).logits, before)
    assert all(torch.equal(w, weights[k]) for k, w in model.state_dict().items())


def test_dropout_and_sliding_windows_are_refused():
    model, _, _ = random_llama(attention_dropout=0.1)
    batch = pack_groups([[1, 2]], [[3]], CPU)
    with packed_model(model.train()), pytest.raises(Refused, match="dropout"):
        packed_logprobs(model, batch, TwoRegionAttention.apply)


@pytest.mark.parametrize("path", PATHS)
def test_its_checks_hold(tiny, path):
    checks = list(DualKV(path=path).checks(tiny))
    assert len({c.name for c in checks}) == len(checks)
    for check in checks:
        check.run()


def test_a_leaking_attention_is_caught(tiny):
    from harness.kinds.kernel.group_checks import group_checks

    def leaks(query, key, value, layout, scale):
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=True
        )

    for check in group_checks(tiny, leaks):
        with pytest.raises(AssertionError):
            check.run()


def test_workloads_say_what_they_save(tiny):
    found = {w.name: w for w in DualKV().workloads(tiny)}
    assert set(found) == {
        "attention_p256_r32_n8",
        "policy_update_p256_r32_n8",
        "attention_p256_r32_n1",
        "policy_update_p256_r32_n1",
        "policy_update_p1024_r256_n16",
    }
    expected = {"n8": (256, 4.5), "n1": (32, 1.0), "n16": (4096, 4.0)}
    for name, workload in found.items():
        tokens, rho = expected[name.rsplit("_", 1)[1]]
        assert workload.units == {"tokens": tokens}
        assert workload.details["rho"] == rho
        assert workload.details["path"] == "auto"
    attention = found["attention_p256_r32_n1"]
    assert attention.flops == 14 * (288 * 289 / 2) * 4 * 8
    assert attention.bytes_moved == 288 * 8 * (6 * 4 + 6 * 2) * 4


def test_a_workload_leaves_the_random_state_and_the_subject_alone(tiny):
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    before = [p.clone() for p in tiny.model.parameters()]
    for workload in DualKV().workloads_at(tiny, DualKV.check_sizes[0]):
        workload.make()()
        workload.reference()()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, tiny.model.parameters(), strict=True))


def counted(call):
    """Tokens that went through the layers, and bytes that autograd saved for the backward, of one call."""
    tokens, saved = [], {}
    rows = [cell.cell_contents for cell in call.__closure__ if isinstance(cell.cell_contents, torch.nn.Module)]
    hook = rows[0].model.layers[0].register_forward_pre_hook(lambda _m, args: tokens.append(args[0].shape[:2].numel()))

    def keep(x):
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        call()
    hook.remove()
    weights = {p.untyped_storage().data_ptr() for p in rows[0].parameters()}
    return sum(tokens), sum(n for place, n in saved.items() if place not in weights)


@pytest.mark.parametrize("scale", [16, pytest.param(1, marks=pytest.mark.slow)])
def test_sixteen_responses_to_a_long_prompt_take_a_quarter_of_the_tokens_and_little_of_the_memory(tiny, scale):
    """16 responses of 256 tokens to a prompt of 1024, and the same a sixteenth as long."""
    size = {"groups": [(1024 // scale, [256 // scale] * 16)], "name": "n16"}
    _, workload = DualKV(path="merge").workloads_at(tiny, size)
    ours, theirs = workload.make(), workload.reference()
    (tokens, saved), (many, bytes_saved) = counted(ours), counted(theirs)
    assert (tokens, many) == (5120 // scale, 20480 // scale)
    assert saved <= 0.35 * bytes_saved
    assert tensor_bytes_peak(ours) <= 0.6 * tensor_bytes_peak(theirs)


def test_the_card_says_exact():
    card = find("dualkv").card
    assert (card.kind, card.guarantee, card.baseline) == ("kernel", "exact", "dualkv")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("path", PATHS)
def test_a_gpu_gives_what_the_cpu_gives(path):
    layout, tensors = inputs(SHAPES["several groups"], dtype=torch.float32)
    expected = gradients(obvious, layout, tensors)
    there = Layout.of(SHAPES["several groups"], torch.device("cuda"))
    leaves = [x.cuda().requires_grad_() for x in tensors]
    out = DualKV(path=path).attend(*leaves, there, 0.4)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).cuda()
    found = [out.detach(), *torch.autograd.grad(out, leaves, grad)]
    assert result_error([x.cpu() for x in found], expected) < 1e-2
