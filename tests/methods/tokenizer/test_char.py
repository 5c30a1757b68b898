"""Characters: seen ones are one token, others their bytes."""

import pytest
from pydantic import ValidationError

from harness.kinds.tokenizer.hostile import hostile_texts, lost
from harness.kinds.tokenizer.vocabulary import segments
from methods.tokenizer.char import Char

TEXTS = ["na\u00efve \u65e5\u672c \u65e5", "caf\u00e9 na\u00efve", "\ud800 broken"]


def test_seen_characters_are_one_token_and_others_bytes(tiny):
    method = Char()
    artifact = method.train(TEXTS, 0)
    assert artifact == "\u00ef\u65e5\u00e9\u672c"  # by count, then by code point
    made = method.make(tiny.tokenizer, artifact)
    assert made.encode("a\u65e5\u8a9e") == [97, 257, *"\u8a9e".encode()]
    assert segments(made, "na\u00efve") == [b"n", b"a", "\u00ef".encode(), b"v", b"e"]


def test_rare_characters_stay_bytes():
    assert Char(min_frequency=2).train(TEXTS, 0) == "\u00ef\u65e5"


def test_no_text_is_lost_and_none_is_longer_than_its_bytes(tiny):
    made = Char().make(tiny.tokenizer, Char().train(TEXTS, 0))
    assert lost(made) == []
    for _, text in hostile_texts():
        assert len(text) <= len(made.encode(text)) <= len(text.encode())


def test_vocabularies_that_differ_have_other_names(tiny):
    assert Char().make(tiny.tokenizer, "\u00e9").name != Char().make(tiny.tokenizer, "\u00ef").name


def test_all_checks_pass_and_workloads_run(tiny):
    method = Char(train_bytes=50_000)
    for check in method.checks(tiny):
        check.run()
    named = {w.name: w for w in method.workloads(tiny)}
    assert named["train"].make()() == named["train"].make()() and named["train"].reference is None
    with pytest.raises(ValidationError):
        Char(min_frequency=0)
