"""The tasks in the form of RULER: facts are in the text, options are closed, and the question is where it should be."""

import collections
import re
from itertools import pairwise

import pytest

from tasks import our_configs
from tasks.generated import ruler
from tasks.prompts import prompt_ids
from tasks.words import FILLERS

SMALL = {"sentences": 20}


def rows(task, **changes):
    return getattr(ruler, task)(**({"n": 40, "seed": 0} | changes))["test"].to_list()


def whole(row):
    return row["context"] + row["choices"][row["answer"]]


@pytest.mark.parametrize("task", ["needle", "multikey", "tracking", "common"])
def test_the_hidden_form_asks_the_same_with_the_question_in_the_continuation(task):
    length = {"words": 60} if task == "common" else SMALL
    for seen, blind in zip(rows(task, n=10, **length), rows(task, n=10, hidden=True, **length), strict=True):
        assert seen["answer"] == blind["answer"]
        for one, other in zip(seen["choices"], blind["choices"], strict=True):
            assert seen["context"] + one == blind["context"] + other
        question = seen["context"].removeprefix(blind["context"])
        assert question.startswith("\n") and len(question) > 5


def test_a_needle_is_in_the_text_and_the_wrong_numbers_are_two_digits_off():
    for row in rows("needle", **SMALL):
        text, question = row["context"].split("\n")
        word, right = re.search(r"The special magic number for (\w+) is (\d{7})\.", text).groups()
        assert question == f"What is the special magic number for {word}? The special magic number for {word} is"
        assert row["choices"][row["answer"]] == f" {right}" and len(row["choices"]) == 10
        plain = re.sub(r"The special magic number for \w+ is \d{7}\. ?", "", text).strip()
        sentences = re.split(r"(?<=\.) ", plain)
        assert len(sentences) == 20 and set(sentences) <= set(FILLERS)
        for option in row["choices"]:
            assert sum(a != b for a, b in zip(option[1:], right, strict=True)) in (0, 2)


def test_the_options_of_many_keys_are_the_numbers_of_the_text():
    for row in rows("multikey", keys=6, **SMALL):
        text, question = row["context"].split("\n")
        held = dict(re.findall(r"The special magic number for (\w+) is (\d{7})\.", text))
        word = re.search(r"for (\w+)\?", question).group(1)
        assert len(held) == 6 and row["choices"][row["answer"]] == f" {held[word]}"
        assert {c[1:] for c in row["choices"]} == set(held.values())


def test_needles_are_spread_over_the_depths():
    for task in ("needle", "multikey"):
        deciles = collections.Counter(int(10 * row["depth"]) for row in rows(task, **SMALL))
        assert set(deciles) == set(range(10))


@pytest.mark.parametrize(("chains", "hops"), [(4, 2), (2, 1), (3, 3)])
def test_a_chain_is_followed_link_by_link_and_every_wrong_path_leaves_it_once(chains, hops):
    for row in rows("tracking", chains=chains, hops=hops, **SMALL):
        text, example, question = row["context"].split("\n")
        links = re.findall(r"(\w+) -> (\w+)\.", text)
        follow = dict(links)
        assert len(follow) == len(links) == (chains + 1) * (hops + 1)
        start = re.fullmatch(r"Follow the arrows: (\d{5}) ->", question).group(1)
        paths = [option[1:].split(" -> ") for option in row["choices"]]
        right = paths.pop(row["answer"])
        for path, first in ((right, start), (example.split(": ")[1].rstrip(".").split(" -> ")[1:], None)):
            chain = [first or example.split(": ")[1].split(" -> ")[0], *path]
            assert all(follow[one] == next_ for one, next_ in pairwise(chain))
        assert len(paths) == (chains - 1) * (hops + 1)
        for path in paths:
            chain = [start, *path]
            broken = [follow[one] != next_ for one, next_ in pairwise(chain)]
            assert sum(broken) == 1 and len(path) == hops + 1


def test_links_stand_in_the_order_of_their_chain():
    for row in rows("tracking", **SMALL):
        order = [one for one, _ in re.findall(r"(\w+) -> (\w+)\.", row["context"].split("\n")[0])]
        follow = dict(re.findall(r"(\w+) -> (\w+)\.", row["context"].split("\n")[0]))
        assert all(order.index(one) < order.index(two) for one, two in follow.items() if two in follow)


def test_the_common_words_are_the_most_common_and_the_others_are_in_the_list():
    for row in rows("common", words=60, often=5, seldom=2):
        text, _ = row["context"].split("\n")
        counts = collections.Counter(re.findall(r"\d+\. (\w+)", text))
        best = {word for word, count in counts.items() if count == 5}
        assert len(best) == 3 and set(counts.values()) == {2, 5}
        for index, option in enumerate(row["choices"]):
            words = set(option[1:].split(", "))
            assert len(words) == 3 and (words == best if index == row["answer"] else not words & best)
            assert words <= set(counts)


def test_every_answer_has_several_words_or_digits_and_lengths_are_knobs():
    for task, config in our_configs().items():
        if config.get("tag") != "zoo_ruler":
            continue
        name, knobs = config["custom_dataset"].rpartition(".")[2], config["metadata"]
        row = rows(name, **(knobs | {"n": 1}))[0]
        assert knobs.get("hidden", False) is task.endswith("_blind")
        assert min(len(option.split("\n")[-1]) for option in row["choices"]) > 7
        length = "words" if name == "common" else "sentences"
        longer = rows(name, **(knobs | {"n": 1, length: 2 * knobs[length]}))[0]
        assert len(longer["context"]) > 1.6 * len(row["context"])


def test_decode_workloads_can_read_the_texts_of_many_keys():
    class Characters:
        encode = staticmethod(list)

    texts = ["".join(ids) for ids in prompt_ids("ruler", 2, Characters(), first=1)]
    assert texts == [row["context"] for row in rows("multikey", n=3, sentences=190)[1:]]
