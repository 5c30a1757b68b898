"""Self-speculation: all layers draft perfectly, fewer share the target's weights, and the checks."""

import pytest

from harness.catalog.spec import MethodSpec
from harness.errors import UsageError
from harness.kinds.speculative.checks import _Checks
from methods.speculative.self_spec_layerskip import SelfSpecLayerSkip


def steps(method, subject):
    """Tokens of each step after the first."""
    checks = _Checks(method, subject)
    with checks.opened() as drafting:
        return drafting.generate(checks.request([checks.prompts[0]], 21))[0].steps[1:]


@pytest.mark.parametrize("settings", [{"exit_layer": 2}, {"exit_layer": 9}])
def test_all_layers_are_always_right(tiny, settings):
    assert steps(SelfSpecLayerSkip(num_draft=4, min_confidence=0.0, **settings), tiny) == [5, 5, 5, 5]


def test_a_chain_ends_where_the_draft_is_unsure(tiny):
    assert set(steps(SelfSpecLayerSkip(exit_layer=2, num_draft=4, min_confidence=1.0), tiny)) == {1}


def test_skipped_layers_are_written_with_commas():
    assert MethodSpec.parse("self_spec_layerskip@skip=1,3").build().skip == "1,3"
    assert MethodSpec.parse("self_spec_layerskip@skip=1").build().skip == "1"
    with pytest.raises(UsageError, match="10,12,14"):
        MethodSpec.parse("self_spec_layerskip@skip=a").build()


@pytest.mark.parametrize("method", [SelfSpecLayerSkip(), SelfSpecLayerSkip(skip="0", num_draft=3, min_confidence=0.0)])
def test_all_checks_hold(tiny, method):
    for check in method.checks(tiny):
        check.run()
