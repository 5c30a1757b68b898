"""DuoAttention's heads: how they are told apart, and what each keeps."""

from dataclasses import replace

import pytest
import torch

from harness.kinds.pruning.calibration import largest_part
from harness.kinds.pruning.checks import kept_positions
from harness.subjects.runner import Runner
from harness.subjects.views import QueryView
from methods.pruning.kv_duo import KvDuo, remote_mass
from methods.pruning.kv_streaming import KvStreaming


def held(method, subject, artifact, prompt):
    with method.apply(subject, artifact) as pruned, torch.inference_mode():
        runner = Runner(pruned.model, pruned.new_cache)
        runner.prefill([prompt])
        return kept_positions(runner.cache)


def test_mass_is_the_attention_to_the_middle_of_the_most_far_sighted_head():
    generator = torch.Generator().manual_seed(0)
    queries, keys = (torch.randn(1, heads, n, 8, generator=generator) for heads, n in ((4, 1), (2, 30)))
    ours = remote_mass(QueryView(0, 1, "decode", queries, keys, None, 29, 0.5, {}), 3, 10)
    for group in range(2):
        heads = [(keys[0, group] @ queries[0, h, 0] * 0.5).softmax(0)[3:20].sum() for h in (2 * group, 2 * group + 1)]
        torch.testing.assert_close(ours[group], max(heads))


def test_the_heads_of_the_largest_mass_in_the_whole_model_retrieve():
    mass = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    assert largest_part(mass, 0.5).tolist() == [[True, False], [True, False], [False, True]]
    assert not largest_part(mass, 0.0).any() and largest_part(mass, 1.0).all()


def test_retrieval_heads_keep_everything_and_the_others_their_ends(tiny):
    config = tiny.model.config
    mass = torch.zeros(config.num_hidden_layers, config.num_key_value_heads)
    mass[1, 0] = 1.0
    method = KvDuo(retrieval=1 / mass.numel(), num_sinks=2, window=5)
    kept = held(method, tiny, {"mass_LG": mass}, list(range(30)))
    for layer, rows in enumerate(kept):
        for head, positions in enumerate(rows[0]):
            wanted = list(range(30)) if (layer, head) == (1, 0) else [0, 1, 25, 26, 27, 28, 29]
            assert positions == wanted


def test_without_retrieval_heads_it_is_streaming(tiny):
    prompt = [(11 * i) % 250 for i in range(40)]
    ours = held(KvDuo(retrieval=0.0, num_sinks=4, window=16, heads="random"), tiny, None, prompt)
    assert ours == held(KvStreaming(tokens=20), tiny, None, prompt)


def test_calibration_is_reproducible(tiny, calibration):
    short, context = calibration
    method = KvDuo(**short, window=8)
    first, again = (method.prepare(tiny, context)["mass_LG"] for _ in range(2))
    config = tiny.model.config
    assert first.shape == (config.num_hidden_layers, config.num_key_value_heads)
    assert torch.equal(first, again) and first.min() > 0 and first.max() < 1
    other = replace(method, window=30).prepare(tiny, context)["mass_LG"]
    assert bool((other < first).all())


@pytest.mark.parametrize("retrieval", [0.0, 0.5])
def test_all_checks_hold(tiny, retrieval):
    for check in KvDuo(retrieval=retrieval, num_sinks=2, window=6).checks(tiny):
        check.run()
