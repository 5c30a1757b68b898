"""Bits of whole documents: every token once, contexts in bytes, and the model's own sum where all fits a window."""

import math

import pytest

from harness.kinds.architecture.document_bits import document_bits, document_requests
from harness.subjects.requests import ScoreRequest
from harness.subjects.tiny import ByteIds

TEXT = "The cat sat on the mat, and the other cat sat there too; né."


class Pairs(ByteIds):
    """Two bytes a token."""

    def encode(self, text):
        raw = text.encode()
        return [raw[i : i + 2] for i in range(0, len(raw), 2)]

    def token_bytes(self, token_id):
        return None if isinstance(token_id, int) else token_id


@pytest.mark.parametrize("window", [8, 15, 32, 1000])
@pytest.mark.parametrize("tokenizer", [ByteIds(), Pairs()])
def test_every_token_is_scored_once_after_the_bytes_before_it(tokenizer, window):
    ids, half = tokenizer.encode(TEXT), window // 2
    found = document_requests(tokenizer, TEXT, window)
    assert [t for r in found for t in r.continuation] == ids
    done = 0
    for number, request in enumerate(found):
        held = [t for t in request.context if t != tokenizer.prefix_id]
        assert ids[:done][len(ids[:done]) - len(held) :] == held
        assert (request.context[0] == tokenizer.prefix_id) == (number < 2)
        size = sum(len(tokenizer.token_bytes(t)) for t in held)
        assert size <= half + 1 and (number == 0 or size >= min(half, done) - 2)
        done += len(request.continuation)


def test_tokenizers_see_the_same_bytes():
    for one, other in zip(*(document_requests(t, TEXT, 16) for t in (ByteIds(), Pairs())), strict=True):
        text = bytes(i for i in one.context if i < 256), bytes(one.continuation)
        assert text == (b"".join(t for t in other.context if t != 256), b"".join(other.continuation))


def test_a_document_in_one_window_has_the_model_s_own_sum(tiny):
    ids = tuple(tiny.tokenizer.encode(TEXT))
    (score,) = tiny.score([ScoreRequest(context=(tiny.tokenizer.prefix_id,), continuation=ids)])
    assert document_bits(tiny, [TEXT], 1000) == [pytest.approx(-score.logprob / math.log(2))]


def test_documents_keep_their_order_and_do_not_mix(tiny):
    texts = [TEXT, "short", TEXT[:30]]
    assert document_bits(tiny, texts, 24) == pytest.approx([document_bits(tiny, [t], 24)[0] for t in texts])
