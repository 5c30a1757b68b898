"""Problems whose answers a program grades: what objectives train on, by name."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from harness.subjects.chain_sum_text import ChainSumText
from harness.subjects.multi_select_text import InvertedSelectText, MultiSelectText
from harness.subjects.subject import Subject
from harness.subjects.toy_text import ToyText, is_held_out
from harness.toolkit.pref_tokens import PrefText
from harness.toolkit.students import request_ids


class VerifiableTask(Protocol):
    """Problems of one split."""

    @property
    def chat(self) -> bool:
        """Whether a prompt is a request that the model reads in its chat format."""

    def draw(self, rng: random.Random) -> Any:
        """A random problem."""

    def prompt(self, problem: Any) -> str:
        """The problem as the model reads it."""

    def reward(self, problem: Any, response: str) -> float:
        """The grade of a response, 1 where it is right."""

    def written(self, problem: Any, rng: random.Random) -> str:
        """A response that no model made, right or wrong; for batches that must not depend on a model."""


@dataclass(frozen=True, kw_only=True)
class ToyTask:
    """A toy language as a task."""

    text: ToyText = field(default_factory=ChainSumText)
    held_out: bool = False
    chat: bool = False

    def draw(self, rng: random.Random) -> Any:
        """A problem of this split."""
        return self.text.draw(rng, self.held_out)

    def prompt(self, problem: Any) -> str:
        """The problem as text."""
        return self.text.prompt(problem)

    def reward(self, problem: Any, response: str) -> float:
        """The language's grade."""
        return self.text.grade(problem, response)

    def written(self, problem: Any, rng: random.Random) -> str:
        """A careless response."""
        return self.text.write(problem, rng)


@dataclass(frozen=True, kw_only=True)
class SumText:
    """Sums of two numbers below ``below`` as a request in words, for models that speak; the last number counts."""

    below: int = 30

    def draw(self, rng: random.Random, held_out: bool) -> tuple[int, int]:
        """Two numbers of one split."""
        while True:
            problem = rng.randrange(self.below), rng.randrange(self.below)
            if is_held_out(self.prompt(problem)) == held_out:
                return problem

    def prompt(self, problem: tuple[int, int]) -> str:
        """The request."""
        return f"What is {problem[0]} + {problem[1]}? Answer with the number alone."

    def grade(self, problem: tuple[int, int], response: str) -> float:
        """Whether the last number of the response is the sum."""
        numbers = re.findall(r"\d+", response)
        return float(bool(numbers) and int(numbers[-1]) == sum(problem))

    def write(self, problem: tuple[int, int], rng: random.Random) -> str:
        """Right half of the time; a wrong answer has more words."""
        if rng.random() < 0.5:
            return str(sum(problem))
        return f"The sum is {sum(problem) + rng.randint(1, 9)}"


Problems = Literal[
    "chain_sum",
    "chain_sum_mixed",
    "multi_select",
    "multi_select_soft",
    "multi_select_inverted",
    "multi_select_inverted_soft",
    "pref_tokens",
    "sums",
]
TASKS: dict[str, ToyTask] = {
    "chain_sum": ToyTask(),
    "chain_sum_mixed": ToyTask(text=ChainSumText(operands=2, most=6)),
    "multi_select": ToyTask(text=MultiSelectText()),
    "multi_select_soft": ToyTask(text=MultiSelectText(soft=True)),
    "multi_select_inverted": ToyTask(text=InvertedSelectText()),
    "multi_select_inverted_soft": ToyTask(text=InvertedSelectText(soft=True)),
    "pref_tokens": ToyTask(text=PrefText()),
    "sums": ToyTask(text=SumText(), chat=True),
}


def verifiable_task(name: Problems, held_out: bool = False) -> ToyTask:
    """A task by name, of the training or of the held-out split."""
    return replace(TASKS[name], held_out=held_out)


def prompt_ids(subject: Subject, task: VerifiableTask, problem: Any) -> list[int]:
    """A problem's ids, in the model's chat format where the task asks for it."""
    text = task.prompt(problem)
    return request_ids(subject, text) if task.chat else subject.text_tokenizer().encode(text)
