"""Digit chunks from either side as tokenizers."""

import pytest
import torch

from harness.kinds.checking import run_checks
from harness.kinds.stack import applied
from harness.kinds.tokenizer.numbers import iter_numbers
from methods.tokenizer.number_direction import NumberDirection, pieces


def cut(text, scheme):
    return pieces(next(iter_numbers(text, plain=True)), scheme)


def test_the_integer_is_cut_from_its_side_and_the_fraction_from_the_point():
    assert cut("12345.6789", "digits3_r2l") == ["12", "345", ".", "678", "9"]
    assert cut("12345.6789", "digits3_l2r") == ["123", "45", ".", "678", "9"]
    assert cut("0012", "digits1") == list("0012")


def test_tokens_are_the_chunks(tiny):
    made = NumberDirection().make(tiny.tokenizer, None)
    ids = made.encode("1234567+89=x-10.5")
    assert [made.token_bytes(i) for i in ids] == [
        *(b"1", b"234", b"567", b"+", b"89", b"=", b"x", b"-", b"10", b".", b"5")
    ]
    # The ten digits and the point are tokens already.
    assert made.vocab_size == tiny.tokenizer.vocab_size + 1100


def test_a_new_chunk_begins_as_the_mean_of_its_digits(tiny):
    with applied([NumberDirection()], tiny) as changed:
        was, now = tiny.model.model.embed_tokens.weight, changed.model.model.embed_tokens.weight
        (token,) = changed.tokenizer.encode("425")
        torch.testing.assert_close(now[token], was[list(b"425")].mean(0))
        assert torch.equal(now[changed.tokenizer.encode("7")[0]], was[ord("7")])


def test_left_to_the_base_tokenizer_nothing_changes(tiny):
    assert NumberDirection(scheme="digits_bpe").make(tiny.tokenizer, None) is tiny.tokenizer


@pytest.mark.parametrize("scheme", ["digits3_r2l", "digits3_l2r", "digits1", "digits_bpe"])
def test_the_checks_of_its_kind_hold(tiny, scheme):
    results = run_checks(NumberDirection(scheme=scheme), tiny)
    assert not [f"{r.name}: {r.reason}" for r in results if not r.passed]
