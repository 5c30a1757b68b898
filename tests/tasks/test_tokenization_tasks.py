"""Tasks about letters, counts, numbers and rewriting: the same everywhere, answers by brute force, honest floors."""

import collections
import random
import re

import pytest
from scipy import stats

from harness.errors import UsageError
from tasks import metrics, our_configs
from tasks.tokenization import characters, counting, numbers, rewriting
from tasks.words import STOP_WORDS
from tests.tasks.made_rows import digests_by_hash_seed, rows_of

OURS = {k: c for k, c in our_configs().items() if str(c.get("tag")).startswith("zoo_tokenization")}
CLOSED = sorted(k for k, c in OURS.items() if c["output_type"] == "multiple_choice")
CHARBENCH = [f"charbench_{question}" for question in characters.QUESTIONS]
FORMS = tuple(counting.JOINTS)


def test_same_in_every_process():
    digests = digests_by_hash_seed(sorted(OURS))
    assert len(digests) == 1 and len(digests.pop().strip()) == 64


@pytest.mark.parametrize("task", sorted(OURS))
def test_a_shorter_run_sees_the_first_of_a_longer_one_and_another_seed_other_items(task):
    longer = rows_of(task, n=30)
    assert longer[:7] == rows_of(task, n=7) and len({r["id"] for r in longer}) == 30
    assert rows_of(task, n=7, seed=1) != longer[:7]


@pytest.mark.parametrize("task", sorted(OURS))
def test_a_span_holds_what_the_item_is_about(task):
    for row in rows_of(task, n=20):
        assert row["context"] == row["context"].rstrip()
        if "span" in row:
            start, end = row["span"]
            assert 0 <= start < end <= len(row["context"])
            assert all(start <= place < end for place in row.get("letters", []))


@pytest.mark.parametrize("task", CLOSED)
def test_options_are_distinct_and_permuting_them_changes_no_score(task):
    rng = random.Random(0)
    for row in rows_of(task, n=12):
        assert len(set(row["choices"])) == len(row["choices"]) and 0 <= row["answer"] < len(row["choices"])
        scores = [(rng.random(), False) for _ in row["choices"]]
        order = rng.sample(range(len(scores)), len(scores))
        moved = {"answer": order.index(row["answer"]), "choices": [row["choices"][i] for i in order]}
        assert metrics.choice(row, scores) == metrics.choice(moved, [scores[i] for i in order])


@pytest.mark.parametrize("task", CHARBENCH)
@pytest.mark.parametrize("shots", [0, 3])
def test_charbench_answers_are_right_by_brute_force(task, shots):
    for row in rows_of(task, shots=shots):
        *_, text = row["context"].split("\n\n")
        word = row["context"][slice(*row["span"])]
        letter = re.search(r'letter "(.)"', text)
        places = [i for i, c in enumerate(word) if letter and c == letter.group(1)]
        expected = {
            "charbench_unique": len({*word}),
            "charbench_frequency": len(places),
            "charbench_first": min(places, default=None),
            "charbench_last": max(places, default=None),
        }[task]
        assert (
            f'"{word}"' in text and row["choices"][row["answer"]] == f" {expected}" and row["target"] == str(expected)
        )
        assert (row["length"], row["unique"]) == (len(word), len({*word}))
        if "letters" in row:
            assert row["context"][row["letters"][0]] == letter.group(1)
        assert row["context"].count("Answer:") == shots + 1


def test_charbench_tasks_and_examples_share_no_word_and_ask_every_length_alike():
    words = [[r["context"][slice(*r["span"])] for r in rows_of(task)] for task in CHARBENCH]
    hands = [{w for bucket in characters.dealt(h, 0).values() for w in bucket} for h in characters.HANDS]
    assert sum(map(len, hands)) == len(set.union(*hands))
    for asked, hand in zip(words, hands, strict=False):
        assert len(set(asked)) == len(asked) and set(asked) <= hand
        assert set(collections.Counter(map(len, asked)).values()) == {20}


def test_charbench_keeps_case_and_takes_words_from_a_file(tmp_path):
    assert any(w[0].isupper() for w in characters.word_counts())
    path = tmp_path / "words.txt"
    path.write_text("\n".join(f"{'abcdefghij'[:k]}"[:-1] + c for k in range(4, 11) for c in "klmnopqrstu"), "utf-8")
    found = rows_of("charbench_last", n=14, words=str(path))
    assert all(re.fullmatch("[a-j]+[k-u]", r["context"][slice(*r["span"])]) for r in found)
    with pytest.raises(UsageError, match="14 items of charbench_last, not n=21"):
        rows_of("charbench_last", n=21, words=str(path))
    with pytest.raises(UsageError, match="cannot be read"):
        rows_of("charbench_last", words=str(tmp_path / "none.txt"))


