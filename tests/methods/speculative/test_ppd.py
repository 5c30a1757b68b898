"""Parallel prompt decoding: prompt tokens change the number of steps, never a token, and leave nothing in the cache."""

from dataclasses import replace
from itertools import accumulate

import pytest
import torch

from harness.kinds.method import PrepareContext
from harness.kinds.speculative import Step, chain
from harness.kinds.speculative.loop import SpeculativeDecoder, input_embeddings
from harness.kinds.speculative.prompt_trees import best_trees
from harness.subjects.requests import GenerateRequest
from harness.subjects.runner import Runner
from methods.speculative.ppd import Ppd, PromptDrafter, unmeasured_acc

PROMPT = [(13 * i) % 250 for i in range(12)]
CPU = torch.device("cpu")


def request(tokens=20, prompts=(PROMPT,), **settings):
    """Rows of a fixed length."""
    return GenerateRequest(prompts=prompts, max_new_tokens=tokens, ignore_eos=True, **settings)


def noise(count=3, width=32, scale=1.0, seed=0):
    """Embeddings that mean nothing."""
    return scale * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def drafting(subject, drafter):
    """The subject with this drafter."""
    return replace(subject, decoder=SpeculativeDecoder(drafter))


class Knowing(PromptDrafter):
    """Guesses what comes: as many tokens of the true text as there were prompt outputs, at the given rank."""

    def __init__(self, trees, text, rank=0):
        super().__init__(noise(), trees)
        self.text, self.rank, self.seen = text, rank, 0

    def propose(self, history, room):
        """The guesses are right where the text is known."""
        at = len(history) - len(PROMPT)
        for place, guesses in enumerate(self.guesses):
            token = self.text[at + place] if at + place < len(self.text) else 0
            guesses[:] = [(token + 1 + rank) % 250 for rank in range(10)]
            guesses[self.rank] = token
        return super().propose(history, room)


@pytest.mark.parametrize("method", [Ppd(), Ppd(max_nodes=16, num_prompts=2)], ids=str)
def test_all_checks_hold(tiny, method):
    for check in method.checks(tiny):
        check.run()


