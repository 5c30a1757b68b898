"""Dynamic tokenization: which pairs merge, what a merged context keeps, and that answers stay the same events."""

import random

import pytest
import torch

from harness.errors import Refused
from harness.kinds.checking import run_checks
from harness.kinds.stack import applied
from harness.subjects.requests import GenerateRequest, ScoreRequest
from harness.subjects.runner import Runner
from methods.pruning.kv_streaming import KvStreaming
from methods.speculative.token_recycling import TokenRecycling
from methods.tokenizer.dynamic_tokenization import DynamicTokenization, Token, may_be_one, merge_tokens

TEXT = "the cat sat on the mat; the self-made cat's na\u00efve  tail\n\n\nended there."


def tokens(text):
    return [Token(bytes([b]), (b,)) for b in text.encode()]


def joined(text):
    return b"".join(t.data for t in text)


@pytest.fixture
def requests(tiny):
    ids = tiny.tokenizer.encode
    contexts = [(256, *ids(t)) for t in (TEXT, "a cat sat on a mat with the cat", "x")]
    return [ScoreRequest(context=c, continuation=tuple(ids(a))) for c in contexts for a in (" yes it is", "n", "")]


@pytest.mark.parametrize("boundary", ["pretokens", "word", "word_hyphen", "sentence"])
def test_bytes_stay_lengths_sink_and_every_token_keeps_the_boundary(boundary):
    lengths = []
    for merges in (0, 1, 3, 10, 50, 10_000):
        (made,) = merge_tokens([tokens(TEXT)], merges, boundary)
        assert joined(made) == TEXT.encode() and [i for t in made for i in t.parts] == list(TEXT.encode())
        assert all(may_be_one(t.data, boundary) for t in made if len(t.parts) > 1)
        lengths.append(len(made))
    assert lengths == sorted(lengths, reverse=True) and lengths[0] == len(TEXT.encode()) > 2 * lengths[-1]


def test_what_may_be_one_token():
    good = {
        "pretokens": (" the", "cat", " 12", "\n\n\n", "!!"),
        "word": (" cat's", "x=1", "self-made"),
        "word_hyphen": ("self-made", " cat"),
        "sentence": ("   ", "cat's", "\t\t"),
    }
    bad = {
        "pretokens": ("cat1", "self-made", "the cat", "\n\n"),
        "word": ("  ", "the cat", "a\n", "\n\n"),
        "word_hyphen": ("cat's", "end."),
        "sentence": ("the cat", "\n\n", " a b"),
    }
    for boundary in good:
        assert all(may_be_one(t.encode(), boundary) for t in good[boundary])
        assert not any(may_be_one(t.encode(), boundary) for t in bad[boundary])
        assert may_be_one(b"a\xc3", boundary) and not may_be_one(b"a \xc3", boundary)


def test_the_most_frequent_pair_goes_first_and_ties_go_by_bytes():
    (made,) = merge_tokens([tokens("zbzbabab")], 1, "word")
    # "zb" and "ab" stand there twice.
    assert [t.data for t in made] == [b"z", b"b", b"z", b"b", b"ab", b"ab"]
    (made,) = merge_tokens([tokens("aaaaa")], 1, "word")
    assert [t.data for t in made] == [b"aa", b"aa", b"a"]


def test_special_tokens_are_never_merged():
    text = [Token(None, (256,)), *tokens("aa"), Token(None, (257,)), *tokens("a")]
    (made,) = merge_tokens([text], 99, "sentence")
    assert [t.parts for t in made] == [(256,), (97, 97), (257,), (97,)]


def test_a_repeated_text_merges_as_it_does_alone_and_order_does_not_matter():
    one, other = tokens(TEXT), tokens("the mat and the cat and the tail")
    alone = merge_tokens([one], 12, "word")[0]
    assert merge_tokens([one] * 3, 12, "word") == [alone] * 3
    both = [one, other, tokens("cat")]
    order = random.Random(0).sample(range(3), 3)
    shuffled = merge_tokens([both[i] for i in order], 12, "word")
    assert shuffled == [merge_tokens(both, 12, "word")[i] for i in order]