@pytest.mark.parametrize("prompting", [None, "direct", "free", "steps"])
def test_the_four_formats_hold_the_same_letters(prompting):
    name = "counting_{}" + (f"_{prompting}" if prompting else "")
    for items in zip(*(rows_of(name.format(form), n=24) for form in FORMS), strict=True):
        texts = ["".join(r["context"][place] for place in r["letters"]) for r in items]
        assert len(set(texts)) == 1 and len({r["id"] for r in items}) == 1
        asked = re.search(r'letter "(.)"', items[0]["context"]).group(1)
        for row in items:
            shown = row["context"][slice(*row["span"])]
            assert re.sub(r'[ ,"]', "", shown) == texts[0]
            assert row["value"] == texts[0].count(asked) and row["choices"][row["answer"]] == f" {row['value']}"


def test_counts_follow_the_binomial_law_and_lengths_their_bands():
    found = rows_of("counting_joined", n=3000, shortest=9, longest=9)
    seen = collections.Counter(r["value"] for r in found)
    expected = [stats.binom.pmf(k, 9, 0.5) * 3000 for k in range(10)]
    assert stats.chisquare([seen[k] for k in range(10)], expected).pvalue > 0.001
    for row in rows_of("counting_spaces_direct"):
        assert 10 + 10 * row["band"] <= row["length"] <= 20 + 10 * row["band"]


def test_letters_are_to_be_sorted_and_reversed_in_their_format():
    for form in ("joined", "spaces"):
        sorted_, reversed_ = (rows_of(f"counting_{form}_{what}", n=12) for what in ("sort", "reverse"))
        for one, other in zip(sorted_, reversed_, strict=True):
            shown = one["context"][slice(*one["span"])]
            assert one["target"].replace(" ", "") == "".join(sorted(shown.replace(" ", "")))
            assert other["target"] == shown[::-1]


def test_an_unknown_format_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean"):
        rows_of("counting_joined", form="space")
    with pytest.raises(UsageError, match="did you mean"):
        rows_of("number_direction_nosep", form="coma_r2l")


@pytest.mark.parametrize("form", numbers.FORMS)
def test_every_number_format_is_read_back(form):
    rng = random.Random(0)
    for value in [rng.randrange(10**k) for k in range(1, 13)]:
        text = numbers.written(value, form)
        assert re.sub(r"\D", "", text) == str(value)


def test_chunks_are_threes_from_their_side():
    for length in range(1, 13):
        digits = "123456789012"[:length]
        right, left = numbers.chunks(digits, "r2l"), numbers.chunks(digits, "l2r")
        assert "".join(right) == "".join(left) == digits
        assert len(right[0]) == (length % 3 or 3) and all(len(c) == 3 for c in right[1:])
        assert (right == left) == (length % 3 == 0 or length <= 3)


def test_sums_are_right_and_their_lengths_go_round():
    found = rows_of("number_direction_comma_r2l_gen", n=18, shots=2)
    assert len({r["id"] for r in found}) == 18
    lengths = collections.Counter()
    for row in found:
        for line in row["context"].split("\n")[:-1]:
            left, right = line.replace(",", "").split("=")
            assert sum(map(int, left.split("+"))) == int(right)
        *_, asked = row["context"].split("\n")
        a, b = (int(x) for x in asked.replace(",", "").removesuffix("=").split("+"))
        assert int(row["sum"]) == a + b == int(row["target"].replace(",", ""))
        assert row["carries"] == sum(numbers.carries(a, b)) and row["digits"] == len(str(a + b))
        lengths[len(str(a)), len(str(b)), len(str(a + b))] += 1
    assert set(lengths.values()) == {1}


def test_carries_agree_with_digit_sums():
    rng = random.Random(1)
    for _ in range(200):
        a, b = rng.randrange(10**6), rng.randrange(10**6)
        digits = [sum(map(int, str(x))) for x in (a, b, a + b)]
        assert sum(numbers.carries(a, b)) == (digits[0] + digits[1] - digits[2]) // 9


def test_formats_differ_by_separators_only_and_wrong_options_look_alike():
    plain = rows_of("number_direction_nosep")
    for form in ("comma_l2r", "comma_r2l"):
        for one, other in zip(plain, rows_of(f"number_direction_{form}"), strict=True):
            assert other["context"].replace(",", "") == one["context"]
            assert [c.replace(",", "") for c in other["choices"]] == one["choices"]
            assert len({len(c) for c in one["choices"]}) == 1 and len(other["choices"]) == 4
            assert one["choices"][one["answer"]] == one["sum"]


