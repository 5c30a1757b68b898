"""Plain autoregressive decoding: the default decoder, and the yardstick of all others (method ``ar``)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from harness.subjects.requests import GenerateRequest, Generation
from harness.subjects.runner import Runner
from harness.subjects.sampling import Sampler
from harness.subjects.tokenizer import Tokenizer

if TYPE_CHECKING:
    from harness.subjects.subject import Subject


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that a stamp means that the tokens are there."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class StopRule:
    """Decides after each token whether a row is finished: end-of-text, a stop string, or the length."""

    def __init__(self, request: GenerateRequest, tokenizer: Tokenizer | None) -> None:
        self.limit = request.max_new_tokens
        eos = request.eos_ids if request.eos_ids is not None else (tokenizer.eos_ids if tokenizer else ())
        self.eos = frozenset() if request.ignore_eos else frozenset(eos)
        self.strings = tuple(s for s in request.stop_strings if s)
        self.tokenizer = tokenizer
        # A token is at least one byte, so a stop string cannot reach further back than its bytes plus a cut character.
        self.reach = max((len(s.encode()) for s in self.strings), default=0) + 4

    def reason(self, tokens: Sequence[int]) -> str | None:
        """Why the row ends after these tokens; None to go on."""
        if tokens[-1] in self.eos:
            return "eos"
        if self.strings and self.tokenizer is not None:
            tail = self.tokenizer.decode(tokens[-self.reach :])
            if any(s in tail for s in self.strings):
                return "stop"
        return "length" if len(tokens) >= self.limit else None

    def text(self, tokens: Sequence[int]) -> str:
        """The text of the tokens, cut before the first stop string."""
        if self.tokenizer is None:
            return ""
        text = self.tokenizer.decode([t for t in tokens if t not in self.eos])
        cuts = [text.find(s) for s in self.strings if s in text]
        return text[: min(cuts)] if cuts else text

    def extend(self, row: Generation, emitted: Sequence[int], stamp_s: float) -> bool:
        """Append what one step emitted, cut at the end of the row; returns whether the row is finished."""
        taken = 0
        reason = None
        for token in emitted:
            row.tokens.append(token)
            row.stamps_s.append(stamp_s)
            taken += 1
            reason = self.reason(row.tokens)
            if reason:
                break
        row.steps.append(taken)
        if reason:
            row.stop_reason = reason
            row.text = self.text(row.tokens)
        return reason is not None


def finish_counts(row: Generation, runner: Runner) -> None:
    """Copy a run's counts into a row; rows of one batch share its forwards and bytes evenly, and its forwards' time."""
    cache = runner.cache
    rows = len(cache.seen_B) if cache.seen_B is not None else 1
    seen = float(cache.seen_B.float().mean()) if cache.seen_B is not None else 0.0
    kept = cache.kept_slots() / seen if seen else 1.0
    row.counts |= {
        "forwards": runner.counts.forwards / rows,
        "tokens_forwarded": runner.counts.tokens / rows,
        "kv_bytes_held": cache.held_bytes() / rows,
        "kv_bytes_allocated": cache.allocated_bytes() / rows,
        "kv_kept_fraction": kept,
        "kv_read_fraction": kept * cache.read / cache.reads if cache.reads else kept,
        "kv_scored_fraction": cache.scored / max(1, cache.reads),
    }
    row.seconds["forward"] = runner.counts.forward_s


class AutoregressiveDecoder:
    """One token a forward, all rows of the batch in step."""

    def snapshot(self) -> None:
        """Nothing outlives a request."""

    def restore(self, state: object) -> None:
        """Nothing to go back to."""

    def generate(self, subject: Subject, request: GenerateRequest) -> list[Generation]:
        """Continue the prompts; finished rows ride along until the last one ends."""
        runner = Runner(subject.model, subject.new_cache)
        sampler = Sampler(request, subject.device)
        rule = StopRule(request, subject.tokenizer)
        rows = [Generation(prompt_tokens=len(p)) for p in request.prompts]
        histories = [list(p) for p in request.prompts]
        open_rows = set(range(len(rows)))
        start = time.perf_counter()
        logits_BV = runner.prefill(request.prompts)
        while True:
            picked = sampler.pick_rows(logits_BV, histories)
            synchronize(subject.device)
            now = time.perf_counter() - start
            for index in tuple(open_rows):
                histories[index].append(picked[index])
                if rule.extend(rows[index], picked[index : index + 1], now):
                    open_rows.discard(index)
            if not open_rows:
                break
            ids = torch.tensor(picked, device=subject.device)[:, None]
            logits_BV = runner.forward(ids)[:, -1]
            runner.commit()
        for row in rows:
            finish_counts(row, runner)
        return rows
