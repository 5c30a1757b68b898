"""Speculative sampling: its checks, and what is accepted of a perfect, a foreign and a noised draft."""

import pytest

from harness.kinds.speculative.checks import _Checks
from methods.speculative.spec_sampling import SpecSampling


def accepted(method, subject, **sampling):
    """Tokens emitted by each step after the first."""
    checks = _Checks(method, subject)
    with checks.opened() as drafting:
        return drafting.generate(checks.request([checks.prompts[0]], 21, **sampling))[0].steps[1:]


@pytest.mark.parametrize("method", [SpecSampling(draft="noised:0.1"), SpecSampling(draft="layers:1", num_draft=3)])
def test_all_checks_hold(tiny, method):
    for check in method.checks(tiny):
        check.run()


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 3}], ids=["greedy", "sampled"])
@pytest.mark.parametrize("draft", ["layers:2", "noised:0.0"])
def test_a_draft_like_the_target_is_always_accepted(tiny, draft, sampling):
    assert accepted(SpecSampling(draft=draft, num_draft=4), tiny, **sampling) == [5, 5, 5, 5]


def test_less_is_accepted_the_noisier_the_draft(tiny):
    means = []
    for share in (0.0, 0.05, 0.3, 3.0):
        steps = accepted(SpecSampling(draft=f"noised:{share}", num_draft=4), tiny)
        means.append(sum(steps) / len(steps))
    assert means[0] == 5 and means == sorted(means, reverse=True) and means[-1] < 1.5
