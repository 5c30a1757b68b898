"""The model over words against itself and against words one by one: leaks, likelihood, steps, gradients, lengths."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from harness.kinds.architecture.blocks import Blocks
from harness.kinds.architecture.ragged import Segments
from harness.kinds.architecture.wordwise import WordModel, causal_by_word

END, VOCAB = 258, 259
TEXT = [
    256,
    *b"the ",
    END,
    *b"cat ",
    END,
    *b"sat on",
    END,
    *b"a",
    END,
    *b"m",
    257,
    256,
    *b"it is a very long ",
    END,
    *b"w",
]


def loud(model):
    """The model with weights that matter: a tiny initial deviation would hide leaks."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() == 2 and parameter.numel():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return model.eval()


def make(prefixes, vocab=VOCAB, first_end=256, width=24):
    inner = [Blocks(16, 2, 2) for _ in range(2)]
    return loud(WordModel(vocab, first_end, prefixes, (inner[0], Blocks(width, 2, 2), inner[1])))


@pytest.fixture(scope="module", params=[0, 1, 3])
def model(request):
    return make(request.param)


def words_of(ids, first_end=256):
    """The ended words of some ids, and the open one."""
    done, word = [], []
    for token in ids:
        word.append(token)
        if token >= first_end:
            done.append(word)
            word = []
    return done, word


def vector(model, word):
    """A word's vectors, from that word alone."""
    x = torch.cat([model.prefix, model.embed(torch.tensor(word))])[None]
    seen = torch.ones(1, 1, x.shape[1], x.shape[1], dtype=torch.bool)
    out = model.encoder(x, mask=seen)[0]
    return model.up(out[: len(model.prefix)] if len(model.prefix) else out[-1:])


def oracle(model, ids):
    """Logits of the id after ``ids``, word by word and without a cache."""
    done, word = words_of(ids, model.first_end)
    x = torch.cat([model.start, *(vector(model, w) for w in done)])[None]
    n = model.slots
    seen = torch.zeros(x.shape[1], x.shape[1], dtype=torch.bool)
    for i in range(x.shape[1]):
        seen[i, : (i // n + 1) * n] = True
    lead = model.down(model.backbone(x, mask=seen[None, None]))[:, -n:]
    own = torch.cat([lead, model.embed(torch.tensor(word, dtype=torch.long))[None]], 1)
    return F.linear(model.decoder(own)[0, -1], model.embed.weight)


@torch.no_grad()
def test_whole_rows_are_words_one_by_one(model):
    whole = model(torch.tensor([TEXT]))[0]
    for place in range(len(TEXT)):
        assert torch.allclose(whole[place], oracle(model, TEXT[: place + 1]), atol=1e-4), place


@torch.no_grad()
@pytest.mark.parametrize("pieces", [(len(TEXT),), (1,) * len(TEXT), (7, 1, 1, 12, 3, len(TEXT) - 24)])
def test_step_by_step_is_all_at_once(model, pieces):
    whole, state, at = model(torch.tensor([TEXT]))[0], model.begin(), 0
    for piece in pieces:
        logits = model.read(TEXT[at : at + piece], state)
        at += piece
        assert torch.allclose(logits, whole[at - 1], atol=1e-4)
    ended = len(words_of(TEXT)[0])
    assert state.main.slots == model.slots * (1 + ended) and state.main.forwards <= 1 + min(ended, len(pieces))


@torch.no_grad()
def test_a_later_byte_never_changes_an_earlier_prediction(model):
    logits = model(torch.tensor([TEXT]))[0]
    for place in range(1, len(TEXT), 2):
        for other in (99, END):
            if TEXT[place] != other:
                changed = model(torch.tensor([[*TEXT[:place], other, *TEXT[place + 1 :]]]))[0]
                assert torch.allclose(changed[:place], logits[:place], atol=1e-5), place
                assert (changed[place] - logits[place]).abs().max() > 1e-3


@torch.no_grad()
def test_rows_and_padding_are_independent(model):
    rows = torch.tensor([TEXT, TEXT[::-1], [99] * len(TEXT), [END] * len(TEXT)])
    logits = model(rows)
    for index in range(len(rows)):
        assert torch.allclose(model(rows[index : index + 1])[0], logits[index], atol=1e-4)
        assert torch.allclose(model(rows[index : index + 1, :20])[0], logits[index, :20], atol=1e-4)


@torch.no_grad()
def test_where_a_word_stands_does_not_change_its_vectors(model):
    ids = torch.tensor([[*b"cat ", END, *b"a", END, *b"cat ", END, *b"something long", END, *b"cat ", END]])
    vectors = model.word_vectors(ids, Segments.after(ids >= 256))
    assert torch.allclose(vectors[0], vectors[2], atol=1e-5) and torch.allclose(vectors[0], vectors[4], atol=1e-5)
    assert (vectors[0] - vectors[1]).abs().max() > 1e-2


def test_the_logits_of_a_word_have_no_gradient_from_later_words(model):
    read = []
    hook = model.embed.register_forward_hook(lambda _m, _i, out: read.append(out))
    logits = model(torch.tensor([[*b"the ", END, *b"cat ", END, *b"sat", END, *b"on"]]))[0]
    hook.remove()
    # From places 5 to 8 the letters of the second word and its end are predicted.
    gradients = torch.autograd.grad(logits[5:9].square().sum(), read)
    moved = sum(gradient.abs().sum(-1) for gradient in gradients) > 0
    assert moved[:9].all() and not moved[9:].any()


@torch.no_grad()
def test_the_words_of_a_toy_alphabet_sum_to_one(model):
    """All words of up to L letters, their ends counted, and all beginnings of longer ones share the whole of 1."""
    small, longest = make(len(model.prefix), vocab=3, first_end=2), 4
    ended = []
    for length in range(longest + 1):
        rows = torch.tensor([[2, *letters, 2] for letters in itertools.product((0, 1), repeat=length)])
        logp = small(rows)[:, :-1].log_softmax(-1).gather(-1, rows[:, 1:, None])[..., 0]
        ended.append(float(logp.sum(1).exp().sum()))
        begun = float(logp[:, :-1].sum(1).exp().sum())
        assert begun == pytest.approx(1 - sum(ended[:-1]), abs=1e-5)
    assert begun < 0.95 and min(ended) > 0


def test_every_parameter_learns(model):
    ids = torch.tensor([TEXT])
    F.cross_entropy(model(ids)[0, :-1], ids[0, 1:]).backward()
    held = [(name, p) for name, p in model.named_parameters() if p.numel()]
    assert not [name for name, p in held if p.grad is None or not p.grad.abs().sum() > 0]


def test_the_mask_by_hand():
    seen = causal_by_word(3, 6, 2, torch.device("cpu"))[0, 0]
    assert seen.int().tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]
