"""Invariants of every architecture, on a model that was trained for a few steps."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.catalog.registry import find
from harness.kinds.architecture.base import ArchitectureMethod, seeded
from harness.kinds.architecture.held_out import forced_decoding
from harness.kinds.architecture.training import descend
from harness.kinds.invariants import Interrupted, assert_close, fingerprint, float32_twin
from harness.kinds.method import Check, PrepareContext
from harness.subjects.requests import GenerateRequest, ScoreRequest
from harness.subjects.subject import Subject

LEARNING_STEPS, LEARNING_RATE = 40, 1e-2
LEARNT = 0.7
"""Part of the first loss that may be left after learning one batch by heart."""
SUM_TOLERANCE = 1e-3
"""Allowed difference of summed log-probabilities of some tokens, in nats."""


def told(logits_TV: Tensor, tokens: Sequence[int]) -> Tensor:
    """Log-probability of each token under the logits that predict it, ``[T]``."""
    wanted = torch.tensor(tokens, device=logits_TV.device)
    return logits_TV.log_softmax(-1).gather(-1, wanted[:, None])[:, 0]


@dataclass
class _Checks:
    method: ArchitectureMethod
    given: Subject

    @cached_property
    def subject(self) -> Subject:
        return float32_twin(self.given)

    def drawn(self, length: int, seed: int) -> list[int]:
        """Ids drawn evenly from the vocabulary that the architecture reads."""
        size = self.method.tokenizer_of(self.subject).vocab_size
        return torch.randint(0, size, (length,), generator=torch.Generator().manual_seed(seed)).tolist()

    def made(self, method: Any = None, seed: int = 0) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            context = PrepareContext(seed, Path(folder), lambda name: self.subject, lambda text: None)
            return (method or self.method).prepare(self.subject, context)

    @cached_property
    def artifact(self) -> Any:
        return self.made()

    @cached_property
    def texts(self) -> list[tuple[list[int], list[int]]]:
        """Prompts of unequal length, each with a continuation."""
        sizes = ((9, 11), (1, 7), (17, 4))
        return [(self.drawn(p, 2 * i), self.drawn(c, 2 * i + 1)) for i, (p, c) in enumerate(sizes)]

    @contextmanager
    def opened(self) -> Iterator[Subject]:
        with self.method.apply(self.subject, self.artifact) as trained:
            yield trained

    def seeds(self) -> None:
        """The same seed gives the same weights, bit for bit; another seed gives others."""
        first, again, other = self.artifact["weights"], self.made()["weights"], self.made(seed=1)["weights"]
        moved = [name for name in first if not torch.equal(first[name], again[name])]
        if moved:
            raise AssertionError(f"{len(moved)} of {len(first)} tensors differ between two trainings of one seed")
        if all(torch.equal(first[name], other[name]) for name in first):
            raise AssertionError("another seed gives the same weights")

    def causal(self) -> None:
        """What is predicted up to a token is the same whatever comes after it, in decoding and in scoring."""
        prompt, text = self.texts[0]
        request = ScoreRequest(context=tuple(prompt), continuation=tuple(text))
        with self.opened() as trained:
            logits_TV, _ = forced_decoding(trained, prompt, text)
            whole = trained.score([replace(request, continuation=tuple(text[:n])) for n in range(1, len(text) + 1)])
            for place in range(1, len(text)):
                other = [*text[:place], *self.drawn(len(text) - place, 90 + place)]
                changed_TV, _ = forced_decoding(trained, prompt, other)
                assert_close(f"token {place} changed", changed_TV[: place + 1], logits_TV[: place + 1])
        sums_T = torch.tensor([score.logprob for score in whole])
        error = float((sums_T - told(logits_TV, text).cumsum(0).cpu()).abs().max())
        if not error <= SUM_TOLERANCE:
            raise AssertionError(f"scores of growing continuations part from step-by-step sums by {error:.3g} nats")

    def scores(self) -> None:
        """A score is the sum that decoding gives to the same tokens; what greedy decoding writes scores as greedy."""
        requests = [ScoreRequest(context=tuple(p), continuation=tuple(c)) for p, c in self.texts]
        with self.opened() as trained:
            for size in (1, len(requests)):
                for (prompt, text), score in zip(self.texts, trained.score(requests, size), strict=True):
                    expected = float(told(forced_decoding(trained, prompt, text)[0], text).sum())
                    if not abs(score.logprob - expected) <= SUM_TOLERANCE:
                        raise AssertionError(f"score {score.logprob:.6f}, decoding gives {expected:.6f}")
            prompt = self.texts[0][0]
            row = trained.generate(GenerateRequest(prompts=[prompt], max_new_tokens=8, ignore_eos=True))[0]
            greedy = trained.score([ScoreRequest(context=tuple(prompt), continuation=tuple(row.tokens))])[0]
        if not greedy.is_greedy:
            raise AssertionError("what greedy decoding wrote is not scored as greedy")

    def batch(self) -> None:
        """Rows of a batch give the text that they give alone, greedy and sampled, and stop where they should."""
        prompts = [prompt for prompt, _ in self.texts]
        with self.opened() as trained:
            for temperature in (0.0, 0.8):
                request = GenerateRequest(
                    prompts=prompts, max_new_tokens=10, temperature=temperature, seed=3, ignore_eos=True
                )
                together = trained.generate(request)
                for index, row in enumerate(together):
                    alone = trained.generate(replace(request, prompts=[prompts[index]], row_ids=[index]))[0]
                    if row.tokens != alone.tokens:
                        raise AssertionError(f"row {index} of {len(prompts)}: {row.tokens}, alone {alone.tokens}")
                    if len(row.tokens) != 10 or sum(row.steps) != 10 or len(row.stamps_s) != 10:
                        raise AssertionError(f"10 tokens asked; steps {row.steps}, {len(row.stamps_s)} stamps")

    def end_of_text(self) -> None:
        """A row ends at the first end-of-text id that it writes."""
        request = GenerateRequest(prompts=[self.texts[0][0]], max_new_tokens=10, ignore_eos=True)
        with self.opened() as trained:
            tokens = trained.generate(request)[0].tokens
            for eos in dict.fromkeys(tokens):
                row = trained.generate(replace(request, eos_ids=(eos,), ignore_eos=False))[0]
                if row.tokens != tokens[: tokens.index(eos) + 1] or row.stop_reason != "eos":
                    raise AssertionError(f"end of text {eos}: {row.tokens} ({row.stop_reason}) out of {tokens}")

    def learns(self) -> None:
        """The loss falls on one small batch that comes again and again."""
        phrase = self.drawn(6, 11)
        ids = torch.tensor([phrase * 4, phrase[::-1] * 4], device=self.subject.device)
        rows = [(ids, torch.ones_like(ids, dtype=torch.bool))] * LEARNING_STEPS
        with torch.inference_mode(False), torch.enable_grad(), seeded(self.subject, 0):
            model = self.method.build(self.subject).float()
            rates = [(LEARNING_RATE, model.parameters())]
            losses = descend("learn", model, self.method.loss, rows, LEARNING_STEPS, rates)["losses"]
        if not losses[-1] < LEARNT * losses[0]:
            raise AssertionError(f"the loss went from {losses[0]:.4f} to {losses[-1]:.4f} in {LEARNING_STEPS} steps")

    def padding(self) -> None:
        """What stands in the padding changes no loss, and neither does its length."""
        text = self.drawn(14, 12)
        with torch.inference_mode(), seeded(self.subject, 0):
            model = self.method.build(self.subject).float().eval()
            losses = [
                float(self.method.loss(model, *self._padded(text, self.drawn(junk, 13 + junk))))
                for junk in (0, 1, 5, 9)
            ]
        if not max(losses) - min(losses) <= 1e-5 * max(losses):
            raise AssertionError(f"losses with 0, 1, 5 and 9 padded tokens: {losses}")

    def _padded(self, text: Sequence[int], junk: Sequence[int]) -> tuple[Tensor, Tensor]:
        ids = torch.tensor([[*text, *junk]], device=self.subject.device)
        return ids, torch.arange(ids.shape[1], device=ids.device)[None] < len(text)

    def plain_data(self) -> None:
        """The artifact is read back without running code, and writes the same text."""
        held = io.BytesIO()
        torch.save(self.artifact, held)
        held.seek(0)
        read = torch.load(held, weights_only=True)
        request = GenerateRequest(prompts=[self.texts[0][0]], max_new_tokens=8, ignore_eos=True)
        with self.method.apply(self.subject, read) as again, self.opened() as trained:
            if again.generate(request)[0].tokens != trained.generate(request)[0].tokens:
                raise AssertionError("an artifact that was kept and read back writes another text")

    def restored(self) -> None:
        """Training and applying, left also by an exception, leave the given model as it was."""
        model = self.subject.model
        state, weights = fingerprint(model), [p.detach().clone() for p in model.parameters()]
        self.made()
        try:
            with self.opened() as trained:
                if trained.model is model:
                    raise AssertionError("the given model itself was yielded")
                trained.generate(GenerateRequest(prompts=[[1, 2]], max_new_tokens=2, ignore_eos=True))
                raise Interrupted
        except Interrupted:
            pass
        moved = [i for i, (p, w) in enumerate(zip(model.parameters(), weights, strict=True)) if not torch.equal(p, w)]
        if moved or fingerprint(model) != state:
            raise AssertionError(f"{len(moved)} tensors of the given model changed")

    def identity(self) -> None:
        """At the card's identity, weights shared with the baseline and all logits are the baseline's, bit for bit."""
        twin = replace(self.method, **dict(self.method.card.identity or {}))
        baseline = find(self.method.card.baseline).load()
        names = {f.name for f in fields(baseline)}
        other = baseline(**{f.name: getattr(twin, f.name) for f in fields(twin) if f.name in names})
        prompt, text = self.texts[0]
        logits = []
        for method in (twin, other):
            with method.apply(self.subject, self.made(method)) as trained:
                logits.append(forced_decoding(trained, prompt, text)[0])
        assert_close("identity setting", logits[0], logits[1], 0.0)


def architecture_checks(method: ArchitectureMethod, subject: Subject) -> Iterable[Check]:
    """All checks of an architecture; one training of a few steps serves those that only read it."""
    checks = _Checks(method.check_twin(), subject)
    yield Check("same seed gives the same weights", checks.seeds)
    yield Check("a later token never changes an earlier prediction", checks.causal)
    yield Check("scores agree with teacher-forced decoding", checks.scores)
    yield Check("batch equals loop", checks.batch)
    yield Check("rows end at end of text", checks.end_of_text)
    yield Check("the loss falls on a repeated batch", checks.learns)
    yield Check("padding does not leak", checks.padding)
    yield Check("the artifact is plain data", checks.plain_data)
    yield Check("the given model is left as it was", checks.restored)
    if method.card.identity is not None:
        yield Check("identity equals baseline", checks.identity)
