"""The dictionary's tokenizer: shared ids, forms chosen on the way back, and metrics that it cannot flatter."""

import json

import pytest

from harness.errors import UsageError
from harness.kinds.checking import run_checks
from harness.kinds.stack import applied
from harness.kinds.tokenizer.lexicon import Lexicon, load_lexicon
from harness.kinds.tokenizer.purity import Purity, Validator, load_validator, share, token_counts
from harness.subjects.tiny import ByteIds
from methods.tokenizer.turkish_hybrid import CAPITAL, LOST, SPACE, TurkishHybrid

TURKISH_FORMS = """
ev evler evde evlerde evden evi evin evim evimiz kitap kitaplar kitabı kitapta kitabın kitaptan araba arabalar arabayı
arabada arabaya arabanın arabam ağaç ağacı ağaçta çocuğu çocuklar gözlük gözlükçü okulda okuldan sütte sütü kuşları
öğretmenler denizde saat saatler saatte kalbi kalpler geldi gitti okudu yazdı bakıyor geliyor gidiyor okuyor başlıyor
başladı bekliyor istiyor çalışacak okuyacak gelmek bakmak konuşma şehri şehirde parayla güzelce
"""
ENGLISH_FORMS = "cats houses walked walking running runs making makes cities teacher kindness helpful unkind reader"
REGULAR, ENGLISH = TURKISH_FORMS.split(), ENGLISH_FORMS.split()


@pytest.fixture(scope="module")
def turkish(tiny):
    return TurkishHybrid().make(tiny.tokenizer, None)


def test_regular_forms_come_back(turkish, tiny):
    assert [turkish.decode(turkish.encode(word)) for word in REGULAR] == REGULAR
    english = TurkishHybrid(lexicon="en").make(tiny.tokenizer, None)
    assert [english.decode(english.encode(word)) for word in ENGLISH] == ENGLISH


def test_forms_of_one_morpheme_share_an_id(turkish):
    pairs = {"evler": "kitaplar", "evde": "okulda", "evden": "s\u00fctten", "geldi": "okudu", "evimiz": "okulumuz"}
    for one, other in pairs.items():
        assert turkish.encode(one)[-1] == turkish.encode(other)[-1], (one, other)
    assert turkish.encode("kitaplar")[0] == turkish.encode("kitab\u0131")[0]
    assert turkish.encode("ba\u015fl\u0131yor")[0] == turkish.encode("ba\u015flad\u0131")[0]
    assert [turkish.token_bytes(i) for i in turkish.encode("evlerde")] == [b"ev", b"lar", b"da"]


def test_capitals_are_marks_and_turkish_has_two_letters_i(turkish, tiny):
    ids = turkish.encode("Ev EV")
    assert ids[0] == CAPITAL and ids.count(CAPITAL) == 3 and ids.count(SPACE) == 1
    assert ids[1] == turkish.encode("ev")[0]
    text = "\u0130ki I\u015fk HTTPSv \u0130\u015f \u00c9t STRSS str\u00df"
    assert turkish.decode(turkish.encode(text)) == text
    lexicon = load_lexicon("tr")
    assert [lexicon.lower(c) for c in "I\u0130i\u0131"] == ["\u0131", "i", "i", "\u0131"]
    assert [lexicon.upper(c) for c in "i\u0131"] == ["\u0130", "I"]
    assert [load_lexicon("en").lower("I"), load_lexicon("en").upper("i")] == ["i", "I"]


def test_what_no_table_holds_is_bytes_or_lost(turkish, tiny):
    text = "ev \U0001f600 \u65e5\u672c  z"
    assert turkish.decode(turkish.encode(text)) == text
    lossy = TurkishHybrid(unknown="lost").make(tiny.tokenizer, None)
    assert lossy.encode("\U0001f600") == [LOST] and lossy.decode(lossy.encode(text)) == "ev    z"
    assert lossy.vocab_size == turkish.vocab_size - 256 and lossy.name != turkish.name


