"""Made-up views of a layer for the tests of pruning methods."""

import pytest
import torch

from harness.kinds.method import PrepareContext
from harness.subjects.views import LayerView


@pytest.fixture
def make_view():
    """A view of two rows, four query heads over two key heads, with padding on the left."""

    def make(slots=40, padding=(0, 0), seed=0, layer=0, num_layers=4, queries=None):
        generator = torch.Generator().manual_seed(seed)
        queries_BHTD = torch.randn(2, 4, slots if queries is None else queries, 8, generator=generator)
        keys, values = (torch.randn(2, 2, slots, 8, generator=generator) for _ in range(2))
        valid = torch.arange(slots)[None] >= torch.tensor(padding)[:, None]
        position = (valid.cumsum(1) - 1).clamp(min=0)[:, None]
        mask = valid[:, None] if max(padding) else None
        lengths = valid.sum(1)
        return LayerView(
            layer, num_layers, "prefill", queries_BHTD, keys, values, mask, position, lengths, lengths, 8**-0.5, {}
        )

    return make


@pytest.fixture
def kept_slots():
    """The slots that a method keeps, by row and head."""

    def kept(method, view):
        answer = method.evict(view)
        if answer is None:
            return None
        index, valid = answer
        used = torch.ones_like(index, dtype=torch.bool) if valid is None else valid.expand_as(index)
        return [[i[u].tolist() for i, u in zip(*pair, strict=True)] for pair in zip(index, used, strict=True)]

    return kept


@pytest.fixture
def calibration(tiny, tmp_path):
    """Fields that make a calibration short, and the context it is prepared in."""
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"Paragraph {n} tells of {n * n} things and no more." * 4 for n in range(400)))
    context = PrepareContext(seed=0, folder=tmp_path, load_subject=lambda name: tiny, artifact_of=lambda name: None)
    return {"corpus": str(text), "texts": 2, "text_tokens": 40, "steps": 3}, context
