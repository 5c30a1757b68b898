"""Invariants of attention over packed groups, whatever path computes it."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from harness.kinds.kernel.group_workloads import ATTENTION_ERROR, HeadShape
from harness.kinds.kernel.norms import relative_rms
from harness.kinds.kernel.packed_model import Attend
from harness.kinds.kernel.packing import Layout
from harness.kinds.method import Check
from harness.subjects.subject import Subject

RAGGED = ((6, (5, 1, 0, 3)), (4, (2,)), (3, (4, 4)))


def group_checks(subject: Subject, attend: Attend) -> Iterator[Check]:
    """Responses do not see each other, see their own prompt, and may stand in any order."""
    yield Check("a response changes no other output", functools.partial(no_leak, subject, attend))
    yield Check(
        "a group's last prompt token reaches its responses alone", functools.partial(prompt_seen, subject, attend)
    )
    yield Check("the order of responses does not matter", functools.partial(order_free, subject, attend))


def _attend(subject: Subject, attend: Attend, layout: Layout, inputs: list[Tensor]) -> Tensor:
    query, key, value = inputs[:3]
    return attend(query, key, value, layout, HeadShape.of(subject).width ** -0.5)


def _changed_places(subject: Subject, attend: Attend, layout: Layout, place: slice) -> set[int]:
    """Places whose output differs in any bit after the keys and values at ``place`` were replaced."""
    inputs = HeadShape.of(subject).inputs(subject, layout.num_tokens)
    before = _attend(subject, attend, layout, inputs)
    for x in inputs[1:3]:
        x[:, :, place] = x[:, :, place].flip(-1) + 1
    after = _attend(subject, attend, layout, inputs)
    return set((before != after).flatten(0, 1).any(0).any(-1).nonzero()[:, 0].tolist())


def no_leak(subject: Subject, attend: Attend) -> None:
    """Changing one response leaves every output outside of it bit for bit as it was."""
    layout = Layout.of(RAGGED, subject.device)
    for first, length, _ in layout.responses:
        own = range(first, first + length)
        changed = _changed_places(subject, attend, layout, slice(first, first + length))
        assert changed == set(own), f"changing places {list(own)} changed the outputs at {sorted(changed)}"


def prompt_seen(subject: Subject, attend: Attend) -> None:
    """Changing a prompt's last token changes its own output and all of its group's responses, and nothing else."""
    layout = Layout.of(RAGGED, subject.device)
    for group in layout.groups:
        last = group.prompt_slice.stop - 1
        changed = _changed_places(subject, attend, layout, slice(last, last + 1))
        expected = set(range(last, group.response_slice.stop))
        assert changed == expected, f"changing place {last} changed {sorted(changed)}, not {sorted(expected)}"


def order_free(subject: Subject, attend: Attend) -> None:
    """Reversing the responses of a group reverses their outputs."""
    lengths = (5, 1, 0, 3)
    forth = Layout.of([(6, lengths)], subject.device)
    back = Layout.of([(6, lengths[::-1])], subject.device)
    inputs = HeadShape.of(subject).inputs(subject, forth.num_tokens)
    pieces = [torch.arange(first, first + length) for first, length, _ in forth.responses]
    order = torch.cat([torch.arange(6), *pieces[::-1]]).to(subject.device)
    expected = _attend(subject, attend, forth, inputs)[:, :, order]
    error = relative_rms(_attend(subject, attend, back, [x[:, :, order] for x in inputs]), expected)
    assert error <= ATTENTION_ERROR[subject.dtype], f"reversed responses differ by {error:.3g}"