def test_roots_go_before_affixes_and_longer_before_shorter(tiny, tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"language": "x", "roots": [["ab"], ["abc"]], "affixes": [["abcd"], ["d"]]}))
    made = TurkishHybrid(lexicon=str(path)).make(tiny.tokenizer, None)
    assert [made.token_bytes(i) for i in made.encode("abcdab")] == [b"abc", b"d", b"ab"]


def test_the_tokenizer_scored_by_its_own_dictionary_is_nearly_perfect(tiny):
    lexicon = load_lexicon("tr")
    own = Validator(roots={f for e in lexicon.roots for f in e}, affixes={f for e in lexicon.affixes for f in e})
    text = [" ".join(w for w in REGULAR)]
    with applied([TurkishHybrid()], tiny) as changed:
        found = {m.metric: m.value for m in Purity(text, own, lexicon.lower).measure(changed)}
    assert found["pure_token_share"] > 0.95 and found["word_round_trip_fidelity"] == 1.0
    plain = {m.metric: m.value for m in Purity(text, own, lexicon.lower).measure(tiny)}
    assert plain["pure_token_share_weighted"] < 0.5


def test_the_shares_are_those_of_a_table_made_by_hand():
    counts = token_counts(ByteIds(), ["aab c", "B"], str.lower)
    assert counts == {"a": 2, "b": 2, "c": 1}
    judge = Validator(words={"c"}, roots={"a"}, affixes=set())
    assert share(counts, judge.valid, False) == pytest.approx(2 / 3)
    assert share(counts, judge.pure, True) == pytest.approx(2 / 5)
    assert judge.pure <= judge.valid


def test_the_probe_reads_a_validator_and_a_text_by_path(tiny, tmp_path):
    judge, text = tmp_path / "judge.json", tmp_path / "text.txt"
    judge.write_text(json.dumps({"words": ["ev"], "roots": ["ev"], "affixes": ["lar"]}))
    text.write_text("\n\n".join(f"evler {n} " + "evde " * 800 for n in range(40)), encoding="utf-8")
    method = TurkishHybrid(validator=str(judge), text=str(text))
    with applied([method], tiny) as changed:
        found = {m.metric: m.value for m in method.probes()[1].measure(changed)}
        assert found["pure_token_share"] <= found["valid_token_share"] and "valid_token_share_weighted" in found
        (alone,) = TurkishHybrid().probes()[1].measure(changed)
    assert alone.metric == "word_round_trip_fidelity" and 0.5 < alone.value <= 1


def test_bad_files_are_one_clear_line(tmp_path):
    twice = {"language": "x", "roots": [["a"], ["a", "b"]], "affixes": [["c"]]}
    for name, content in (("no.json", "{"), ("twice.json", json.dumps(twice)), ("list.json", "[]")):
        (tmp_path / name).write_text(content)
        with pytest.raises(UsageError) as error:
            load_lexicon(str(tmp_path / name))
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="neither one of tr, en nor a file"):
        load_lexicon("de")
    with pytest.raises(UsageError, match="validator"):
        load_validator(str(tmp_path / "list.json"))


@pytest.mark.parametrize("name", ["tr", "en"])
def test_the_shipped_dictionaries_are_whole(name):
    lexicon = load_lexicon(name)
    assert isinstance(lexicon, Lexicon) and len(lexicon.roots) > 40 and len(lexicon.affixes) > 10
    assert not {form for e in lexicon.roots for form in e} & {form for e in lexicon.affixes for form in e}


@pytest.mark.parametrize(
    "method", [TurkishHybrid(), TurkishHybrid(lexicon="en", unknown="lost")], ids=lambda m: m.signature
)
def test_the_checks_of_its_kind_hold(tiny, method):
    results = run_checks(method, tiny)
    assert not [f"{r.name}: {r.reason}" for r in results if not r.passed]
