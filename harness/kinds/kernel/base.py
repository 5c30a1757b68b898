"""Interface of the kind ``kernel``: a method offers workloads, each with a slow reference and an error bound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from harness.kinds.method import Check, Method, Workload
from harness.subjects.subject import Subject


class KernelMethod(Method):
    """An operator, or a training step, computed another way.

    A subclass overrides :meth:`workloads_at` and names the sizes it is timed at (``sizes``) and the small, odd sizes
    its checks use (``check_sizes``); what a size holds is the subclass's own affair. ``changes`` is empty: a method
    that replaces an operator inside the subject overrides it together with ``apply``.
    """

    changes: ClassVar[frozenset[str]] = frozenset()
    sizes: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    check_sizes: ClassVar[tuple[Mapping[str, Any], ...]] = ()

    def workloads_at(self, subject: Subject, size: Mapping[str, Any]) -> Iterable[Workload]:
        """The workloads of one size, on the subject's device and dtype.

        Inputs are made inside ``make`` and ``reference``, from a fixed seed, and are held in the closures or partials
        that these return, where the checks can see them.
        """
        raise NotImplementedError(f"{self.card.id} does not override workloads_at")

    def workloads(self, subject: Subject) -> Iterable[Workload]:
        """What micro-benchmarks time."""
        for size in self.sizes:
            yield from self.workloads_at(subject, size)

    def checks(self, subject: Subject) -> Iterable[Check]:
        """The kind's invariants."""
        from harness.kinds.kernel.checks import kernel_checks

        return kernel_checks(self, subject)
