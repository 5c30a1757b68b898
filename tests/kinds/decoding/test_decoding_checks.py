"""The checks pass for an honest strategy, and each fails for a strategy with the fault it looks for."""

from contextlib import contextmanager

import pytest
from pydantic import Field

from harness.catalog import method
from harness.kinds.checking import run_checks
from harness.kinds.decoding import DecodingMethod, Strategy
from harness.kinds.decoding.checks import plain_text_check
from harness.toolkit.small_models import first_layers

CARD = {"id": "faulty", "kind": "decoding", "title": "a fault", "guarantee": "approximate", "baseline": "ar"}


class Plain(Strategy):
    """Plain decoding; :meth:`spoil` changes what is written."""

    def write(self, text):
        model, done = text.open(text.subject), False
        while not done:
            done = text.emit(self.spoil(text, text.pick(model.read(text.history).logits_BV[0])))

    def spoil(self, text, token):
        return token


@method(**CARD, identity={"shift": 0})
class Honest(DecodingMethod):
    """Writes the token ``shift`` ids further."""

    shift: int = Field(1, description="ids")
    writes = Plain

    def strategy(self, subject, artifact):
        class Shifted(self.writes):
            def spoil(inner, text, token):
                return (super().spoil(text, token) + self.shift) % 250 if self.shift else super().spoil(text, token)

        return Shifted()


class Overruns(Plain):
    def write(self, text):
        super().write(text)
        text.emit(1)


class GoesOnAfterTheEnd(Plain):
    def write(self, text):
        super().write(text)
        if text.row.stop_reason == "eos":
            text.row.tokens.append(3)
            text.row.steps.append(1)
            text.row.stamps_s.append(text.row.stamps_s[-1])


class LeavesTheStopString(Plain):
    def write(self, text):
        super().write(text)
        text.row.text += "".join(text.request.stop_strings)


class Remembers(Plain):
    requests = 0

    def write(self, text):
        type(self).requests += 1
        super().write(text)

    def spoil(self, text, token):
        return (token + self.requests) % 250


class MixesRows(Plain):
    def spoil(self, text, token):
        return (token + text.index) % 250


class CountsNothing(Plain):
    def write(self, text):
        super().write(text)
        text.models.clear()


class NeverPlain(Plain):
    def spoil(self, text, token):
        return 5


@method(**CARD)
class LeavesAHook(Honest):
    @contextmanager
    def apply(self, subject, artifact=None):
        subject.model.register_forward_hook(lambda *_: None)
        with super().apply(subject, artifact) as opened:
            yield opened


def run(method_, subject, name):
    next(check for check in method_.checks(subject) if check.name == name).run()


def test_an_honest_method_passes_and_its_card_s_identity_is_checked(tiny):
    results = run_checks(Honest(), tiny)
    assert all(r.passed for r in results)
    assert "with the card's identity it is plain decoding" in [r.name for r in results]


@pytest.mark.parametrize(
    ("writes", "broken"),
    [
        (Overruns, "budgets, steps and counts add up"),
        (CountsNothing, "budgets, steps and counts add up"),
        (GoesOnAfterTheEnd, "end of text and stop strings end the text"),
        (LeavesTheStopString, "end of text and stop strings end the text"),
        (Remembers, "the same request has the same answer"),
        (MixesRows, "batch equals loop"),
        (NeverPlain, "with the card's identity it is plain decoding"),
    ],
)
def test_each_fault_is_seen(tiny, monkeypatch, writes, broken):
    monkeypatch.setattr(Honest, "writes", writes)
    with pytest.raises(AssertionError):
        run(Honest(), tiny, broken)


def test_a_hook_that_stays_is_seen(tiny):
    try:
        for name in ("restored after exit", "restored after an exception"):
            with pytest.raises(AssertionError, match="not as before"):
                run(LeavesAHook(), tiny, name)
    finally:
        tiny.model._forward_hooks.clear()


def test_a_text_may_be_compared_with_another_subject_s(tiny):
    honest = Honest(shift=0)
    plain_text_check("same", honest, tiny).run()
    with pytest.raises(AssertionError, match="prompt of 20: token 0"):
        plain_text_check("other", honest, tiny, lambda subject: first_layers(subject, 1)).run()
