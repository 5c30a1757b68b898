"""Initialisers: what each makes of the rows it is given, and what it calls a fallback."""

import numpy as np
import pytest
import torch

from harness.kinds.tokenizer.initialise import INITIALISERS, mix_rows, sparsemax
from harness.kinds.tokenizer.spaces import SPACES, nearest, readable
from harness.kinds.tokenizer.transplant import plan_rows, transplant
from harness.kinds.tokenizer.vocabulary import Specials, TableTokenizer, Vocabulary

TOKENS = [b"cat", b"the cat", b"\x06", b" the", b"z\xffq", b"\xc3", b"  ", b"cats th", b"t", b"sat"]


@pytest.fixture
def new(subject):
    return TableTokenizer("made", TOKENS, lambda text: [], Specials.of(subject.tokenizer))


@pytest.fixture
def missing(subject, new):
    return plan_rows(subject.model, subject.tokenizer, new).missing


def test_mixing_is_a_weighted_sum_and_exact_for_one_source():
    rows = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    made = mix_rows(rows, [[3], [0, 1], [], [4]])
    assert torch.equal(made[[0, 3]], rows[[3, 4]])
    torch.testing.assert_close(made[1], rows[:2].mean(0))
    torch.testing.assert_close(made[2], rows.mean(0))
    weighted = mix_rows(rows, [[0, 0, 1], []], [[0.25, 0.25, 0.5], []])
    torch.testing.assert_close(weighted[0], rows[:2].mean(0))
    torch.testing.assert_close(weighted[1], rows.mean(0))


@pytest.mark.parametrize("name", list(INITIALISERS))
def test_every_initialiser_is_deterministic_and_keeps_shared_rows(subject, new, name):
    first, report = transplant(subject.model, subject.tokenizer, new, INITIALISERS[name])
    again, _ = transplant(subject.model, subject.tokenizer, new, INITIALISERS[name])
    now = first.model.embed_tokens.weight
    assert torch.equal(now, again.model.embed_tokens.weight) and bool(now.isfinite().all())
    was = subject.model.model.embed_tokens.weight
    assert torch.equal(now[3], was[Vocabulary(subject.tokenizer).by_bytes[b" the"]])
    assert report.shared + report.special + report.composed + report.fallback == new.vocab_size
    assert (first.lm_head.weight is now) == subject.model.config.tie_word_embeddings


def test_random_rows_have_the_mean_and_deviation_of_each_dimension(missing):
    rows = torch.randn(400, 3) * torch.tensor([0.1, 1.0, 5.0]) + torch.tensor([7.0, 0.0, -2.0])
    many = INITIALISERS["random"](missing, rows).rows_ND
    assert torch.all((many - rows.mean(0)).abs() < 5 * rows.std(0))
    assert INITIALISERS["random"](missing, rows).fallback == len(missing.tokens)
    constant = INITIALISERS["random"](missing, torch.ones(4, 2))
    assert torch.equal(constant.rows_ND, torch.ones(len(missing.tokens), 2))


def test_mean_rows_are_the_mean_of_the_vocabulary_without_spare_rows(subject, new):
    made, report = transplant(subject.model, subject.tokenizer, new, INITIALISERS["mean"])
    was = subject.model.model.embed_tokens.weight[: subject.tokenizer.vocab_size]
    torch.testing.assert_close(made.model.embed_tokens.weight[1], was.mean(0))
    assert report.composed == 0


def test_fvt_falls_back_where_no_part_is_known(missing):
    rows = torch.randn(missing.old.tokenizer.vocab_size, 4)
    made = INITIALISERS["fvt"](missing, rows)
    unknown = [n for n, part in enumerate(missing.parts) if not part]
    assert made.fallback == len(unknown) > 0
    torch.testing.assert_close(made.rows_ND[unknown], rows.mean(0).expand(len(unknown), -1))


def test_sparsemax_is_the_projection_onto_the_simplex():
    scores = torch.randn(20, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    made = sparsemax(scores)
    torch.testing.assert_close(made.sum(-1), torch.ones(20, dtype=torch.float64))
    assert bool((made >= 0).all()) and bool((made == 0).any())
    for row, point in zip(scores.numpy(), made.numpy(), strict=True):
        # Bisection for the threshold, which is unique.
        low, high = row.min() - 1, row.max()
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if np.maximum(row - middle, 0).sum() > 1 else (low, middle)
        np.testing.assert_allclose(point, np.maximum(row - low, 0), atol=1e-9)


def test_focus_mixes_shared_tokens_alone(missing):
    rows = torch.zeros(missing.old.tokenizer.vocab_size, 1)
    rows[list(missing.shared)] = 1.0
    made = INITIALISERS["focus"](missing, rows)
    for n, token in enumerate(missing.tokens):
        if readable(token):
            assert float(made.rows_ND[n]) == pytest.approx(1.0, abs=1e-5)
        else:
            assert float(made.rows_ND[n]) == pytest.approx(float(INITIALISERS["fvt"](missing, rows).rows_ND[n]))


def test_what_is_readable():
    assert readable(b" the") == " the" and readable("\u00e9".encode()) == "\u00e9"
    assert [readable(t) for t in (None, b"", b"\xc3", b" \n", b"\t")] == [None] * 5


@pytest.mark.parametrize("name", list(SPACES))
def test_vectors_are_unit_rows_that_depend_on_the_text(subject, name):
    texts = sorted({"the", " the", "cat", "cats", "mat", "sat there"})
    made = SPACES[name](texts, subject.model, Vocabulary(subject.tokenizer))
    torch.testing.assert_close(made.norm(dim=-1), torch.ones(len(texts)))
    assert torch.equal(made, SPACES[name](texts, subject.model, Vocabulary(subject.tokenizer)))
    values, indices = nearest(made, made, 3)
    assert indices[:, 0].tolist() == list(range(len(texts)))
    brute = (made @ made.T).sort(-1, descending=True)
    torch.testing.assert_close(values, brute.values[:, :3])


def test_spelling_brings_like_words_together(subject):
    texts = sorted(["token", "tokens", "tokenizer", "banana", "bananas", "xyz"])
    made = SPACES["chargram"](texts, None, None)
    near = {text: texts[i] for text, i in zip(texts, nearest(made, made, 2)[1][:, 1].tolist(), strict=True)}
    assert near["banana"] == "bananas" and near["tokens"].startswith("token")


def test_the_models_own_space_is_not_disturbed_by_padding(subject):
    held = Vocabulary(subject.tokenizer)
    alone = SPACES["self"](["cat"], subject.model, held)
    batch = SPACES["self"](["cat", "the cat sat on the mat"], subject.model, held)
    torch.testing.assert_close(alone[0], batch[0], atol=1e-5, rtol=1e-5)