def test_without_merges_answers_are_bit_equal(tiny, requests):
    prompt = GenerateRequest(prompts=[requests[0].context, (256, 97)], max_new_tokens=6, ignore_eos=True)
    with applied([DynamicTokenization(merges=0)], tiny) as changed:
        assert changed.score(requests) == tiny.score(requests)
        assert [r.tokens for r in changed.generate(prompt)] == [r.tokens for r in tiny.generate(prompt)]


def test_answers_follow_the_mean_rows_of_the_merged_context(tiny, requests):
    method = DynamicTokenization(merges=30)
    context, answer = requests[0].context, requests[0].continuation
    parts = method.merge_of(tiny.tokenizer)(context)
    assert len(parts) < len(context)
    embed = tiny.model.get_input_embeddings()
    rows = torch.stack([embed.weight[list(p)].mean(0) for p in parts] + [embed.weight[i] for i in answer[:-1]])
    with torch.inference_mode():
        ids = torch.zeros(1, len(rows), dtype=torch.long)
        logits = Runner(tiny.model, tiny.new_cache).forward(ids, embeds_BTD=rows[None])[0].log_softmax(-1)
    wanted = sum(float(logits[len(parts) - 1 + k, token]) for k, token in enumerate(answer))
    with applied([method], tiny) as changed:
        assert changed.score(requests[:1])[0].logprob == pytest.approx(wanted, abs=1e-3)


def test_an_answer_depends_on_its_own_context_alone(tiny, requests):
    prompts = [requests[0].context, requests[3].context]
    with applied([DynamicTokenization(merges=20)], tiny) as changed:
        together = [s.logprob for s in changed.score(requests)]
        alone = [changed.score([r])[0].logprob for r in requests]
        assert together == pytest.approx(alone, abs=1e-4)
        rows = changed.generate(GenerateRequest(prompts=prompts, max_new_tokens=5, ignore_eos=True))
        for prompt, row in zip(prompts, rows, strict=True):
            (single,) = changed.generate(GenerateRequest(prompts=[prompt], max_new_tokens=5, ignore_eos=True))
            assert single.tokens == row.tokens and row.prompt_tokens < len(prompt)
            assert all(0 <= t < changed.tokenizer.vocab_size for t in row.tokens)


def test_processors_are_refused_only_where_something_was_merged(tiny):
    with applied([DynamicTokenization()], tiny) as changed:
        plain = GenerateRequest(prompts=[(256, 97)], max_new_tokens=2, repetition_penalty=1.1)
        assert changed.generate(plain)[0].tokens
        with pytest.raises(Refused, match="repetition penalty"):
            changed.generate(GenerateRequest(prompts=[(97, 98)], max_new_tokens=2, repetition_penalty=1.1))


def test_it_stacks_with_caches_but_not_with_drafters(tiny, requests):
    method = DynamicTokenization(merges=20)
    with applied([method, KvStreaming(keep_ratio=0.5)], tiny) as changed:
        assert all(score.logprob <= 0 for score in changed.score(requests))
    with pytest.raises(Refused, match="both replace the decoder"), applied([method, TokenRecycling()], tiny):
        pass


def test_the_probe_says_how_much_shorter_code_becomes(tiny):
    probe = DynamicTokenization(merges=20).probes()[1]
    probe.max_documents = 3
    (found,) = probe.measure(tiny)
    assert found.metric == "context_length_ratio" and 0.3 < found.value < 1


@pytest.mark.parametrize("merges", [0, 50])
def test_the_checks_of_its_kind_hold(tiny, merges):
    results = run_checks(DynamicTokenization(merges=merges), tiny)
    assert not [f"{r.name}: {r.reason}" for r in results if not r.passed]
