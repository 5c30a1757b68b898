"""TokenAdapt: a new token's row is mixed from its old parts (local) and from the old tokens most like it (global).

phi is a unit vector of a text in an auxiliary space. For a new token s with old parts s_1..s_m, in characters:
c_j = (softmax_j(phi(s).phi(s_j)) + len(s_j) / len(s)) / 2, w = softmax(c / tau), local = sum_j w_j E[s_j].
For its k nearest old tokens with similarities a_l: u = softmax(a / tau), those with a_l < theta set to zero and the
rest renormalised, global = sum_l u_l E[l]. The row is (1 - g) local + g global, or the one of them that exists.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.tokenizer.initialise import Initialiser, Made, Missing, mix_rows, normal_rows
from harness.kinds.tokenizer.spaces import SPACES, nearest, readable
from harness.kinds.tokenizer.trained import TrainedBpe


def local_weights(similarity_P: Tensor, lengths_P: Tensor, length: int, temperature: float) -> Tensor:
    """Weights ``[P]`` of a token's parts, from their similarities to it and their lengths in characters."""
    shares_P = lengths_P / max(1, length)
    return ((similarity_P.softmax(-1) + shares_P) / 2 / temperature).softmax(-1)


def global_weights(similarity_NK: Tensor, temperature: float, threshold: float) -> Tensor:
    """Weights ``[N, K]`` of the nearest tokens; a row of zeros where none reaches the threshold (0: off)."""
    weights_NK = (similarity_NK / temperature).softmax(-1)
    if threshold > 0:
        weights_NK = weights_NK * (similarity_NK >= threshold)
    total_N = weights_NK.sum(-1, keepdim=True)
    return torch.where(total_N > 0, weights_NK / total_N, 0.0)


@method(
    id="token_adapt",
    kind="tokenizer",
    title="TokenAdapt: embeddings from parts and neighbours",
    paper="arXiv:2505.09738",
    guarantee="approximate",
    baseline="bpe",
    needs="a trainer run of seconds for the tokenizer; none for the rows",
    claims=[
        {
            "metric": "ratio of per-token perplexities",
            "value": 48.2,
            "against": "ReTok 71.1",
            "on": "Llama-3.2-3B to a vocabulary of 81K, paper's table of v1",
        }
    ],
    details={
        "temperature": "paper: 0.6; the reference code defaults to 0.3",
        "k": "reference code: 3",
        "threshold": "off by default, as in the reference code; the paper tried 0.45 and dropped it",
        "space": "reconstruction: the release asks a large embedding model. chargram: spelling, hashed 1- to 4-grams "
        "by tf-idf and SVD; self: the model's own last hidden states, minutes for a large vocabulary",
        "unreadable tokens": "ours: cut characters and blanks, or a part that is one, get the mean of their parts",
        "text of a token": "ours: its bytes, so a leading blank counts; some tokenizers decode it away",
        "order": "ours: texts are sorted before they are compared, so the old ids do not matter",
        "renorm": "ours: made rows are scaled to the old rows' median norm, as mixing shrinks them",
        "claims": "ratios of perplexities per token do not compare tokenizers: read bits_per_byte",
    },
)
class TokenAdapt(TrainedBpe):
    """The target is a byte-level BPE, as in ``bpe``; the rows that the model lacks are mixed by similarity."""

    temperature: float = Field(0.6, gt=0, description="tau of both softmaxes")
    weight_global: float = Field(0.3, ge=0, le=1, description="g; 0 is local alone, 1 global alone")
    k: int = Field(3, ge=1, description="neighbours of the global part")
    threshold: float = Field(0.0, ge=0, le=1, description="least similarity of a neighbour; 0 is off")
    space: Literal["chargram", "self"] = Field("chargram", description="auxiliary space of the similarities")
    renorm: bool = Field(False, description="scale made rows to the median norm of the old ones")

    def initialiser(self, artifact) -> Initialiser:  # type: ignore[no-untyped-def]
        """The mix of both heuristics."""
        return self.rows

    def rows(self, missing: Missing, rows_VD: Tensor) -> Made:
        """Rows of the missing tokens; those without parts and neighbours are normal noise."""
        ids, weights = self.mixture(missing)
        made = mix_rows(rows_VD, ids, weights)
        unknown = [n for n, part in enumerate(ids) if not part]
        made[unknown] = normal_rows(rows_VD, len(unknown))
        if self.renorm:
            # One row may hold an input and an output row; both shrink by the same mixing.
            made *= rows_VD.norm(dim=-1).median() / made.norm(dim=-1, keepdim=True).clamp(min=1e-9)
        return Made(made, len(unknown))

    def mixture(self, missing: Missing) -> tuple[list[list[int]], list[list[float]]]:
        """Old ids and their weights for each missing token."""
        held = {text: i for i, token in enumerate(missing.old.tokens) if (text := readable(token))}
        names = [readable(token) for token in missing.tokens]
        texts = sorted({*held, *(name for name in names if name)})
        place = {text: n for n, text in enumerate(texts)}
        vectors_ND = SPACES[self.space](texts, missing.model, missing.old)
        keys = sorted(held)
        wanted = [n for n, name in enumerate(names) if name]
        queries_ND = vectors_ND[[place[name] for name in names if name]]
        similarity_NK, near_NK = nearest(queries_ND, vectors_ND[[place[key] for key in keys]], self.k)
        shares_NK = global_weights(similarity_NK, self.temperature, self.threshold).tolist()
        ids: list[list[int]] = [list(parts) for parts in missing.parts]
        weights = [[1 / max(1, len(parts))] * len(parts) for parts in ids]
        for row, n in enumerate(wanted):
            texts_P = [readable(missing.old.tokens[i]) for i in missing.parts[n]]
            if texts_P and not all(texts_P):
                continue
            local_P = self._local(vectors_ND, place, names[n] or "", texts_P)
            near = [held[keys[m]] for m in near_NK[row].tolist()]
            g = self.weight_global if local_P and sum(shares_NK[row]) > 0 else float(not local_P)
            pairs = [(i, (1 - g) * w) for i, w in zip(ids[n], local_P, strict=True)]
            pairs += [(i, g * u) for i, u in zip(near, shares_NK[row], strict=True) if g * u > 0]
            ids[n], weights[n] = [i for i, _ in pairs], [w for _, w in pairs]
        return ids, weights

    def _local(self, vectors_ND: Tensor, place: dict[str, int], name: str, parts: Sequence[str | None]) -> list[float]:
        if not parts:
            return []
        texts = [text for text in parts if text]
        similarity_P = vectors_ND[[place[text] for text in texts]] @ vectors_ND[place[name]]
        lengths_P = torch.tensor([len(text) for text in texts], dtype=torch.float32)
        return list(local_weights(similarity_P, lengths_P, len(name), self.temperature).tolist())
