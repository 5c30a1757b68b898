"""Trees, verification by enumeration, and the loop with drafters that are right, half right and wrong."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.kinds.speculative.base import Drafter, DraftTree, ancestors, chain
from harness.kinds.speculative.checks import FavourSum, chi_square
from harness.kinds.speculative.loop import SpeculativeDecoder
from harness.kinds.speculative.verify import verify
from harness.subjects.requests import GenerateRequest
from harness.subjects.sampling import Sampler

CPU = torch.device("cpu")
PROMPT = [(13 * i) % 250 for i in range(12)]


@st.composite
def trees(draw, vocabulary=4):
    """Trees of up to nine nodes; siblings may carry the same token."""
    size = draw(st.integers(1, 9))
    parents = (-1, *(draw(st.integers(0, node - 1)) for node in range(1, size)))
    tokens = tuple(draw(st.integers(0, vocabulary - 1)) for _ in range(size))
    return DraftTree(tokens, parents)


@given(tree=trees())
def test_the_mask_is_the_closure_of_the_parents(tree):
    seen = ancestors(tree.parents, CPU)
    for node in range(len(tree.tokens)):
        assert seen[node].nonzero()[:, 0].tolist() == sorted(tree.path_to(node))
        assert tree.depth[node] == len(tree.path_to(node)) - 1
        assert all(tree.parents[child] == node for child in tree.children[node])
    assert sum(map(len, tree.children)) == len(tree.tokens) - 1


def test_a_chain_is_a_tree():
    assert chain(5, [6, 7]) == DraftTree((5, 6, 7), (-1, 0, 1))
    assert chain(5, []).is_chain and chain(5, [6, 7]).is_chain
    assert not DraftTree((1, 2, 3), (-1, 0, 0)).is_chain


class Scripted(Sampler):
    """A sampler whose draws are given; it records what each draw was asked about."""

    def __init__(self, draws):
        super().__init__(GenerateRequest(prompts=[[0]], max_new_tokens=1, temperature=1.0), CPU)
        self.draws, self.asked = list(draws), []

    def pick(self, logits_V, history, row=0):
        self.asked.append((logits_V.tolist(), list(history)))
        return self.draws[len(self.asked) - 1]


@settings(max_examples=200)
@given(tree=trees(), draws=st.lists(st.integers(0, 3), min_size=9, max_size=9))
def test_what_is_emitted_is_what_was_drawn_each_at_its_own_node(tree, draws):
    """Every outcome of the draws: each is made once, from the logits of the node its history leads to, and emitted.

    So the law of the emitted tokens is the target's, whatever the tree.
    """
    logits = torch.arange(len(tree.tokens), dtype=torch.float)[:, None].expand(-1, 4)
    sampler = Scripted(draws)
    path, last = verify(tree, logits, sampler, [9, tree.tokens[0]])
    emitted = [*(tree.tokens[n] for n in path[1:]), last]
    assert emitted == draws[: len(emitted)] and len(sampler.asked) == len(emitted)
    assert path == tree.path_to(path[-1])
    for drawn, (asked, history) in enumerate(sampler.asked):
        assert asked[0] == path[drawn]
        assert history == [9, tree.tokens[0], *emitted[:drawn]]
    assert last not in [tree.tokens[child] for child in tree.children[path[-1]]]


def test_the_joint_law_of_a_verified_tree_is_the_target_s():
    """On cached logits of five tokens: 20 000 draws, first two tokens, chi-square with a fixed seed."""
    generator = torch.Generator().manual_seed(3)
    tree = DraftTree((0, 1, 2, 2, 0, 3), (-1, 0, 0, 1, 1, 2))
    first, second = torch.randn(5, generator=generator), torch.randn(5, 5, generator=generator)
    logits = torch.stack([first, *(second[tree.tokens[n]] for n in range(1, 6))])
    sampler = Sampler(GenerateRequest(prompts=[[0]], max_new_tokens=1, temperature=1.0, seed=1), CPU)
    counts = Counter()
    for _ in range(20_000):
        path, last = verify(tree, logits, sampler, [0])
        emitted = [*(tree.tokens[n] for n in path[1:]), last]
        if len(emitted) == 1:  # the run ended after one token: the next step draws the second from its own logits
            emitted.append(sampler.pick(second[emitted[0]], [0, emitted[0]]))
        counts[tuple(emitted[:2])] += 1
    law = {(a, b): float(first.softmax(-1)[a] * second[a].softmax(-1)[b]) for a in range(5) for b in range(5)}
    assert chi_square(counts, law) > 1e-3


def test_chi_square_sees_a_shifted_law():
    law = {(token,): 0.25 for token in range(4)}
    assert chi_square(Counter({(0,): 260, (1,): 245, (2,): 250, (3,): 245}), law) > 0.5
    assert chi_square(Counter({(0,): 340, (1,): 220, (2,): 220, (3,): 220}), law) < 1e-6
    assert chi_square(Counter({(0,): 999, (7,): 1}), law) == 0.0


class Oracle(Drafter):
    """Drafts what plain decoding would write: a chain of ``right`` right tokens and a wrong one, with wrong siblings.

    ``right`` follows a cycle, so that accepted runs have many lengths.
    """

    def __init__(self, text, cycle):
        self.text, self.cycle, self.steps = text, cycle, 0

    def start(self, prompt, sampler, row):
        self.begin = len(prompt)

    def propose(self, history, room):
        done, right = len(history) - self.begin, self.cycle[self.steps % len(self.cycle)]
        self.steps += 1
        truth = [*self.text[done : done + right], 251]
        tokens, parents, node = [history[-1]], [-1], 0
        for token in truth:
            tokens += [250, token, token]
            parents += [node, node, node]
            node = len(tokens) - 2
        return DraftTree(tuple(tokens), tuple(parents))

    def observe(self, step):
        pass

    def snapshot(self):
        return self.steps

    def restore(self, state):
        self.steps = state


def drafted(subject, request, cycle, text=None):
    """What the loop writes with an oracle, and what plain decoding writes."""
    plain = subject.generate(request)[0]
    long = subject.generate(replace(request, max_new_tokens=60, eos_ids=(), stop_strings=()))[0].tokens
    oracle = Oracle(text or long, cycle)
    ours = replace(subject, decoder=SpeculativeDecoder(oracle)).generate(request)[0]
    return ours, plain


CYCLES = [(0,), (1,), (3, 0, 2), (7,)]


@pytest.mark.parametrize("cycle", CYCLES)
@pytest.mark.parametrize(
    "extra",
    [{}, {"repetition_penalty": 1.3}, {"processors": (FavourSum(),)}, {"temperature": 0.9, "top_p": 0.9, "seed": 2}],
    ids=["greedy", "penalty", "processor", "sampled"],
)
def test_right_drafts_are_accepted_and_the_text_is_the_plain_one(tiny, cycle, extra):
    request = GenerateRequest(prompts=[PROMPT], max_new_tokens=30, ignore_eos=True, **extra)
    ours, plain = drafted(tiny, request, cycle)
    assert ours.tokens == plain.tokens
    wanted = [1]
    while sum(wanted) < 30:
        wanted.append(min(cycle[(len(wanted) - 1) % len(cycle)] + 1, 30 - sum(wanted)))
    assert ours.steps == wanted
    assert ours.counts["forwards"] == len(wanted)


@pytest.mark.parametrize("cycle", CYCLES)
@pytest.mark.parametrize("limit", range(1, 12))
def test_the_length_limit_cuts_a_run_anywhere(tiny, cycle, limit):
    ours, plain = drafted(tiny, GenerateRequest(prompts=[PROMPT], max_new_tokens=limit, ignore_eos=True), cycle)
    assert (ours.tokens, ours.stop_reason, sum(ours.steps)) == (plain.tokens, "length", limit)


@pytest.mark.parametrize("cycle", CYCLES)
@pytest.mark.parametrize("at", range(12))
def test_end_of_text_and_stop_strings_cut_a_run_anywhere(tiny, cycle, at):
    free = GenerateRequest(prompts=[PROMPT], max_new_tokens=30, ignore_eos=True)
    whole = tiny.generate(free)[0]
    stop = whole.text[at : at + 2]
    for request in (replace(free, ignore_eos=False, eos_ids=(whole.tokens[at],)), replace(free, stop_strings=(stop,))):
        ours, plain = drafted(tiny, request, cycle)
        assert (ours.tokens, ours.stop_reason, ours.text) == (plain.tokens, plain.stop_reason, plain.text)
        assert plain.stop_reason != "length"
        assert sum(ours.steps) == len(ours.tokens) == len(ours.stamps_s)


def test_rows_wait_for_each_other_in_the_stamps(tiny):
    """Rows are decoded one by one, and a stamp counts from the request."""
    oracle = Oracle([1] * 50, (2,))
    rows = replace(tiny, decoder=SpeculativeDecoder(oracle)).generate(
        GenerateRequest(prompts=[PROMPT, PROMPT[:3]], max_new_tokens=5, ignore_eos=True)
    )
    assert rows[1].stamps_s[0] > rows[0].stamps_s[-1]


def test_decoding_counts_what_was_forwarded(tiny):
    ours, _ = drafted(tiny, GenerateRequest(prompts=[PROMPT], max_new_tokens=9, ignore_eos=True), (1,))
    assert ours.steps == [1, 2, 2, 2, 2]
    assert ours.counts["drafted_tokens"] == 4 * 6
    assert ours.counts["tokens_forwarded"] == len(PROMPT) + 4 * 7
    assert set(ours.seconds) == {"draft", "verify", "observe", "forward", "draft_forward"}
    assert ours.seconds["verify"] > ours.seconds["forward"] > 0 == ours.seconds["draft_forward"]
