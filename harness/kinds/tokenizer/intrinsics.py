"""What can be said of a tokenizer without its model: lengths, entropies, use of the vocabulary, round trips.

Let document d have B_d bytes of UTF-8, W_d maximal runs of non-blanks and T_d tokens, and let p_v be the share of id v
among all tokens. Then bytes_per_token = sum B / sum T, fertility = sum T / sum W (both micro averages), entropy
H_1 = -sum p log2 p, H_a = log2(sum p^a) / (1 - a), renyi_efficiency = H_2.5 / log2 |V| with the nominal |V| (and, as
published tools differ, with the number of ids seen).
Intervals: documents are resampled 1000 times with replacement.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.kinds.method import Measurement
from harness.kinds.tokenizer.hostile import encoded, hostile_texts, lost
from harness.kinds.tokenizer.vocabulary import Vocabulary, utf8
from harness.stats.rates import draw_weights, rate
from harness.subjects.subject import Subject
from harness.subjects.tokenizer import Tokenizer
from harness.toolkit.corpora import documents

ALPHA = 2.5
Floats = NDArray[np.float64]


def ratio(metric: str, above_D: Sequence[float], below_D: Sequence[float], weights_RD: Floats) -> Measurement:
    """``sum above / sum below`` with the percentile interval over resampled documents."""
    found = rate(np.asarray(above_D, float), np.asarray(below_D, float), weights_RD)
    return Measurement(metric, found.value, found.low, found.high, found.n)


def shannon_bits(counts: Floats) -> Floats:
    """Entropy in bits of counts along the last axis."""
    share = counts / counts.sum(-1, keepdims=True)
    logs = np.log2(share, out=np.zeros_like(share), where=share > 0)
    return np.asarray(-(share * logs).sum(-1))


def renyi_bits(counts: Floats, alpha: float = ALPHA) -> Floats:
    """Renyi entropy of order ``alpha`` (not 1) in bits of counts along the last axis."""
    share = counts / counts.sum(-1, keepdims=True)
    return np.asarray(np.log2((share**alpha).sum(-1)) / (1 - alpha))


def _centred(metric: str, value: float, resampled_R: Floats, n: int) -> Measurement:
    """A figure with the spread of its resamples, moved onto it: resamples repeat documents, so entropies sink."""
    low, high = np.quantile(resampled_R, [0.025, 0.975]) - resampled_R.mean()
    return Measurement(metric, value, value + float(low), value + float(high), n)


def entropies(ids_D: Sequence[Sequence[int]], vocab_size: int, weights_RD: Floats) -> list[Measurement]:
    """Entropy, Renyi efficiency and use of the vocabulary of one stream of documents."""
    from scipy.sparse import coo_array

    flat = np.array([i for ids in ids_D for i in ids], dtype=np.int64)
    owner = np.repeat(np.arange(len(ids_D)), [len(ids) for ids in ids_D])
    used, column = np.unique(flat, return_inverse=True)
    table_DU: Any = coo_array((np.ones(len(flat)), (owner, column)), shape=(len(ids_D), len(used))).tocsr()
    total_U = np.asarray(table_DU.sum(0), float)
    parts = [part @ table_DU for part in np.array_split(weights_RD, 20)]
    shannon_R = np.concatenate([shannon_bits(part) for part in parts])
    renyi_R = np.concatenate([renyi_bits(part) for part in parts])
    capacity, seen = math.log2(vocab_size), math.log2(max(len(used), 2))
    return [
        _centred("renyi_efficiency", float(renyi_bits(total_U)) / capacity, renyi_R / capacity, len(ids_D)),
        _centred("renyi_efficiency_seen", float(renyi_bits(total_U)) / seen, renyi_R / seen, len(ids_D)),
        _centred("unigram_entropy_bits", float(shannon_bits(total_U)), shannon_R, len(ids_D)),
        # Resamples can only miss ids, so they say nothing of this figure's spread; it depends on the text's size.
        Measurement("vocab_used_fraction", len(used) / vocab_size, n=len(ids_D)),
    ]


def round_trip(tokenizer: Tokenizer) -> list[Measurement]:
    """Share of the hostile texts that decode to themselves, byte for byte, and share of their bytes that go missing."""
    texts = [text for _, text in hostile_texts()]
    back = [tokenizer.decode(encoded(tokenizer, text) or []) for text in texts]
    missing = sum((Counter(utf8(text)) - Counter(utf8(got))).total() for text, got in zip(texts, back, strict=True))
    return [
        Measurement("round_trip_fidelity", 1 - len(lost(tokenizer)) / len(texts), n=len(texts)),
        Measurement("bytes_lost_fraction", missing / sum(len(utf8(text)) for text in texts), n=len(texts)),
    ]


def unreachable(tokenizer: Tokenizer) -> Measurement:
    """Share of the ids that are valid UTF-8 by themselves whose text is not encoded as that id alone."""
    tokens = [(i, token) for i, token in enumerate(Vocabulary(tokenizer).tokens) if token]
    valid = [(i, token.decode()) for i, token in tokens if token.decode("utf-8", "ignore").encode() == token]
    missed = sum(encoded(tokenizer, text) != [i] for i, text in valid)
    return Measurement("vocab_unreachable_fraction", missed / len(valid) if valid else 0.0, n=len(valid))


def unicode_words(text: str) -> int:
    """Words by Unicode's default rules (UAX 29), those without a letter or digit left out."""
    import regex

    return sum(any(c.isalnum() for c in part) for part in regex.split(r"(?V1w)\b", text))


