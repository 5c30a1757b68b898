"""Covariates of a document from its tokens in context, and whether the analysis finds what was put in."""

import json
import math
import random

import numpy as np
import pytest

from harness.errors import Refused, UsageError
from harness.evaluate.strata import METRICS, covariates, cuts, logistic, read_samples, stratify
from harness.subjects.tiny import ByteIds


class Pieces:
    """A tokenizer of given pieces, longest first."""

    name = "pieces"

    def __init__(self, *pieces):
        self.pieces = [p.encode() for p in pieces] + [bytes([b]) for b in range(256)]

    def encode(self, text):
        raw, ids = text.encode(), []
        while raw:
            number = next(i for i, p in enumerate(self.pieces) if raw.startswith(p))
            raw = raw[len(self.pieces[number]) :]
            ids.append(number)
        return ids

    def token_bytes(self, token_id):
        return self.pieces[token_id]


def doc(context, word, *letters, **more):
    start = context.rindex(word)
    row = {"context": context, "span": [start, start + len(word)], "answer": 1, **more}
    return row | ({"letters": [start + place for place in letters]} if letters else {})


def test_bytes_give_one_token_a_letter():
    found = covariates(ByteIds(), doc("the word banana", "banana", 2, length=6))
    assert found == {
        "length": 6.0,
        "tokens": 6.0,
        "characters_per_token": 1.0,
        "letter_token": 1.0,
        "alignment": 1.0,
    }


def test_tokens_are_those_of_the_context_and_clipped_to_the_word():
    pieces = Pieces("d ban", "ana")
    found = covariates(pieces, doc("the word banana", "banana", 1))
    assert found["tokens"] == 2 and found["characters_per_token"] == 3 and found["letter_token"] == 3
    assert found["alignment"] == 0
    assert covariates(pieces, doc("ban banana.", "banana", 0))["tokens"] == 4  # "b", "a", "n", "ana": no "d " before it


def test_delimiters_do_not_count_against_a_letter_that_is_alone():
    assert covariates(Pieces(', "a"'), doc('"b", "a"', '"b", "a"', 1, 6))["alignment"] == 1
    assert covariates(Pieces("ab"), doc("aba", "aba", 0, 1, 2))["alignment"] == pytest.approx(1 / 3)


def test_places_are_characters_whatever_their_bytes():
    assert covariates(ByteIds(), doc("né übér", "übér", 0))["tokens"] == 6
    found = covariates(Pieces("übé"), doc("né übér", "übér", 3))
    assert found["tokens"] == 2 and found["letter_token"] == 1


def test_a_tokenizer_that_loses_text_is_refused():
    class Lossy(ByteIds):
        def encode(self, text):
            return super().encode(text.replace(" ", ""))

    with pytest.raises(Refused, match="byte for byte"):
        covariates(Lossy(), doc("a word", "word"))


def test_a_covariate_is_cut_into_its_values_or_into_even_parts():
    assert cuts(np.array([2.0, 1, 2, 3])) == [(1, 1), (2, 2), (3, 3)]
    values = np.arange(40.0)
    parts = cuts(values)
    assert [int(((values >= a) & (values <= b)).sum()) for a, b in parts] == [9, 10, 10, 11]
    skewed = np.array([0.0] * 30 + list(range(1, 11)))
    assert sum(int(((skewed >= a) & (skewed <= b)).sum()) for a, b in cuts(skewed)) == 40


def test_the_regression_finds_the_coefficients_that_made_the_data():
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(20_000, 2))
    right = (rng.random(20_000) < 1 / (1 + np.exp(-(0.3 + 1.2 * columns[:, 0] - 0.5 * columns[:, 1])))).astype(float)
    beta, error = logistic(columns, right)
    assert np.all(np.abs(beta - [1.2, -0.5]) < 4 * error) and np.all(error < 0.03)


def samples_of(count, seed=0):
    """Words whose length decides; the number of tokens only goes with it."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        length = rng.randrange(4, 11)
        row = doc("x " + "a" * length, "a" * length, length=length)
        right = float(rng.random() < 1 / (1 + math.exp(length - 7)))
        rows.append({"doc": row | {"target": str(number % 3)}, "target": "0", "acc": right, "filter": "none"})
    return rows


def test_what_decides_is_told_from_what_goes_with_it():
    samples = samples_of(600)
    found = stratify("t", samples, Pieces("aa"))
    influence = {i.covariate: i for i in found.influences}
    assert influence["length"].r < -0.4 and influence["tokens"].r < -0.4  # both go with the metric
    assert influence["length"].high < 0  # the length does so with the tokens held
    assert found.metric == "acc" and found.n == 600 and found.majority == pytest.approx(1 / 3)
    lengths = [s for s in found.strata if s.covariate == "length"]
    assert sum(s.n for s in lengths) == 600 and lengths[0].value > 0.8 > 0.3 > lengths[-1].value
    for s in lengths:
        shares = [x["acc"] for x in samples if s.low <= x["doc"]["length"] <= s.high]
        assert s.value == pytest.approx(sum(shares) / len(shares)) and s.value_low <= s.value <= s.value_high


def test_nothing_is_said_where_nothing_varies():
    samples = [s | {"acc": 0.0} for s in samples_of(20)]
    found = stratify("t", samples, ByteIds())
    assert not found.influences and all(s.value == 0 for s in found.strata)
    with pytest.raises(UsageError, match="none of acc"):
        stratify("t", [{k: v for k, v in s.items() if k not in METRICS} for s in samples], ByteIds())


def test_the_newest_file_of_a_task_is_read(tmp_path):
    for date, value in (("2026-01-01T00", 0.0), ("2026-02-01T00", 1.0)):
        (tmp_path / date).mkdir()
        (tmp_path / date / f"samples_my_task_{date}.jsonl").write_text(json.dumps({"acc": value}) + "\n", "utf-8")
    assert read_samples(tmp_path) == {"my_task": [{"acc": 1.0}]}
    with pytest.raises(UsageError, match="holds no samples"):
        read_samples(tmp_path / "none")
    broken = tmp_path / "samples_x_1.jsonl"
    broken.write_text("{", "utf-8")
    with pytest.raises(UsageError, match="is no file"):
        read_samples(broken)


@pytest.mark.slow
def test_formats_part_letters_as_the_default_tokenizer_does():
    """Measured once: joined letters share tokens, those between blanks, commas or quotes do not."""
    from harness.subjects.catalog import DEFAULT_MODEL
    from harness.subjects.load import load_subject
    from tasks.tokenization.counting import JOINTS, written

    tokenizer = load_subject(DEFAULT_MODEL, device="cpu").text_tokenizer()
    found = {}
    for form in JOINTS:
        text = written("abbab", form)
        places = [i for i, c in enumerate(text) if c in "ab"]
        found[form] = covariates(tokenizer, doc(f"Letters: {text}\n", text, *places))["alignment"]
    assert found == {"joined": pytest.approx(0.2), "spaces": 1, "commas": 1, "quoted": 1}
