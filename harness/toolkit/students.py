"""Small students of a target: how one is built, and the target's own texts that it learns from."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.errors import Refused
from harness.subjects.load import wrap_model
from harness.subjects.requests import GenerateRequest
from harness.subjects.runner import Runner, head_inputs
from harness.subjects.subject import Subject
from harness.subjects.tokenizer import in_chat

# ruff: noqa: SIM905 - words in a row are easier to read and to check
TOPICS = (
    "volcanoes, bread, the Roman Empire, jazz, electric cars, the heart, dreams, coffee, chess, the moon, glaciers, "
    "vaccines, printing, money, friendship, time, yoga, computers, democracy, whales, tides, earthquakes, poetry, "
    "bridges, sleep, gravity, recycling, solar power, healthy food, dogs, robots, the ocean, writing, mathematics, "
    "painting, trains, fashion, bees, deserts, music"
).split(", ")
REQUESTS = (
    "Explain {0} to a child.", "Write a short story about {0} and {1}.", "What are the main facts about {0}?",
    "Give five tips about {0}.", "Write a poem about {0}.", "Why is {0} important?", "Compare {0} with {1}.",
    "Write an email about {0}.", "Translate into French: I often think about {0} and {1}.",
    "A shop has {2} items about {0} and sells {3} of them. How many are left? Think step by step.",
    "Summarize this: People talk about {0} every day. Some prefer {1}. Both have a long history.",
    "Write a Python function that returns the number of {0} in a list of {1}.",
)  # fmt: skip
ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class TeacherText:
    """A prompt, the target's continuation, and its last hidden states ``[C, H]`` where it wrote each of its tokens."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]
    hidden_CH: Tensor


def requests(count: int, seed: int) -> list[str]:
    """Different short requests of many kinds."""
    rng = random.Random(f"requests:{seed}")
    found = []
    for number in range(count):
        first, second = rng.sample(TOPICS, 2)
        left, right = sorted(rng.sample(range(2, 60), 2), reverse=True)
        found.append(REQUESTS[number % len(REQUESTS)].format(first, second, left, right))
    rng.shuffle(found)
    return found


def request_ids(subject: Subject, text: str) -> list[int]:
    """A request as the model reads it: in its chat format where it has one."""
    tokenizer = subject.text_tokenizer()
    return tokenizer.encode(in_chat(tokenizer, [{"role": "user", "content": text}]) or text)


def teacher_texts(
    subject: Subject, count: int, new_tokens: int, seed: int, temperature: float = 0.5
) -> list[TeacherText]:
    """The target's answers to ``count`` requests, with the states from which its head makes its logits."""
    rows = [request_ids(subject, text) for text in requests(count, seed)]
    texts = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        prompts = rows[start : start + ROWS_AT_ONCE]
        asked = GenerateRequest(prompts=prompts, max_new_tokens=new_tokens, temperature=temperature, seed=seed + start)
        for prompt, row in zip(prompts, subject.generate(asked), strict=True):
            hidden = hidden_states(subject, [*prompt, *row.tokens[:-1]])[len(prompt) - 1 :]
            texts.append(TeacherText(tuple(prompt), tuple(row.tokens), hidden))
    return texts


def hidden_states(subject: Subject, ids: Sequence[int]) -> Tensor:
    """States ``[T, H]`` that enter the target's head."""
    with head_inputs(subject.model) as states, torch.inference_mode():
        Runner(subject.model, subject.new_cache).prefill([list(ids)], all_logits=True)
    return states[0][0].clone()


def student_config(subject: Subject, hidden: int, layers: int) -> dict[str, Any]:
    """A Llama with the target's vocabulary, heads of 64 (of a quarter where it is smaller), tied embeddings."""
    config = subject.model.config.get_text_config()
    width = min(hidden, config.hidden_size)
    head = 64 if width % 64 == 0 else width // 4
    return {
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // head,
        "num_key_value_heads": width // head,
        "max_position_embeddings": min(subject.max_length, 8192),
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": True,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
    }


def new_student(subject: Subject, config: dict[str, Any], seed: int) -> Any:
    """A float32 student whose embeddings are the target's on their leading principal components."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if subject.model.get_output_embeddings() is None:
        raise Refused(f"{subject.name} has no output embeddings to learn from")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).to(subject.device)
    table = subject.model.get_output_embeddings().weight.detach().float()
    centred = table - table.mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    leading = centred @ vectors.flip(1)[:, : config["hidden_size"]]
    with torch.no_grad():
        student.get_input_embeddings().weight.copy_(leading / leading.std() * table.std())
    return student


def opened_student(target: Subject, artifact: Any) -> Subject:
    """The student in an artifact (``config`` as a dictionary, and ``weights``) on the target's device, in its type."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**artifact["config"]))
    model.load_state_dict(artifact["weights"])
    return wrap_model(model.to(target.device, target.dtype), target.tokenizer, f"{target.name}-draft")


def batches(texts: Sequence[TeacherText], tokens: int, steps: int, seed: int) -> Iterator[list[TeacherText]]:
    """``steps`` batches of texts with about ``tokens`` continuation tokens each, in seeded order, epoch after epoch."""
    rng = random.Random(f"batches:{seed}")
    order: list[TeacherText] = []
    for _ in range(steps):
        batch: list[TeacherText] = []
        while not batch or sum(len(t.continuation) for t in batch) < tokens:
            if not order:
                order = rng.sample(list(texts), len(texts))
            batch.append(order.pop())
        yield batch