def continued_words(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> tuple[int, int]:
    """Words of the text that more than one token covers, and all words; none where the tokens spell another text."""
    ends = np.cumsum([len(tokenizer.token_bytes(i) or b"") for i in ids])
    data, spelled = utf8(text), b"".join(tokenizer.token_bytes(i) or b"" for i in ids)
    if spelled not in (data, b" " + data):
        return 0, 0
    shift = len(spelled) - len(data)
    spans = [(m.start() + shift, m.end() + shift) for m in re.finditer(rb"[^ \t\n\r\f\v]+", data)]
    firsts, lasts = np.searchsorted(ends, [a for a, _ in spans], "right"), np.searchsorted(ends, [b for _, b in spans])
    return int((lasts > firsts).sum()), len(spans)


def measure_tokenizer(tokenizer: Tokenizer, texts: Sequence[str], seed: int = 0) -> list[Measurement]:
    """All intrinsic figures on these documents, those without a word left out."""
    texts = [text for text in texts if text.split()]
    ids_D = [tokenizer.encode(text) for text in texts]
    weights_RD = draw_weights(len(texts), seed=seed)
    tokens_D = [float(len(ids)) for ids in ids_D]
    bytes_D = [float(len(text.encode())) for text in texts]
    words_D = [float(len(text.split())) for text in texts]
    characters_D = [float(len(text)) for text in texts]
    found = [
        ratio("bytes_per_token", bytes_D, tokens_D, weights_RD),
        ratio("tokens_per_character", tokens_D, characters_D, weights_RD),
        ratio("fertility", tokens_D, words_D, weights_RD),
        *entropies(ids_D, tokenizer.vocab_size, weights_RD),
        *round_trip(tokenizer),
        unreachable(tokenizer),
    ]
    unicode_D = [float(unicode_words(text)) for text in texts]
    continued_D, covered_D = zip(*map(partial(continued_words, tokenizer), texts, ids_D), strict=True)
    if any(unicode_D):
        found.append(ratio("fertility_uax29", tokens_D, unicode_D, weights_RD))
    if any(covered_D):
        found.append(ratio("continued_word_share", continued_D, covered_D, weights_RD))
    return found


DEFAULT_CORPUS = "python_docs"


def under(corpus: str, found: Iterable[Measurement]) -> list[Measurement]:
    """Figures under the corpus they come from; the default corpus is not named."""
    if corpus == DEFAULT_CORPUS:
        return list(found)
    return [replace(m, phase=f"{corpus} {m.phase}".rstrip()) for m in found]


@dataclass
class Intrinsics:
    """The probe ``intrinsics``: the figures above on the test split of a corpus."""

    corpus: str = DEFAULT_CORPUS
    max_bytes: int = 200_000
    name: str = "intrinsics"

    def measure(self, subject: Subject) -> Sequence[Measurement]:
        """Figures of the subject's tokenizer."""
        texts = documents(self.corpus, "test", self.max_bytes)
        return under(self.corpus, measure_tokenizer(subject.text_tokenizer(), texts))


@dataclass
class TransplantProbe:
    """The probe ``transplant``: where the rows of the embedding came from. Empty where nothing was transplanted."""

    name: str = "transplant"

    def measure(self, subject: Subject) -> Sequence[Measurement]:
        """Shares of the new vocabulary, and the median row norm relative to the old one."""
        report = getattr(subject.model, "transplant_report", None)
        if report is None:
            return ()
        size = report.shared + report.special + report.composed + report.fallback
        middle = len(report.old_norms) // 2
        return (
            Measurement("transplant_shared_fraction", (report.shared + report.special) / size, n=size),
            Measurement("transplant_composed_fraction", report.composed / size, n=size),
            Measurement("transplant_fallback_fraction", report.fallback / size, n=size),
            Measurement("transplant_norm_ratio", report.new_norms[middle] / report.old_norms[middle], n=size),
        )
