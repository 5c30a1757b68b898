"""Pruning and speculation together, and stacks that cannot work."""

import pytest

from harness.catalog import parse_stack
from harness.errors import Refused
from harness.kinds.stack import applied
from harness.subjects.requests import GenerateRequest

PROMPTS = [[(13 * i) % 250 for i in range(40)], list(range(60, 80)), [7, 8, 9]]


def texts(subject, stack, prompts=PROMPTS, tokens=24, **settings):
    """Rows of a stack, the prompts given one by one."""
    with applied(parse_stack(stack).build(), subject) as stacked:
        return [
            stacked.generate(GenerateRequest(prompts=[p], max_new_tokens=tokens, ignore_eos=True, **settings))[0]
            for p in prompts
        ]


@pytest.mark.parametrize("drafter", ["token_recycling", "token_recycling@num_nodes=80", "prompt_lookup"])
def test_a_full_budget_below_a_drafter_is_plain_decoding(tiny, drafter):
    ours = texts(tiny, f"kv_streaming@keep_ratio=1.0+{drafter}")
    assert [row.tokens for row in ours] == [row.tokens for row in texts(tiny, "ar")]


@pytest.mark.parametrize("drafter", ["token_recycling@num_nodes=80", "prompt_lookup"])
def test_a_drafter_on_a_prompt_pruned_once_writes_what_the_pruned_cache_writes(tiny, drafter):
    """Slots are dropped after the prompt only, so the drafted text is that of plain decoding on the pruned cache."""
    ours = texts(tiny, f"kv_snapkv@keep_ratio=0.4@window=4+{drafter}")
    assert [row.tokens for row in ours] == [row.tokens for row in texts(tiny, "kv_snapkv@keep_ratio=0.4@window=4")]


def test_a_cache_that_evicts_while_decoding_serves_trees_within_its_budget(tiny):
    row = texts(tiny, "kv_streaming@keep_ratio=0.5+token_recycling", PROMPTS[:1])[0]
    assert len(row.tokens) == 24
    assert row.counts["kv_kept_fraction"] == pytest.approx(20 / (40 + 23), abs=0.02)


def test_the_order_of_the_two_kinds_does_not_matter(tiny):
    one = texts(tiny, "kv_snapkv@keep_ratio=0.4@window=4+prompt_lookup")
    other = texts(tiny, "prompt_lookup+kv_snapkv@keep_ratio=0.4@window=4")
    assert [row.tokens for row in one] == [row.tokens for row in other]


@pytest.mark.parametrize(
    ("stack", "reason"),
    [
        ("kv_streaming+kv_snapkv", "kv_snapkv cannot follow kv_streaming: both replace the cache"),
        ("kv_full+kv_streaming", "kv_streaming cannot follow kv_full: both replace the cache"),
        ("token_recycling+prompt_lookup", "prompt_lookup cannot follow token_recycling: both replace the decoder"),
        ("prompt_lookup+ar", "ar cannot follow prompt_lookup"),
        ("kv_streaming+token_recycling+kv_snapkv", "kv_snapkv cannot follow kv_streaming: both"),
        ("prompt_lookup+prompt_lookup", "prompt_lookup cannot follow prompt_lookup: both"),
    ],
)
def test_two_owners_of_one_part_are_refused_in_one_line(tiny, stack, reason):
    with pytest.raises(Refused, match=reason) as refusal, applied(parse_stack(stack).build(), tiny):
        pass
    assert "\n" not in str(refusal.value)


def test_a_subject_without_views_of_its_cache_is_refused(tiny):
    from dataclasses import replace

    foreign = replace(tiny, capabilities=frozenset({"score", "generate"}))
    for stack in ("kv_streaming", "token_recycling"):
        with (
            pytest.raises(Refused, match="needs a subject with 'kv_views'"),
            applied(parse_stack(stack).build(), foreign),
        ):
            pass


def test_the_stack_is_remembered_and_the_subject_untouched(tiny):
    with applied(parse_stack("kv_streaming+token_recycling").build(), tiny) as stacked:
        assert stacked.stack == ("kv_streaming", "token_recycling")
    assert tiny.stack == ()
