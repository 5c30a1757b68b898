"""Sequential Monte Carlo under a constraint: what a kind ``decoding`` would hold for its methods."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from harness.subjects.decode import StopRule, finish_counts
from harness.subjects.requests import GenerateRequest, Generation
from harness.subjects.runner import Runner
from harness.subjects.sampling import Sampler
from harness.subjects.subject import Subject

StepRule = Callable[[Sequence[int], Sequence[float], Callable[[int], bool]], tuple[int, float]]
"""From the tokens in the order drawn, their probabilities and a predicate to a token and its weight."""


class SetConstraint:
    """Byte prefixes of the allowed strings; end-of-text passes after a whole one. No strings: all is allowed."""

    def __init__(self, choices: Sequence[str], subject: Subject, eos: frozenset[int]) -> None:
        self.whole = {choice.encode() for choice in choices}
        self.prefixes = {text[:n] for text in self.whole for n in range(len(text) + 1)}
        self.tokenizer, self.eos, self.calls = subject.text_tokenizer(), eos, 0

    def accepts(self, prefix: bytes, token: int) -> bool:
        """Whether the token may follow the prefix."""
        self.calls += 1
        if not self.whole:
            return True
        return prefix in self.whole if token in self.eos else self.advance(prefix, token) in self.prefixes

    def advance(self, prefix: bytes, token: int) -> bytes | None:
        """The longer prefix; None after a special id."""
        piece = self.tokenizer.token_bytes(token)
        return prefix + piece if piece is not None else (prefix if not self.whole else None)


@dataclass
class Particle:
    """One weighted continuation."""

    row: Generation
    prefix: bytes = b""
    log_weight: float = 0.0
    done: bool = False


@dataclass
class SmcDecoder:
    """Sequential Monte Carlo over one prompt's particles, which share its prefill."""

    choices: tuple[str, ...]
    particles: int
    resample_below: float
    step: StepRule

    def snapshot(self) -> None:
        """Nothing outlives a request."""

    def restore(self, state: object) -> None:
        """Nothing to go back to."""

    def generate(self, subject: Subject, request: GenerateRequest) -> list[Generation]:
        """One particle of each prompt, drawn by weight; no tokens and ``dead`` where none satisfies the constraint."""
        return [self._one(subject, request, row) for row in range(len(request.prompts))]

    def _one(self, subject: Subject, request: GenerateRequest, index: int) -> Generation:
        crowd, constraint, runner, rng = self.population(subject, request, index)
        weights = torch.tensor([x.log_weight for x in crowd], dtype=torch.float64)
        log_ml = float(weights.logsumexp(0)) - math.log(len(crowd))
        if math.isinf(log_ml):
            row = Generation(prompt_tokens=len(request.prompts[index]), stop_reason="dead")
        else:
            row = crowd[int(torch.multinomial((weights - weights.max()).exp(), 1, generator=rng))].row
        if len(crowd) > 1:
            row.stamps_s = row.stamps_s and [row.stamps_s[-1]] * len(row.tokens)
        finish_counts(row, runner)
        row.counts |= {"constraint_calls": constraint.calls, "log_ml": log_ml}
        return row

    def population(self, subject, request, index):  # type: ignore[no-untyped-def]
        """All particles of one prompt, with the constraint, the runner and the stream of random numbers used."""
        prompt, start = list(request.prompts[index]), time.perf_counter()
        rows = request.row_ids if request.row_ids is not None else range(len(request.prompts))
        rng = torch.Generator().manual_seed(request.seed * 1_000_003 + rows[index])
        sampler = Sampler(request, subject.device)
        rule = StopRule(replace(request, ignore_eos=request.ignore_eos and not self.choices), subject.tokenizer)
        constraint = SetConstraint(self.choices, subject, rule.eos)
        runner = Runner(subject.model, subject.new_cache)
        logits_PV = runner.prefill([prompt]).expand(self.particles, -1)
        runner.select_rows(torch.zeros(self.particles, dtype=torch.long, device=subject.device))
        crowd = [Particle(Generation(prompt_tokens=len(prompt))) for _ in range(self.particles)]
        while True:
            for particle, logits_V in zip(crowd, logits_PV, strict=True):
                if not particle.done:
                    scores_V = sampler.processed(logits_V, prompt + particle.row.tokens).double().log_softmax(-1).cpu()
                    self._extend(particle, scores_V, constraint, rule, rng, sampler.greedy, start)
            if all(particle.done for particle in crowd):
                return crowd, constraint, runner, rng
            crowd = self._resample(crowd, runner, rng)
            tokens = [[(particle.row.tokens or [0])[-1]] for particle in crowd]
            logits_PV = runner.forward(torch.tensor(tokens, device=subject.device))[:, -1]
            runner.commit()

    def _extend(self, particle, logp_V, constraint, rule, rng, greedy, start) -> None:  # type: ignore[no-untyped-def]
        def accepts(token: int) -> bool:
            return constraint.accepts(particle.prefix, token)

        if self.choices and len(particle.row.tokens) == rule.limit - 1:
            # The last place belongs to end-of-text: its probability is a factor of the weight.
            token = min(rule.eos)
            weight = float(logp_V[token].exp()) * accepts(token)
        else:
            noise_V = torch.rand(len(logp_V), dtype=torch.float64, generator=rng).log().neg().log()
            order = (logp_V if greedy else logp_V - noise_V).argsort(descending=True, stable=True)
            order = order[logp_V[order] > -math.inf].tolist()
            token, weight = self.step(order, logp_V.exp().tolist(), accepts)
            weight = float(weight > 0) if greedy else weight
        particle.log_weight += math.log(weight) if weight > 0 else -math.inf
        if weight > 0:
            particle.prefix = constraint.advance(particle.prefix, token) or particle.prefix
            particle.done = rule.extend(particle.row, [token], time.perf_counter() - start)
        else:
            particle.done = True

    def _resample(self, crowd: list[Particle], runner: Runner, rng: torch.Generator) -> list[Particle]:
        log_P = torch.tensor([x.log_weight for x in crowd], dtype=torch.float64)
        if bool(log_P.isneginf().all()):
            return crowd
        share_P = log_P.softmax(0)
        if 1 / float(share_P.square().sum()) >= self.resample_below * len(crowd):
            return crowd
        rows = torch.multinomial(share_P, len(crowd), replacement=True, generator=rng)
        runner.select_rows(rows.to(runner.device))
        mean = float(log_P.logsumexp(0)) - math.log(len(crowd))
        return [replace(copy.deepcopy(crowd[row]), log_weight=mean) for row in rows.tolist()]
