"""KIVI's numbers against a plain quantiser, and what its cache holds."""

import functools

import pytest
import torch

from harness.errors import Refused
from harness.kinds.speculative.base import DraftTree, ancestors
from harness.subjects.load import wrap_model
from harness.subjects.runner import Runner
from harness.subjects.tiny import random_llama
from methods.pruning.kv_kivi import KiviCodec, KvKivi, bit_packed, bit_unpacked, quantized

PROMPT = [(13 * i) % 250 for i in range(41)]


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def restored(x, bits, dim):
    codes, step, low = quantized(x, bits, dim)
    return codes * step + low


def oracle(group, bits):
    """The group's numbers after rounding to the nearest of 2^bits even levels."""
    low, high = min(group), max(group)
    levels = [low + (high - low) * level / (2**bits - 1) for level in range(2**bits)]
    return [min(levels, key=lambda level: abs(level - x)) for x in group]


def run(subject, method, prompts, tokens, **cache):
    """A runner after prompts and decoded tokens, and its last logits."""
    with method.apply(subject) as pruned, torch.inference_mode():
        runner = Runner(pruned.model, functools.partial(pruned.new_cache, **cache))
        logits = runner.prefill(prompts)
        for token in tokens:
            logits = runner.forward(torch.full((len(prompts), 1), token))[:, -1]
            runner.commit()
    return runner, logits


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_numbers_go_to_the_nearest_level_of_their_group(bits):
    x = numbers(6, 5)
    for dim, groups in ((0, x.T), (1, x)):
        wanted = torch.tensor([oracle(group.tolist(), bits) for group in groups])
        ours = restored(x, bits, dim)
        torch.testing.assert_close(ours.T if dim == 0 else ours, wanted)
        assert bool(((ours - x).abs() <= quantized(x, bits, dim)[1] / 2 + 1e-6).all())


