"""The checks of the kind catch what they are there for: a broken architecture fails the check that names its fault."""

import copy
from dataclasses import replace

import pytest
import torch

from harness.catalog import method
from harness.kinds.architecture import LlamaMethod, causal_loss
from harness.kinds.checking import run_checks
from harness.subjects.decode import AutoregressiveDecoder
from harness.subjects.requests import Score
from harness.subjects.scoring import CausalScorer


def broken(**overrides):
    """A Llama with some of its methods replaced."""
    made = type("Broken", (LlamaMethod,), dict(overrides))
    card = {"id": "tiny_llama", "kind": "architecture", "title": "broken", "guarantee": "approximate"}
    return method(**card, baseline="tiny_llama", identity={})(made)()


def reds(made, tiny):
    return {result.name for result in run_checks(made, tiny) if not result.passed}


def lucky_build(self, subject):
    with torch.random.fork_rng():
        torch.seed()
        return LlamaMethod.build(self, subject)


def padded_loss(self, model, ids_BT, mask_BT):
    return causal_loss(model, ids_BT, torch.ones_like(mask_BT))


def fixed_loss(self, model, ids_BT, mask_BT):
    return 0 * causal_loss(model, ids_BT, mask_BT) + 1


class PeekingScorer(CausalScorer):
    """Gives the sum of the continuation with its last token known: a scorer that sees ahead."""

    def score(self, subject, requests, batch_size):
        return [
            Score(s.logprob * (1 - 0.1 * (len(r.continuation) > 1)), s.is_greedy)
            for s, r in zip(super().score(subject, requests, batch_size), requests, strict=True)
        ]


class MixingDecoder(AutoregressiveDecoder):
    """Lets the batch's first prompt into every row."""

    def generate(self, subject, request):
        mixed = [[*request.prompts[0][:1], *prompt] for prompt in request.prompts]
        return super().generate(subject, replace(request, prompts=mixed))


def with_parts(**parts):
    return lambda self, subject, model: replace(LlamaMethod.subject_of(self, subject, model), **parts)


@pytest.mark.parametrize(
    ("overrides", "red"),
    [
        ({"build": lucky_build}, "same seed gives the same weights"),
        ({"loss": padded_loss}, "padding does not leak"),
        ({"loss": fixed_loss}, "the loss falls on a repeated batch"),
        ({"subject_of": with_parts(scorer=PeekingScorer())}, "a later token never changes an earlier prediction"),
        ({"subject_of": with_parts(scorer=PeekingScorer())}, "scores agree with teacher-forced decoding"),
        ({"subject_of": with_parts(decoder=MixingDecoder())}, "batch equals loop"),
        ({"subject_of": lambda self, subject, model: subject}, "the given model is left as it was"),
        ({"build": lambda self, subject: subject.model}, "the given model is left as it was"),
    ],
)
def test_a_fault_is_found(tiny, overrides, red):
    own = replace(tiny, model=copy.deepcopy(tiny.model))
    assert red in reds(broken(**overrides), own)


def test_nothing_broken_is_green(tiny):
    assert not reds(broken(), tiny)
