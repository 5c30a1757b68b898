"""Prompt tokens: input embeddings that make a frozen model guess tokens further ahead, how they are trained and judged.

The teacher is the model's own greedy text ``y0 y1 ...`` after ``x``. Prompt token ``i`` = 1 .. n stands at the position
of ``y_(i-1)`` and is to predict what the model predicts after ``x y0 .. y_(i-1)``; it sees ``x`` and the prompt tokens
before it. Many places of one text are cut at once: each cut has its own prompt tokens, kept apart by the mask.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.subjects.cache import KVCache
from harness.subjects.requests import GenerateRequest
from harness.subjects.runner import Runner, pad_left
from harness.subjects.subject import Subject
from harness.toolkit.corpora import documents
from harness.toolkit.students import request_ids
from harness.toolkit.trainer import optimizer_step

INITIAL_TEXT = "Next 2 word"
OPENINGS = (
    "Explain in simple words: ",
    "Summarise this in one sentence: ",
    "Give an example of the following. ",
    "Write a short story in which somebody says: ",
)
SHORTEST, LONGEST = 12, 48
"""Tokens of a document that a prompt begins with."""
TEXT_TOKENS = 48
GENERATED_TOGETHER = 16
HELD_OUT = 48
"""Texts on which the guesses are judged."""
RANKS = 10
"""Guesses of one prompt token that are judged, and that may be drafted."""


@dataclass(frozen=True)
class Texts:
    """Prompts and the model's greedy continuations, all of one length; ``lengths`` counts those up to end of text."""

    prompts: list[list[int]]
    continuations: list[list[int]]
    lengths: list[int]

    def __len__(self) -> int:
        return len(self.prompts)

    def pick(self, rows: Sequence[int]) -> Texts:
        """Some of the texts."""
        return Texts(
            [self.prompts[row] for row in rows],
            [self.continuations[row] for row in rows],
            [self.lengths[row] for row in rows],
        )


def text_prompts(subject: Subject, split: str, count: int, seed: int) -> list[list[int]]:
    """Beginnings of documents, every second one inside a short request where the model has a chat format."""
    tokenizer, rng = subject.text_tokenizer(), random.Random(f"prompts:{seed}:{split}")
    found = documents("python_docs", split, seed=seed)
    prompts = []
    for index in range(count):
        start = tokenizer.encode(found[index % len(found)])[: rng.randint(SHORTEST, LONGEST)]
        if index % 2 and getattr(tokenizer, "chat_template", None):
            start = request_ids(subject, rng.choice(OPENINGS) + tokenizer.decode(start))
        prompts.append(start)
    return prompts


def continued(subject: Subject, prompts: list[list[int]], tokens: int = TEXT_TOKENS) -> Texts:
    """The model's own greedy text after each prompt."""
    # Prompts of similar length share a batch, so that little of it is padding.
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    found: dict[int, list[int]] = {}
    for first in range(0, len(order), GENERATED_TOGETHER):
        rows = order[first : first + GENERATED_TOGETHER]
        request = GenerateRequest(prompts=[prompts[row] for row in rows], max_new_tokens=tokens, ignore_eos=True)
        found |= {row: one.tokens for row, one in zip(rows, subject.generate(request), strict=True)}
    eos = set(subject.text_tokenizer().eos_ids)
    texts = [found[row] for row in range(len(prompts))]
    ends = [next((place for place, token in enumerate(text) if token in eos), tokens) for text in texts]
    return Texts(prompts, texts, ends)


def initial_prompts(subject: Subject, count: int) -> Tensor:
    """Input embeddings ``[n, D]`` of the first tokens of :data:`INITIAL_TEXT`, in float32, as the release starts."""
    ids = subject.text_tokenizer().encode(INITIAL_TEXT)
    ids_N = torch.tensor([ids[place % len(ids)] for place in range(count)], device=subject.device)
    with torch.no_grad():
        return subject.model.get_input_embeddings()(ids_N).float()  # type: ignore[no-any-return]


