"""Training a row predictor on the frozen model's own loss, under a tokenizer that is drawn anew for each update.

Drawing: substrings of the words of some texts, scored by count times length; the scores as probabilities, disturbed by
noise of a random size, and the best pieces with their logarithms become a unigram tokenizer. Nothing of the model
changes: its rows are exchanged for the predicted ones within one call, and only the predictor gets gradients.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.models import Unigram
from torch import Tensor, nn
from torch.func import functional_call

from harness.kinds.tokenizer.bpe import byte_alphabet, printable, untrained, word_counts
from harness.kinds.tokenizer.hypernet import Scaler, predicted_rows
from harness.kinds.tokenizer.transplant import joined_rows
from harness.kinds.tokenizer.vocabulary import Vocabulary
from harness.subjects.subject import Subject
from harness.subjects.tokenizer import printable_to_byte
from harness.toolkit.trainer import adamw

LONGEST, STRIDE = 16, 4
NOISE = (math.log(1e-5), 4.0)
"""Mean and deviation of the logarithm of the noise's size."""
POOL, WINDOW = 64, 128
"""Texts that a tokenizer is drawn from, and tokens of a text that are read."""
MAX_NORM = 0.1
FLOOR = 1e-9
BLANKS = tuple(printable(b" " * n) for n in (2, 3, 4, 8))


def candidates(words: Mapping[str, int]) -> dict[str, int]:
    """Pieces of two characters and more within words, every fourth place a beginning, by count times length."""
    scores: Counter[str] = Counter()
    for word, count in words.items():
        for start in range(0, len(word), STRIDE):
            for end in range(start + 2, min(len(word), start + LONGEST) + 1):
                scores[word[start:end]] += count * (end - start)
    return scores


def draw_tokenizer(texts: Sequence[str], size: int, rng: np.random.Generator) -> RustTokenizer:
    """A unigram tokenizer of at most ``size`` tokens: all bytes, runs of blanks, the best of the disturbed pieces."""
    scores = candidates(word_counts(texts))
    pieces = sorted(scores.keys() - set(BLANKS))
    share = np.array([scores[piece] for piece in pieces], dtype=float)
    share = share / max(share.sum(), 1.0) + rng.normal(0, rng.lognormal(*NOISE), len(pieces))
    best = np.argsort(-share, kind="stable")[: max(0, size - 256 - len(BLANKS))]
    kept = [(pieces[i], math.log(max(share[i], FLOOR))) for i in best]
    rust = untrained("gpt2")
    rust.model = Unigram([*((piece, math.log(FLOOR)) for piece in (*byte_alphabet(), *BLANKS)), *kept])
    return rust


def token_bytes(rust: RustTokenizer) -> list[bytes]:
    """The bytes of the tokenizer's ids."""
    table = printable_to_byte()
    named = sorted(rust.get_vocab().items(), key=lambda item: item[1])
    return [bytes(table[c] for c in name) for name, _ in named]


def exchanged(model: Any, rows_ND: Tensor) -> dict[str, Tensor]:
    """The model's parameters that hold a token's rows, by name, with joined rows in their place."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    held = [inputs.weight, *([outputs.weight] if outputs.weight is not inputs.weight else [])]
    names = {id(p): name for name, p in model.named_parameters()}
    parts = rows_ND.split([*(p.shape[1] for p in held), *([1] if outputs.bias is not None else [])], 1)
    made = {names[id(p)]: part.to(p.dtype) for p, part in zip(held, parts, strict=False)}
    if outputs.bias is not None:
        made[names[id(outputs.bias)]] = parts[-1][:, 0].to(outputs.bias.dtype)
    return made


def language_loss(model: Any, rows_ND: Tensor, texts: Sequence[Sequence[int]]) -> Tensor:
    """Mean cross-entropy in nats of each next id, under these joined rows; each text's first id is given."""
    ids = [torch.tensor(text, device=rows_ND.device) for text in texts]
    ids_BT = nn.utils.rnn.pad_sequence(ids, batch_first=True)
    wanted_BT = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=-100)
    inputs = {"input_ids": ids_BT[:, :-1], "use_cache": False}
    logits_BTN: Tensor = functional_call(model, exchanged(model, rows_ND), kwargs=inputs).logits
    return F.cross_entropy(logits_BTN.flatten(0, 1).float(), wanted_BT[:, 1:].flatten())


def lexical_loss(rows_ND: Tensor, true_ND: Tensor) -> Tensor:
    """Mean squared distance of rows that are known, over the mean norm of the true ones; zero without any."""
    if not len(true_ND):
        return rows_ND.sum() * 0
    norms_N: Tensor = torch.linalg.vector_norm(true_ND, dim=-1)
    return (rows_ND - true_ND).square().sum(-1).mean() / norms_N.mean()


@dataclass
class Loop:
    """A predictor in training: what it predicts for, and the settings of an update.

    ``size`` tokens a tokenizer, ``batch`` texts an update, spellings of ``parts`` old tokens, ``lexical`` the weight of
    the loss on tokens that the model has itself.
    """

    net: nn.Module
    subject: Subject
    parts: int
    size: int
    batch: int
    lexical: float

    def __post_init__(self) -> None:
        self.old = Vocabulary(self.subject.text_tokenizer())
        self.rows_VD = joined_rows(self.subject.model, len(self.old.tokens)).float()
        self.scaler = Scaler.of(self.rows_VD)

    def loss(self, texts: Sequence[str], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Language and lexical loss of one drawn tokenizer on the first ``batch`` of the texts it is drawn from."""
        rust = draw_tokenizer(texts, self.size, rng)
        spellings = [self.old.decompose(token)[: self.parts] for token in token_bytes(rust)]
        made_ND = predicted_rows(self.net, self.scaler, self.rows_VD, spellings)
        prefix = self.rows_VD[self.old.tokenizer.prefix_id][None]
        ids = [rust.encode(text, add_special_tokens=False).ids[:WINDOW] for text in texts[: self.batch]]
        language = language_loss(
            self.subject.model, torch.cat([made_ND, prefix]), [[len(spellings), *text] for text in ids]
        )
        single = [n for n, parts in enumerate(spellings) if len(parts) == 1]
        return language, lexical_loss(made_ND[single], self.rows_VD[[spellings[n][0] for n in single]])

    def fit(self, texts: Sequence[str], steps: int, learning_rate: float, seed: int) -> list[float]:
        """Descend language + lexical weight * lexical loss; returns the language loss of each update, in nats."""
        rng, optimizer = np.random.default_rng(seed), adamw(self.net, learning_rate)
        weights, found = list(self.net.parameters()), []
        for _ in range(steps):
            pool = [texts[i] for i in rng.integers(len(texts), size=max(POOL, self.batch))]
            language, lexical = self.loss(pool, rng)
            # The model's own parameters get no gradients: they are not asked for.
            for weight, slope in zip(
                weights, torch.autograd.grad(language + self.lexical * lexical, weights), strict=True
            ):
                weight.grad = slope
            nn.utils.clip_grad_norm_(weights, MAX_NORM)
            optimizer.step()
            found.append(language.item())
        return found
