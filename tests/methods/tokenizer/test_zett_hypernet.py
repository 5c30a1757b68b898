"""The hypernetwork: what a predicted row depends on, that it learns a rule, and that it begins as the parts' mean."""

import random
from dataclasses import replace

import pytest
import torch

from harness.kinds.checking import run_checks
from harness.kinds.tokenizer import Specials, TableTokenizer, Vocabulary, split_table
from harness.kinds.tokenizer.hypernet import Scaler, closeness, draws, gathered, held_out_split, spelling
from harness.kinds.tokenizer.initialise import INITIALISERS
from harness.kinds.tokenizer.transplant import plan_rows, transplant
from harness.subjects.load import wrap_model
from harness.subjects.tiny import ByteIds, random_llama
from harness.toolkit.corpora import documents
from methods.tokenizer.zett_hypernet import RowPredictor, ZettHypernet

QUICK = ZettHypernet(vocab_size=300, train_bytes=30_000, width=16, identity_steps=3, steps=3, batch=8)
SMALL = ZettHypernet(
    vocab_size=300, train_bytes=30_000, width=32, identity_steps=5, steps=150, batch=64, learning_rate=3e-3
)
LETTERS = "abcdefghijklmnop"


@pytest.fixture(scope="module")
def pairs():
    """A model with tokens of one and of two letters, where a pair's row is its first letter's less half its other's."""
    words = [*LETTERS, *(a + b for a in LETTERS for b in LETTERS)]
    tokenizer = TableTokenizer("pairs", [w.encode() for w in words], lambda text: [], Specials.of(ByteIds()))
    model, _, length = random_llama(vocab_size=len(words) + 2, hidden_size=16, num_attention_heads=2, bos_token_id=0)
    with torch.no_grad():
        for rows in (model.model.embed_tokens.weight, model.lm_head.weight):
            for place, word in enumerate(words[16:]):
                first, second = (LETTERS.index(letter) for letter in word)
                rows[16 + place] = rows[first] - rows[second] / 2
    return wrap_model(model, tokenizer, "pairs", length)


@pytest.fixture(scope="module")
def artifact(pairs):
    return SMALL.learn(pairs, ["abab"], 0)


def test_it_learns_a_rule_that_the_mean_of_the_parts_misses(artifact):
    figures = {(m.metric, m.phase): m.value for m in SMALL.training_measurements(artifact)}
    assert figures["held_out_row_cosine", "hypernetwork"] > 0.7
    for plain in ("fvt", "last part"):
        assert figures["held_out_row_cosine", plain] < figures["held_out_row_cosine", "hypernetwork"] - 0.1
        assert figures["held_out_row_rank", "hypernetwork"] <= figures["held_out_row_rank", plain]


def test_a_row_depends_on_the_spelling_alone(pairs, artifact):
    def rows(tokens):
        made = TableTokenizer("made", tokens, lambda text: [], Specials.of(pairs.tokenizer))
        model, report = transplant(pairs.model, pairs.tokenizer, made, SMALL.initialiser(artifact))
        assert report.fallback == sum(t == b"?" for t in tokens)
        return dict(zip(tokens, model.model.embed_tokens.weight, strict=False))

    alone, among = rows([b"abcd"]), rows([b"?", b"abcdefgh", b"abcd", b"cab"])
    torch.testing.assert_close(alone[b"abcd"], among[b"abcd"], atol=1e-5, rtol=1e-5)
    # Only the first seven parts are seen.
    long = rows([b"ab" * 7 + b"cd", b"ab" * 7])
    torch.testing.assert_close(long[b"ab" * 7 + b"cd"], long[b"ab" * 7])


def test_what_stands_in_padding_does_not_matter():
    torch.manual_seed(0)
    net = RowPredictor(6, 16, 2, 4, 7).eval()
    torch.nn.init.normal_(net.out.weight)
    rows, real = torch.randn(2, 5, 6), torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    other = rows.clone()
    other[0, 3:] = 1e3
    torch.testing.assert_close(net(rows, real), net(other, real))
    torch.testing.assert_close(net(rows, real)[:1], net(rows[:1, :3], real[:1, :3]), atol=1e-5, rtol=1e-5)


