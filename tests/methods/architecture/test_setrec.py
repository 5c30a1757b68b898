"""SETRec and what it is held against: checks, identity, forwards of a list, and that text is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.errors import Refused
from harness.kinds.architecture.interactions import synthetic
from harness.kinds.checking import run_checks
from harness.kinds.method import PrepareContext
from harness.kinds.stack import applied
from harness.subjects.requests import GenerateRequest, ScoreRequest
from methods.architecture.item_codes import ItemCodes
from methods.architecture.setrec import SetRec
from methods.architecture.single_id import SingleId


def made(method, tiny):
    return method.prepare(tiny, PrepareContext(0, Path(), lambda name: tiny, lambda text: None))


def ranking(method, tiny, users=1000):
    artifact = made(method, tiny)
    with applied([method], tiny, lambda *_: artifact) as subject:
        return {(m.metric, m.phase): m.value for m in replace(method.probes()[0], users=users).measure(subject)}


@pytest.mark.parametrize("method", [SetRec(), SingleId(), ItemCodes()])
def test_all_checks_hold(tiny, method):
    assert not [f"{r.name}: {r.reason}" for r in run_checks(method, tiny) if not r.passed]


def test_without_semantic_vectors_it_is_a_single_id_bit_for_bit(tiny):
    twin, other = (made(method.check_twin(), tiny)["weights"] for method in (SetRec(n=0), SingleId()))
    assert set(twin) == set(other) and all(torch.equal(twin[name], other[name]) for name in twin)


def test_the_frozen_vectors_are_those_of_the_first_stage(tiny):
    method = replace(SetRec(collaborative=0.5).check_twin(), steps=8)
    artifact = made(method, tiny)
    assert [(s["phase"], len(s["losses"])) for s in artifact["stages"]] == [("collaborative", 4), ("sets", 4)]
    assert artifact["weights"]["frozen"].abs().sum() > 0 and 0.1 <= float(artifact["weights"]["beta"]) <= 1.0
    assert "frozen" not in made(replace(method, n=0), tiny)["weights"]


def test_a_list_takes_one_forward_and_codes_take_four(tiny):
    figures = [ranking(method.check_twin(), tiny, 40) for method in (SetRec(), SingleId(), ItemCodes())]
    assert [found["forwards", ""] for found in figures] == [1, 1, 4]
    assert all(0 <= found["ndcg_at_10", "cold"] <= found["recall_at_10", "cold"] <= 1 for found in figures)


def test_text_is_refused_in_one_line(tiny):
    method = SetRec().check_twin()
    artifact = made(method, tiny)
    with applied([method], tiny, lambda *_: artifact) as subject:
        with pytest.raises(Refused, match=r"^scoring needs a subject with 'score'; [^\n]* has none$"):
            subject.score([ScoreRequest(context=(1,), continuation=(2,))])
        with pytest.raises(Refused, match="generation needs"):
            subject.generate(GenerateRequest(prompts=[[1]], max_new_tokens=1))
    with pytest.raises(Refused, match="zoo train setrec"), SetRec().apply(tiny):
        pass


@pytest.mark.slow
def test_training_beats_popularity_and_sets_find_cold_items(tiny):
    popular = torch.bincount(synthetic().users_UL[:, :-2].flatten(), minlength=301).topk(10).indices
    guess = float(torch.isin(synthetic().users_UL[:, -1], popular).double().mean())
    sets, single = ranking(SetRec(), tiny), ranking(SingleId(), tiny)
    assert min(sets["recall_at_10", ""], single["recall_at_10", ""]) > 5 * guess
    assert sets["recall_at_10", "cold"] > single["recall_at_10", "cold"] + 0.1
