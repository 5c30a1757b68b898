"""Small tokenizers and subjects for the tests of the kind."""

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from harness.subjects.load import wrap_model
from harness.subjects.tiny import random_llama
from harness.subjects.tokenizer import PretrainedTokenizer

LINES = [
    "the cat sat on the mat and the other cat sat there too",
    "the\u0120 naive caf\u00e9 on the cafe table",
    "all cats that sat there are there",
]


@pytest.fixture(scope="session")
def incomplete() -> PretrainedTokenizer:
    """A byte-level tokenizer that was trained without all bytes, as SmolLM2's was, with two special tokens."""
    rust = Tokenizer(BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<|end|>", "<|start|>"], show_progress=False)
    rust.train_from_iterator(LINES * 4, trainer)
    inner = PreTrainedTokenizerFast(tokenizer_object=rust, bos_token="<|start|>", eos_token="<|end|>")
    return PretrainedTokenizer(inner)


@pytest.fixture(params=["untied", "tied"])
def subject(request, incomplete):
    """A random model over the incomplete tokenizer, with three spare embedding rows."""
    size = incomplete.vocab_size + 3
    tied = request.param == "tied"
    model, _, length = random_llama(vocab_size=size, tie_word_embeddings=tied, bos_token_id=1, eos_token_id=0)
    return wrap_model(model, incomplete, f"tiny-{request.param}", length)
