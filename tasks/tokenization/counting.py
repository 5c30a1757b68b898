"""Counting letters that are written in four ways (arXiv:2410.19730): the same letters, other token boundaries.

Items of all formats and promptings hold the same letters under the same number, so two formats are compared item by
item. Lengths go through three bands in turn. The prompts are our own; the paper's are not public in full.
"""

from __future__ import annotations

import random
from typing import Any

from harness.errors import unknown_name
from tasks.items import Row, dataset, number_row

JOINTS = {"joined": ("", ""), "spaces": (" ", ""), "commas": (", ", ""), "quoted": (", ", '"')}
"""What stands between letters and around each one."""
COUNT = 'How many times does the letter "{letter}" occur?'
PROMPTINGS = {
    "direct": f"{COUNT} Answer with the number alone.",
    "free": f"{COUNT} Think step by step, then give the number as the last word.",
    "steps": f"{COUNT} Go through the letters one by one. For each write a line with the letter and the count so far, "
    "beginning at 0. Then give the final count as the last word.",
    "sort": "Write the same letters in alphabetical order, in the same format.",
    "reverse": "Write the same letters in reverse order, in the same format.",
}


def written(letters: str, form: str) -> str:
    """The letters in one of the formats."""
    between, around = JOINTS[form]
    return between.join(f"{around}{letter}{around}" for letter in letters)


def counting(
    n: int,
    seed: int,
    form: str,
    prompting: str = "direct",
    shortest: int = 10,
    longest: int = 40,
    pair: str = "ab",
    **_: Any,
) -> dict[str, Any]:
    """Letters of ``pair``, each as likely as the other, ``shortest`` to ``longest`` of them; the asked one alternates.

    With ``longest`` options up to 40 the closed set is long; the closed tasks ask for 10 letters at most.
    """
    for name, known in ((form, JOINTS), (prompting, PROMPTINGS)):
        if name not in known:
            raise unknown_name("format or prompting", name, known)
    step = (longest - shortest) / 3

    def make(rng: random.Random, index: int) -> Row:
        band = index % 3
        low, high = shortest + round(band * step), shortest + round((band + 1) * step)
        letters = "".join(rng.choice(pair) for _ in range(rng.randint(low, high)))
        asked, text = pair[index % 2], written(letters, form)
        before = "Letters: "
        context = f"{before}{text}\n{PROMPTINGS[prompting].format(letter=asked)}\nAnswer:"
        row = number_row(context, letters.count(asked), longest, length=len(letters), band=band)
        end = len(before) + len(text)
        places = [i for i in range(len(before), end) if context[i] in pair]
        row |= {"span": [len(before), end], "letters": places}
        changed = {"sort": "".join(sorted(letters)), "reverse": letters[::-1]}.get(prompting)
        return row if changed is None else row | {"target": written(changed, form)}

    return dataset(f"counting_{pair}_{shortest}_{longest}", n, seed, make)
