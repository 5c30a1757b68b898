"""Invariants of every kernel: equal to its reference, the same when called again, inputs left as they were."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.kinds.kernel.base import KernelMethod
from harness.kinds.kernel.norms import result_error
from harness.kinds.method import Check, Workload
from harness.subjects.subject import Subject


def kernel_checks(method: KernelMethod, subject: Subject) -> Iterator[Check]:
    """The checks of a method, at each of its ``check_sizes``."""
    for size in method.check_sizes:
        for workload in method.workloads_at(subject, size):
            if workload.reference is not None and workload.max_error is not None:
                yield Check(f"{workload.name}: equals its reference", functools.partial(equals_reference, workload))
            yield Check(f"{workload.name}: repeated calls agree", functools.partial(repeats, workload, subject.device))
            yield Check(f"{workload.name}: inputs are left as found", functools.partial(leaves_inputs, workload))


def equals_reference(workload: Workload) -> None:
    """Every tensor of the result (outputs and gradients) lies within ``max_error`` of the reference's."""
    assert workload.reference is not None and workload.max_error is not None
    error = result_error(workload.make()(), workload.reference()())
    assert error <= workload.max_error, (
        f"{workload.name}: relative error {error:.3g}, at most {workload.max_error:g} allowed"
    )


def repeats(workload: Workload, device: torch.device) -> None:
    """A second call, and a call made anew, give the same: bit for bit on a CPU, within ``max_error`` elsewhere.

    Atomic additions make the last bits differ from run to run on accelerators.
    """
    allowed = 0.0 if device.type == "cpu" else workload.max_error or 0.0
    timed = workload.make()
    first, again, anew = _copied(timed()), timed(), workload.make()()
    for what, result in (("a second call", again), ("a call made anew", anew)):
        error = result_error(result, first)
        assert error <= allowed, f"{workload.name}: {what} differs by {error:.3g}, at most {allowed:g} allowed"


def leaves_inputs(workload: Workload) -> None:
    """No tensor that a callable holds is changed by calling it, and none has gained a gradient."""
    for build in filter(None, (workload.make, workload.reference)):
        timed = build()
        held = held_tensors(timed)
        before = [(tensor.detach().clone(), _copied(tensor.grad)) for tensor in held]
        timed()
        for tensor, (value, grad) in zip(held, before, strict=True):
            shape = tuple(tensor.shape)
            assert torch.equal(tensor.detach(), value), f"{workload.name}: an input of shape {shape} was changed"
            assert result_error(tensor.grad, grad) == 0.0, f"{workload.name}: an input of shape {shape} kept a gradient"


def held_tensors(callable_: Callable[..., Any]) -> list[Tensor]:
    """The tensors reachable from a callable through closures, partials, containers, dataclasses and modules."""
    found: dict[int, Tensor] = {}
    seen: set[int] = set()
    open_: list[Any] = [callable_]
    while open_:
        item = open_.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            found[id(item)] = item
        else:
            open_ += _parts(item)
    return list(found.values())


def _parts(item: Any) -> list[Any]:
    """What an object holds, as far as a workload's callable can be expected to hold inputs in it."""
    if isinstance(item, nn.Module):
        return [*item.parameters(), *item.buffers()]
    if isinstance(item, functools.partial):
        return [item.func, *item.args, *item.keywords.values()]
    if isinstance(item, Mapping):
        return list(item.values())
    if isinstance(item, (list, tuple, set, frozenset)):
        return list(item)
    if is_dataclass(item) and not isinstance(item, type):
        return [getattr(item, f.name) for f in fields(item)]
    if hasattr(item, "__self__") and not isinstance(item.__self__, type(torch)):
        return [item.__self__]
    return [cell.cell_contents for cell in getattr(item, "__closure__", None) or ()]


def _copied(result: Any) -> Any:
    if isinstance(result, Tensor):
        return result.detach().clone()
    return type(result)(_copied(x) for x in result) if isinstance(result, (list, tuple)) else result
