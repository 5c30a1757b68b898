"""Maximise information gain: pick the training examples whose labels add most concave mass.

Item i carries v_i[j] = q_i on its labels, spread along label similarity by a column-normalised P. With
phi(x) = (x + a)^b the next pick is argmax_i sum_j phi(x + v_i P)_j - phi(x)_j, or its linearisation at x.
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.method import Check, Measurement, Method, PrepareContext, Workload
from harness.subjects.requests import ScoreRequest
from harness.subjects.subject import SCORE, TRAIN, Subject
from spike_zoo.pool import label_similarity, toy_pool


def item_mass(tags_NL: Tensor, quality_N: Tensor, similar_LL: Tensor, spread: float) -> Tensor:
    """Label mass ``[N, L]`` that each item brings: q_i on its labels times the column-normalised propagation."""
    eye = torch.eye(len(similar_LL), dtype=similar_LL.dtype)
    propagate = eye * similar_LL + spread * (1 - eye) * similar_LL
    return (tags_NL * quality_N.clamp(min=0)[:, None]) @ (propagate / propagate.sum(0))


def information(mass_L: Tensor, a: float, b: float) -> Tensor:
    """sum_j (x_j + a)^b over the last dimension."""
    return (mass_L + a).pow(b).sum(-1)


def greedy(mass_NL: Tensor, budget: int, a: float, b: float, exact_gain: bool) -> list[int]:
    """Distinct indices in the order picked; ties go to the lowest."""
    state_L, open_N = torch.zeros_like(mass_NL[0]), torch.ones(len(mass_NL), dtype=torch.bool)
    picked: list[int] = []
    for _ in range(budget):
        if exact_gain:
            gain_N = information(state_L + mass_NL, a, b) - information(state_L, a, b)
        else:
            gain_N = mass_NL @ (b * (state_L + a).pow(b - 1))
        best = int(gain_N.masked_fill(~open_N, -torch.inf).argmax())
        picked.append(best)
        open_N[best] = False
        state_L = state_L + mass_NL[best]
    return picked


@method(
    id="mig",
    kind="selection",
    title="MIG: data selection by information gain on a label graph",
    paper="arXiv:2504.13835",
    guarantee="approximate",
    baseline="mig",
    needs="training",
    details={
        "a, b, spread": "reference code",
        "labels": "reconstruction: similarity of names by bigrams, not embeddings",
    },
)
class Mig(Method):
    """Picks ``budget`` texts of the pool and trains the subject's model on them."""

    trains = True
    budget: int = Field(6, ge=1, description="items picked")
    a: float = Field(1e-6, gt=0, description="offset of the concave function")
    b: float = Field(0.8, gt=0, le=1, description="exponent of the concave function")
    threshold: float = Field(0.9, ge=0, le=1, description="similarity below which labels are unrelated")
    spread: float = Field(1.0, ge=0, description="share of mass that flows to similar labels")
    exact_gain: bool = Field(False, description="true gain instead of its linearisation")
    steps: int = Field(8, ge=1, description="training updates")

    def masses(self, quality_N: Tensor) -> Tensor:
        """Label mass of the pool's items."""
        tags = [tags for _, tags in toy_pool()]
        labels = sorted({tag for own in tags for tag in own})
        tags_NL = torch.tensor([[float(label in own) for label in labels] for own in tags], dtype=torch.float64)
        return item_mass(tags_NL, quality_N, label_similarity(labels, self.threshold), self.spread)

    def quality(self, subject: Subject) -> Tensor:
        """Geometric mean probability of a text's tokens, by the subject itself, ``[N]``."""
        tokenizer = subject.text_tokenizer()
        texts = [tuple(tokenizer.encode(text)) for text, _ in toy_pool()]
        asked = [ScoreRequest(context=(tokenizer.prefix_id,), continuation=ids) for ids in texts]
        answers = zip(subject.score(asked), texts, strict=True)
        return torch.tensor([score.logprob / len(ids) for score, ids in answers], dtype=torch.float64).exp()

    def prepare(self, subject: Subject, ctx: PrepareContext):  # type: ignore[no-untyped-def]
        """Select, then train a copy; returns the chosen indices, the weights and the losses."""
        subject.require(TRAIN, self.card.id)
        subject.require(SCORE, self.card.id)
        chosen = greedy(self.masses(self.quality(subject)), self.budget, self.a, self.b, self.exact_gain)
        model, tokenizer = copy.deepcopy(subject.model).train(), subject.text_tokenizer()
        texts = [toy_pool()[i][0] for i in chosen]
        rows = [torch.tensor([tokenizer.prefix_id, *tokenizer.encode(t), tokenizer.eos_ids[0]]) for t in texts]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100).to(subject.device)
        optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
        for _ in range(self.steps):
            loss = model(input_ids=ids.clamp(min=0), labels=ids).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        return {"chosen": chosen, "state": model.state_dict(), "losses": losses}

    @contextmanager
    def apply(self, subject: Subject, artifact=None) -> Iterator[Subject]:  # type: ignore[no-untyped-def]
        """The subject with a trained copy of its model; the given model is not touched."""
        model = copy.deepcopy(subject.model).eval()
        model.load_state_dict(artifact["state"])
        yield replace(subject, model=model)

    def workloads(self, subject: Subject) -> Iterable[Workload]:
        """The greedy loop on random masses, against gains summed over the picked set each time."""
        mass_NL = torch.rand(64, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

        def slow() -> Tensor:
            picked: list[int] = []
            for _ in range(16):
                free = [i for i in range(64) if i not in picked]
                value = {i: float(information(mass_NL[[*picked, i]].sum(0), self.a, self.b)) for i in free}
                picked.append(max(free, key=lambda i: value[i]))
            return torch.tensor(picked)

        def make():  # type: ignore[no-untyped-def]
            return lambda: torch.tensor(greedy(mass_NL, 16, self.a, self.b, True))

        return (Workload(name="select", make=make, reference=lambda: slow, max_error=0.0, units={"items": 64}),)

    def training_measurements(self, artifact) -> list[Measurement]:  # type: ignore[no-untyped-def]
        """The loss of the last update."""
        return [Measurement("train_loss", artifact["losses"][-1], n=self.steps)]

    def checks(self, subject: Subject) -> Iterable[Check]:
        """The workload's two sides agree."""
        (work,) = self.workloads(subject)

        def agree() -> None:
            assert torch.equal(work.make()(), work.reference()()), "a pick is not the largest marginal gain"

        return (Check("greedy picks the largest gain", agree),)
