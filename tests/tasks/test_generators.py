"""The generated tasks: the same everywhere, right, balanced, and without the answer among the examples."""

import collections
import inspect
import random
import re

import pytest

from tasks import our_configs
from tasks.generated import generators
from tasks.words import ATTRACTORS, CLASSES, COMMON, FILLERS, HEADS
from tests.tasks.made_rows import digests_by_hash_seed, rows_of

GENERATED = {k: c for k, c in our_configs().items() if c.get("tag") in ("zoo_generated", "zoo_ruler")}
CHOICE = sorted(k for k, c in GENERATED.items() if c["output_type"] == "multiple_choice")


def test_same_in_every_process():
    digests = digests_by_hash_seed(sorted(GENERATED))
    assert len(digests) == 1 and len(digests.pop().strip()) == 64


@pytest.mark.parametrize("task", sorted(GENERATED))
def test_items_are_distinct_and_a_shorter_run_sees_the_first_of_a_longer_one(task):
    longer = rows_of(task, n=30)
    assert longer[:7] == rows_of(task, n=7)
    assert len({r["id"] for r in longer}) == len(longer)
    assert rows_of(task, n=7, seed=1) != longer[:7]


@pytest.mark.parametrize("task", CHOICE)
def test_options_are_distinct_and_continue_the_context(task):
    for row in rows_of(task):
        assert len(set(row["choices"])) == len(row["choices"]) >= 2
        assert 0 <= row["answer"] < len(row["choices"])
        assert row["context"] == row["context"].rstrip()
        assert all(c[0] in " \n" and c == c.rstrip() for c in row["choices"])


@pytest.mark.parametrize("task", ["zoo_induct8", "zoo_induct24"])
def test_induct_answer_follows_the_same_words_above(task):
    for row in rows_of(task, n=60):
        listed, again = (line.split() for line in row["context"].split("\n"))
        assert listed[: len(again)] == again and len(again) >= 1
        assert row["choices"][row["answer"]] == f" {listed[len(again)]}"
        assert sorted(c[1:] for c in row["choices"]) == sorted(listed)


@pytest.mark.parametrize("task", ["zoo_kvc8", "zoo_kvc16", "zoo_kvc_long", "zoo_kvc_long128"])
def test_kvc_answer_is_the_key_s_color_and_the_key_is_not_shown_below(task):
    knobs = GENERATED[task]["metadata"]
    for row in rows_of(task, n=60):
        table, asked = row["context"].split("\n\n")
        entries = dict(line.split(": ") for line in table.split("\n"))
        *shown, last = asked.split("\n")
        key = last.removesuffix(":")
        assert len(entries) == knobs["pairs"] and len(shown) == knobs["shots"]
        assert row["choices"][row["answer"]] == f" {entries[key]}"
        assert {c[1:] for c in row["choices"]} == set(entries.values())
        for line in shown:
            other, color = line.split(": ")
            assert other != key and entries[other] == color


def test_one_color_everywhere_is_mended():
    rng = random.Random(0)
    found = [
        r for r in generators.kvc(n=300, seed=rng.randrange(99), pairs=2, shots=0)["test"] if len(r["choices"]) < 2
    ]
    assert not found


def test_category_never_shows_the_test_word_and_asks_each_class_alike():
    asked = collections.Counter()
    for row in rows_of("zoo_category"):
        *shown, last = row["context"].split("\n")
        word = last.removesuffix(" ->")
        answer = row["choices"][row["answer"]][1:]
        assert word in CLASSES[answer] and word not in {s.split(" -> ")[0] for s in shown}
        assert all(s.split(" -> ")[0] in CLASSES[s.split(" -> ")[1]] for s in shown)
        asked[answer] += 1
    assert set(asked.values()) == {50}


@pytest.mark.parametrize("task", ["zoo_agree1", "zoo_agree3"])
def test_agree_twins_differ_in_number_alone(task):
    items = rows_of(task)
    for one, other in zip(items[::2], items[1::2], strict=True):
        assert one["pair"] == other["pair"] and (one["answer"], other["answer"]) == (0, 1)
        bare = [[w.removesuffix("s") for w in r["context"].split()] for r in (one, other)]
        assert bare[0] == bare[1]
        for row in (one, other):
            head, *between = re.findall(r"(?:The|the) (\w+)", row["context"])
            assert head.endswith("s") == (row["choices"][row["answer"]] == " are")
            assert between and all(w.endswith("s") != head.endswith("s") for w in between)