def test_controls_spread_the_signs_and_repeat_the_problem():
    (spread,) = rows_of("number_direction_nosep_gen", n=1, shots=1, spread=True)
    assert re.fullmatch(r"\d+ \+ \d+ = \d+\n\d+ \+ \d+ =", spread["context"]) and spread["target"][0] == " "
    (again,) = rows_of("number_direction_nosep_gen", n=1, shots=1, repeat=True, answer_form="comma_r2l")
    problem = again["context"].split("\n")[-1]
    assert again["target"].replace(",", "") == f"{problem.removesuffix('=')}={again['sum']}"
    assert metrics.summed(again, [again["target"]])["exact_match"] == 1
    with pytest.raises(UsageError, match="2 to 15 digits"):
        rows_of("number_direction_nosep", shortest=1)


def test_what_a_written_sum_scores():
    doc = {"sum": "1000", "left_aligned": "1950"}
    right = {"exact_match": 1.0, "length_right": 1.0, "digit_match": 1.0, "off_by_power": 0.0, "left_aligned": 0.0}
    assert metrics.summed(doc, [" 1,000"]) == metrics.summed(doc, ["980+20=1 000"]) == right
    assert metrics.summed(doc, ["900"])["off_by_power"] == 1 and metrics.summed(doc, ["900"])["length_right"] == 0
    assert metrics.summed(doc, ["1950"])["left_aligned"] == 1
    assert metrics.summed(doc, ["2000"])["digit_match"] == 0.75
    assert set(metrics.summed(doc, ["none"]).values()) == {0.0}


def test_left_aligned_addition():
    assert numbers.left_aligned(123, 45) == 573 and numbers.left_aligned(123, 456) == 579


def test_decimals_are_compared_in_both_orders_and_length_says_nothing():
    found = rows_of("number_compare")
    assert 2 * sum(r["longer_is_larger"] for r in found) == len(found)
    for one, other in zip(found[::2], found[1::2], strict=True):
        assert one["pair"] == other["pair"] and one["choices"] == other["choices"][::-1]
        for row in (one, other):
            values = [float(c) for c in row["choices"]]
            assert values[row["answer"]] == max(values) and all(c.endswith("\n") for c in row["choices"])
            first, second = row["context"][slice(*row["span"])].split(" or ")
            assert [float(first), float(second)] == values


def test_only_marked_words_may_change():
    for row in rows_of("token_consistency"):
        words = row["target"].split(" ")
        assert row["targets"] and all(words[i].lower() not in STOP_WORDS for i in row["targets"])
        assert row["context"].count("[") == len(row["targets"]) + 1  # the instruction has one
        copied = rewriting.rewritten(row, [row["target"]])
        assert copied == {"replaced": 0.0, "kept": 1.0, "unaligned": 0.0}
        changed = " ".join("other" if i in row["targets"] else w for i, w in enumerate(words))
        assert rewriting.rewritten(row, [changed])["replaced"] == 1
        assert rewriting.rewritten(row, [""])["unaligned"] == 1


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("a big cat ran", "kept"),
        ("a large cat ran", "replaced"),
        ("a very large cat ran", "replaced"),
        ("a cat ran", "unaligned"),
        ("one fine dog sat", "replaced"),
        ("no", "unaligned"),
    ],
)
def test_outcomes_of_a_diff(output, expected):
    assert rewriting.outcome(["a", "big", "cat", "ran"], output.split(), 1) == expected


def test_what_written_numbers_score():
    doc = {"target": "7", "value": 7}
    assert metrics.number(doc, [" 7\n"]) == {"exact_match": 1.0, "last_int": 1.0, "invalid": 0.0}
    assert metrics.number(doc, ["3, no 7."]) == {"exact_match": 0.0, "last_int": 1.0, "invalid": 1.0}
    assert metrics.number(doc, ["seven"]) == {"exact_match": 0.0, "last_int": 0.0, "invalid": 1.0}
    assert metrics.counted(doc, ["it is 5 or 6"]) == {"exact_match": 0.0, "within_one": 1.0, "under": 1.0, "over": 0.0}
    assert metrics.counted(doc, ["9"])["over"] == 1 and metrics.counted(doc, ["7"])["exact_match"] == 1
    assert set(metrics.counted(doc, ["many"]).values()) == {0.0}
    assert metrics.same_text({"target": "a b"}, [" a b"])["exact_match"] == 1
    assert metrics.same_text({"target": "a b"}, ["ab"])["exact_match"] == 0
