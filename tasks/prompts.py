"""Prompts of the decode workloads. All texts are our own and may be used freely (CC0).

``chat``: short requests in the model's chat format. The six groups of :mod:`tasks.spec_groups` are in it too, and so
is a file of Spec-Bench's form (:mod:`tasks.spec_bench`). ``copy``: tables and lists that are to be repeated, where
drafts from the text are often right. ``prose``: ordinary paragraphs to be continued, cut or repeated to a length.
``ruler``: the texts of the task ``zoo_ruler_multikey2k``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from harness.errors import unknown_name
from harness.subjects.tokenizer import in_chat
from tasks import spec_bench, spec_groups
from tasks.generated import ruler

CHAT = (
    "Explain in simple words why the sky is blue.",
    "Write a short story about a fisherman who finds a strange bottle.",
    "List five things to check before a long bicycle tour and say why each matters.",
    "What is the difference between weather and climate?",
    "Give me a recipe for a vegetable soup for four people.",
    "Write a polite letter to a neighbour whose dog barks at night.",
    "Describe how a sailing boat can move against the wind.",
    "Summarise the advantages and drawbacks of working from home.",
    "How does a refrigerator keep food cold?",
    "Write a Python function that returns the largest number in a list, and explain it.",
    "Tell me about the life of honey bees in a hive.",
    "What should a beginner know before planting tomatoes?",
)
PROSE = (
    "The village lay at the end of a long valley, where the road gave up and a footpath went on alone. In spring the "
    "river rose over its banks and left a fine grey mud on the meadows, and the farmers said that the mud was worth "
    "more than the hay it spoiled. Children were sent out to mark with sticks how far the water had come.",
    "A clock is a machine that counts what repeats. Early makers counted drops of water or the burning of "
    "candles; later ones let a weight fall, tooth by tooth, under a swinging pendulum. What changed over the "
    "centuries was not the counting but the thing counted, which became ever faster and ever more regular.",
    "When the market opened in the morning the bread was sold first, then the fish, and only towards noon the flowers. "
    "Nobody had ordered it so. The bakers came early because their ovens were hot at night, the boats came with the "
    "tide, and flowers keep; so the square changed its smell three times before lunch.",
    "Bridges fail slowly and then all at once. Water finds a crack, frost widens it, salt eats the steel, and for "
    "years nothing can be seen from the road. Inspectors tap the concrete with small hammers and listen. A sound part "
    "rings, a hollow one answers with a dull knock, and the place is marked with yellow chalk.",
    "The library had two catalogues. One listed the books by author, in drawers of pale wood that everyone could pull "
    "out. The other, kept in the cellar, listed them by the wall on which they stood, for the porters, and it was this "
    "second list that survived the fire, so that for a year readers had to ask for books by their place.",
    "To cross a desert by foot one needs less courage than arithmetic. A person drinks so many litres a day, a camel "
    "carries so many, a well lies so many days apart; the difference is the margin, and the margin is what travellers "
    "mean when they speak of luck. Old guides do not hurry, because hurry drinks.",
)
WORDS = (
    "apple river stone table horse cloud bread chair train glass shirt money paper light music phone "
    "window garden bottle candle mirror basket hammer pillow ladder bucket needle ribbon saddle tunnel valley harbor"
)


def _copy_prompt(number: int) -> str:
    """A table of twenty lines, its first two lines again, and the start of the third."""
    rng = random.Random(f"copy:{number}")
    words = WORDS.split()
    lines = [f"{i}. {rng.choice(words)} - {rng.choice(words)} - {rng.randint(10, 99)}" for i in range(1, 21)]
    return "\n".join(["Table:", *lines, "", "The same table again:", *lines[:2], lines[2].split(" ")[0]])


def _spoken(messages: Sequence[dict[str, str]], tokenizer: Any) -> str:
    """Messages in the model's chat format; in plain words where it has none."""
    formatted = in_chat(tokenizer, messages)
    if formatted is not None:
        return formatted
    spoken = {"user": "Question: ", "assistant": "Answer: "}
    return "\n".join([*(spoken[m["role"]] + m["content"] for m in messages), "Answer:"])


def _asked(text: str, tokenizer: Any) -> str:
    return _spoken([{"role": "user", "content": text}], tokenizer)


def _prose_prompt(number: int) -> str:
    order = random.Random(f"prose:{number}").sample(PROSE, len(PROSE))
    return "\n\n".join(order)


def _ruler_prompt(number: int) -> str:
    """A text of about 2,000 tokens with ten numbers, one of which is asked for."""
    return str(ruler.multikey(number + 1, 0, sentences=190)["test"][number]["context"])


def _group_prompt(group: str, tokenizer: Any, number: int) -> str:
    return _spoken(spec_groups.group_messages(group, number), tokenizer)


def prompt_ids(name: str, count: int, tokenizer: Any, prompt_tokens: int = 0, first: int = 0) -> list[list[int]]:
    """``count`` prompts of a set as ids, from number ``first`` on; cut or repeated to ``prompt_tokens`` if given."""
    makers: dict[str, Callable[[int], str]] = {
        "chat": lambda n: _asked(CHAT[n % len(CHAT)], tokenizer),
        "copy": _copy_prompt,
        "prose": _prose_prompt,
        "ruler": _ruler_prompt,
        **{group: partial(_group_prompt, group, tokenizer) for group in spec_groups.GROUPS},
    }
    if spec_bench.is_file(name):
        makers[name] = lambda n: _asked(spec_bench.question(name, n), tokenizer)
    if name not in makers:
        raise unknown_name("prompt set", name, makers, "or give a question file: FILE.jsonl#GROUP")
    rows = [tokenizer.encode(makers[name](number)) for number in range(first, first + count)]
    return [_fitted(row, prompt_tokens) for row in rows]


def _fitted(row: Sequence[int], length: int) -> list[int]:
    if not length:
        return list(row)
    return [row[i % len(row)] for i in range(length)]
