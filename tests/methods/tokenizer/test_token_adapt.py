"""TokenAdapt: its weights, its limits, and the checks of its kind."""

import pytest
import torch

from harness.kinds.checking import run_checks
from harness.kinds.tokenizer.initialise import INITIALISERS, Missing
from harness.kinds.tokenizer.spaces import SPACES, readable
from harness.kinds.tokenizer.vocabulary import Specials, TableTokenizer, Vocabulary
from harness.subjects.tiny import ByteIds
from methods.tokenizer.token_adapt import TokenAdapt, global_weights, local_weights

OLD = [b"the", b" the", b"cat", b"s", b"t", b"he", b" ", b"sat", b"mat", b"cats", b"\xc3", b"\xa9", b"them", b"rat"]
NEW = [b"thecat", b"cats the", b"matsat", b"sst", b"\xa9t", b"t\xa9", b"  ", b"catt", b"\xff", b"q"]
ORDER = range(len(OLD))


def missing_of(order=ORDER):
    tokens = [OLD[i] for i in order]
    old = Vocabulary(TableTokenizer("old", tokens, lambda text: [], Specials.of(ByteIds())))
    return Missing(None, old, NEW, [old.decompose(token) for token in NEW], range(len(OLD)))


def rows_for(order=ORDER):
    return torch.randn(len(OLD) + 2, 6, generator=torch.Generator().manual_seed(0))[[*order, -2, -1]]


def by_hand(method, missing, rows, n):
    """One row, written plainly over all old tokens."""
    held = [(i, text) for i, token in enumerate(missing.old.tokens) if (text := readable(token))]
    name, parts = readable(NEW[n]), missing.parts[n]
    texts = sorted({text for _, text in held} | {name} | {t for t in map(readable, NEW) if t})
    phi = dict(zip(texts, SPACES["chargram"](texts, None, None), strict=True))
    alpha = torch.stack([phi[name] @ phi[readable(missing.old.tokens[i])] for i in parts]).softmax(0)
    shares = torch.tensor([len(missing.old.tokens[i]) / len(name) for i in parts])
    local = ((alpha + shares) / 2 / method.temperature).softmax(0) @ rows[parts]
    near = sorted(held, key=lambda item: -float(phi[name] @ phi[item[1]]))[: method.k]
    sims = torch.tensor([float(phi[name] @ phi[text]) for _, text in near])
    u = (sims / method.temperature).softmax(0)
    return (1 - method.weight_global) * local + method.weight_global * (u @ rows[[i for i, _ in near]])


@pytest.mark.parametrize("g", [0.0, 0.3, 1.0])
def test_rows_equal_the_formula_written_plainly(g):
    method, missing, rows = TokenAdapt(weight_global=g), missing_of(), rows_for()
    made = method.rows(missing, rows).rows_ND
    for n in (0, 1, 2, 3, 7):
        torch.testing.assert_close(made[n], by_hand(method, missing, rows, n), atol=1e-5, rtol=1e-5)


def test_weights_are_shares():
    similarity = torch.tensor([0.9, 0.1, -0.3])
    weights = local_weights(similarity, torch.tensor([3.0, 1.0, 2.0]), 6, 0.6)
    assert float(weights.sum()) == pytest.approx(1.0) and bool((weights > 0).all())
    assert float(local_weights(similarity[:1], torch.tensor([6.0]), 6, 0.6)) == 1.0
    torch.testing.assert_close(local_weights(similarity, torch.ones(3), 3, 1e9), torch.full((3,), 1 / 3))
    for _, weights in zip(*TokenAdapt().mixture(missing_of()), strict=True):
        assert sum(weights) == pytest.approx(1.0 if weights else 0.0) and all(w >= 0 for w in weights)


def test_the_threshold_drops_neighbours_and_renormalises():
    similarity = torch.tensor([[0.8, 0.5, 0.1], [0.2, 0.1, 0.0]])
    made = global_weights(similarity, 0.6, 0.45)
    assert made[0, 2] == 0 and made[1].tolist() == [0, 0, 0]
    torch.testing.assert_close(made[0, :2], (similarity[0, :2] / 0.6).softmax(-1))
    torch.testing.assert_close(global_weights(similarity, 0.6, 0.0), (similarity / 0.6).softmax(-1))


def test_a_very_warm_local_mix_is_the_mean_of_the_parts():
    missing, rows = missing_of(), rows_for()
    warm = TokenAdapt(weight_global=0.0, temperature=1e9).rows(missing, rows).rows_ND
    known = [n for n, parts in enumerate(missing.parts) if parts]
    torch.testing.assert_close(warm[known], INITIALISERS["fvt"](missing, rows).rows_ND[known], atol=1e-4, rtol=1e-4)


def test_without_a_neighbour_the_row_is_local_and_without_a_part_it_is_global():
    missing, rows = missing_of(), rows_for()
    strict = TokenAdapt(threshold=1.0, weight_global=0.3).mixture(missing)
    local = TokenAdapt(weight_global=0.0).mixture(missing)
    assert strict[0][0] == local[0][0] and strict[1][0] == pytest.approx(local[1][0])
    # "q" has no part: its neighbours alone, however little they are like it; with a threshold, nothing is left.
    ids, weights = TokenAdapt(weight_global=0.3).mixture(missing)
    assert len(ids[9]) == 3 and sum(weights[9]) == pytest.approx(1.0)
    assert strict[0][9] == [] and TokenAdapt(threshold=1.0).rows(missing, rows).fallback == 2


def test_cut_characters_and_blanks_get_the_mean_of_their_parts():
    missing, rows = missing_of(), rows_for()
    made = TokenAdapt().rows(missing, rows).rows_ND
    plain = INITIALISERS["fvt"](missing, rows).rows_ND
    torch.testing.assert_close(made[[4, 5, 6]], plain[[4, 5, 6]])


def test_the_order_of_the_old_ids_does_not_matter():
    order = list(range(len(OLD)))[::-1]
    first = TokenAdapt().rows(missing_of(), rows_for()).rows_ND
    other = TokenAdapt().rows(missing_of(order), rows_for(order)).rows_ND
    readable_ones = [n for n in range(len(NEW)) if n != 8]
    torch.testing.assert_close(first[readable_ones], other[readable_ones], atol=1e-5, rtol=1e-5)


def test_renorm_gives_made_rows_the_median_norm():
    rows = rows_for()
    made = TokenAdapt(renorm=True).rows(missing_of(), rows).rows_ND
    torch.testing.assert_close(made.norm(dim=-1), rows.norm(dim=-1).median().expand(len(NEW)))


@pytest.mark.parametrize("space", ["chargram", "self"])
def test_the_checks_of_its_kind_hold(tiny, space):
    results = run_checks(TokenAdapt(vocab_size=270, train_bytes=40_000, space=space), tiny)
    assert not [f"{r.name}: {r.reason}" for r in results if not r.passed]
