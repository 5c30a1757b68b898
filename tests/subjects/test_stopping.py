"""Where a row ends: end of text, stop strings, length; and what a finished row reports."""

import pytest

from harness.subjects.decode import StopRule
from harness.subjects.requests import GenerateRequest, Generation
from harness.subjects.tiny import ByteIds

BYTES = ByteIds()


def ended(text, **settings):
    """A row to which the bytes of a text are emitted, two at a time, until it ends."""
    tokens = list(text) if isinstance(text, list) else BYTES.encode(text)
    rule = StopRule(GenerateRequest(prompts=[[0]], **({"max_new_tokens": 100} | settings)), BYTES)
    row = Generation(prompt_tokens=1)
    for start in range(0, len(tokens), 2):
        if rule.extend(row, tokens[start : start + 2], float(start)):
            break
    return row


def test_a_stop_string_is_cut_from_the_text_but_its_tokens_stay():
    row = ended("one two\n\nthree", stop_strings=("\n\n",))
    assert (row.text, row.stop_reason) == ("one two", "stop")
    assert BYTES.decode(row.tokens) == "one two\n\n"


def test_a_stop_string_is_found_inside_a_longer_run_of_tokens():
    row = ended("ab#cd", stop_strings=("#",))
    assert (row.text, row.tokens[-1], row.steps) == ("ab", ord("#"), [2, 1])


def test_of_several_stop_strings_the_earliest_counts():
    assert ended("a b;c.d", stop_strings=(".", ";")).text == "a b"


def test_a_stop_string_of_several_bytes_a_character():
    assert ended("fünf Bäume", stop_strings=("Bä",)).text == "fünf "


def test_empty_stop_strings_stop_nothing():
    assert ended("abc", stop_strings=("",), max_new_tokens=3).stop_reason == "length"


def test_end_of_text_ends_the_row_and_is_not_in_its_text():
    row = ended([97, 98, 257, 99])
    assert (row.tokens, row.text, row.stop_reason, row.steps) == ([97, 98, 257], "ab", "eos", [2, 1])
    assert ended([97, 98, 257, 99], ignore_eos=True, max_new_tokens=4).tokens == [97, 98, 257, 99]
    assert ended([97, 98, 257, 99], eos_ids=(98,)).tokens == [97, 98]
    assert ended([97, 98, 257, 99], eos_ids=(), max_new_tokens=4).stop_reason == "length"


def test_length_cuts_a_run():
    row = ended("abcdef", max_new_tokens=3)
    assert (row.text, row.steps, row.stop_reason, len(row.stamps_s)) == ("abc", [2, 1], "length", 3)


def test_without_a_tokenizer_rows_end_by_id_and_have_no_text():
    rule = StopRule(GenerateRequest(prompts=[[0]], max_new_tokens=2, stop_strings=("a",)), None)
    row = Generation(prompt_tokens=1)
    assert rule.extend(row, [97, 98], 0.0)
    assert (row.text, row.stop_reason) == ("", "length")


def test_finished_rows_leave_the_others_untouched(tiny):
    """Rows of a batch end at different places, each as it does alone."""
    prompts = [[5, 6, 7, 8], [9], [1, 2, 3, 4, 5, 6, 7]]
    free = tiny.generate(GenerateRequest(prompts=prompts, max_new_tokens=12, ignore_eos=True))
    eos = (free[0].tokens[2], free[1].tokens[6])
    rows = tiny.generate(GenerateRequest(prompts=prompts, max_new_tokens=12, eos_ids=eos))
    assert rows[0].stop_reason == "eos" and len(rows[0].tokens) <= 3
    for row, whole in zip(rows, free, strict=True):
        assert row.tokens == whole.tokens[: len(row.tokens)]
        assert row.stop_reason == ("eos" if row.tokens[-1] in eos else "length")
        assert sum(row.steps) == len(row.tokens) == len(row.stamps_s)


def test_times_come_from_the_stamps():
    row = Generation(prompt_tokens=1, tokens=[1, 2, 3], stamps_s=[0.5, 0.7, 1.1])
    assert row.ttft_s == 0.5 and row.tpot_s == pytest.approx(0.3)
    assert Generation(prompt_tokens=1, tokens=[1], stamps_s=[0.5]).tpot_s is None
