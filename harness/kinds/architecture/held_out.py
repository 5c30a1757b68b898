"""What a trained model makes of text that it was not trained on, asked through its own decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.kinds.method import Measurement
from harness.subjects.requests import GenerateRequest, Generation
from harness.subjects.subject import Subject
from harness.toolkit.rows import windows

ROWS = 16
COUNTS = ("tokens_per_segment", "kv_slots_per_token")
"""Counts that a decoder may keep of its own."""


class Recorder:
    """A logits processor that changes nothing and keeps what it is shown."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The same scores ``[1, V]``."""
        self.seen.append(scores[0].float().clone())
        return scores


def forced_decoding(subject: Subject, prompt: Sequence[int], forced: Sequence[int]) -> tuple[Tensor, Generation]:
    """Logits ``[T, V]`` from which the subject's decoder would pick each of the forced tokens, and its record."""
    recorder = Recorder()
    request = GenerateRequest(
        prompts=[list(prompt)],
        max_new_tokens=len(forced),
        forced=[list(forced)],
        ignore_eos=True,
        processors=(recorder,),
    )
    row = subject.generate(request)[0]
    return torch.stack(recorder.seen), row


@dataclass
class HeldOut:
    """Teacher-forced decoding of rows of the corpus's test split; a quarter of each row is the prompt."""

    corpus: str
    length: int
    name: str = "held_out"

    def measure(self, subject: Subject) -> list[Measurement]:
        """Share of tokens whose best guess is right, bits per byte, and the decoder's counts."""
        tokenizer = subject.text_tokenizer()
        ids_NT, _ = windows(tokenizer, self.corpus, "test", ROWS, self.length, 0)
        right, tokens, nats, size = 0, 0, 0.0, 0
        rows: list[Generation] = []
        for ids in ids_NT.tolist():
            prompt, text = ids[: self.length // 4], ids[self.length // 4 :]
            logits_TV, row = forced_decoding(subject, prompt, text)
            wanted_T = torch.tensor(text, device=logits_TV.device)
            right += int((logits_TV.argmax(-1) == wanted_T).sum())
            nats -= float(logits_TV.log_softmax(-1).gather(-1, wanted_T[:, None]).sum())
            size += sum(len(tokenizer.token_bytes(token) or b"") for token in text)
            tokens += len(text)
            rows.append(row)
        found = [
            Measurement("held_out_accuracy", right / tokens, n=tokens),
            Measurement("bits_per_byte", nats / math.log(2) / max(1, size), n=len(rows)),
        ]
        for name in COUNTS:
            if all(name in row.counts for row in rows):
                found.append(Measurement(name, sum(row.counts[name] for row in rows) / len(rows), n=len(rows)))
        return found
