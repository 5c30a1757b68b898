"""What one document scores."""

import math

from tasks import metrics


def answers(*logprobs):
    return [(x, False) for x in logprobs]


def test_margin_is_answer_minus_the_best_other():
    doc = {"answer": 1, "choices": [" a", " b", " c"]}
    assert metrics.choice(doc, answers(-3.0, -1.0, -2.5)) == {"acc": 1.0, "choice_margin": 1.5}
    assert metrics.choice(doc, answers(-0.5, -1.0, -2.5)) == {"acc": 0.0, "choice_margin": -0.5}


def test_a_tie_or_no_number_is_wrong_whatever_the_order():
    for answer in (0, 1):
        doc = {"answer": answer, "choices": [" a", " b"]}
        assert metrics.choice(doc, answers(-1.0, -1.0))["acc"] == 0
        assert metrics.choice(doc, answers(math.nan, math.nan))["acc"] == 0


def test_norm_divides_by_characters():
    doc = {"answer": 0, "choices": [" a long answer", " short"]}
    found = metrics.choice_norm(doc, answers(-6.0, -5.0))
    assert found["acc"] == 0 and found["acc_norm"] == 1 and found["choice_margin"] == -1


def test_pairs_need_both_twins():
    assert metrics.twins({"answer": 0, "pair": 3}, answers(-1.0, -2.0))["pair_acc"] == (3, 1.0)
    assert metrics.share_of_pairs([(0, 1.0), (0, 1.0), (1, 1.0), (1, 0.0)]) == 0.5
    assert metrics.share_of_pairs([(0, 1.0)]) == 1.0


def test_bits_per_byte_counts_bytes_not_characters():
    found = metrics.bits_per_byte({"target": " né"}, answers(-8 * math.log(2)))
    assert found["bits_per_byte"] == (-8 * math.log(2), 4) and math.isclose(found["doc_bits_per_byte"], 2.0)


def test_copied_words():
    doc = {"target": "river stone table"}
    assert metrics.copied_words(doc, [" river stone table lamp"]) == {"exact_match": 1.0, "word_match": 1.0}
    assert metrics.copied_words(doc, [" river table stone"]) == {"exact_match": 0.0, "word_match": 1 / 3}
    assert metrics.copied_words(doc, [""]) == {"exact_match": 0.0, "word_match": 0.0}


def test_last_number_reads_decimals_signs_and_separators():
    for text, target, right in (
        ("so 3 + 4 = 7.", "7", 1.0),
        ("it costs 1,250 dollars", "1250", 1.0),
        ("about 1.5", "5", 0.0),
        ("-3", "3", 0.0),
        ("no number", "0", 0.0),
        ("18.0", "18", 1.0),
    ):
        assert metrics.last_number({"target": target}, [text])["exact_match"] == right
