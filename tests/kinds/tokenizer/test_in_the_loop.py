"""Drawn tokenizers, and the frozen model's loss under other rows."""

import numpy as np
import pytest
import torch

from harness.kinds.tokenizer.bpe import ByteLevelTokenizer
from harness.kinds.tokenizer.hostile import lost
from harness.kinds.tokenizer.in_the_loop import (
    Loop,
    candidates,
    draw_tokenizer,
    exchanged,
    language_loss,
    lexical_loss,
    token_bytes,
)
from harness.kinds.tokenizer.transplant import joined_rows
from harness.kinds.tokenizer.vocabulary import Specials
from harness.subjects.load import wrap_model
from harness.subjects.requests import ScoreRequest
from harness.subjects.tiny import ByteIds, random_llama
from harness.toolkit.corpora import documents


@pytest.fixture(params=["tied", "untied"])
def model(request):
    return random_llama(tie_word_embeddings=request.param == "tied")[0]


class Mean(torch.nn.Module):
    """The mean of the parts, with one weight."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, rows, real):
        return self.scale * (rows * real[..., None]).sum(1) / real.sum(1, keepdim=True)


def test_pieces_are_scored_by_count_and_length():
    assert candidates({"abcdefg": 2, "ab": 3}) == {
        "ab": 10, "abc": 6, "abcd": 8, "abcde": 10, "abcdef": 12, "abcdefg": 14, "ef": 4, "efg": 6,
    }  # fmt: skip
    assert max(map(len, candidates({"x" * 40: 1}))) == 16


def test_drawn_tokenizers_hold_all_bytes_lose_nothing_and_differ():
    texts = documents("python_docs", "train", 20_000)
    rng = np.random.default_rng(0)
    drawn = [draw_tokenizer(texts, 400, rng) for _ in range(3)]
    for rust in drawn:
        assert lost(ByteLevelTokenizer(rust, Specials.of(ByteIds()), "drawn")) == []
        assert {bytes([b]) for b in range(256)} | {b"    "} <= set(token_bytes(rust))
        assert len(token_bytes(rust)) == 400
    assert len({frozenset(token_bytes(rust)) for rust in drawn}) == 3
    again = draw_tokenizer(texts, 400, np.random.default_rng(0))
    assert token_bytes(again) == token_bytes(drawn[0])


def test_under_its_own_rows_the_loss_is_the_models(model):
    subject = wrap_model(model, ByteIds(), "tiny", 512)
    texts = [list(b"abc def"), list(b"ab")]
    scores = subject.score([ScoreRequest(context=(256,), continuation=tuple(text)) for text in texts])
    loss = language_loss(model, joined_rows(model, 258), [[256, *text] for text in texts])
    assert loss.item() == pytest.approx(-sum(s.logprob for s in scores) / 9, rel=1e-4)


def test_rows_of_another_number_are_put_in_for_one_call(model):
    before = joined_rows(model, 258)
    rows = torch.randn(300, before.shape[1], requires_grad=True)
    slopes = torch.autograd.grad(language_loss(model, rows, [[299, 280, 5]]), rows)[0]
    assert slopes.abs().sum() > 0 and torch.equal(joined_rows(model, 258), before)
    assert all(p.grad is None for p in model.parameters())
    assert {part.shape[0] for part in exchanged(model, rows).values()} == {300}


def test_a_bias_of_the_head_is_exchanged_too():
    model = random_llama()[0]
    model.lm_head.bias = torch.nn.Parameter(torch.randn(258))
    made = exchanged(model, joined_rows(model, 258))
    assert torch.equal(made["lm_head.bias"], model.lm_head.bias) and len(made) == 3


def test_lexical_loss_is_zero_at_the_true_rows_and_without_any():
    rows = torch.randn(5, 4)
    assert lexical_loss(rows, rows) == 0 == lexical_loss(rows[:0], rows[:0])
    assert lexical_loss(rows + 1, rows).item() == pytest.approx(4 / rows.norm(dim=-1).mean().item(), rel=1e-5)


def test_an_update_moves_the_predictor_alone(model):
    subject, net = wrap_model(model, ByteIds(), "tiny", 512), Mean()
    texts = documents("python_docs", "train", 10_000)
    found = Loop(net, subject, 7, 300, 2, 0.5).fit(texts, 2, 1e-2, 0)
    assert len(found) == 2 and net.scale != 1
    assert found == Loop(Mean(), subject, 7, 300, 2, 0.5).fit(texts, 2, 1e-2, 0)