def test_no_noun_of_agree_ends_in_s():
    assert not [w for w in (*HEADS, *ATTRACTORS) if w.endswith("s")]


def test_add_gives_the_sum_and_never_the_asked_one_as_example():
    for row in rows_of("zoo_add50"):
        *shown, last = row["context"].split("\n")
        a, b = map(int, re.fullmatch(r"(\d+) \+ (\d+) =", last).groups())
        assert int(row["choices"][row["answer"]]) == a + b and max(a, b) < 50
        assert all(int(c) >= 0 for c in row["choices"]) and len(row["choices"]) == 4
        for line in shown:
            x, y, z = map(int, re.findall(r"\d+", line))
            assert x + y == z and (x, y) != (a, b)


def test_count_is_right_and_balanced():
    answers = collections.Counter()
    for row in rows_of("zoo_count"):
        line, question = row["context"].split("\n")
        asked = re.search(r"word (\w+) appears", question).group(1)
        assert int(row["choices"][row["answer"]]) == line.split().count(asked)
        assert len(line.split()) == 5
        answers[row["choices"][row["answer"]]] += 1
    assert set(answers.values()) == {50}


@pytest.mark.parametrize("task", ["zoo_passkey", "zoo_passkey_blind"])
def test_passkey_options_are_the_ten_keys_of_the_text(task):
    for row in rows_of(task, n=40):
        whole = row["context"] + row["choices"][row["answer"]]
        story, question = whole.split("\n")
        held = dict(re.findall(r"The pass key of (\w+) is (\d{5})\.", story))
        name, key = re.fullmatch(r"What is .* of (\w+)\? The pass key of \1 is (\d{5})", question).groups()
        assert held[name] == key and len(held) == 10
        assert {c[-5:] for c in row["choices"]} == set(held.values())
        plain = re.sub(r"The pass key of \w+ is \d{5}\. ?", "", story).strip()
        assert set(re.split(r"(?<=\.) ", plain)) <= set(FILLERS)


def test_passkey_blind_hides_the_question_and_asks_the_same():
    for seen, blind in zip(rows_of("zoo_passkey", n=10), rows_of("zoo_passkey_blind", n=10), strict=True):
        assert "?" not in blind["context"] and "?" in seen["context"]
        for one, other in zip(seen["choices"], blind["choices"], strict=True):
            assert seen["context"] + one == blind["context"] + other


def test_copy_target_completes_the_line():
    for row in rows_of("zoo_copy_gen", n=20):
        *copies, start = row["context"].split("\n")
        assert len(copies) == 2 and len(set(copies)) == 1
        assert f"{start} {row['target']}" == copies[0]


def test_passages_are_whole_and_each_is_used_once():
    found = rows_of("zoo_nll_text")
    assert len({r["context"] for r in found}) == len(found) == 100
    for row in found:
        assert row["target"][0] == " " and row["target"][-1] == "." and row["context"][-1] != " "
        assert abs(len(row["context"].split()) - len(row["target"].split())) <= 1


@pytest.mark.parametrize("task", ["zoo_induct24", "zoo_kvc16", "zoo_kvc_long", "zoo_kvc_long128", "zoo_passkey"])
def test_places_cover_all_depths_alike(task):
    depths = [r["depth"] for r in rows_of(task, n=100)]
    deciles = collections.Counter(min(9, int(d * 10)) for d in depths)
    assert set(deciles) == set(range(10)) and max(deciles.values()) <= 20
    early = sorted(depths[:6])
    assert early[0] < 0.35 and early[-1] > 0.65


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7, 8, 9, 10, 15, 64])
def test_every_place_is_visited(count):
    rng = random.Random(0)
    bins = min(10, count)
    found = sorted(generators.place(rng, i, count) for i in range(bins))
    assert all(count * b // bins <= p < count * (b + 1) // bins for b, p in enumerate(found))


def test_word_lists():
    assert len(set(COMMON)) == len(COMMON) > 500
    assert all(re.fullmatch("[a-z]{4,7}", w) for w in COMMON)
    words = [w for members in CLASSES.values() for w in members]
    assert len(set(words)) == len(words)


def test_generators_take_what_lm_eval_adds_to_the_metadata():
    for name, make in inspect.getmembers(generators, inspect.isfunction):
        if name in {c["custom_dataset"].rpartition(".")[2] for c in GENERATED.values()}:
            assert any(p.kind is p.VAR_KEYWORD for p in inspect.signature(make).parameters.values())
