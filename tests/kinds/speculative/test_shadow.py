"""Drafts that are not verified: how far a text follows them, and what drafter and pace learn from that."""

from dataclasses import replace

import pytest

from harness.kinds.speculative import Drafter, DraftTree, chain
from harness.kinds.speculative.loop import SpeculativeDecoder
from harness.kinds.speculative.pace import Pace, WatchedPace
from harness.kinds.speculative.shadow import Shadow
from harness.kinds.speculative.widths import ContextCosts, WidthCosts
from harness.subjects.requests import GenerateRequest

PROMPT = [5, 6, 7, 8]
STEEP = ContextCosts((0,), (WidthCosts((1, 2), (1.0, 2.0)),))
"""A second token costs as much as the first: a draft pays if it is right throughout."""


@pytest.mark.parametrize(("text", "emitted"), [([9], 1), ([1, 9], 2), ([2, 3, 9], 3), ([2, 3, 4, 5], 4)])
def test_a_step_would_have_emitted_what_the_text_followed_and_one_token_more(text, emitted):
    shadow = Shadow(DraftTree((0, 1, 2, 3, 4), (-1, 0, 0, 2, 3)), 1.0, True)
    assert [shadow.follow(token) for token in text] == [False] * (len(text) - 1) + [True]
    assert shadow.emitted == emitted


class Foretold(Drafter):
    """Drafts a chain of three tokens of the coming text, the ``wrong`` ones spoilt, and promises ``promise`` tokens."""

    free = True

    def __init__(self, text, promise, wrong=()):
        self.text, self.promise, self.wrong, self.judged = text, promise, wrong, []

    def start(self, prompt, sampler, row):
        self.begin = len(prompt)

    def propose(self, history, room):
        done = len(history) - self.begin
        drafted = [token ^ (place in self.wrong) for place, token in enumerate(self.text[done : done + 3])]
        return replace(chain(history[-1], drafted), promise=self.promise)

    def judge(self, tree, node, right):
        self.judged.append((node, right))


def decoded(tiny, drafter, pace, tokens=13):
    """What a drafter and a pace make of one text."""
    request = GenerateRequest(prompts=[PROMPT], max_new_tokens=tokens, ignore_eos=True)
    decoder = SpeculativeDecoder(drafter, STEEP, pace=pace)
    return replace(tiny, decoder=decoder).generate(request)[0]


@pytest.fixture
def text(tiny):
    return tiny.generate(GenerateRequest(prompts=[PROMPT], max_new_tokens=40, ignore_eos=True))[0].tokens


def test_what_promises_too_little_is_not_verified_but_judged_all_the_same(tiny, text):
    drafter = Foretold(text, promise=4.0)
    row = decoded(tiny, drafter, WatchedPace())
    assert row.tokens == text[:13] and set(row.steps) == {1}
    assert row.counts["plain_steps"] == 12 == row.counts["width_cost"]
    assert drafter.judged == [(0, 1), (1, 2), (2, 3), (3, None)] * 3


def test_a_step_without_a_draft_is_a_plain_one(tiny):
    row = decoded(tiny, Foretold([], promise=None), None)
    assert row.counts["plain_steps"] == 12 and row.counts["drafted_tokens"] == 0


def test_what_promises_enough_is_verified_and_judged(tiny, text):
    drafter = Foretold(text, promise=4.5, wrong=[2])
    row = decoded(tiny, drafter, None)
    assert row.tokens == text[:13] and row.steps == [1, 3, 3, 3, 3]
    assert drafter.judged == [(0, 1), (1, 2), (2, None)] * 4


def test_a_rest_ends_when_drafts_would_have_paid(tiny, text):
    resting = WatchedPace()
    for _ in range(4):
        resting.record(1, 1.2)
    row = decoded(tiny, Foretold(text, promise=9.0), replace(resting))
    # A chain of three that is right emits as much as it costs: it is never worth it, and rests go on.
    assert set(row.steps) == {1}
    cheap = ContextCosts((0,), (WidthCosts((1, 2), (1.0, 1.05)),))
    request = GenerateRequest(prompts=[PROMPT], max_new_tokens=30, ignore_eos=True)
    decoder = SpeculativeDecoder(Foretold(text, promise=9.0), cheap, pace=replace(resting))
    row = replace(tiny, decoder=decoder).generate(request)[0]
    assert row.tokens == text[:30] and row.steps[:3] == [1, 1, 1] and row.steps[-2] == 4


def test_a_draft_that_was_not_free_is_not_asked_for_during_a_rest(tiny, text):
    class Dear(Foretold):
        free = False

    resting = Pace()
    for _ in range(2):
        resting.record(1, 3.0)
    drafter = Dear(text, promise=None)
    row = decoded(tiny, drafter, resting)
    assert set(row.steps) == {1} and not drafter.judged
