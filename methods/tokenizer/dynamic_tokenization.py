"""Dynamic tokenization: the most frequent adjacent tokens of a context become one, again and again, before it is read.

Up to ``merges`` times: count the valid adjacent pairs; replace the most frequent one everywhere, from the left. A
merged token is read as the mean of the input rows of all tokens in it. What is answered is not merged.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, Literal, NamedTuple
from unicodedata import category

from pydantic import Field

from harness.catalog import method
from harness.kinds.tokenizer import Properties, TokenizerMethod
from harness.kinds.tokenizer.bpe import word_counts
from harness.kinds.tokenizer.checks import measured_properties
from harness.kinds.tokenizer.intrinsics import Intrinsics
from harness.kinds.tokenizer.merged_context import Merge, MergedLength, reading_merged

Boundary = Literal["pretokens", "word", "word_hyphen", "sentence"]


class Token(NamedTuple):
    """The bytes of a token, None for a special one, and the ids of its parts."""

    data: bytes | None
    parts: tuple[int, ...]


@lru_cache(maxsize=100_000)
def may_be_one(data: bytes, boundary: Boundary) -> bool:
    """Whether these bytes may be one token: blanks stand in front or alone, and the text keeps the boundary.

    Bytes that are not UTF-8 are the inside of a character and may always be joined.
    """
    if any(data[k : k + 1].isspace() for k in range(1, len(data))) and not (data.isspace() and data != b"\n\n"):
        return False
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return True
    if boundary == "pretokens":
        return word_counts([text]).total() == 1
    if boundary == "sentence":
        return True
    marks = {c for c in text if category(c).startswith("P")}
    return len(text.split()) == 1 and (boundary == "word" or marks <= {"-"})


def joined(text: Sequence[Token], pair: tuple[bytes, bytes]) -> list[Token]:
    """The text with every occurrence of a pair, from the left, as one token."""
    out: list[Token] = []
    position = 0
    while position < len(text):
        here = text[position : position + 2]
        if tuple(token.data for token in here) == pair:
            out.append(Token(pair[0] + pair[1], here[0].parts + here[1].parts))
            position += 2
        else:
            out.append(here[0])
            position += 1
    return out


def merge_tokens(texts: Sequence[Sequence[Token]], merges: int, boundary: Boundary) -> list[list[Token]]:
    """The texts after so many merges, pairs counted over all of them; of equally frequent ones the first by bytes."""
    made = [list(text) for text in texts]
    for _ in range(merges):
        pairs = ((a.data, b.data) for text in made for a, b in pairwise(text))
        counts = Counter((a, b) for a, b in pairs if a is not None and b is not None and may_be_one(a + b, boundary))
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        made = [joined(text, best) for text in made]
    return made


@method(
    id="dynamic_tokenization",
    kind="tokenizer",
    title="Dynamic tokenization of the context",
    paper="arXiv:2411.18553",
    guarantee="approximate",
    baseline="native",
    identity={"merges": 0},
    claims=[
        {
            "metric": "relative change of the sequence length",
            "value": -0.2,
            "against": "subword tokens, less than 2 % worse on average",
            "on": "XLM-R, word boundaries, XNLI in 14 languages, rows by a hypernetwork",
        }
    ],
    details={
        "rows": "mean of the parts' rows, a mode of the release; the paper's hypernetwork predicts them better",
        "merges": "ours: 100; the paper sets them by a wanted length",
        "batch": "ours: each context is merged alone, so that no answer depends on its neighbours or on the "
        "continuation; the paper counts pairs over a batch",
        "ties": "ours: the pair that sorts first; the release takes the one met first",
        "boundary": "reference code: a blank stands in front or alone in every mode; pretokens are GPT-2's",
        "answers": "reference code: continuations keep their own ids and output rows; positions are consecutive",
        "vocabulary of a million": "not built: generation by a search over predicted output rows",
    },
)
class DynamicTokenization(TokenizerMethod):
    """The subject's tokenizer; contexts are read in at most ``merges`` merges' worth fewer tokens."""

    replaces: ClassVar[frozenset[str]] = frozenset({"decoder"})

    merges: int = Field(100, ge=0, description="merges of a context, at most; 0 leaves it as it is")
    boundary: Boundary = Field("word", description="what a merged token must lie within")

    def declared(self, tokenizer) -> Properties:  # type: ignore[no-untyped-def]
        """The subject's own properties."""
        return measured_properties(tokenizer)

    def make(self, tokenizer, artifact):  # type: ignore[no-untyped-def]
        """The subject's tokenizer: texts are merged only where a model reads them."""
        return tokenizer

    def merge_of(self, tokenizer) -> Merge:  # type: ignore[no-untyped-def]
        """The rewriting of one context for a tokenizer."""

        def merge(ids: Sequence[int]) -> list[tuple[int, ...]]:
            text = [Token(tokenizer.token_bytes(i), (i,)) for i in ids]
            return [token.parts for token in merge_tokens([text], self.merges, self.boundary)[0]]

        return merge

    @contextmanager
    def apply(self, subject, artifact=None) -> Iterator:  # type: ignore[no-untyped-def,type-arg]
        """The subject reading merged contexts."""
        yield reading_merged(subject, self.merge_of(subject.text_tokenizer()))

    def probes(self) -> Iterable:  # type: ignore[type-arg]
        """The tokenizer's intrinsics, and how much shorter source code becomes."""
        return (Intrinsics(), MergedLength(self.merge_of))
