"""Prompt lookup: the draft is what followed the last n-gram where it occurred before.

The longest n-gram of the text's end (max_ngram .. 1 tokens) is searched in the text so far; the tokens after its
latest earlier occurrence are drafted as a chain. No match: plain decoding for that step.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from harness.catalog import method
from harness.kinds.speculative import Drafter, DraftTree, SpeculativeMethod, chain
from harness.kinds.speculative.ngrams import TextNgrams
from harness.kinds.speculative.pace import Acceptance


class NgramIndex(Drafter):
    """Where each n-gram of the text last ended, kept up to date as the text grows."""

    free = True

    def __init__(self, max_ngram: int, num_draft: int, longest: int = 1) -> None:
        self.max_ngram, self.num_draft, self.longest = max_ngram, num_draft, longest
        self.acceptance = Acceptance()
        self.start(())

    def start(self, prompt: Sequence[int], sampler: Any = None, row: int = 0) -> None:
        """Forget the last text."""
        self.ngrams = TextNgrams(self.max_ngram)

    def propose(self, history: Sequence[int], room: int) -> DraftTree:
        """The continuation of the longest earlier match, at most ``num_draft`` tokens; 0: as many as pay."""
        length = min(self.num_draft or self.acceptance.length(self.longest, self.costs), max(room, 0))
        self.ngrams.index(history)
        match = self.ngrams.match(history)
        found = history[match[1] : match[1] + length] if match else ()
        return replace(chain(history[-1], found), promise=self.acceptance.expected(len(found)))

    def judge(self, tree: DraftTree, node: int, right: int | None) -> None:
        """Count the token at this place of the chain."""
        if tree.children[node]:
            self.acceptance.count(node, right is not None)

    def snapshot(self) -> Acceptance:
        """What was accepted of late; the text itself does not outlive its request."""
        return self.acceptance.snapshot()

    def restore(self, state: Acceptance) -> None:
        """Go back to a snapshot."""
        self.acceptance.restore(state)


@method(
    id="prompt_lookup",
    kind="speculative",
    title="Prompt lookup decoding",
    paper="https://github.com/apoorvumang/prompt-lookup-decoding",
    guarantee="exact",
    baseline="ar",
    claims=[
        {
            "metric": "speedup_total",
            "value": 1.64,
            "against": "autoregressive decoding",
            "on": "Spec-Bench, Vicuna-7B, RTX 3090, by the authors of Spec-Bench",
        }
    ],
    details={
        "num_draft": "10 as first released; 0, the default: the length with most expected tokens for its cost here",
        "match": "latest earlier occurrence of the longest n-gram",
        "verification": "token matching, exact under sampling too",
    },
)
class PromptLookup(SpeculativeMethod):
    """N-grams up to ``max_ngram`` tokens, drafts of ``num_draft`` tokens."""

    max_ngram: int = Field(3, ge=1, description="longest n-gram that is looked up")
    num_draft: int = Field(0, ge=0, description="drafted tokens a step; 0: as many as pay, none where none do")
    longest: int = Field(15, ge=1, description="longest draft where the length is chosen")

    width_field = "num_draft"

    def drafter(self, subject, artifact):  # type: ignore[no-untyped-def]
        """The index of the text so far."""
        return NgramIndex(self.max_ngram, self.num_draft, self.longest)
