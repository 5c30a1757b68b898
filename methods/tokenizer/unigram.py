"""Unigram language model: tokens have probabilities, and a word is cut where their product is greatest.

Training starts from frequent substrings, fits p(token) by EM and drops the tokens whose loss costs least, again and
again. Encoding is Viterbi over p(x) = prod p(x_i). Drawing a segmentation x of a word with a probability proportional
to p(x)^alpha ("subword regularisation") is offered for training text; at evaluation ids are the best ones.
"""

import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import ClassVar, Literal

from pydantic import Field
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.models import Unigram as RustUnigram
from tokenizers.trainers import UnigramTrainer

from harness.catalog import method
from harness.kinds.method import Workload
from harness.kinds.tokenizer import Properties, Specials
from harness.kinds.tokenizer.adapters import sentencepiece_scores, train_sentencepiece
from harness.kinds.tokenizer.base import content_name
from harness.kinds.tokenizer.bpe import ByteLevelTokenizer, byte_alphabet, printable, untrained
from harness.kinds.tokenizer.consistency import DrawsSegmentations

LONGEST = 16


def draw_pieces(word: str, scores: Mapping[str, float], longest: int, alpha: float, rng: random.Random) -> list[str]:
    """Pieces of a word, drawn with a probability proportional to exp(alpha * sum of their scores)."""
    # total[n]: log of the summed weights of all segmentations of the first n characters.
    total, ways = [0.0], [[]]
    for end in range(1, len(word) + 1):
        starts = [s for s in range(max(0, end - longest), end) if word[s:end] in scores]
        logs = [total[s] + alpha * scores[word[s:end]] for s in starts]
        top = max(logs)
        total.append(top + math.log(sum(math.exp(x - top) for x in logs)))
        ways.append(list(zip(starts, logs, strict=True)))
    pieces, end = [], len(word)
    while end:
        starts, logs = zip(*ways[end], strict=True)
        start = rng.choices(starts, [math.exp(x - total[end]) for x in logs])[0]
        pieces.append(word[start:end])
        end = start
    return pieces[::-1]


@method(
    id="unigram",
    kind="tokenizer",
    title="Unigram language model",
    paper="arXiv:1804.10959",
    guarantee="approximate",
    baseline="native",
    needs="a trainer run of seconds",
    details={
        "trainer": "the Rust library tokenizers, pruning factor 0.75, tokens of at most 16 bytes; its first candidates "
        "ignore how often a word occurs, and sentencepiece, the authors' trainer, finds better ones",
        "alphabet": "ours: all 256 bytes, so that every text can be encoded",
        "determinism": "ours: scores rounded, rare bytes at one floor, ids by score; the library's order is random",
        "sampling": "the paper's limit of all segmentations, by forward sums and backward draws; alpha as in the paper",
        "embeddings": "mean of the old parts' rows (arXiv:2402.09977), no training after it",
    },
)
class Unigram(DrawsSegmentations):
    """``vocab_size`` text tokens, words cut by ``pattern``."""

    trains: ClassVar[bool] = True

    vocab_size: int = Field(8192, ge=300, le=262144, description="text tokens, the 256 bytes included")
    trainer: Literal["tokenizers", "sentencepiece"] = Field("tokenizers", description="library that trains")
    shrinking: float = Field(0.75, gt=0, lt=1, description="share of the tokens that a pruning keeps")
    pattern: Literal["gpt2", "digits", "cl100k", "marks"] = Field("gpt2", description="how text is cut into words")
    alpha: float = Field(0.1, ge=0, description="sharpness of drawn segmentations; the probe resegmentation uses it")
    seed: int = Field(0, ge=0, description="seed of the drawing")
    corpus: str = Field("python_docs", description="corpus name, or path of a text file or folder")
    train_bytes: int = Field(4_000_000, ge=1, description="text to train on, at most")

    def declared(self, tokenizer) -> Properties:  # type: ignore[no-untyped-def]
        """Segmentations can be drawn."""
        return Properties(lossless=True, byte_complete=True, stochastic=True)

    def train(self, texts, seed):  # type: ignore[no-untyped-def]
        """The tokenizer as JSON."""
        if self.trainer == "sentencepiece":
            pieces = sentencepiece_scores(train_sentencepiece(texts, self.vocab_size))
            scores = {printable(piece): score for piece, score in pieces.items()}
        else:
            scores = self._by_tokenizers(texts)
        # Bytes that the EM dropped get one score below all; the Rust trainer gives them back 1e-4 apart, at random.
        low = min(scores.values())
        kept = {p: round(s, 5) for p, s in scores.items() if len(p) > 1 or s >= low + 256e-4}
        kept |= {letter: round(low - 1, 5) for letter in byte_alphabet() if letter not in kept}
        rust = untrained(self.pattern)
        rust.model = RustUnigram(sorted(kept.items(), key=lambda item: (-item[1], item[0])))
        return rust.to_str()

    def _by_tokenizers(self, texts):  # type: ignore[no-untyped-def]
        rust = untrained(self.pattern)
        rust.model = RustUnigram()
        trainer = UnigramTrainer(
            vocab_size=self.vocab_size,
            shrinking_factor=self.shrinking,
            max_piece_length=LONGEST,
            initial_alphabet=byte_alphabet(),
            show_progress=False,
        )
        rust.train_from_iterator(texts, trainer)
        return dict(json.loads(rust.to_str())["model"]["vocab"])

    def make(self, tokenizer, artifact):  # type: ignore[no-untyped-def]
        """The trained tokenizer with the subject's special tokens."""
        rust = RustTokenizer.from_str(artifact)
        return ByteLevelTokenizer(rust, Specials.of(tokenizer), content_name("unigram", artifact))

    def drawer(self, tokenizer) -> Callable[[str, random.Random], list[int]]:  # type: ignore[no-untyped-def]
        """Each word in drawn pieces."""
        scores = dict(json.loads(tokenizer.rust.to_str())["model"]["vocab"])
        ids, longest = tokenizer.rust.get_vocab(), max(map(len, scores))

        def draw(text: str, rng: random.Random) -> list[int]:
            words = tokenizer.words(text)
            return [ids[piece] for word in words for piece in draw_pieces(word, scores, longest, self.alpha, rng)]

        return draw

    def train_workload(self, texts) -> Workload:  # type: ignore[no-untyped-def]
        """The kind's, beside the trainer of sentencepiece where that is installed."""
        usual = super().train_workload(texts)
        if find_spec("sentencepiece") is None:
            return usual
        return replace(usual, reference=lambda: lambda: train_sentencepiece(texts, self.vocab_size))
