"""WordPiece: each word is cut into the longest tokens from the left; tokens inside a word carry a mark.

The vocabulary is that of BPE on the same words, where pieces that begin a word and pieces inside one are different
tokens. Of the training only the vocabulary is kept: encoding takes the longest token that matches, then goes on behind
it. Over bytes, with both forms of each byte in the vocabulary, so that no word is unknown and no blank is lost.
"""

from typing import ClassVar, Literal

from pydantic import Field
from tokenizers import Regex
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.models import WordPiece as RustWordPiece
from tokenizers.pre_tokenizers import Sequence, Split
from tokenizers.trainers import WordPieceTrainer

from harness.catalog import method
from harness.kinds.tokenizer import Properties, Specials, TokenizerMethod
from harness.kinds.tokenizer.base import content_name
from harness.kinds.tokenizer.bpe import ByteLevelTokenizer, byte_alphabet, untrained

INSIDE = "\u2026"
LONGEST = 100


@method(
    id="wordpiece",
    kind="tokenizer",
    title="WordPiece",
    paper="arXiv:1609.08144",
    guarantee="approximate",
    baseline="native",
    needs="a trainer run of seconds",
    details={
        "trainer": "the Rust library tokenizers, which counts pairs as BPE does, not the likelihood gain of the paper",
        "mark": "ours: a character outside the byte alphabet; the usual ## can be text itself",
        "alphabet": "ours: all 256 bytes, each as the beginning of a word and inside one, so that nothing is [UNK]",
        "long words": "reference code makes words above 100 characters unknown; ours cuts them there instead",
        "embeddings": "mean of the old parts' rows (arXiv:2402.09977); both forms of a token get the same row",
    },
)
class WordPiece(TokenizerMethod):
    """``vocab_size`` text tokens, words cut by ``pattern``."""

    trains: ClassVar[bool] = True
    properties = Properties(lossless=True, byte_complete=True)

    vocab_size: int = Field(8192, ge=512, le=262144, description="text tokens, both forms of the 256 bytes included")
    min_frequency: int = Field(2, ge=1, description="a rarer pair is not merged")
    pattern: Literal["gpt2", "digits", "cl100k", "marks"] = Field("gpt2", description="how text is cut into words")
    corpus: str = Field("python_docs", description="corpus name, or path of a text file or folder")
    train_bytes: int = Field(4_000_000, ge=1, description="text to train on, at most")

    def train(self, texts, seed):  # type: ignore[no-untyped-def]
        """The tokenizer as JSON."""
        letters = byte_alphabet()
        rust = untrained(self.pattern)
        rust.pre_tokenizer = Sequence([rust.pre_tokenizer, Split(Regex(f".{{1,{LONGEST}}}"), "isolated")])
        rust.model = RustWordPiece(max_input_chars_per_word=LONGEST)
        trainer = WordPieceTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            show_progress=False,
            continuing_subword_prefix=INSIDE,
            # Named as special, both forms get the first ids whatever the order in which the library meets words.
            special_tokens=[*letters, *(INSIDE + c for c in letters)],
        )
        rust.train_from_iterator(texts, trainer)
        # The bare model: the library would cut the text at "special" letters before anything else.
        bare = RustTokenizer(
            RustWordPiece(rust.get_vocab(), max_input_chars_per_word=LONGEST, continuing_subword_prefix=INSIDE)
        )
        bare.pre_tokenizer = rust.pre_tokenizer
        return bare.to_str()

    def make(self, tokenizer, artifact):  # type: ignore[no-untyped-def]
        """The trained tokenizer with the subject's special tokens."""
        rust = RustTokenizer.from_str(artifact)
        return ByteLevelTokenizer(rust, Specials.of(tokenizer), content_name("wordpiece", artifact), INSIDE)
