"""Parallel prompt decoding: trained prompt tokens make the frozen model guess its own next tokens.

After a token, n prompt tokens are forwarded; their outputs guess the 2nd to the (n+1)th token from there. One tree
holds the guesses of the last step (any of the ten best of each output, in any combination) and, under every node,
prompt tokens for the next. The most valuable candidates, value(r1 .. rd) = prod_i acc[i][ri], are drafted; which node
gets how many prompt tokens follows from a Markov chain over the number of outputs that the last accepted node had.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.method import Measurement
from harness.kinds.speculative import Drafter, DraftTree, SpeculativeMethod, Step
from harness.kinds.speculative.prompt_tokens import RANKS, Training, random_prompts, trained_prompts
from harness.kinds.speculative.prompt_trees import Acc, PromptTree, best_trees, trees_that_pay
from harness.kinds.speculative.widths import width_costs


def unmeasured_acc(num_prompts: int) -> Acc:
    """``acc[d][r]`` where nothing was measured: halving with every depth and every rank."""
    return tuple(tuple(0.5 ** (depth + rank + 1) for rank in range(RANKS)) for depth in range(num_prompts))


class PromptDrafter(Drafter):
    """Fills a tree with the guesses of the last step; ``trees[k]`` serves where ``k`` prompt outputs are at hand."""

    def __init__(self, prompts_ND: Tensor, trees: Sequence[PromptTree]) -> None:
        self.prompts_ND, self.trees = prompts_ND, trees
        self.start(())

    def start(self, prompt: Sequence[int], sampler: Any = None, row: int = 0) -> None:
        """A new text: no guesses yet."""
        self.guesses: list[list[int]] = []

    def propose(self, history: Sequence[int], room: int) -> DraftTree:
        """The candidates of this state's tree, then its prompt tokens."""
        tree = self.trees[len(self.guesses)]
        # Guessing further ahead than the request goes is wasted, and might leave the model's context.
        if room <= 2 * len(self.prompts_ND):
            tree = tree.within(room)
        self.tree = tree
        drafted = (self.guesses[len(path) - 1][path[-1]] for path in tree.paths[1:])
        soft_MD = self.prompts_ND if tree.prompt_tokens else None
        return DraftTree((history[-1], *drafted, *tree.prompt_tokens), tree.parents, soft_MD=soft_MD)

    def observe(self, step: Step) -> None:
        """What the prompt outputs under the last accepted node rank highest is guessed next."""
        # A plain step in between forwarded no prompt tokens and leaves nothing to guess from.
        nodes = range(0) if step.tree.soft_MD is None else self.tree.chain_under(step.path[-1])
        self.guesses = step.logits_NV[nodes.start : nodes.stop].float().topk(RANKS, dim=-1).indices.tolist()


@method(
    id="ppd",
    kind="speculative",
    title="Hardware-Aware Parallel Prompt Decoding",
    paper="arXiv:2405.18628",
    guarantee="exact",
    baseline="ar",
    needs="light training",
    claims=[
        {
            "metric": "speedup_total",
            "value": 2.49,
            "against": "autoregressive decoding",
            "on": "MobileLlama to Vicuna-13B, several benchmarks (up to; abstract)",
        },
        {
            "metric": "speedup_total",
            "value": 1.22,
            "against": "speculative decoding alone",
            "on": "added to a draft model (up to; abstract); not offered here",
        },
    ],
    details={
        "training": "reference code: KL with weights 0.8^(i-1), AdamW, 1e-2, cosine, one embedding a prompt token",
        "training data": "own: the model's greedy text after documents and short requests, many cuts of each text",
        "texts": "own: minutes of one core; the paper trains for 16 hours on an A100",
        "trees": "reference code: products of acc; prompt chains cut where P(last accepted) x loss of worth is least",
        "worth of a state": "reconstruction: relative value of the Markov chain (policy iteration); the code takes tau",
        "max_nodes": "0, the default: the limit with most tokens for its cost on this machine; none where none pay",
        "acc": "measured on held-out text of the model; halving with depth and rank where there is no artifact",
        "first step": "reconstruction: starts without guesses; the release appends prompt tokens to the prompt",
        "verification": "token matching, exact under sampling too; the release's typical acceptance is lossy, left out",
    },
)
class Ppd(SpeculativeMethod):
    """``num_prompts`` trained embeddings, trees of ``max_nodes`` tokens, prompt tokens and root included."""

    num_prompts: int = Field(3, ge=1, le=8, description="prompt tokens, each guessing one token further")
    max_nodes: int = Field(0, ge=0, le=256, description="largest tree; 0: as many as pay, none where none do")
    texts: int = Field(512, ge=1, description="texts the embeddings are trained on")
    learning_rate: float = Field(1e-2, gt=0, description="of AdamW, falling to 0 as a cosine")

    width_field = "max_nodes"

    trains: ClassVar[bool] = True

    def prepare(self, subject, ctx):  # type: ignore[no-untyped-def]
        """Train the embeddings and measure their guesses on held-out text; the size of trees does not matter."""
        if self.max_nodes:
            return ctx.artifact_of(replace(self, max_nodes=0).signature)
        how = Training(texts=self.texts, learning_rate=self.learning_rate, seed=ctx.seed)
        return trained_prompts(subject, self.num_prompts, how)

    def training_measurements(self, artifact):  # type: ignore[no-untyped-def]
        """Updates, and the tokens generated to train and to judge."""
        return [
            Measurement(metric="updates", value=len(artifact["losses"])),
            Measurement(metric="generated_tokens", value=artifact["generated_tokens"]),
        ]

    def drafter(self, subject, artifact):  # type: ignore[no-untyped-def]
        """Trees for what was measured; without an artifact random embeddings."""
        if artifact is None:
            prompts_ND, acc = random_prompts(subject, self.num_prompts), unmeasured_acc(self.num_prompts)
        else:
            prompts_ND, acc = artifact["prompts"], tuple(map(tuple, artifact["acc"]))
        costs = width_costs(subject).after(0)
        trees = best_trees(acc, self.max_nodes) if self.max_nodes else trees_that_pay(acc, costs)
        return PromptDrafter(prompts_ND.to(subject.device, subject.dtype), trees)
