"""Where a chunking model begins its chunks, on text that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from harness.kinds.method import Measurement
from harness.subjects.subject import Subject
from harness.toolkit.corpora import documents

TEST_BYTES = 20_000
BLANKS = frozenset(b" \t\n\r")


def f1(found: set[int], wanted: set[int]) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is right."""
    right = len(found & wanted)
    return 2 * right / (len(found) + len(wanted)) if right else 0.0


@dataclass
class Chunks:
    """Bytes a chunk of each stage, and how far the first stage's chunks begin at, or after, the blanks of the text."""

    corpus: str
    name: str = "chunks"

    def measure(self, subject: Subject) -> list[Measurement]:
        """``bytes_per_chunk`` a stage, and ``boundary_f1``; a document's first byte, always a boundary, is left out."""
        tokenizer = subject.text_tokenizer()
        found, blanks, starts, size, chunks, place = set[int](), set[int](), set[int](), 0, list[int](), 0
        for text in documents(self.corpus, "test", TEST_BYTES):
            ids = [tokenizer.prefix_id, *tokenizer.encode(text)][: subject.max_length]
            ids_1T = torch.tensor([ids], device=subject.device)
            with torch.inference_mode():
                routes = subject.model.routed(ids_1T, torch.ones_like(ids_1T, dtype=torch.bool))[1]
            counts = [int(route.b_BT.sum()) for route in routes]
            chunks = [a + b for a, b in zip(chunks or [0] * len(counts), counts, strict=True)]
            first = routes[0].b_BT[0].tolist()
            found |= {place + i for i in range(2, len(ids)) if first[i]}
            blanks |= {place + i for i in range(2, len(ids)) if ids[i] in BLANKS}
            starts |= {place + i for i in range(2, len(ids)) if ids[i - 1] in BLANKS}
            size, place = size + len(ids) - 1, place + len(ids)
        phases = [""] if len(chunks) == 1 else [f"stage {i + 1}" for i in range(len(chunks))]
        return [
            *(Measurement("bytes_per_chunk", size / n, n=n, phase=p) for n, p in zip(chunks, phases, strict=True)),
            Measurement("boundary_f1", f1(found, blanks), n=len(blanks), phase="at blanks"),
            Measurement("boundary_f1", f1(found, starts), n=len(starts), phase="after blanks"),
        ]
