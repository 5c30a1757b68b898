"""Tokenizers of other libraries behind the zoo's interface.

A tokenizer over the byte alphabet is a :class:`~harness.kinds.tokenizer.bpe.ByteLevelTokenizer` with special tokens of
the zoo's choice; the others here bring their ids as they are.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import io
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits
from tokenizers.pre_tokenizers import Sequence as PreTokenizers

from harness.errors import EnvironmentFailed, UsageError, unknown_name
from harness.kinds.tokenizer.bpe import Merges, untrained
from harness.kinds.tokenizer.vocabulary import Specials, TableTokenizer
from harness.subjects.tokenizer import PretrainedTokenizer

CONTROL = 3
"""The token type of GGUF files for special tokens."""


def optional(module: str) -> Any:
    """An optional library; :class:`EnvironmentFailed` says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EnvironmentFailed(f"{module} is not installed; pip install 'token-zoo[tokenizers]'") from error


def from_hf(
    rust: RustTokenizer, bos: str | None = None, eos: str | None = None, name: str = "hf"
) -> PretrainedTokenizer:
    """A tokenizer of the Rust library, its own special tokens and ids kept."""
    from transformers import PreTrainedTokenizerFast

    return PretrainedTokenizer(PreTrainedTokenizerFast(tokenizer_object=rust, bos_token=bos, eos_token=eos), name)


def gguf_pre_tokenizer(pre: str) -> Any:
    """The pre-tokenizer that a GGUF file names in ``tokenizer.ggml.pre``."""
    known: dict[str, Callable[[], Any]] = {
        "default": lambda: untrained("gpt2").pre_tokenizer,
        "gpt-2": lambda: untrained("gpt2").pre_tokenizer,
        "llama-bpe": lambda: untrained("cl100k").pre_tokenizer,
        "smollm": lambda: PreTokenizers([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]),
    }
    if pre not in known:
        raise unknown_name("GGUF pre-tokenizer", pre, known)
    return known[pre]()


def from_gguf(
    tokens: Sequence[str],
    merges: Sequence[str],
    pre: str,
    types: Sequence[int],
    bos_id: int | None = None,
    eos_id: int | None = None,
) -> PretrainedTokenizer:
    """The BPE tokenizer of a GGUF file: its fields ``tokens``, ``merges``, ``pre`` and ``token_type``, and two ids."""
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    rust = RustTokenizer(BPE({token: i for i, token in enumerate(tokens)}, pairs))
    rust.pre_tokenizer, rust.decoder = gguf_pre_tokenizer(pre), ByteLevelDecoder()
    rust.add_special_tokens(
        [
            AddedToken(t, special=True, normalized=False)
            for t, kind in zip(tokens, types, strict=True)
            if kind == CONTROL
        ]
    )
    bos, eos = (None if i is None else tokens[i] for i in (bos_id, eos_id))
    return from_hf(rust, bos, eos, "gguf")


def from_tiktoken(encoding: Any, specials: Specials, name: str) -> TableTokenizer:
    """A ``tiktoken.Encoding`` without its special tokens; :class:`UsageError` where its ranks have gaps."""
    count = len(encoding.token_byte_values())
    try:
        tokens = [encoding.decode_single_token_bytes(i) for i in range(count)]
    except KeyError as error:
        raise UsageError(
            f"{name}: there is no token of rank {error.args[0]}; ranks must run from 0 without gaps"
        ) from None
    return TableTokenizer(name, tokens, encoding.encode_ordinary, specials)


def read_ranks(path: Path) -> list[bytes]:
    """The tokens of a tiktoken file, a line each: the bytes in base64 and their rank, from 0 without gaps."""
    try:
        pairs = [line.split() for line in path.read_bytes().splitlines() if line.strip()]
        ranks = {int(rank): base64.b64decode(token, validate=True) for token, rank in pairs}
    except OSError as error:
        raise EnvironmentFailed(f"ranks file {str(path)!r} cannot be read: {error}") from error
    except (ValueError, binascii.Error) as error:
        raise UsageError(f"{str(path)!r} is no tiktoken ranks file: {error}") from error
    if sorted(ranks) != list(range(len(pairs))) or not {bytes([b]) for b in range(256)} <= set(ranks.values()):
        raise UsageError(f"{str(path)!r}: ranks must run from 0 without gaps and hold all 256 bytes")
    return [ranks[i] for i in range(len(ranks))]


def merges_from_ranks(tokens: Sequence[bytes]) -> Merges:
    """The merge that makes each token of two bytes or more, by merging its bytes with the ranks below its own."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    merges = []
    for rank, token in enumerate(tokens):
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            near = [ranks.get(parts[i] + parts[i + 1], rank) for i in range(len(parts) - 1)]
            at = near.index(min(near))
            if near[at] >= rank:
                raise UsageError(f"token {token!r} of rank {rank} is no merge of two tokens before it")
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            merges.append((parts[0], parts[1]))
    return merges


class _SentencePiece(TableTokenizer):
    """Decodes as the library does: a model that puts a blank before a text takes it away again."""

    takes_blank = False

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids without the blank that encoding put in front."""
        text = super().decode(ids)
        return text.removeprefix(" ") if self.takes_blank else text


def from_sentencepiece(processor: Any, specials: Specials, name: str) -> TableTokenizer:
    """A ``SentencePieceProcessor``; its control and unknown ids stand for no bytes."""
    tokens = []
    for i in range(processor.get_piece_size()):
        piece = processor.id_to_piece(i)
        if processor.is_control(i) or processor.is_unknown(i) or processor.is_unused(i):
            tokens.append(b"")
        elif re.fullmatch("<0x[0-9A-F]{2}>", piece) and processor.is_byte(i):
            tokens.append(bytes([int(piece[3:5], 16)]))
        else:
            tokens.append(piece.replace("\u2581", " ").encode())
    made = _SentencePiece(name, tokens, lambda text: list(processor.encode(text)), specials)
    first = processor.encode("a")[:1]
    made.takes_blank = bool(first) and tokens[first[0]].startswith(b" ")
    return made


def train_sentencepiece(
    texts: Iterable[str], vocab_size: int, kind: str = "unigram", dummy_prefix: bool = False
) -> bytes:
    """A sentencepiece model over the texts as they are, with bytes for unseen characters, trained on one thread."""
    made = io.BytesIO()
    optional("sentencepiece").SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=made,
        vocab_size=vocab_size,
        model_type=kind,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=dummy_prefix,
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    return made.getvalue()


def sentencepiece_scores(model: bytes) -> dict[bytes, float]:
    """The pieces of a model as bytes with their scores; bytes by themselves and control ids are left out."""
    held = optional("sentencepiece").SentencePieceProcessor(model_proto=model)
    plain = [
        i for i in range(held.get_piece_size()) if not (held.is_byte(i) or held.is_control(i) or held.is_unknown(i))
    ]
    return {held.id_to_piece(i).replace("\u2581", " ").encode(): held.get_score(i) for i in plain}
