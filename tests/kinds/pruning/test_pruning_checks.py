"""The checks pass for honest methods, and each fails for a method with the fault it looks for."""

import pytest
import torch

from harness.catalog import method
from harness.kinds.pruning import EvictionMethod, keep_count, rank_slots
from harness.kinds.pruning.checks import pruning_checks

CARD = {"id": "faulty", "kind": "pruning", "title": "a fault", "guarantee": "approximate", "baseline": "kv_full"}


class Latest(EvictionMethod):
    """Keeps the latest slots; the faults below are variations of it."""

    def scores(self, view):
        return view.position_BHN.float().expand(-1, view.keys_BHND.shape[1], -1)


@method(**CARD, identity={"keep_ratio": 1.0})
class Honest(Latest):
    """Nothing is wrong."""


@method(**CARD, identity={"keep_ratio": 0.9})
class WrongIdentity(Latest):
    """At 0.9 something is dropped."""


@method(**CARD)
class TooMany(Latest):
    def evict(self, view):
        return rank_slots(self.scores(view), view.valid_BHN, keep_count(self.keep_ratio, view.prompt_B) + 1)


@method(**CARD)
class Lowest(Latest):
    def evict(self, view):
        return rank_slots(-self.scores(view), view.valid_BHN, keep_count(self.keep_ratio, view.prompt_B))


@method(**CARD)
class CountsSlots(Latest):
    """Keeps what lies left of the middle of the buffer, so that padding moves it."""

    def scores(self, view):
        place = torch.arange(view.num_slots, device=view.keys_BHND.device)
        middle = -(place - view.num_slots // 2).abs().float()
        return middle.expand(len(view.keys_BHND), view.keys_BHND.shape[1], -1)


@method(**CARD)
class LooksAtPadding(Latest):
    def scores(self, view):
        return view.keys_BHND.norm(dim=-1) * torch.sin(1e3 * view.keys_BHND.sum((2, 3), keepdim=True)[..., 0])


CALLS = []


@method(**CARD)
class Remembers(Latest):
    def scores(self, view):
        CALLS.append(1)
        return torch.sin(view.position_BHN.float() * len(CALLS)).expand(-1, view.keys_BHND.shape[1], -1)


@method(**CARD)
class LeavesAHook(Latest):
    def apply(self, subject, artifact=None):
        subject.model.register_forward_hook(lambda *args: None)
        return super().apply(subject, artifact)


@method(**CARD)
class ForgetsOnException(Latest):
    def apply(self, subject, artifact=None):
        import contextlib

        @contextlib.contextmanager
        def opened():
            bias = subject.model.lm_head.weight
            kept = bias.detach().clone()
            with torch.no_grad():
                bias.mul_(2)
            with super(ForgetsOnException, self).apply(subject, artifact) as pruned:
                yield pruned
            with torch.no_grad():
                bias.copy_(kept)

        return opened()


def failures(faulty, subject, only=""):
    """Names of the checks that fail (all of them, or those so named), with what they say."""
    found = {}
    for check in pruning_checks(faulty, subject):
        if only not in check.name:
            continue
        try:
            check.run()
        except AssertionError as error:
            found[check.name] = str(error)
    return found


def test_an_honest_method_passes_all(tiny):
    assert failures(Honest(), tiny) == {}


def test_numbers_are_compared_in_float32_whatever_the_model(tiny):
    """A model in bfloat16 is checked on a float32 copy, and stays as it is."""
    from harness.subjects.load import load_subject

    half = load_subject("tiny-random", device="cpu", dtype="bfloat16")
    assert failures(Honest(), half) == {}
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("faulty", "check"),
    [
        (WrongIdentity(), "identity equals baseline"),
        (TooMany(), "budget is held and memory freed"),
        (Lowest(), "the highest scores stay"),
        (CountsSlots(), "batch equals loop"),
        (LooksAtPadding(), "padding does not leak"),
        (Remembers(), "no state between requests"),
        (Remembers(), "same seed, same result"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_each_fault_is_found_and_named_with_figures(tiny, faulty, check):
    assert any(c.isdigit() for c in failures(faulty, tiny, check)[check])


def test_a_method_that_leaves_something_behind_is_found():
    from harness.subjects.load import load_subject

    for faulty, expected in (
        (LeavesAHook(), {"restored after exit", "restored after an exception"}),
        (ForgetsOnException(), {"restored after an exception"}),
    ):
        found = failures(faulty, load_subject("tiny-random", device="cpu"), "restored")
        assert set(found) == expected


def test_rounding_explains_little_on_a_small_model(tiny):
    """What the checks excuse as rounding stays far below what a leak does to the logits."""
    from harness.kinds.invariants import TOLERANCE, fingerprint, rounding_error

    before = fingerprint(tiny.model)
    with Honest().apply(tiny) as pruned:
        moved = rounding_error(pruned, list(range(40)), [5, 6, 7])
    assert 0 < moved < TOLERANCE
    assert fingerprint(tiny.model) == before
