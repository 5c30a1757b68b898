"""Prompts in six groups, as Spec-Bench asks them: what a drafter can guess differs from group to group.

``conversation`` (the second turn of a dialogue in eight categories), ``translation``, ``summarization``, ``qa``,
``math`` (word problems) and ``rag`` (a question with passages). Dialogues, sentences and questions are our own and may
be used freely (CC0); passages are those of ``tasks/data`` (PSF licence).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files

from harness.errors import UsageError

COUNT = 24
"""Prompts of each group; the first 20 are meant to be measured, the others to warm up."""
Message = dict[str, str]

QUESTIONS = (
    "Who wrote the play Hamlet?",
    "What is the largest planet of the solar system?",
    "How many legs does a spider have?",
    "Which gas do plants take in from the air?",
    "What is the boiling point of water at sea level?",
    "Which country has the city of Kyoto?",
    "Who painted the Mona Lisa?",
    "What is the longest river in South America?",
    "Which organ pumps blood through the body?",
    "In which year did the First World War begin?",
    "What is the chemical symbol for iron?",
    "How many minutes are there in a day?",
    "Which language is spoken in Brazil?",
    "What do bees make from nectar?",
    "Who was the first person to walk on the moon?",
    "What is the capital of Canada?",
    "Which metal is liquid at room temperature?",
    "What is the square root of 144?",
    "Which ocean lies between Africa and Australia?",
    "What does a thermometer measure?",
    "Who developed the theory of general relativity?",
    "What is the hardest natural material?",
    "Which animal is the largest on land?",
    "How many strings does a violin have?",
)
SENTENCES = (
    "The train to the coast leaves every morning at half past seven.",
    "My grandmother keeps her letters in a wooden box under the bed.",
    "After the storm the fishermen repaired their nets on the beach.",
    "Could you tell me where the nearest pharmacy is, please?",
    "The new library will be opened by the mayor next Friday.",
    "He has been learning to play the piano since he was five.",
    "We forgot to water the plants before we went on holiday.",
    "The film was much longer than I had expected, but I liked it.",
    "In winter the lake freezes and the children skate on it.",
    "She speaks three languages and is now learning a fourth.",
    "The old bridge was closed because it was no longer safe.",
    "If it rains tomorrow, we will visit the museum instead.",
    "The farmer sold his apples at the market in the next town.",
    "Nobody knew who had left the window open during the night.",
    "The doctor told him to drink more water and to sleep longer.",
    "Our neighbours have two dogs that bark whenever the bell rings.",
    "The price of bread has risen again since last summer.",
    "Before you sign the contract, you should read it carefully.",
    "The teacher asked the pupils to write about their favourite book.",
    "A small boat was waiting for the travellers at the harbour.",
    "They built the house with stones from the river nearby.",
    "The meeting was moved to Thursday because the director is ill.",
    "I would like a cup of tea and a piece of cake with cherries.",
    "The mountain can be seen from every window of the hotel.",
)
# ruff: noqa: SIM905 - words in a row are easier to read and to check
NAMES = "Anna Ben Clara David Emma Felix Greta Hugo Ida Jonas Lena Max Nora Oscar Paula Theo".split()
GOODS = "apples pencils stamps eggs marbles cookies tickets books oranges candles".split()


@lru_cache(maxsize=1)
def _passages() -> list[str]:
    text = (files("tasks") / "data" / "passages.jsonl").read_text(encoding="utf-8")
    return [json.loads(line)["text"] for line in text.splitlines()]


@lru_cache(maxsize=1)
def _dialogues() -> list[dict[str, str]]:
    text = (files("tasks") / "data" / "dialogues.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _ask(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def conversation(number: int) -> list[Message]:
    """The second turn of a dialogue whose first answer is given. Neighbours are of different categories."""
    dialogue = _dialogues()[number % 8 * 3 + number // 8]
    return [*_ask(dialogue["ask"]), {"role": "assistant", "content": dialogue["answer"]}, *_ask(dialogue["then"])]


def translation(number: int) -> list[Message]:
    """Three sentences into German or French."""
    chosen = [SENTENCES[(number + step) % COUNT] for step in (0, 5, 11)]
    return _ask(f"Translate into {('German', 'French')[number % 2]}:\n" + "\n".join(chosen))


def summarization(number: int) -> list[Message]:
    """Two passages to be summarised."""
    first, second = _passages()[2 * number], _passages()[2 * number + 1]
    return _ask(f"Summarize the following text.\n\n{first}\n\n{second}")


def qa(number: int) -> list[Message]:
    """A short question of fact."""
    return _ask(QUESTIONS[number])


def math(number: int) -> list[Message]:
    """A word problem in three steps."""
    rng = random.Random(f"math:{number}")
    (name, other), thing = rng.sample(NAMES, 2), rng.choice(GOODS)
    boxes, each, given, price = rng.randint(3, 9), rng.randint(4, 15), rng.randint(2, 10), rng.randint(2, 6)
    return _ask(
        f"{name} buys {boxes} boxes with {each} {thing} in each box and gives {given} {thing} to {other}. "
        f"Then {name} sells the rest for {price} dollars each. How much money does {name} get? Think step by step."
    )


def rag(number: int) -> list[Message]:
    """Three passages, and what one of them says is asked for."""
    rng = random.Random(f"rag:{number}")
    passages = [_passages()[48 + number], *rng.sample(_passages()[72:], 2)]
    rng.shuffle(passages)
    target = passages.index(_passages()[48 + number]) + 1
    listed = "\n\n".join(f"[{place}] {text}" for place, text in enumerate(passages, 1))
    return _ask(f"Use the passages to answer.\n\n{listed}\n\nQuestion: What does passage [{target}] say? Quote it.")


GROUPS: dict[str, Callable[[int], list[Message]]] = {
    "conversation": conversation,
    "translation": translation,
    "summarization": summarization,
    "qa": qa,
    "math": math,
    "rag": rag,
}


def group_messages(group: str, number: int) -> list[Message]:
    """The messages of a prompt; its number is below :data:`COUNT`."""
    if number >= COUNT:
        raise UsageError(f"prompt set {group!r} has {COUNT} prompts, warm-up included; lower count or warm_up")
    return GROUPS[group](number)
