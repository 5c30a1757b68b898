"""Auxiliary spaces: a unit vector for a token's text, so that tokens of two vocabularies can be compared by meaning.

``chargram`` knows the spelling alone: hashed character n-grams, n = 1 to 4, weighted by tf-idf and reduced to 128
dimensions by a singular value decomposition. ``self`` asks the model: the mean of its last hidden states over the text.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.kinds.tokenizer.vocabulary import Vocabulary

COLUMNS = 1 << 15
SIZE = 128
LONGEST_GRAM = 4
BATCH = 64

SpaceName = Literal["chargram", "self"]
Space = Callable[[Sequence[str], Any, Vocabulary], Tensor]
"""Unit rows ``[N, d]`` of N texts, given the model and its vocabulary."""


def readable(token: bytes | None) -> str | None:
    """The text of a token that has a meaning of its own; None for specials, cut characters and blanks."""
    try:
        text = (token or b"").decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if text.strip() else None


def grams(text: str) -> list[int]:
    """Hash of each character n-gram of the text, repeats included."""
    ends = ((i, i + n) for n in range(1, LONGEST_GRAM + 1) for i in range(len(text) - n + 1))
    return [zlib.crc32(text[i:j].encode()) % COLUMNS for i, j in ends]


def chargram(texts: Sequence[str], model: Any, vocabulary: Vocabulary) -> Tensor:
    """Vectors of the spelling. The same texts in the same order give the same vectors."""
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import svds

    held = [grams(text) for text in texts]
    flat = np.array([g for row in held for g in row], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in held])])
    table: Any = csr_array((np.ones(len(flat)), flat, starts), shape=(len(texts), COLUMNS))
    table.sum_duplicates()
    documents_C = np.bincount(table.indices, minlength=COLUMNS)
    table.data *= (np.log((1 + len(texts)) / (1 + documents_C)) + 1)[table.indices]
    table.data /= np.sqrt(table.multiply(table).sum(1)).repeat(np.diff(table.indptr))
    size = min(SIZE, len(texts) - 1)
    if size < 1:
        return torch.ones(len(texts), 1)
    left, values, _ = svds(table, k=size, v0=np.ones(min(table.shape)), tol=1e-4)
    return F.normalize(torch.from_numpy(np.ascontiguousarray(left * values)).float(), dim=-1)


def own(texts: Sequence[str], model: Any, vocabulary: Vocabulary) -> Tensor:
    """Vectors of the model itself, from forwards over each text alone; shorter texts first, so padding is little."""
    ids = [vocabulary.tokenizer.encode(text) or [vocabulary.tokenizer.prefix_id] for text in texts]
    order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
    made = torch.empty(len(texts), model.config.get_text_config().hidden_size)
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        rows = [torch.tensor(ids[i], device=model.device) for i in part]
        real_BT = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        with torch.inference_mode():
            states_BTD = model(
                input_ids=torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
                attention_mask=real_BT,
                output_hidden_states=True,
                use_cache=False,
                logits_to_keep=1,
            ).hidden_states[-1]
        mean_BD = (states_BTD.float() * real_BT[..., None]).sum(1) / real_BT.sum(1, keepdim=True)
        made[part] = F.normalize(mean_BD, dim=-1).cpu()
    return made


SPACES: dict[str, Space] = {"chargram": chargram, "self": own}


def nearest(queries_ND: Tensor, keys_MD: Tensor, k: int, chunk: int = 1024) -> tuple[Tensor, Tensor]:
    """Inner products and indices ``[N, min(k, M)]`` of the keys that are nearest to each query, best first."""
    found = [torch.topk(part @ keys_MD.T, min(k, len(keys_MD)), dim=-1) for part in queries_ND.split(chunk)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])
