"""Spike: methods of different kinds stack, one inside the other, and leave the subject as it was."""

import pytest

from harness.catalog.spec import parse_stack
from harness.errors import Refused
from harness.kinds.stack import applied
from harness.subjects.requests import GenerateRequest, ScoreRequest

PROMPTS = [list(b"the quick brown fox jumps over the lazy dog. " * 2), list(b"one two three one two")]
ASKED = GenerateRequest(prompts=PROMPTS, max_new_tokens=24, ignore_eos=True)
STREAMING = "kv_streaming@keep_ratio=0.5@num_sinks=2"
SNAPKV = "kv_snapkv@keep_ratio=0.5@window=4"


def run(text, subject, asked=ASKED):
    with applied(parse_stack(text).build(), subject) as stacked:
        return stacked.generate(asked)


def test_drafting_on_a_pruned_prompt_says_what_the_pruned_subject_says(tiny):
    plain, drafted = run(SNAPKV, tiny), run(f"{SNAPKV}+token_recycling", tiny)
    assert [r.tokens for r in drafted] == [r.tokens for r in plain]
    alone = [run(SNAPKV, tiny, one(index))[0] for index in (0, 1)]
    assert [r.counts["kv_bytes_held"] for r in drafted] == [r.counts["kv_bytes_held"] for r in alone]


def one(index):
    return GenerateRequest(prompts=[PROMPTS[index]], max_new_tokens=24, ignore_eos=True)


def test_streaming_and_recycling_both_act(tiny):
    drafted = run(f"{STREAMING}+token_recycling", tiny)
    assert [row.tokens for row in run(f"{STREAMING}+token_recycling", tiny)] == [row.tokens for row in drafted]
    assert all(len(row.tokens) == 24 for row in drafted)
    assert all(row.counts["kv_kept_fraction"] < 0.6 for row in drafted)
    assert any(max(row.steps) > 1 for row in drafted) and all(row.counts["drafted_tokens"] > 0 for row in drafted)
    assert [r.tokens for r in run("kv_streaming@keep_ratio=1.0+token_recycling", tiny)] == [
        r.tokens for r in tiny.generate(ASKED)
    ]


def test_a_stack_knows_its_kind_baseline_and_name(tiny):
    stack = parse_stack(f"{STREAMING}+token_recycling")
    assert (stack.kind, str(stack.baseline)) == ("speculative", "ar")
    assert str(parse_stack(str(stack))) == str(stack)
    with applied(stack.build(), tiny) as subject:
        assert subject.stack == ("kv_streaming@num_sinks=2", "token_recycling")
        asked = [ScoreRequest(context=tuple(PROMPTS[0]), continuation=(65, 66, 67))]
        scored = subject.score(asked)
        with applied(parse_stack(STREAMING).build(), tiny) as pruned:
            assert pruned.score(asked) == scored != tiny.score(asked)


def test_the_subject_is_restored_even_after_an_exception(tiny):
    before = tiny.generate(ASKED)
    with (
        pytest.raises(ZeroDivisionError),
        applied(parse_stack(f"{STREAMING}+token_recycling").build(), tiny) as subject,
    ):
        subject.generate(one(0))
        raise ZeroDivisionError
    assert [r.tokens for r in tiny.generate(ASKED)] == [r.tokens for r in before]
    assert tiny.generate(ASKED)[0].counts["kv_kept_fraction"] == 1


@pytest.mark.parametrize(
    "text", ["kv_streaming+kv_snapkv", "token_recycling+prompt_lookup", "kv_streaming+kv_streaming"]
)
def test_what_cannot_stack_is_refused_in_one_line(tiny, text):
    with pytest.raises(Refused, match=r"^[^\n]+$"), applied(parse_stack(text).build(), tiny):
        pass
