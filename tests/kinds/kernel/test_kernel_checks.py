"""The generic checks of kernels: each passes what is right and catches what is wrong."""

import functools

import pytest
import torch

from harness.catalog import method
from harness.kinds.kernel import KernelMethod
from harness.kinds.kernel.checks import equals_reference, held_tensors, leaves_inputs, repeats
from harness.kinds.method import Workload

CPU = torch.device("cpu")


def workload(call, reference=None, **fields):
    """A workload over one tensor and one parameter, both in a closure."""

    def build(function):
        inputs, weight = torch.arange(5.0), torch.nn.Parameter(torch.ones(5))
        return lambda: function(inputs, weight)

    reference = reference or (lambda x, w: [(x * w).detach()])
    return Workload(
        name="w", make=lambda: build(call), reference=lambda: build(reference), **({"max_error": 1e-6} | fields)
    )


def right(x, w):
    return [(x * w).detach()]


def changes_input(x, w):
    return [x.add_(1) * w]


def leaves_gradient(x, w):
    (x * w).sum().backward()
    return [w.detach()]


def changes_by_call(x, w, state=[0]):  # noqa: B006 - a call that remembers is what is caught here
    state[0] += 1
    return [(x * w).detach() + state[0]]


def test_a_right_workload_passes_all():
    equals_reference(workload(right))
    repeats(workload(right), CPU)
    leaves_inputs(workload(right))


@pytest.mark.parametrize("wrong", [lambda x, w: [x + 0.1], lambda x, w: [x[:3]], lambda x, w: [x * float("nan")]])
def test_a_wrong_result_is_caught(wrong):
    with pytest.raises(AssertionError, match="relative error"):
        equals_reference(workload(wrong))


def test_a_result_within_its_bound_passes():
    equals_reference(workload(lambda x, w: [x * 1.01], max_error=0.02))


@pytest.mark.parametrize("bad", [changes_by_call, changes_input])
def test_a_result_that_depends_on_earlier_calls_is_caught(bad):
    with pytest.raises(AssertionError, match="differs by"):
        repeats(workload(bad), CPU)


def test_a_changed_input_is_caught():
    with pytest.raises(AssertionError, match="was changed"):
        leaves_inputs(workload(changes_input))


def test_an_input_that_keeps_a_gradient_is_caught():
    with pytest.raises(AssertionError, match="kept a gradient"):
        leaves_inputs(workload(leaves_gradient))


def test_the_references_inputs_are_watched_too():
    with pytest.raises(AssertionError, match="was changed"):
        leaves_inputs(workload(right, changes_input))


def test_held_tensors_are_found_wherever_a_callable_may_keep_them():
    kept = [torch.ones(n) for n in range(1, 6)]
    model = torch.nn.Linear(2, 2)
    inner = functools.partial(lambda *_: kept[0], kept[1], key={"a": [kept[2]]})

    class Holder:
        def __init__(self):
            self.model = model

    def call():
        return inner(), (kept[3], kept[4]), model

    found = {id(t) for t in held_tensors(call)}
    assert {id(t) for t in (*kept, *model.parameters())} <= found


@method(id="scale_by_two", kind="kernel", title="t", guarantee="exact", baseline="scale_by_two")
class Scale(KernelMethod):
    """Doubles; ``factor`` makes it wrong."""

    factor: float = 2.0
    sizes = ({"n": 64},)
    check_sizes = ({"n": 1}, {"n": 3})

    def workloads_at(self, subject, size):
        x = torch.arange(1.0, size["n"] + 1, device=subject.device)
        yield Workload(
            name=f"scale_{size['n']}",
            make=lambda: lambda: x * self.factor,
            reference=lambda: lambda: x + x,
            max_error=1e-6,
        )


def test_a_method_is_timed_at_its_sizes_and_checked_at_its_small_ones(tiny):
    assert [w.name for w in Scale().workloads(tiny)] == ["scale_64"]
    checks = list(Scale().checks(tiny))
    assert len(checks) == 6
    for check in checks:
        check.run()
    broken = [c for c in Scale(factor=3.0).checks(tiny) if "reference" in c.name]
    with pytest.raises(AssertionError, match=r"relative error 0\.5"):
        broken[0].run()


def test_a_workload_without_reference_is_not_compared(tiny):
    class Bare(Scale):
        def workloads_at(self, subject, size):
            yield Workload(name="bare", make=lambda: lambda: torch.ones(1))

    assert [c.name for c in Bare().checks(tiny)][:2] == [
        "bare: repeated calls agree",
        "bare: inputs are left as found",
    ]


def test_a_kernel_changes_no_subject_and_must_offer_workloads(tiny):
    class Empty(Scale):
        workloads_at = KernelMethod.workloads_at

    assert Scale.changes == frozenset()
    with Scale().apply(tiny) as subject:
        assert subject is tiny
    with pytest.raises(NotImplementedError, match="workloads_at"):
        list(Empty().workloads(tiny))