def test_quantising_twice_is_quantising_once_and_a_constant_group_is_exact():
    once = restored(numbers(3, 32), 2, 1)
    torch.testing.assert_close(restored(once, 2, 1), once)
    constant = torch.full((2, 32), 0.7)
    assert torch.equal(restored(constant, 2, 1), constant)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codes_take_their_bits_and_come_back(bits):
    codes = torch.randint(0, 2**bits, (3, 4, 16), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    packed = bit_packed(codes, bits)
    assert packed.shape == (3, 4, 2 * bits) and torch.equal(bit_unpacked(packed, bits), codes)


def test_a_large_key_channel_leaves_the_others_alone():
    """Quantising per token spreads one channel's size over all of them; per channel it does not."""
    keys = numbers(1, 1, 1, 32, 16)
    large = keys.clone()
    large[..., 3] *= 50
    others = [c for c in range(16) if c != 3]
    codec = KiviCodec(2, 32)
    errors = []
    for states in (keys, large):
        key, _ = codec.unpack(codec.pack(states, states), torch.float32)
        errors.append((key - states[:, :, 0])[..., others].abs())
    assert torch.equal(*errors)
    per_token = (restored(large, 2, -1) - large)[..., others].abs()
    assert per_token.mean() > 3 * errors[1].mean()


def test_values_are_grouped_along_the_channels_of_one_token():
    values = numbers(1, 1, 1, 4, 8)
    codec = KiviCodec(4, 4)
    _, ours = codec.unpack(codec.pack(values, values), torch.float32)
    for token in range(4):
        for first in (0, 4):
            group = values[0, 0, 0, token, first : first + 4].tolist()
            assert ours[0, 0, token, first : first + 4].tolist() == pytest.approx(oracle(group, 4), abs=1e-6)


@pytest.mark.parametrize("new", [0, 1, 5, 6, 30])
def test_whole_groups_are_packed_and_the_tail_holds_the_rest(tiny, new):
    runner, _ = run(tiny, KvKivi(bits=4, group=6, residual=10), [PROMPT], range(new))
    tokens = 41 + new
    layer = runner.cache.layers[0]
    assert layer.length == tokens and layer.tail.length == tokens - 6 * ((tokens - 10) // 6)
    assert 10 <= layer.tail.length < 16


def test_bytes_are_those_of_codes_steps_minima_and_tail(tiny):
    runner, _ = run(tiny, KvKivi(bits=2, group=8, residual=8), [PROMPT], ())
    # Two layers, two heads of eight channels; 32 packed tokens and a tail of 9, float32.
    keys = 32 * 8 * 2 // 8 + 2 * 4 * 4 * 8
    values = 32 * 8 * 2 // 8 + 2 * 4 * 32
    assert runner.cache.held_bytes() == 2 * 2 * (keys + values + 2 * 9 * 8 * 4)
    assert runner.cache.allocated_bytes() <= runner.cache.held_bytes() + 2 * 2 * 2 * 64 * 8 * 4


def test_token_by_token_packs_the_same_groups_as_a_whole_prompt(tiny):
    """The first layer's states do not depend on the cache, so its groups must be the same bits."""
    method = KvKivi(bits=2, group=4, residual=6)
    whole, _ = run(tiny, method, [PROMPT], ())
    grown, _ = run(tiny, method, [PROMPT[:9]], PROMPT[9:])
    for ours, theirs in zip(grown.cache.layers[0].live(), whole.cache.layers[0].live(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_old_groups_are_never_packed_again(tiny):
    runner, _ = run(tiny, KvKivi(bits=2, group=4, residual=6), [PROMPT], ())
    before = [part.clone() for part in runner.cache.layers[1].parts]
    with torch.inference_mode():
        for token in range(20):
            runner.forward(torch.tensor([[token]]))
            runner.commit()
    after = runner.cache.layers[1].parts
    assert after[0].shape[2] == before[0].shape[2] + 5
    assert all(torch.equal(new[:, :, : old.shape[2]], old) for new, old in zip(after, before, strict=True))


def test_the_tail_is_read_exactly_and_many_bits_come_close(tiny):
    full = run(tiny, KvKivi(bits=16), [PROMPT], range(8))[1]
    assert torch.equal(run(tiny, KvKivi(residual=64), [PROMPT], range(8))[1], full)
    errors = [
        float((run(tiny, KvKivi(bits=bits, group=4, residual=0), [PROMPT], range(8))[1] - full).abs().max())
        for bits in (2, 4, 8)
    ]
    assert errors[0] > errors[1] > errors[2] > 0 and errors[2] < 0.05


def test_rows_forks_and_drafts_go_on_as_a_row_alone(tiny):
    """Rows of a batch pack at different steps; a fork, a rolled-back draft and a row that is taken change nothing."""
    method, prompts = KvKivi(bits=2, group=4, residual=6), [PROMPT, PROMPT[:18], PROMPT[:3]]
    tree = DraftTree((5, 6, 7), (-1, 0, 0))

    def drafted(runner, rows, paths):
        block, depth = ancestors(tree.parents, tiny.device), torch.tensor(tree.depth)
        with torch.inference_mode():
            for path in paths:
                runner.forward(torch.tensor([tree.tokens] * rows), block_TM=block, depth_M=depth)
                runner.commit(torch.tensor(path, dtype=torch.long))
            return runner.forward(torch.full((rows, 1), 9))[:, -1]

    runner, _ = run(tiny, method, prompts, range(7))
    drafted(runner.fork(), 3, [[0, 1]] * 9)
    runner.select_rows(torch.tensor([1, 2]))
    logits = drafted(runner, 2, [[], [0, 2], [], [0]])
    for row, prompt in enumerate(prompts[1:]):
        alone = drafted(run(tiny, method, [prompt], range(7))[0], 1, [[0, 2], [0]])
        torch.testing.assert_close(logits[row], alone[0], atol=1e-4, rtol=1e-4)


def test_sliding_windows_are_refused(tiny):
    model = random_llama()[0]
    model.config.sliding_window = 8
    with pytest.raises(Refused, match="sliding windows"), KvKivi().apply(wrap_model(model, None, "windowed")):
        pass


@pytest.mark.parametrize("method", [KvKivi(), KvKivi(bits=4, group=4, residual=6), KvKivi(group=3, residual=0)])
def test_all_checks_hold(tiny, method):
    for check in method.checks(tiny):
        check.run()
