"""Morphemes of words: what is split, that it comes back, and what a table may not be."""

import json

import pytest

from harness.errors import UsageError
from harness.kinds.tokenizer.bpe import ByteLevelTokenizer, RustTokenizer, train_bpe
from harness.kinds.tokenizer.hostile import lost
from harness.kinds.tokenizer.morphemes import Morphemes, MorphemeTokenizer, load_morphemes
from harness.kinds.tokenizer.vocabulary import Specials, segments
from harness.subjects.tiny import ByteIds

SUN, RISE = "\u0938\u0942\u0930\u094d\u092f", "\u0909\u0926\u092f"
SUNRISE = "\u0938\u0942\u0930\u094d\u092f\u094b\u0926\u092f"
TABLE = Morphemes({SUNRISE: [SUN, RISE]})


@pytest.fixture(scope="module")
def made():
    base = ByteLevelTokenizer(RustTokenizer.from_str(train_bpe([], 256)), Specials.of(ByteIds()), "bytes")
    return MorphemeTokenizer(base, load_morphemes("hi"), Specials.of(ByteIds()), "morphemes")


def test_words_of_the_table_are_split_and_others_are_not():
    text = f"a {SUNRISE}, {SUN}{SUNRISE} {RISE}\u0964"
    pieces = TABLE.split(text)
    assert pieces == [f"a {SUN}", f"{RISE}, {SUN}{SUNRISE} {RISE}\u0964"]
    assert TABLE.join(pieces) == text
    assert TABLE.split("") == [""] and TABLE.split(f"{SUNRISE}\u0966") == [SUN, f"{RISE}\u0966"]


def test_pieces_that_no_word_has_are_put_together():
    assert TABLE.join([RISE, SUN]) == RISE + SUN
    assert TABLE.join(["", "", f"{SUN} ", RISE]) == f"{SUN} {RISE}"
    assert TABLE.join([f"x{SUN}", RISE, SUN]) == f"x{SUN}{RISE}{SUN}"


def test_of_words_with_the_same_morphemes_the_first_comes_back():
    twice = Morphemes({SUNRISE: [SUN, RISE], SUN + RISE: [SUN, RISE]})
    assert TABLE.reversible and not twice.reversible
    assert twice.join(twice.split(SUN + RISE)) == SUNRISE


def test_the_toy_table_undoes_sandhi_and_comes_back(made):
    table = load_morphemes("hi")
    assert table.reversible and len(table.analyses) > 90
    changed = [word for word, parts in table.analyses.items() if "".join(parts) != word]
    assert len(changed) > 50
    text = " ".join(table.analyses) + "."
    ids = made.encode(text)
    assert made.decode(ids) == text and b"".join(segments(made, text)).decode() != text
    joints = [i for i in ids if made.token_bytes(i) == b""]
    assert len(joints) == sum(len(parts) - 1 for parts in table.analyses.values()) and len(set(joints)) == 1


def test_every_text_comes_back_and_special_ids_give_nothing(made):
    assert lost(made) == []
    assert made.decode([made.prefix_id, *made.encode(SUNRISE), made.eos_ids[0]]) == SUNRISE
    assert made.vocab_size == 256 + 1 + 2


@pytest.mark.parametrize("table", [{"a": ["b", "c"]}, {SUNRISE: [SUN]}, {SUNRISE: [SUN, ""]}, [SUN], {SUNRISE: 3}])
def test_what_is_no_table_is_refused_in_one_line(tmp_path, table):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(table))
    with pytest.raises(UsageError) as refused:
        load_morphemes(str(path))
    assert "\n" not in str(refused.value)
    with pytest.raises(UsageError, match="cannot be read"):
        load_morphemes(str(tmp_path / "none.json"))
