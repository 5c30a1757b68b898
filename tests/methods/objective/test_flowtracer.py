"""FlowTracer: conservation, all paths of small graphs, gauge invariance, weights, and the kind's checks."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.checking import run_checks
from harness.kinds.objective.checks import loss_and_gradient, moved_logps, random_batch
from methods.objective.flowtracer import answer_mask, attention_flow


def made(text="flowtracer"):
    return MethodSpec.parse(text).build()


def graph(size=8, seed=0, answers=(6, 7), questions=(0, 1, 2)):
    """A causal attention map as edges, sources and sinks."""
    rows = torch.rand(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tril()
    edges = (rows / rows.sum(-1, keepdim=True)).T
    sources, sinks = torch.zeros(2, size, dtype=torch.bool)
    sources[list(questions)], sinks[list(answers)] = True, True
    return edges[None], sources[None], sinks[None]


def paths_flow(edges, sources, sinks):
    """Flow through each node by listing all paths from a source to the first answer."""
    size = edges.shape[-1]
    mass = {}
    for start in range(size):
        for length in range(1, size):
            for middle in itertools.combinations(range(start + 1, size), length):
                path = (start, *middle)
                if sinks[0, path[-1]] and not any(sinks[0, n] for n in path[:-1]):
                    weight = math.prod(float(edges[0, a, b]) for a, b in itertools.pairwise(path))
                    if weight:
                        mass[path] = weight
    reach = {s: sum(w for p, w in mass.items() if p[0] == s) for s in range(size)}
    live = [s for s in range(size) if sources[0, s] and reach[s] > 0]
    flow = [0.0] * size
    for path, weight in mass.items():
        if path[0] in live:
            for node in path:
                flow[node] += weight / reach[path[0]] / len(live)
    return flow, reach


@pytest.mark.parametrize("seed", range(4))
def test_flow_is_that_of_all_paths(seed):
    edges, sources, sinks = graph(seed=seed)
    h, f, _ = attention_flow(edges, sources, sinks)
    flow, reach = paths_flow(edges, sources, sinks)
    assert f[0].tolist() == pytest.approx(flow, abs=1e-12)
    assert [float(h[0, i]) for i in range(6)] == pytest.approx([reach[i] for i in range(6)], abs=1e-12)


def test_nodes_pass_on_all_they_get_and_one_unit_arrives():
    edges, sources, sinks = graph(10)
    h, f, passed = attention_flow(edges, sources, sinks)
    live = (h > 0) & ~sinks
    torch.testing.assert_close(passed.sum(-1)[live], torch.ones(int(live.sum())).double())
    assert float(f[sinks].sum()) == pytest.approx(1, abs=1e-12)
    throughput = f + (f[..., None] * passed).sum(-1)
    torch.testing.assert_close(throughput[~sinks], 2 * f[~sinks])
    torch.testing.assert_close(throughput[sinks], f[sinks])


def test_scaling_nodes_against_each_other_changes_nothing_but_scaling_one_row_does():
    edges, sources, sinks = graph()
    _, f, passed = attention_flow(edges, sources, sinks)
    c = torch.where(sinks[0], 1.0, torch.rand(8).double() + 0.5)
    _, _, gauged = attention_flow(edges * c[None, None] / c[None, :, None], sources, sinks)
    torch.testing.assert_close(gauged, passed)
    scaled = edges.clone()
    scaled[0, 4] *= 3
    _, other, moved = attention_flow(scaled, sources, sinks)
    torch.testing.assert_close(moved[0, 4:], passed[0, 4:])
    assert not torch.allclose(moved[0, :4, 4], passed[0, :4, 4]) and not torch.allclose(other, f)


def test_dead_ends_carry_no_flow_and_change_none():
    edges, sources, sinks = graph(6, answers=(5,), questions=(0, 1))
    _, f, _ = attention_flow(edges, sources, sinks)
    wide = torch.zeros(1, 8, 8).double()
    order = [0, 1, 2, 4, 6, 7]
    wide[0][torch.tensor(order)[:, None], torch.tensor(order)] = edges[0]
    wide[0, :3, 3], wide[0, :5, 5] = 0.3, 0.2  # nodes 3 and 5 read others and nobody reads them
    marks = [torch.zeros(1, 8, dtype=torch.bool) for _ in range(2)]
    marks[0][0, :2], marks[1][0, 7] = True, True
    _, found, _ = attention_flow(wide, *marks)
    torch.testing.assert_close(found[0, order], f[0])
    assert not found[0, [3, 5]].any()


def test_a_chain_carries_the_unit_through_every_node():
    edges = torch.diag(torch.rand(5).double() + 0.1, 1)[None]
    marks = torch.eye(6, dtype=torch.bool)
    _, f, _ = attention_flow(edges, marks[:1], marks[5:])
    torch.testing.assert_close(f, torch.ones(1, 6).double())


def test_the_answer_stands_before_the_end():
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]).bool()
    found = answer_mask(mask, torch.tensor([True, True, False, True]), 2)
    assert found.tolist() == [[False, True, True, False, False], *[[False] * 5] * 3]


@pytest.mark.parametrize(("sink", "least"), [("answer", 2), ("predictor", 3)])
def test_weights_go_to_the_strongest_part_of_each_response_and_are_one_without_a_sink(sink, least):
    batch = random_batch(width=9)
    method = made(f"flowtracer@sink={sink}")
    weight, flow, mask = method.token_weight(batch, None, 0.0), method.flow(batch), batch.response_mask_BT
    for i, n in enumerate(batch.lengths_B.tolist()):
        strong = (weight[i] == 1.5).nonzero()[:, 0].tolist()
        if not bool(batch.finished_B[i]) or n < least:
            assert strong == []
        else:
            best = sorted(range(n), key=lambda t: (-float(flow[i, t]), t))[: math.ceil(0.4 * n - 1e-9)]
            assert strong == sorted(best)
    assert (weight[mask] > 1).any()


def test_left_padding_of_prompts_carries_nothing():
    batch = random_batch()
    maps = torch.nn.functional.pad(batch.attention_BNN, (1, 0, 1, 0), value=7.0)
    padded = replace(
        batch,
        attention_BNN=maps,
        prompt_ids_BP=torch.nn.functional.pad(batch.prompt_ids_BP, (1, 0)),
        prompt_mask_BP=torch.nn.functional.pad(batch.prompt_mask_BP, (1, 0)),
    )
    for method in (made(), made("flowtracer@drop_sink=true")):
        torch.testing.assert_close(method.flow(padded), method.flow(batch))


def test_flow_to_the_predictor_ends_a_token_before_the_answer():
    batch = random_batch(width=9)
    batch = replace(batch, finished_B=torch.ones_like(batch.finished_B))
    method = made("flowtracer@sink=predictor")
    flow, last = method.flow(batch), batch.lengths_B - 2
    for i, at in enumerate(last.tolist()):
        if at >= 1:
            assert float(flow[i, at - 1]) == pytest.approx(1, abs=1e-12) and not flow[i, at:].any()
        else:
            assert not flow[i].any()


def test_without_the_sinks_edges_the_flow_is_another():
    batch = random_batch()
    assert not torch.allclose(made().flow(batch), made("flowtracer@drop_sink=true").flow(batch))


@pytest.mark.parametrize("aggregation", ["seq", "token"])
def test_gamma_one_is_grpo_and_all_tokens_are_a_constant(aggregation):
    batch = random_batch()
    batch = replace(batch, finished_B=torch.ones_like(batch.finished_B))
    theirs = loss_and_gradient(made(f"grpo@aggregation={aggregation}"), batch, moved_logps(batch))
    ours = loss_and_gradient(made(f"flowtracer@gamma=1@aggregation={aggregation}"), batch, moved_logps(batch))
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
    every = made("flowtracer@share=1").token_weight(batch, None, 0.0)
    long = batch.lengths_B > 2  # an answer, what predicts it, and the end
    assert (every[long][batch.response_mask_BT[long]] == 1.5).all()


def test_layers_are_the_middle_third():
    assert list(made().attention_layers(36)) == list(range(12, 24)) and list(made().attention_layers(1)) == [0]


def test_the_shuffled_control_has_the_same_weights_in_other_places():
    batch = random_batch(width=12)
    ours, theirs = (made(f"flowtracer@shuffle={s}").token_weight(batch, None, 0.0) for s in ("false", "true"))
    mask = batch.response_mask_BT
    assert torch.equal((ours * mask).sum(1), (theirs * mask).sum(1)) and not torch.equal(ours, theirs)


@pytest.mark.parametrize("spec", ["flowtracer", "flowtracer@drop_sink=true@shuffle=true"])
def test_checks(tiny, spec):
    assert [f"{r.name}: {r.reason}" for r in run_checks(made(spec), tiny) if not r.passed] == []
