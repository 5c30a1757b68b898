"""Every drafting method at the ends of the context: the shortest prompts, prompts at the limit, and what is refused."""

from dataclasses import replace

import pytest

from harness.catalog import catalog, parse_stack
from harness.errors import UsageError
from harness.kinds.invariants import assert_same_text, random_ids
from harness.kinds.speculative.base import Step
from harness.kinds.speculative.chains import ChainDrafter
from harness.kinds.speculative.drafts import DraftModel
from harness.subjects.requests import GenerateRequest
from harness.subjects.sampling import Sampler

METHODS = sorted(entry.card.id for entry in catalog().values() if entry.card.kind == "speculative")


@pytest.fixture(scope="module")
def short(tiny):
    """The tiny model with a context of 40, so that its end is near."""
    return replace(tiny, max_length=40)


def built(name):
    """The method as it is checked, at a fixed width where it has one: it then drafts whether or not that pays."""
    method = parse_stack(name).build()[0].check_twin()
    return replace(method, **{method.width_field: 8}) if method.width_field else method


@pytest.mark.parametrize("name", METHODS)
def test_prompts_of_any_length_up_to_the_limit_are_continued_as_plain_decoding_does(short, name):
    with built(name).apply(short) as drafting:
        for length, new_tokens in ((1, 1), (1, 39), (2, 6), (39, 1), (36, 4), (30, 10)):
            request = GenerateRequest(
                prompts=[random_ids(short, length, length)], max_new_tokens=new_tokens, ignore_eos=True
            )
            ours, theirs = drafting.generate(request)[0], short.generate(request)[0]
            assert_same_text(short, request, 0, ours, theirs, f"prompt of {length} and {new_tokens} tokens")
            assert len(ours.tokens) == sum(ours.steps) == new_tokens


@pytest.mark.parametrize("name", METHODS)
def test_what_exceeds_the_context_and_an_empty_prompt_are_refused_in_one_line(short, name):
    with built(name).apply(short) as drafting:
        for length, new_tokens in ((40, 1), (36, 5), (60, 1)):
            request = GenerateRequest(prompts=[random_ids(short, length, 0)], max_new_tokens=new_tokens)
            with pytest.raises(UsageError, match=rf"{length + new_tokens} tokens .* exceed the context of 40") as error:
                drafting.generate(request)
            assert "\n" not in str(error.value)
        with pytest.raises(UsageError, match="a prompt has no tokens"):
            drafting.generate(GenerateRequest(prompts=[[1], []], max_new_tokens=1))


def test_a_draft_with_a_shorter_context_than_the_target_s_drafts_no_further_than_it_reaches(tiny):
    """Within the draft's 20 tokens chains are drafted, behind them none; the text is the plain one throughout."""
    model = DraftModel(replace(tiny, max_length=20), tiny)
    drafter = ChainDrafter(model, num_draft=4, longest=4)
    request = GenerateRequest(prompts=[random_ids(tiny, 12, 1)], max_new_tokens=16, ignore_eos=True)
    drafter.start(request.prompts[0], Sampler(request, tiny.device), 0)
    text, widths = [*request.prompts[0], *tiny.generate(request)[0].tokens], []
    for end in range(13, 26):
        tree = drafter.propose(text[:end], room=9)
        widths.append(len(tree.tokens) - 1)
        drafter.observe(Step(tree, tree.laws_NV, (0,)))
    assert widths == [4, 4, 4, 4, 3, 2, 1, *[0] * 6]
