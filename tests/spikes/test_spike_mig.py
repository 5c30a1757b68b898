"""Spike: a data selector passes through the protocols: it selects and trains in ``prepare`` and loads in ``apply``."""

import itertools

import pytest
import torch

from harness.catalog.spec import parse_stack
from harness.kinds.artifacts import ArtifactStore
from harness.kinds.checking import run_checks
from harness.kinds.stack import applied
from harness.subjects.requests import GenerateRequest, ScoreRequest


@pytest.fixture(scope="module")
def mig(spike_zoo):
    import spike_zoo.mig as module

    return module


@pytest.fixture(scope="module")
def masses():
    return torch.rand(12, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64).pow(3)


def value(mig, masses, chosen, b=0.5):
    return float(mig.information(masses[list(chosen)].sum(0), 1e-6, b))


def test_each_pick_has_the_largest_marginal_gain(mig, masses):
    picked = mig.greedy(masses, 6, 1e-6, 0.5, True)
    for turn, pick in enumerate(picked):
        free = [i for i in range(12) if i not in picked[:turn]]
        gains = {i: value(mig, masses, [*picked[:turn], i]) - value(mig, masses, picked[:turn]) for i in free}
        assert gains[pick] == pytest.approx(max(gains.values()), abs=1e-12)
    best = max(value(mig, masses, subset) for subset in itertools.combinations(range(12), 6))
    assert (1 - 1 / 2.718281828) * best <= value(mig, masses, picked) <= best + 1e-12


@pytest.mark.parametrize("exact", [True, False])
def test_prefix_order_and_ties(mig, masses, exact):
    whole = mig.greedy(masses, 12, 1e-6, 0.8, exact)
    assert sorted(whole) == list(range(12))
    assert mig.greedy(masses, 5, 1e-6, 0.8, exact) == whole[:5]
    by_sum = masses.sum(1).argsort(descending=True).tolist()
    assert mig.greedy(masses, 12, 1e-6, 1.0, exact) == by_sum
    groups = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3, dtype=torch.float64)
    assert mig.greedy(groups, 6, 1e-6, 0.8, exact) == [0, 3, 1, 4, 2, 5]


def test_mass_flows_to_similar_labels(mig):
    from spike_zoo import pool

    similar = pool.label_similarity(["colour", "sum", "sums"], 0.5)
    assert bool(similar[1, 2] > 0.5) and float(similar[0, 1]) == 0 and torch.equal(similar, similar.T)
    tags, quality = torch.eye(3, dtype=torch.float64), torch.tensor([1.0, 1.0, -2.0], dtype=torch.float64)
    mass = mig.item_mass(tags, quality, similar, 1.0)
    assert mass[1, 2] > 0 and mass[1, 0] == 0 and not bool(mass[2].any())
    assert torch.equal(mig.item_mass(tags, quality, similar, 0.0)[1], torch.tensor([0.0, 1.0, 0.0]).double())


def test_trained_on_its_choice_and_the_given_subject_untouched(mig, tiny):
    from spike_zoo.pool import toy_pool

    (method,) = parse_stack("mig@budget=4@steps=6").build()
    store, asked = ArtifactStore(seed=0), GenerateRequest(prompts=[list(b"one plus ")], max_new_tokens=8)
    before = {k: v.clone() for k, v in tiny.model.state_dict().items()}
    said = tiny.generate(asked)[0].tokens
    artifact = store.obtain(method, tiny)
    assert artifact["chosen"] == mig.greedy(method.masses(method.quality(tiny)), 4, method.a, method.b, False)
    assert len(set(artifact["chosen"])) == 4 and artifact["losses"][-1] < artifact["losses"][0]
    texts = [tuple(toy_pool()[i][0].encode()) for i in artifact["chosen"]]
    questions = [ScoreRequest(context=(256,), continuation=text) for text in texts]
    with applied([method], tiny, store.obtain) as subject:
        trained = sum(s.logprob for s in subject.score(questions))
        assert tiny.generate(asked)[0].tokens == said  # both sides of a pair can be open at once
        assert subject.stack == ("mig@budget=4@steps=6",) and subject.model is not tiny.model
    assert trained > sum(s.logprob for s in tiny.score(questions))
    after = tiny.model.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items()) and not tiny.model.training


def test_it_stacks_under_a_cache_method_and_a_decoder(tiny):
    asked = GenerateRequest(prompts=[list(b"add one and ")], max_new_tokens=8)
    store = ArtifactStore(seed=0)
    with applied(parse_stack("mig@steps=2+kv_snapkv@keep_ratio=0.5@window=2").build(), tiny, store.obtain) as plain:
        expected = plain.generate(asked)[0]
    text = "mig@steps=2+kv_snapkv@keep_ratio=0.5@window=2+token_recycling"
    with applied(parse_stack(text).build(), tiny, store.obtain) as subject:
        assert subject.generate(asked)[0].tokens == expected.tokens
    assert expected.counts["kv_kept_fraction"] < 1


def test_checks_and_what_training_recorded(tiny):
    (method,) = parse_stack("mig@steps=2").build()
    assert [result.outcome for result in run_checks(method, tiny)] == ["passed"]
    (figure,) = method.training_measurements(ArtifactStore(seed=0).obtain(method, tiny))
    assert figure.metric == "train_loss" and figure.value > 0