@pytest.mark.parametrize("extra", [{}, {"temperature": 0.9, "seed": 3}], ids=["greedy", "sampled"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("limit", [1, 2, 4, 9, 40])
def test_no_embeddings_change_the_text(tiny, limit, scale, extra):
    plain = tiny.generate(request(**extra))[0].tokens
    drafter = PromptDrafter(noise(scale=scale), best_trees(unmeasured_acc(3), limit))
    row = drafting(tiny, drafter).generate(request(**extra))[0]
    assert row.tokens == plain


def test_real_tokens_do_not_see_prompt_tokens(tiny):
    """Logits of the candidates with the prompt tokens beside them and without."""
    drafter = PromptDrafter(noise(scale=5.0), best_trees(unmeasured_acc(3), 24))
    drafter.guesses = [[9 + 10 * d + r for r in range(10)] for d in range(3)]
    tree = drafter.propose([*PROMPT, 5], 99)
    real = sum(token >= 0 for token in tree.tokens)
    assert 1 < real < len(tree.tokens) == 24

    def logits(count):
        cut = replace(tree, tokens=tree.tokens[:count], parents=tree.parents[:count])
        ids = torch.tensor([cut.tokens])
        seen = torch.zeros(count, count, dtype=torch.bool)
        for node in range(count):
            seen[node, cut.path_to(node)] = True
        with torch.inference_mode():
            runner = Runner(tiny.model, tiny.new_cache)
            runner.prefill([PROMPT])
            embeds = input_embeddings(cut, ids, tiny.model)
            return runner.forward(ids, block_TM=seen, depth_M=torch.tensor(cut.depth), embeds_BTD=embeds)[0]

    assert torch.allclose(logits(len(tree.tokens))[:real], logits(real), atol=1e-4)


def test_a_tree_without_embeddings_of_its_own_costs_no_look_up(tiny):
    assert input_embeddings(chain(5, [6]), torch.tensor([[5, 6]]), tiny.model) is None


def test_negative_tokens_read_their_rows(tiny):
    tree = PromptDrafter(noise(), best_trees(unmeasured_acc(3), 5)).propose([7], 99)
    assert tree.tokens == (7, -1, -2)[: len(tree.tokens)] or tree.tokens == (7, -1, -2, -3)
    embeds = input_embeddings(tree, torch.tensor([tree.tokens]), tiny.model)[0]
    assert torch.equal(embeds[0], tiny.model.get_input_embeddings().weight[7])
    assert torch.equal(embeds[1:], noise()[: len(tree.tokens) - 1])


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("limit", [8, 16, 40])
def test_right_guesses_are_accepted_and_no_prompt_token_stays(tiny, monkeypatch, limit, rank):
    """The text is plain decoding's, and after each step the cache holds prompt and emitted tokens but the last."""
    plain = tiny.generate(request(24))[0].tokens
    held, commit = [], Runner.commit

    def counted(runner, *args, **kwargs):
        commit(runner, *args, **kwargs)
        held.append(runner.cache.layers[0].length)

    trees = best_trees(unmeasured_acc(3), limit)
    subject = drafting(tiny, Knowing(trees, plain, rank))
    monkeypatch.setattr(Runner, "commit", counted)
    row = subject.generate(request(24))[0]
    assert row.tokens == plain
    assert held == [len(PROMPT) + emitted - 1 for emitted in accumulate(row.steps)]
    # Each step emits the longest candidate of this rank that the state before left room for, and one more.
    state, wanted = 0, []
    while sum(wanted) + 1 < 24:
        tree = trees[state].within(24 - 1 - sum(wanted) - 1)
        node = max(n for n, path in enumerate(tree.paths) if set(path) <= {rank})
        wanted.append(len(tree.paths[node]) + 1)
        state = tree.chains[node]
    assert row.steps == [1, *wanted] and max(wanted) > 1


def test_outputs_under_the_last_accepted_node_are_the_next_guesses(tiny):
    drafter = PromptDrafter(noise(), best_trees(unmeasured_acc(3), 16))
    drafter.guesses = [[20 + 10 * d + r for r in range(10)] for d in range(3)]
    tree = drafter.propose([*PROMPT, 5], 99)
    logits = torch.randn(16, 258, generator=torch.Generator().manual_seed(1))
    for node in (n for n, token in enumerate(tree.tokens) if token >= 0):
        drafter.observe(Step(tree, logits, tuple(tree.path_to(node))))
        links, below = [], node
        while below is not None:
            below = next((c for c in tree.children[below] if tree.tokens[c] < 0), None)
            links += [] if below is None else [below]
        assert drafter.guesses == [logits[link].topk(10).indices.tolist() for link in links]


def test_after_a_plain_step_nothing_is_guessed(tiny):
    drafter = PromptDrafter(noise(), best_trees(unmeasured_acc(3), 16))
    drafter.observe(Step(chain(6, ()), torch.randn(1, 258), (0,)))
    assert drafter.guesses == []
    first = drafter.propose([*PROMPT, 5], 99)
    drafter.observe(Step(first, torch.randn(len(first.tokens), 258), (0,)))
    assert drafter.guesses
    drafter.observe(Step(chain(6, ()), torch.randn(1, 258), (0,)))
    assert drafter.guesses == []
    assert drafter.propose([*PROMPT, 5, 6], 99).tokens[1:] == first.tokens[1:]


def test_prompt_tokens_count_as_forwarded_but_not_as_drafted(tiny):
    row = drafting(tiny, PromptDrafter(noise(), best_trees(unmeasured_acc(3), 16))).generate(request())[0]
    assert 0 < row.counts["drafted_tokens"] < row.counts["tokens_forwarded"] - len(PROMPT) - len(row.steps)


def test_training_does_not_depend_on_the_size_of_trees(tiny, tmp_path):
    asked = []
    ctx = PrepareContext(
        seed=0, folder=tmp_path, load_subject=None, artifact_of=lambda text: asked.append(text) or "it"
    )
    assert Ppd(max_nodes=16, texts=8).prepare(tiny, ctx) == "it" and asked == ["ppd@texts=8"]


def test_what_was_trained_is_used(tiny, tmp_path):
    ctx = PrepareContext(seed=0, folder=tmp_path, load_subject=None, artifact_of=None)
    method = Ppd(texts=4)
    artifact = method.prepare(tiny, ctx)
    assert {m.metric: m.value for m in method.training_measurements(artifact)}["updates"] == 2
    artifact["acc"] = [list(row) for row in unmeasured_acc(3)]
    sized = Ppd(texts=4, max_nodes=16)
    with sized.apply(tiny, artifact) as decoding:
        drafter = decoding.decoder.drafter
        assert torch.equal(drafter.prompts_ND, artifact["prompts"])
        assert drafter.trees == best_trees(unmeasured_acc(3), 16)
        assert decoding.generate(request())[0].tokens == tiny.generate(request())[0].tokens


def test_where_no_guess_was_right_decoding_is_plain(tiny):
    artifact = {"prompts": noise(), "acc": [[0.0] * 10] * 3}
    with Ppd().apply(tiny, artifact) as decoding:
        row = decoding.generate(request())[0]
    assert row.counts["tokens_forwarded"] == len(PROMPT) + 19 and row.tokens == tiny.generate(request())[0].tokens


def test_prompt_tokens_stay_within_the_context(tiny):
    """Up to the last token of the context no position beyond it is forwarded."""
    short = replace(tiny, max_length=40)
    drafter, deepest = PromptDrafter(noise(), best_trees(unmeasured_acc(3), 40)), []
    propose = drafter.propose

    def watched(history, room):
        tree = propose(history, room)
        deepest.append(len(history) - 1 + max(tree.depth))
        return tree

    drafter.propose = watched
    drafting(short, drafter).generate(request(40 - len(PROMPT)))
    assert max(deepest) < 40
