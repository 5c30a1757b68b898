"""A pool of labelled texts, and how alike two labels are by their letters."""

import torch
from torch import Tensor

FAMILIES = {"sum": "{} plus {} is", "sums": "add {} and {}:", "colour": "paint {} over {}", "verb": "he {}s, she {}s"}


def toy_pool() -> list[tuple[str, tuple[str, ...]]]:
    """Texts with their labels; the families are skewed."""
    words, sizes = ["one", "two", "red", "run", "blue", "sit"], dict(zip(FAMILIES, (6, 3, 2, 1), strict=True))
    return [
        (FAMILIES[f].format(words[i], words[-1 - i]), (f, "number") if f[:3] == "sum" else (f,))
        for f in FAMILIES
        for i in range(sizes[f])
    ]


def label_similarity(labels: list[str], threshold: float) -> Tensor:
    """Cosine of character-bigram counts ``[L, L]``, zero below the threshold and 1 on the diagonal."""
    grams = [[f"^{name}$"[i : i + 2] for i in range(len(name) + 1)] for name in labels]
    known = sorted({g for own in grams for g in own})
    counts = torch.tensor([[own.count(g) for g in known] for own in grams], dtype=torch.float64)
    unit = torch.nn.functional.normalize(counts, dim=-1)
    similar = unit @ unit.T
    return similar.where(similar >= threshold, 0.0).fill_diagonal_(1.0)
