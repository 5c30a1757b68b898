"""Roads to Rome: a small model writes, and a router hands the tokens that matter to a large one.

The small model proposes s = argmax p_small. A router g reads its last state h, the embedding of s and its largest
logits; where sigmoid(g(h, e(s), top)) >= threshold the large model reads all that it has not read yet and writes the
token instead. The small model goes on from whatever was written. The router learns where the two differ and it
matters: the large model finishes the sentence from either token, and a judge compares.
"""

from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from pydantic import Field

from harness.catalog import method
from harness.kinds.decoding import DecodingMethod, Strategy
from harness.kinds.decoding.checks import plain_text_check
from harness.kinds.decoding.divergence import features_of, labelled_tokens, overlap_judge
from harness.kinds.decoding.router import RouterTraining, fit_router, opened_router
from harness.kinds.decoding.routes import entropy, oracle, random
from harness.kinds.method import Measurement
from harness.toolkit.small_models import is_made, open_small
from harness.toolkit.students import teacher_texts

HELD_OUT = 5
"""One text in so many ends the training and sets the threshold."""
UNTRAINED = {"entropy": (entropy, 0.45), "random": (random, 0.5), "oracle": (oracle, 0.5)}


def neural(small, router, text, seen, large):  # type: ignore[no-untyped-def]
    """The router's probability that the small model's best token matters."""
    best_N = torch.tensor([text.best(seen.logits_BV[0])], device=seen.logits_BV.device)
    features = features_of(small, seen.hidden_BD, seen.logits_BV, best_N, router.top.in_features)
    text.charge(sum(p.numel() for p in router.parameters()))
    return float(router(features).sigmoid())


class TokenRouting(Strategy):
    """The small model writes; the large one where the score reaches the threshold."""

    def __init__(self, small, score, threshold):  # type: ignore[no-untyped-def]
        self.small, self.score, self.threshold = small, score, threshold

    def write(self, text):  # type: ignore[no-untyped-def]
        """One draw a token, from the law of the model that writes it."""
        small, large, routed, done = text.open(self.small), text.open(text.subject), 0, False
        while not done:
            seen = small.read(text.history)
            critical = self.score(text, seen, large) >= self.threshold
            writer = large.read(text.history) if critical else seen
            done = text.emit(text.pick(writer.logits_BV[0]))
            routed += critical
        text.row.counts["large_model_share"] = routed / len(text.row.tokens)


@method(
    id="r2r",
    kind="decoding",
    title="R2R: Efficiently Navigating Divergent Reasoning Paths with Small-Large Model Token Routing",
    paper="arXiv:2505.21600",
    guarantee="approximate",
    baseline="ar",
    needs="minutes of training",
    identity={"threshold": 0.0},
    claims=[
        {
            "metric": "speedup_total",
            "value": 2.8,
            "against": "R1-32B at comparable accuracy",
            "on": "R1-1.5B with R1-32B, mathematics, code and question answering (abstract)",
        }
    ],
    details={
        "router": "reference code: inputs, layers, loss; own: narrower and a higher rate, as there is less data",
        "threshold": "reference code: fewest false alarms at this recall, held out, else 0.5; for entropy 0.45 nats",
        "judge": "own: numbers and words of the two sentences; the paper asks a large model",
        "best token": "own: the router reads it also under sampling, as its labels are made of best tokens",
        "texts": "own: the large model's greedy answers to generated requests",
        "small": "own: a student distilled from the large model; the paper's pair was trained by others",
        "batch": "own: rows one by one",
    },
)
class R2R(DecodingMethod):
    """``small`` writes, the subject's model writes critical tokens."""

    small: str = Field("distillspec", description="layers:N, noised:SHARE, a method that makes students, or a name")
    router: Literal["neural", "entropy", "random", "oracle"] = Field("neural", description="who decides")
    threshold: float | None = Field(None, description="score from which the large model writes; none: the router's own")
    recall: float = Field(0.95, gt=0, le=1, description="share of critical tokens the neural threshold must find")
    texts: int = Field(64, ge=5, description="answers of the large model that are labelled, a fifth to choose by")
    new_tokens: int = Field(96, ge=2, description="longest answer")
    branch_tokens: int = Field(16, ge=1, description="longest continuation that is judged")
    judge_overlap: float = Field(0.5, ge=0, le=1, description="F1 of words below which two sentences differ")
    top_logits: int = Field(100, ge=1, description="largest logits that the router reads")
    hidden: int = Field(128, ge=1, description="width of the router")
    blocks: int = Field(2, ge=0, description="residual blocks of the router")
    learning_rate: float = Field(1e-3, gt=0, description="of AdamW")
    epochs: int = Field(50, ge=1, description="most passes over the labelled tokens")

    @property
    def trains(self):  # type: ignore[no-untyped-def,override]
        """A neural router, and a small model that a method makes."""
        return self.router == "neural" or is_made(self.small)

    def check_twin(self):  # type: ignore[no-untyped-def]
        """With routes and a small model that need no training, and both models writing."""
        return replace(self, small="noised:0.1", router="random") if self.trains else self

    def prepare(self, subject, ctx):  # type: ignore[no-untyped-def]
        """Let the large model answer, label its tokens, train the router and choose its threshold."""
        made = ctx.artifact_of(self.small) if is_made(self.small) else None
        if self.router != "neural":
            return {"small": made}
        small, judge = open_small(self.small, subject, made), overlap_judge(self.judge_overlap)
        texts = teacher_texts(subject, self.texts, self.new_tokens, ctx.seed, temperature=0.0)
        held_out, train = texts[::HELD_OUT], [t for i, t in enumerate(texts) if i % HELD_OUT]
        label = partial(labelled_tokens, subject, small, judge=judge, branch_tokens=self.branch_tokens)
        parts = [label(part, top=self.top_logits) for part in (train, held_out)]
        how = RouterTraining(learning_rate=self.learning_rate, epochs=self.epochs, recall=self.recall, seed=ctx.seed)
        return {"small": made, **fit_router(self.hidden, self.blocks, *parts, how)}

    def training_measurements(self, artifact):  # type: ignore[no-untyped-def]
        """What the labels were, and how the router does on held-out texts."""
        figures = artifact.get("figures", {})
        return [Measurement(name, value, n=int(artifact["tokens"])) for name, value in figures.items()]

    def strategy(self, subject, artifact):  # type: ignore[no-untyped-def]
        """The small model, who decides, and from which score."""
        held = artifact or {"small": None}
        small = open_small(self.small, subject, held["small"])
        if self.router == "neural":
            score, own = partial(neural, small, opened_router(held, subject.device)), held["threshold"]
        else:
            score, own = UNTRAINED[self.router]
        return TokenRouting(small, score, own if self.threshold is None else self.threshold)

    def checks(self, subject):  # type: ignore[no-untyped-def]
        """The kind's, and the two ends of routing."""
        yield from super().checks(subject)
        twin = self.check_twin()
        never, right = replace(twin, router="random", threshold=2.0), replace(twin, router="oracle", threshold=0.5)
        yield plain_text_check("never routed it is the small model", never, subject, partial(open_small, twin.small))
        yield plain_text_check("the oracle writes the large model's text", right, subject)