def test_untrained_it_is_the_mean_of_the_parts(pairs):
    plain = ZettHypernet(identity_steps=0, steps=0, width=32)
    made = TableTokenizer("made", [b"abc", b"aabb"], lambda text: [], Specials.of(pairs.tokenizer))
    missing = plan_rows(pairs.model, pairs.tokenizer, made).missing
    rows = torch.randn(pairs.tokenizer.vocab_size, 32, generator=torch.Generator().manual_seed(0))
    found = plain.initialiser(plain.learn(pairs, ["ab"], 0))(missing, rows).rows_ND
    torch.testing.assert_close(found, INITIALISERS["fvt"](missing, rows).rows_ND, atol=1e-5, rtol=1e-5)


def test_the_model_and_its_rows_stay_as_they_are(pairs):
    before = [(p._version, p.clone()) for p in pairs.model.parameters()]
    state = torch.random.get_rng_state()
    QUICK.learn(pairs, ["ab"], 0)
    assert all(
        p._version == v and torch.equal(p, q) for p, (v, q) in zip(pairs.model.parameters(), before, strict=True)
    )
    assert torch.equal(state, torch.random.get_rng_state())


def test_spellings_are_splits_of_the_token(pairs):
    vocabulary = Vocabulary(pairs.tokenizer)
    splits, rng = split_table(vocabulary), random.Random(0)
    for token in splits:
        parts = spelling(token, splits, 7, rng)
        assert len(parts) > 1 and b"".join(vocabulary.tokens[i] for i in parts) == vocabulary.tokens[token]
    assert spelling(0, splits, 7, rng) == [0]
    train, held = held_out_split(splits, [], 0.2, 0)
    assert not set(train) & set(held) and sorted(train + held) == sorted(splits) and len(held) == len(splits) // 5
    steps = list(draws(train, splits, 7, (2, 3), 4, 0))
    assert [all(len(s) == 1 for s in spellings) for _, spellings in steps] == [True] * 2 + [False] * 3


def test_scaling_comes_back_and_closeness_counts_nearer_rows():
    rows = torch.randn(30, 5) * 3 + 7
    scaler = Scaler.of(rows)
    torch.testing.assert_close(scaler.back(scaler.to_unit(rows)), rows)
    torch.testing.assert_close(scaler.to_unit(rows).std(0, correction=0), torch.ones(5))
    unit = torch.eye(4)
    assert closeness(unit, [0, 1, 2, 3], unit) == {"cosine": 1.0, "rank": 0.0}
    assert closeness(torch.tensor([[3.0, 2.0, 1.0, 0.0]]), [2], unit)["rank"] == 2
    grid, real = gathered(unit, [[1], [2, 3]])
    assert grid.shape == (2, 2, 4) and real.tolist() == [[True, False], [True, True]]


def test_the_checks_of_its_kind_hold(tiny):
    results = run_checks(ZettHypernet(vocab_size=300, train_bytes=30_000), tiny)
    assert not [f"{r.name}: {r.reason}" for r in results if not r.passed]


def test_in_the_loop_the_frozen_model_reads_drawn_tokenizers_better(tiny):
    plain = ZettHypernet(vocab_size=300, width=16, identity_steps=2, steps=2, batch=8, train_bytes=20_000)
    texts = documents("python_docs", "train", 20_000)
    before = [(p._version, p.grad, p.requires_grad, p.clone()) for p in tiny.model.parameters()]
    looped = replace(plain, loop_steps=30, loop_vocab=320, loop_texts=2, learning_rate=5e-3)
    found = looped.learn(tiny, texts, 0)
    for parameter, (version, grad, wanted, value) in zip(tiny.model.parameters(), before, strict=True):
        assert parameter._version == version and parameter.grad is grad and parameter.requires_grad == wanted
        assert torch.equal(parameter, value)
    losses = found["losses"]
    assert len(losses) == 30 and sum(losses[-5:]) < sum(losses[:5]) - 0.5
    assert plain.learn(tiny, texts, 0)["losses"] == []
    figures = {(m.metric, m.phase): m.value for m in looped.training_measurements(found)}
    assert figures["loop_loss", "first"] == losses[0] and figures["loop_loss", "last"] == losses[-1]


def test_the_checks_of_its_kind_hold_in_the_loop(tiny):
    method = ZettHypernet(vocab_size=300, train_bytes=30_000, loop_steps=2, loop_vocab=300)
    assert not [f"{r.name}: {r.reason}" for r in run_checks(method, tiny) if not r.passed]
