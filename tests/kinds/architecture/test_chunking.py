"""Dynamic chunking against slow oracles: smoothing, ratio loss, gradients, leaks, steps against all at once."""

import pytest
import torch
from torch.nn import functional as F

from harness.kinds.architecture.blocks import Blocks
from harness.kinds.architecture.chunking import (
    ChunkedModel,
    Route,
    Stage,
    boundary_probability,
    smoothed,
    straight_through,
)

WIDTH, MAIN_WIDTH, WINDOW = 16, 24, 6


def seeded(make):
    """What ``make`` builds, from a seed of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


def loud(model):
    """The model with weights that matter: a tiny initial deviation would hide leaks."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return model


def chunked(stages):
    """A random model of some stages."""
    inner, inner_width = Blocks(MAIN_WIDTH, 2, 2), MAIN_WIDTH
    for _ in range(stages):
        inner = Stage(Blocks(WIDTH, 1, 2, WINDOW), inner, Blocks(WIDTH, 1, 2, WINDOW), WIDTH, inner_width)
        inner_width = WIDTH
    return loud(ChunkedModel(258, WIDTH, inner))


@pytest.fixture(scope="module", params=[1, 2])
def model(request):
    return seeded(lambda: chunked(request.param))


def some_ids(rows, count, seed=0):
    return torch.randint(0, 258, (rows, count), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_smoothing_is_the_recurrence():
    z, p = torch.randn(2, 40, 3), torch.rand(2, 40)
    p[:, ::7], p[:, 3::9] = 1.0, 0.0
    before = torch.randn(2, 1, 3)
    state, expected = before[:, 0], []
    for k in range(40):
        sure = p[:, k, None].clamp(1e-4, 1 - 1e-4)
        state = sure * z[:, k] + (1 - sure) * state
        expected.append(state)
    assert torch.allclose(smoothed(z, p, before), torch.stack(expected, 1), atol=1e-5)


def test_the_ratio_loss_is_one_on_target_and_leaves_out_padding():
    p = torch.tensor([[0.7, 0.1, 0.1, 0.1, 0.9, 0.9]])
    real = torch.tensor([[True] * 4 + [False] * 2])
    route = Route(p, (p > 0.5) & real, real)
    assert float(route.ratio_loss(4.0)) == pytest.approx(1.0)
    # F = 1/4, G = 1/2: 4/3 (3/8 + 3/8) = 1.
    other = Route(torch.full_like(p, 0.5), route.b_BT, real)
    assert float(other.ratio_loss(4.0)) == pytest.approx(1.0)
    all_cut = Route(p, real, real)
    assert float(all_cut.ratio_loss(4.0)) == pytest.approx(4.0 * 0.25)


def test_the_ratio_loss_moves_probabilities_and_not_boundaries():
    p = torch.tensor([[0.7, 0.6, 0.8, 0.9]], requires_grad=True)
    real = torch.ones(1, 4, dtype=torch.bool)
    Route(p, p > 0.5, real).ratio_loss(4.0).backward()
    assert torch.equal(p.grad, torch.full((1, 4), 4 / 3 * 3 / 4))


def test_straight_through_is_one_forward_and_the_confidence_backward():
    c = torch.rand(2, 5, requires_grad=True)
    weight = torch.randn(2, 5)
    value = straight_through(c)
    (value * weight).sum().backward()
    assert torch.equal(value, torch.ones(2, 5)) and torch.equal(c.grad, weight)


def test_a_tie_is_no_boundary_and_a_turn_is_one():
    before = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]])
    after = torch.tensor([[[0.0, 1.0], [1.0, 0.0], [-2.0, 0.0]]])
    p = boundary_probability(before, after)
    assert p[0].tolist() == [0.5, 0.0, 1.0] and (p > 0.5)[0].tolist() == [False, False, True]


@torch.no_grad()
def test_chunks_are_cut_and_are_not_everywhere(model):
    routes = model.routed(some_ids(3, 40), torch.ones(3, 40, dtype=torch.bool))[1]
    for route in routes:
        assert bool(route.b_BT[:, 0].all())
        assert 0.1 < float(route.b_BT.float().mean()) < 0.9


@torch.no_grad()
def test_a_later_byte_never_changes_an_earlier_prediction(model):
    ids = some_ids(1, 40)
    logits = model(ids)
    for place in range(1, 40, 3):
        changed = ids.clone()
        changed[0, place:] = (ids[0, place:] + 1) % 258
        assert torch.allclose(model(changed)[:, :place], logits[:, :place], atol=1e-5), place
        assert (model(changed)[:, place] - logits[:, place]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("pieces", [(40,), (1,) * 40, (17, 1, 1, 9, 12)])
def test_step_by_step_is_all_at_once(model, pieces):
    ids = some_ids(1, 40)
    whole, state, at = model(ids)[0], model.begin(), 0
    for piece in pieces:
        logits = model.read(ids[0, at : at + piece].tolist(), state)
        at += piece
        assert torch.allclose(logits, whole[at - 1], atol=1e-4)
    innermost = model.routed(ids, torch.ones_like(ids, dtype=torch.bool))[1][-1]
    assert state.main.slots == int(innermost.b_BT.sum()) and state.main.forwards <= min(len(pieces), state.main.slots)


@torch.no_grad()
def test_rows_and_padding_are_independent(model):
    ids = some_ids(3, 30)
    logits = model(ids)
    order = torch.tensor([2, 0, 1])
    assert torch.allclose(model(ids[order]), logits[order], atol=1e-5)
    assert torch.allclose(model(ids[1:2]), logits[1:2], atol=1e-5)
    real = torch.ones_like(ids, dtype=torch.bool)
    real[1, 12:] = False
    masked, routes = model.routed(ids, real)
    assert torch.allclose(masked[1, :12], logits[1, :12], atol=1e-5)
    alone = model.routed(ids[1:2, :12], real[1:2, :12])[1]
    for route, other in zip(routes, alone, strict=True):
        assert route.b_BT[1].sum() == other.b_BT.sum()


@torch.no_grad()
def test_a_single_place_is_a_chunk(model):
    logits, routes = model.routed(some_ids(1, 1), torch.ones(1, 1, dtype=torch.bool))
    assert logits.shape == (1, 1, 258) and all(int(route.b_BT.sum()) == 1 for route in routes)


@torch.no_grad()
def test_with_every_place_a_chunk_it_is_the_plain_stack(monkeypatch):
    model = seeded(lambda: chunked(1))
    stage = model.stage
    monkeypatch.setattr(stage, "route", lambda h, last: torch.ones(h.shape[:2]))
    ids = some_ids(2, 20)
    h = stage.encoder(model.embed(ids))
    z = stage.main(torch.cat([h, stage.extra.expand(2, 20, -1)], -1))[..., :WIDTH]
    plain = F.linear(stage.decoder(z + stage.residual(h)), model.embed.weight)
    # P is kept 1e-4 from 1, so a ten-thousandth of the chunk before is left.
    assert torch.allclose(model(ids), plain, atol=2e-2)
    assert torch.allclose(model(ids), plain, rtol=0, atol=1e-3 * float(plain.abs().max()))


def test_every_parameter_learns(model):
    ids = some_ids(2, 30)
    logits, routes = model.routed(ids, torch.ones_like(ids, dtype=torch.bool))
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    (loss + 0.03 * sum(route.ratio_loss(4.0) for route in routes)).backward()
    held = [(name, p) for name, p in model.named_parameters() if p.numel()]
    still = [name for name, p in held if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still
