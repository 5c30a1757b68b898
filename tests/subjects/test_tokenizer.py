"""The adapter of transformers' tokenizers: bytes of single ids, round trips, special ids."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from harness.subjects import tokenizer as protocol
from harness.subjects.tiny import ByteIds
from harness.subjects.tokenizer import PretrainedTokenizer, printable_to_byte

TEXT = "Hello  wörld, 你好 🙂\n\tnaïve café — 12.5 %"


def byte_level():
    """A trained byte-level BPE with special and added tokens."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>", "</s>"]
    )
    inner.train_from_iterator([TEXT] * 4, trainer)
    inner.add_tokens([AddedToken("<tool>", special=False)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def metaspace():
    """A vocabulary with metaspaces and byte fallback, as sentencepiece models have."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "\u2581", "a", "b", "\u2581a", "ü"]
    inner = Tokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, [("\u2581", "a")], byte_fallback=True, unk_token="<unk>")
    )
    inner.normalizer = normalizers.Replace(" ", "\u2581")
    inner.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("make", [byte_level, metaspace])
def test_the_bytes_of_the_ids_spell_the_text(make):
    adapter = PretrainedTokenizer(make())
    text = TEXT if make is byte_level else "a büb a你"
    ids = adapter.encode(text)
    assert b"".join(adapter.token_bytes(i) for i in ids) == text.encode()
    assert adapter.decode(ids) == text


def test_special_and_added_ids_stand_for_no_bytes():
    inner = byte_level()
    adapter = PretrainedTokenizer(inner)
    for token in ("<s>", "</s>", "<tool>"):
        assert adapter.token_bytes(inner.convert_tokens_to_ids(token)) is None
    assert PretrainedTokenizer(metaspace()).token_bytes(1) is None


def test_every_plain_id_of_a_byte_level_vocabulary_has_bytes():
    adapter = PretrainedTokenizer(byte_level())
    found = [adapter.token_bytes(i) for i in range(adapter.vocab_size)]
    assert sum(b is None for b in found) == 3
    assert {b for b in found if b is not None and len(b) == 1} == {bytes([b]) for b in range(256)}


def test_special_ids_frame_texts():
    adapter = PretrainedTokenizer(byte_level(), model_eos=(9, 1))
    assert (adapter.prefix_id, adapter.eos_ids, adapter.name) == (0, (1, 9), "native")
    assert adapter.decode([0, *adapter.encode("a b"), 1]) == "a b"
    assert adapter.encode("x") == adapter.inner.encode("x", add_special_tokens=False)


@pytest.mark.parametrize("make", [byte_level, metaspace])
def test_ids_are_the_librarys_own_also_after_a_call_that_cut_and_padded(make):
    adapter = PretrainedTokenizer(make())
    whole = list(adapter.inner.encode("a b <s> a <tool> b" * 3, add_special_tokens=False))
    adapter.inner.pad_token = "</s>"
    adapter.inner(["a b", "a"], truncation=True, max_length=2, padding="max_length")
    assert adapter.encode("a b <s> a <tool> b" * 3) == whole and len(whole) > 2
    assert adapter.encode("") == []


def test_a_tokenizer_without_the_rust_library_is_asked_itself():
    class Words:
        def encode(self, text, add_special_tokens):
            return [len(word) for word in text.split()] + [0] * add_special_tokens

    assert PretrainedTokenizer(Words()).encode("one three") == [3, 5]


def test_without_special_ids_there_is_still_a_first_one():
    inner = byte_level()
    inner.bos_token = None
    assert PretrainedTokenizer(inner).prefix_id == 1
    inner.eos_token = None
    assert (PretrainedTokenizer(inner).prefix_id, PretrainedTokenizer(inner).eos_ids) == (0, ())


def test_the_byte_alphabet_is_complete():
    assert sorted(printable_to_byte().values()) == list(range(256))
    assert printable_to_byte()["\u0120"] == 32


def test_byte_ids_are_a_tokenizer():
    ids = ByteIds()
    assert isinstance(ids, protocol.Tokenizer)
    assert isinstance(PretrainedTokenizer(byte_level()), protocol.Tokenizer)
    assert ids.decode(ids.encode(TEXT)) == TEXT
    assert b"".join(ids.token_bytes(i) for i in ids.encode(TEXT)) == TEXT.encode()
    assert ids.token_bytes(256) is None
