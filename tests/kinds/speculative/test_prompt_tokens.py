"""Prompt tokens: the packed cuts against one forward a cut, the loss by hand, what learns, and that it does."""

import pytest
import torch

from harness.kinds.speculative.prompt_tokens import (
    RANKS,
    Texts,
    Training,
    continued,
    cut_mask,
    guesses_and_teachers,
    initial_prompts,
    measured_acc,
    prompt_loss,
    random_prompts,
    text_prompts,
    train_prompts,
    trained_prompts,
    within_text,
)
from harness.subjects.runner import Runner

CUTS = torch.tensor([0, 2, 3, 7])


@pytest.fixture(scope="module")
def texts(tiny):
    """Prompts of several lengths, so that the batch is padded, with twelve tokens of the model's own."""
    return continued(tiny, [[5, 6, 7], [9], [40 + i for i in range(8)]], 12)


def prompts_of(subject, count=3, seed=1):
    """Embeddings unlike any token's."""
    width = subject.model.config.hidden_size
    return 0.5 * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_a_continuation_is_the_model_s_own_greedy_text(tiny, texts):
    for prompt, text in zip(texts.prompts, texts.continuations, strict=True):
        runner = Runner(tiny.model, tiny.new_cache)
        with torch.inference_mode():
            logits = runner.prefill([[*prompt, *text]], all_logits=True)[0]
        assert logits.argmax(-1).tolist()[len(prompt) - 1 : -1] == text


def test_packed_cuts_are_as_one_forward_a_cut(tiny, texts):
    """Guesses: a prefill of the cut text, then the prompt tokens. Teachers: the text itself in their place."""
    prompts_ND = prompts_of(tiny)
    with torch.no_grad():
        guesses, teachers = guesses_and_teachers(tiny, texts, CUTS, prompts_ND)
        for row in range(len(texts)):
            for place, cut in enumerate(CUTS.tolist()):
                text = texts.continuations[row]
                runner = Runner(tiny.model, tiny.new_cache)
                runner.prefill([[*texts.prompts[row], *text[: cut + 1]]])
                alone = runner.forward(torch.zeros(1, 3, dtype=torch.long), embeds_BTD=prompts_ND[None])[0]
                runner.commit(torch.empty(0, dtype=torch.long))
                real = runner.forward(torch.tensor([text[cut + 1 : cut + 4]]))[0]
                assert torch.allclose(guesses[row, place], alone, atol=1e-4)
                assert torch.allclose(teachers[row, place], real, atol=1e-4)


def test_a_cut_sees_its_text_and_its_own_prompt_tokens():
    mask = cut_mask(torch.tensor([0, 2]), 2, slots=5, first=1)
    assert mask.int().tolist() == [
        [1, 1, 0, 0, 0, 1, 0, 0, 0],
        [1, 1, 0, 0, 0, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 1, 0],
        [1, 1, 1, 1, 0, 0, 0, 1, 1],
    ]


def test_the_loss_is_the_weighted_divergence_of_the_cuts_that_count():
    generator = torch.Generator().manual_seed(0)
    guess, teacher = (torch.randn(2, 3, 2, 5, generator=generator) for _ in range(2))
    known = torch.tensor([[1, 1, 0], [0, 1, 0]], dtype=torch.bool)
    total = 0.0
    for row, cut in known.nonzero().tolist():
        for i in range(2):
            p, q = teacher[row, cut, i].softmax(-1), guess[row, cut, i].softmax(-1)
            total += 0.8**i * float((p * (p / q).log()).sum()) / 2
    assert float(prompt_loss(guess, teacher, known, 0.8)) == pytest.approx(total / 3, rel=1e-5)
    assert float(prompt_loss(guess, guess, known, 0.8)) == pytest.approx(0, abs=1e-6)
    assert float(prompt_loss(guess, teacher, known & False, 0.8)) == 0


def test_a_cut_counts_if_all_it_predicts_comes_before_the_end_of_the_text():
    texts = Texts([[1]] * 3, [[7] * 6] * 3, [6, 4, 0])
    assert within_text(texts, torch.tensor([0, 1, 2, 3]), 2).int().tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [0] * 4]


