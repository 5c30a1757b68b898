"""The models ``tiny-...`` that objectives train: small Llamas, warm-started on careless texts, made once and kept.

The warm start stops while sampled answers are right about two times in five: reinforcement from 0 % or from 95 %
cannot tell objectives apart.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from harness.errors import EnvironmentFailed
from harness.subjects.catalog import cache_dir
from harness.subjects.chain_sum_text import ChainSumText, CharIds
from harness.subjects.toy_text import ToyText

IGNORED = -100
"""Label of a position without a target, as in torch and transformers."""
WARM_UP_STEPS = 50


@dataclass(frozen=True)
class WarmStart:
    """All that decides the model. ``stop_at`` is the sampled accuracy at which training ends, ``steps`` its limit."""

    language: ToyText = field(default_factory=ChainSumText)
    hidden: int = 96
    layers: int = 3
    heads: int = 4
    intermediate: int = 256
    steps: int = 500
    batch: int = 64
    learning_rate: float = 3e-3
    stop_at: float = 0.4
    look_every: int = 25
    seed: int = 0

    @property
    def key(self) -> str:
        """Hash of the recipe."""
        text = json.dumps([type(self.language).__name__, dataclasses.asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def blank_model(recipe: WarmStart) -> Any:
    """The untrained Llama; its initial weights follow from the recipe's seed."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = CharIds()
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.prefix_id,
        eos_token_id=tokenizer.eos_ids[0],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return LlamaForCausalLM(config)


def trace_batch(recipe: WarmStart, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Ids ``[B, T]`` of prompts with written responses, padded on the right, and labels that leave prompts out."""
    tokenizer = CharIds()
    ids, labels = [], []
    for _ in range(recipe.batch):
        problem = recipe.language.draw(rng, held_out=False)
        prompt = tokenizer.encode(recipe.language.prompt(problem))
        response = [*tokenizer.encode(recipe.language.write(problem, rng)), *tokenizer.eos_ids]
        ids.append(prompt + response)
        labels.append([IGNORED] * len(prompt) + response)
    width = max(map(len, ids))
    pad = [[0] * (width - len(row)) for row in ids]
    return (
        torch.tensor([row + p for row, p in zip(ids, pad, strict=True)]),
        torch.tensor([row + [IGNORED] * len(p) for row, p in zip(labels, pad, strict=True)]),
    )


@torch.no_grad()
def sample_texts(model: Any, prompts: Sequence[str], generator: torch.Generator, max_new_tokens: int = 32) -> list[str]:
    """One sampled response a prompt, at temperature 1; the prompts have one length."""
    tokenizer = CharIds()
    end = tokenizer.eos_ids[0]
    ids = torch.tensor([tokenizer.encode(p) for p in prompts])
    past, out = None, []
    ended = torch.zeros(len(prompts), dtype=torch.bool)
    for _ in range(max_new_tokens):
        answer = model(input_ids=ids, past_key_values=past, use_cache=True, logits_to_keep=1)
        past = answer.past_key_values
        ids = torch.multinomial(answer.logits[:, -1].float().softmax(-1), 1, generator=generator)
        ids = ids.masked_fill(ended[:, None], end)
        ended |= ids[:, 0] == end
        out.append(ids)
        if bool(ended.all()):
            break
    return [tokenizer.decode(row) for row in torch.cat(out, 1).tolist()]


def sampled_accuracy(model: Any, language: ToyText, problems: Sequence[Any], seed: int) -> float:
    """Part of the problems whose sampled response is right; those with prompts of one length go together."""
    generator = torch.Generator().manual_seed(seed)
    lengths = sorted({len(language.prompt(problem)) for problem in problems})
    right = 0
    for length in lengths:
        part = [problem for problem in problems if len(language.prompt(problem)) == length]
        texts = sample_texts(model, [language.prompt(problem) for problem in part], generator)
        right += sum(language.grade(*pair) == 1 for pair in zip(part, texts, strict=True))
    return right / len(problems)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of floats depend on the number of threads; with one the weights follow from the recipe."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_warm_start(recipe: WarmStart) -> tuple[Any, dict[str, float]]:
    """Train the model; returns it with steps, sampled accuracy on training prompts, and processor seconds."""
    rng = random.Random(recipe.seed)
    model = blank_model(recipe)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.01)
    probe = [recipe.language.draw(rng, held_out=False) for _ in range(400)]
    accuracy, step = 0.0, 0
    started = time.process_time()
    with _one_thread():
        for step in range(1, recipe.steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * min(1.0, step / WARM_UP_STEPS)
            ids, labels = trace_batch(recipe, rng)
            optimizer.zero_grad()
            model(input_ids=ids, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if step % recipe.look_every == 0:
                accuracy = sampled_accuracy(model, recipe.language, probe, recipe.seed)
                if accuracy >= recipe.stop_at:
                    break
    return model, {"steps": step, "sampled_accuracy": accuracy, "cpu_seconds": time.process_time() - started}


def obtain_warm_start(recipe: WarmStart | None = None) -> tuple[Any, CharIds, int]:
    """The model of a recipe from the cache, or trained and kept there; with its tokenizer and longest text."""
    from safetensors.torch import load_model

    recipe = recipe or WarmStart()
    path = cache_dir() / "models" / f"warm-start-{recipe.key}.safetensors"
    if not path.is_file():
        _make(recipe, path)
    model = blank_model(recipe)
    try:
        load_model(model, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise EnvironmentFailed(f"model file {path} cannot be read ({error}); delete it and run again") from error
    return model.eval(), CharIds(), model.config.max_position_embeddings


def _make(recipe: WarmStart, path: Path) -> None:
    """Train and write the model under a temporary name, then rename it, so that no half file is ever read."""
    from safetensors.torch import save_model

    model, figures = train_warm_start(recipe)
    if figures["sampled_accuracy"] < recipe.stop_at:
        raise EnvironmentFailed(
            f"the warm start of {recipe.language} reached a sampled accuracy of {figures['sampled_accuracy']:.2f}, "
            f"below {recipe.stop_at}; raise its steps or take another seed"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, work = tempfile.mkstemp(dir=path.parent, prefix=".making-")
    os.close(descriptor)
    try:
        save_model(model, work, metadata={name: str(value) for name, value in figures.items()})
        Path(work).replace(path)
    finally:
        Path(work).unlink(missing_ok=True)