def random_prompts(subject: Subject, count: int, seed: int = 0) -> Tensor:
    """Embeddings of random tokens, ``[n, D]``: what is used where nothing was trained."""
    table_VD = subject.model.get_input_embeddings()
    ids_N = torch.randint(0, table_VD.num_embeddings, (count,), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return table_VD(ids_N.to(subject.device)).float()  # type: ignore[no-any-return]


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """No parameter of the model takes gradients meanwhile."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def cut_mask(cuts_C: Tensor, count: int, slots: int, first: int) -> Tensor:
    """``[C n, slots + C n]``: which slots and prompt tokens the ``count`` prompt tokens of each cut see.

    ``first`` is the slot of the continuations' first token; a cut after their token ``t`` sees the slots up to it.
    """
    place = torch.arange(slots, device=cuts_C.device)
    seen = (place[None] <= first + cuts_C[:, None]).repeat_interleave(count, 0)
    own = torch.ones(count, count, dtype=torch.bool, device=cuts_C.device).tril()
    return torch.cat([seen, torch.block_diag(*[own] * len(cuts_C)).bool()], 1)


def guesses_and_teachers(subject: Subject, texts: Texts, cuts_C: Tensor, prompts_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Logits ``[B, C, n, V]`` of the prompt tokens after each cut, and of the model once it has read what they guess.

    A cut ``t`` ends ``x`` with the continuation's token ``t``. Gradients flow to ``prompts_ND`` alone.
    """
    count, length = len(prompts_ND), len(texts.continuations[0])
    # A full cache, whatever the subject's own keeps: the mask names slots by their place in the text.
    runner = Runner(subject.model, partial(KVCache, len(subject.new_cache().layers)))
    rows = [[*prompt, *text] for prompt, text in zip(texts.prompts, texts.continuations, strict=True)]
    ids_BT, valid_BT = pad_left(rows, subject.device)
    with torch.no_grad():
        model_BTV = runner.forward(ids_BT, valid_BT=valid_BT, logits_to_keep=length)
        runner.commit(valid_BT=valid_BT)
    step_N = torch.arange(1, count + 1, device=subject.device)
    after_CN = cuts_C[:, None] + step_N
    embeds = prompts_ND.to(subject.dtype).repeat(len(cuts_C), 1).expand(len(rows), -1, -1)
    guesses = runner.forward(
        torch.zeros(embeds.shape[:2], dtype=torch.long, device=subject.device),
        block_TM=cut_mask(cuts_C, count, ids_BT.shape[1], ids_BT.shape[1] - length),
        depth_M=after_CN.flatten() - length,
        embeds_BTD=embeds,
    )
    return guesses.unflatten(1, after_CN.shape), model_BTV[:, after_CN]


def prompt_loss(guess_BCNV: Tensor, teacher_BCNV: Tensor, known_BC: Tensor, decay: float) -> Tensor:
    """``(1/n) sum_i decay^(i-1) KL(teacher_i || guess_i)``, mean over the cuts that count."""
    guess, teacher = (logits.float().log_softmax(-1) for logits in (guess_BCNV, teacher_BCNV))
    kl_BCN = F.kl_div(guess, teacher, reduction="none", log_target=True).sum(-1)
    weight_N = decay ** torch.arange(kl_BCN.shape[-1], device=kl_BCN.device)
    return ((kl_BCN * weight_N).mean(-1) * known_BC).sum() / known_BC.sum().clamp(min=1)


def within_text(texts: Texts, cuts_C: Tensor, count: int) -> Tensor:
    """``[B, C]``: whether all that the prompt tokens of a cut are to predict comes before the end of the text."""
    return cuts_C[None] + count < torch.tensor(texts.lengths, device=cuts_C.device)[:, None]


@dataclass(frozen=True)
class Training:
    """How prompt tokens are trained: ``cuts`` places in each of ``batch`` texts an update, one pass over the texts."""

    texts: int = 512
    learning_rate: float = 1e-2
    decay: float = 0.8
    batch: int = 2
    cuts: int = 16
    seed: int = 0


def train_prompts(subject: Subject, texts: Texts, prompts_ND: Tensor, how: Training) -> tuple[Tensor, list[float]]:
    """The trained embeddings ``[n, D]``, float32, and the loss of each update. Only these n x D numbers learn."""
    prompts = prompts_ND.clone().requires_grad_()
    optimizer = torch.optim.AdamW([prompts], lr=how.learning_rate, weight_decay=0.0)
    rng, losses = random.Random(how.seed), list[float]()
    order = rng.sample(range(len(texts)), len(texts))
    batches = [texts.pick(order[first : first + how.batch]) for first in range(0, len(order), how.batch)]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    places = range(len(texts.continuations[0]) - len(prompts))
    with frozen(subject.model):
        for batch in batches:
            cuts_C = torch.tensor(sorted(rng.sample(places, min(how.cuts, len(places)))), device=subject.device)
            guesses, teachers = guesses_and_teachers(subject, batch, cuts_C, prompts)
            loss = prompt_loss(guesses, teachers, within_text(batch, cuts_C, len(prompts)), how.decay)
            optimizer_step(optimizer, loss)
            schedule.step()
            losses.append(float(loss.detach()))
    return prompts.detach(), losses


@torch.no_grad()
def measured_acc(subject: Subject, texts: Texts, prompts_ND: Tensor, batch: int = 4) -> list[list[float]]:
    """``acc[d][r]``: share of places where the guess of rank ``r`` of prompt token ``d + 1`` is what the model says."""
    count = len(prompts_ND)
    right_NR, places = torch.zeros(count, RANKS, device=subject.device), 0
    cuts_C = torch.arange(0, len(texts.continuations[0]) - count, 2, device=subject.device)
    for first in range(0, len(texts), batch):
        part = texts.pick(range(first, min(first + batch, len(texts))))
        guesses, teachers = guesses_and_teachers(subject, part, cuts_C, prompts_ND)
        best_BCNR = guesses.float().topk(RANKS, dim=-1).indices
        right = (best_BCNR == teachers.float().argmax(-1, keepdim=True)) & within_text(part, cuts_C, count)[
            ..., None, None
        ]
        right_NR += right.sum((0, 1))
        places += int(within_text(part, cuts_C, count).sum())
    return (right_NR / max(places, 1)).tolist()  # type: ignore[no-any-return]


def trained_prompts(subject: Subject, count: int, how: Training) -> dict[str, Any]:
    """The artifact: ``prompts`` ``[n, D]``, ``acc`` before and after on held-out text, losses, tokens generated."""
    texts = continued(subject, text_prompts(subject, "train", how.texts, how.seed))
    held_out = continued(subject, text_prompts(subject, "valid", min(HELD_OUT, how.texts), how.seed))
    start_ND = initial_prompts(subject, count)
    prompts_ND, losses = train_prompts(subject, texts, start_ND, how)
    return {
        "prompts": prompts_ND,
        "acc": measured_acc(subject, held_out, prompts_ND),
        "acc_before": measured_acc(subject, held_out, start_ND),
        "losses": losses,
        "generated_tokens": TEXT_TOKENS * (len(texts) + len(held_out)),
    }