def test_only_the_prompt_embeddings_take_gradients(tiny, texts):
    prompts = prompts_of(tiny)
    learning = [p.requires_grad for p in tiny.model.parameters()]
    before = [p.detach().clone() for p in tiny.model.parameters()]
    trained, losses = train_prompts(tiny, texts, prompts, Training(batch=2, cuts=4))
    assert len(losses) == 2 and trained.shape == prompts.shape and not torch.equal(trained, prompts)
    assert all(parameter.grad is None for parameter in tiny.model.parameters())
    assert [p.requires_grad for p in tiny.model.parameters()] == learning and any(learning)
    assert all(torch.equal(p, old) for p, old in zip(tiny.model.parameters(), before, strict=True))


def test_the_gradient_is_that_of_the_loss(tiny, texts):
    """Against finite differences along it."""
    start = prompts_of(tiny).requires_grad_()

    def loss(prompts_ND):
        known = within_text(texts, CUTS, 3)
        return prompt_loss(*guesses_and_teachers(tiny, texts, CUTS, prompts_ND), known, 0.8)

    loss(start).backward()
    along, step = start.grad / start.grad.norm(), 2e-2
    with torch.no_grad():
        slope = float(loss(start + step * along) - loss(start - step * along)) / (2 * step)
    assert float((start.grad * along).sum()) == pytest.approx(slope, rel=0.02)
    tiny.model.zero_grad(set_to_none=True)


def test_the_loss_falls_below_the_start_within_fifty_updates(tiny, texts):
    start = prompts_of(tiny)
    often = texts.pick([0, 1, 2] * 50)
    trained, losses = train_prompts(tiny, often, start, Training(batch=3, cuts=4, learning_rate=0.1))
    assert len(losses) == 50
    with torch.no_grad():
        before, after = (
            prompt_loss(*guesses_and_teachers(tiny, texts, CUTS, p), within_text(texts, CUTS, 3), 0.8)
            for p in (start, trained)
        )
    assert float(after) < 0.9 * float(before)


def test_acc_counts_what_is_right_at_each_rank(tiny, texts):
    prompts_ND = prompts_of(tiny)
    acc = measured_acc(tiny, texts, prompts_ND, batch=2)
    cuts = torch.arange(0, 12 - 3, 2)
    with torch.no_grad():
        guesses, teachers = guesses_and_teachers(tiny, texts, cuts, prompts_ND)
    known = within_text(texts, cuts, 3)
    right = torch.zeros(3, RANKS)
    for row, cut in known.nonzero().tolist():
        for i in range(3):
            ranked = guesses[row, cut, i].topk(RANKS).indices.tolist()
            said = int(teachers[row, cut, i].argmax())
            if said in ranked:
                right[i, ranked.index(said)] += 1
    assert torch.allclose(torch.tensor(acc), right / known.sum(), atol=1e-6)


def test_a_model_that_is_asked_for_the_token_it_reads_is_always_right(tiny, texts):
    """With the real token's embedding as prompt token, its output is the teacher's: rank 0 is right everywhere."""
    cut, row = 4, 0
    ids = torch.tensor(texts.continuations[row][cut + 1 : cut + 4])
    real_ND = tiny.model.get_input_embeddings()(ids)
    guesses, teachers = guesses_and_teachers(tiny, texts.pick([row]), torch.tensor([cut]), real_ND)
    assert torch.allclose(guesses, teachers, atol=1e-4)


def test_prompts_come_from_the_documents_of_one_split(tiny):
    ours, theirs = (text_prompts(tiny, split, 6, seed=0) for split in ("train", "valid"))
    assert ours == text_prompts(tiny, "train", 6, seed=0) and ours != text_prompts(tiny, "train", 6, seed=1)
    assert not {tuple(p) for p in ours} & {tuple(p) for p in theirs}
    assert all(12 <= len(prompt) <= 48 for prompt in ours)


def test_random_prompts_are_the_same_for_a_seed(tiny):
    assert torch.equal(random_prompts(tiny, 3), random_prompts(tiny, 3))
    assert not torch.equal(random_prompts(tiny, 3), random_prompts(tiny, 3, seed=1))
    assert initial_prompts(tiny, 20).shape == (20, 32)


def test_the_artifact_is_plain_data(tiny, tmp_path):
    made = trained_prompts(tiny, 2, Training(texts=4, cuts=4))
    torch.save(made, tmp_path / "made.pt")
    read = torch.load(tmp_path / "made.pt", weights_only=True)
    assert read["prompts"].shape == (2, 32) and read["prompts"].dtype == torch.float32
    for acc in (read["acc"], read["acc_before"]):
        assert len(acc) == 2 and all(len(row) == RANKS and 0 <= sum(row) <= 1 for row in acc)
    assert len(read["losses"]) == 2 and read["generated_tokens"] == 48 * 8
