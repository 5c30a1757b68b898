"""Tokenizers of other libraries: the same ids, the right bytes, the text back."""

import json

import pytest
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, pre_tokenizers, trainers
from tokenizers.models import BPE

from harness.errors import UsageError
from harness.kinds.tokenizer.adapters import from_gguf, from_hf, from_sentencepiece, from_tiktoken, train_sentencepiece
from harness.kinds.tokenizer.vocabulary import Specials, segments
from harness.toolkit.corpora import documents

SPECIALS = Specials(("<p>", "<e>"), "<p>", ("<e>",))
TEXT = "Return 12 items,  na\u00efvely \u65e5\u672c\n\tor not."


@pytest.fixture(scope="module")
def rust():
    made = RustTokenizer(BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|end|>", "<|start|>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(documents("python_docs", "train", 30_000), trainer)
    return made


def test_a_rust_tokenizer_keeps_its_ids(rust):
    made = from_hf(rust, "<|start|>", "<|end|>")
    assert made.encode(TEXT) == rust.encode(TEXT).ids and made.decode(made.encode(TEXT)) == TEXT
    assert (made.prefix_id, made.eos_ids, made.vocab_size) == (1, (0,), 500)
    assert b"".join(segments(made, TEXT)) == TEXT.encode()


def test_the_fields_of_a_gguf_file_make_the_same_tokenizer(rust):
    tokens = [t for t, _ in sorted(rust.get_vocab().items(), key=lambda item: item[1])]
    merges = [" ".join(pair) for pair in json.loads(rust.to_str())["model"]["merges"]]
    made = from_gguf(tokens, merges, "smollm", [3, 3, *[1] * 498], bos_id=1, eos_id=0)
    assert made.encode(TEXT) == rust.encode(TEXT).ids and made.decode(made.encode(TEXT)) == TEXT
    assert made.token_bytes(0) is None and (made.prefix_id, made.eos_ids) == (1, (0,))
    with pytest.raises(UsageError, match="did you mean 'smollm'"):
        from_gguf(tokens, merges, "smolm", [3, 3, *[1] * 498])


def test_a_tiktoken_encoding_keeps_its_ids():
    tiktoken = pytest.importorskip("tiktoken", reason="token-zoo[tokenizers] is not installed")
    ranks = {bytes([b]): b for b in range(256)} | {b"on": 256, b"one": 257}
    encoding = tiktoken.Encoding("own", pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={"<x>": 300})
    made = from_tiktoken(encoding, SPECIALS, "own")
    assert made.encode("one on<x>") == [257, 32, 256, *b"<x>"]
    assert made.special_ids == {"<p>": 258, "<e>": 259} and made.decode([258, 257]) == "one"
    holes = tiktoken.Encoding("holes", pat_str=r"\S+", mergeable_ranks=ranks | {b"es": 290}, special_tokens={})
    with pytest.raises(UsageError, match="without gaps"):
        from_tiktoken(holes, SPECIALS, "holes")


@pytest.mark.parametrize("prefix", [True, False])
def test_a_sentencepiece_model_gives_text_back_and_bytes(prefix):
    sentencepiece = pytest.importorskip("sentencepiece", reason="token-zoo[tokenizers] is not installed")
    model = train_sentencepiece(documents("python_docs", "train", 30_000), 400, "bpe", prefix)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    made = from_sentencepiece(processor, SPECIALS, "sp")
    assert made.encode(TEXT) == processor.encode(TEXT)
    assert made.decode(made.encode(TEXT)) == TEXT
    assert b"".join(segments(made, TEXT)) == b" " * prefix + TEXT.encode()
    assert {bytes([b]) for b in range(256)} <= set(made.tokens) and made.vocab_size == 402
