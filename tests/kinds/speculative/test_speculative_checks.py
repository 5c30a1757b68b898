"""The checks pass for honest methods, and each fails for a decoder with the fault it looks for."""

from contextlib import contextmanager
from dataclasses import replace

import pytest

from harness.catalog import method
from harness.kinds.invariants import assert_same_text, first_difference
from harness.kinds.speculative import Drafter, SpeculativeMethod, chain
from harness.kinds.speculative.checks import forgetful_twin, speculative_checks
from harness.kinds.speculative.loop import SpeculativeDecoder

CARD = {"id": "faulty", "kind": "speculative", "title": "a fault", "guarantee": "exact", "baseline": "ar"}


class Repeats(Drafter):
    """Drafts that the text so far goes on as after the last token's earlier occurrence."""

    def start(self, prompt, sampler, row):
        pass

    def propose(self, history, room):
        for place in range(len(history) - 2, -1, -1):
            if history[place] == history[-1]:
                return chain(history[-1], history[place + 1 : place + 1 + min(4, max(room, 0))])
        return chain(history[-1], ())

    def observe(self, step):
        pass

    def snapshot(self):
        return None

    def restore(self, state):
        pass


class Drifts(Repeats):
    """Drafts less with every request, and cannot be put back."""

    requests = 0

    def start(self, prompt, sampler, row):
        self.requests += 1

    def propose(self, history, room):
        tree = super().propose(history, room)
        return chain(tree.tokens[0], tree.tokens[1 : 1 + max(0, 4 - self.requests)])


class Altered(SpeculativeMethod):
    """A method whose decoder is spoilt by :meth:`spoil`."""

    drafts = Repeats

    def spoil(self, row, request, number):
        return row

    @contextmanager
    def apply(self, subject, artifact=None):
        spoil, inner = self.spoil, SpeculativeDecoder(self.drafts())

        class Spoilt:
            snapshot, restore = inner.snapshot, inner.restore

            def generate(self, subject, request):
                rows = inner.generate(subject, request)
                return [spoil(row, request, number) for number, row in enumerate(rows)]

        yield replace(subject, decoder=Spoilt())


@method(**CARD)
class Honest(Altered):
    pass


@method(**(CARD | {"guarantee": "distribution"}))
class HonestLaw(Altered):
    pass


@method(**(CARD | {"guarantee": "distribution"}))
class WrongLaw(Altered):
    def spoil(self, row, request, number):
        if request.temperature:
            row.tokens[-1] = row.tokens[0]
        return row


@method(**CARD)
class WrongToken(Altered):
    def spoil(self, row, request, number):
        row.tokens[-1] = (row.tokens[-1] + 1) % 250
        return row


@method(**CARD)
class RunsOverTheEnd(Altered):
    def spoil(self, row, request, number):
        if row.stop_reason == "eos":
            row.tokens.append(1)
        return row


@method(**CARD)
class LeavesTheStopString(Altered):
    def spoil(self, row, request, number):
        if row.stop_reason == "stop":
            row.text += request.stop_strings[0]
        return row


@method(**CARD)
class MiscountsSteps(Altered):
    def spoil(self, row, request, number):
        row.steps.append(1)
        return row


@method(**CARD)
class IgnoresProcessors(Altered):
    @contextmanager
    def apply(self, subject, artifact=None):
        with super().apply(subject) as drafting:
            inner = drafting.decoder

            class Deaf:
                snapshot, restore = inner.snapshot, inner.restore

                def generate(self, subject, request):
                    return inner.generate(subject, replace(request, processors=(), repetition_penalty=1.0))

            yield replace(drafting, decoder=Deaf())


@method(**CARD)
class MixesRows(Altered):
    def spoil(self, row, request, number):
        if number:
            row.tokens[0] = 3
        return row


@method(**CARD)
class CannotBePutBack(Altered):
    drafts = Drifts


def failures(faulty, subject, only=""):
    """Names of the checks that fail (all of them, or one), with what they say."""
    found = {}
    for check in speculative_checks(faulty, subject):
        if only not in check.name:
            continue
        try:
            check.run()
        except AssertionError as error:
            found[check.name] = str(error)
    return found


@pytest.mark.parametrize("honest", [Honest(), HonestLaw()], ids=["exact", "distribution"])
def test_an_honest_method_passes_all(tiny, honest):
    assert failures(honest, tiny) == {}


@pytest.mark.parametrize(
    ("faulty", "check"),
    [
        (WrongToken(), "greedy text equals plain decoding"),
        (RunsOverTheEnd(), "end of text inside a run"),
        (LeavesTheStopString(), "stop string inside a run"),
        (WrongToken(), "length limit inside a run"),
        (MiscountsSteps(), "steps and forwards add up"),
        (IgnoresProcessors(), "processors act at every node"),
        (IgnoresProcessors(), "sampled text equals plain decoding"),
        (WrongLaw(), "sampled law is the target's"),
        (CannotBePutBack(), "the drafter's memory can be restored"),
        (MixesRows(), "batch equals loop"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_each_fault_is_found_and_named_with_figures(tiny, faulty, check):
    assert any(c.isdigit() for c in failures(faulty, tiny, check)[check])


def test_the_forgetful_twin_makes_long_runs_and_leaves_the_model_alone(tiny):
    """On a random model nothing is accepted, and checks of accepted runs would pass unseen."""
    from harness.kinds.speculative.checks import _Checks

    checks = _Checks(Honest(), tiny, forgetful=True)
    with checks.opened() as drafting:
        steps = drafting.generate(checks.request([checks.repetitive], 24))[0].steps
    assert max(steps) >= 4 and sum(steps) / len(steps) > 2
    twin = forgetful_twin(tiny)
    assert not twin.model.model.layers[0].self_attn.o_proj.weight.equal(
        tiny.model.model.layers[0].self_attn.o_proj.weight
    )


def test_a_near_tie_is_excused_and_nothing_else(tiny):
    """A text that differs where two logits are equal passes; the same difference elsewhere fails."""
    from harness.subjects.requests import GenerateRequest, Generation

    class Tie:
        """Gives the two ids the same, highest score."""

        def __call__(self, input_ids, scores):
            raised = scores.clone()
            raised[:, [7, 9]] = 100.0
            return raised

    for processors, excused in (((Tie(),), True), ((), False)):
        request = GenerateRequest(prompts=[[1, 2, 3]], max_new_tokens=2, processors=processors)
        ours, theirs = Generation(3, tokens=[9, 1]), Generation(3, tokens=[7, 1])
        if excused:
            assert assert_same_text(tiny, request, 0, ours, theirs, "tie") is False
        else:
            with pytest.raises(AssertionError, match="leads by"):
                assert_same_text(tiny, request, 0, ours, theirs, "no tie")


def test_differences_are_found_at_the_end_too():
    assert first_difference([1, 2], [1, 2]) is None
    assert first_difference([1, 3], [1, 2]) == 1
    assert first_difference([1, 2], [1, 2, 3]) == first_difference([1, 2, 3], [1, 2]) == 2
