"""Cards, the registry, how methods are written, and their pages."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from harness.catalog import pages, registry
from harness.catalog.card import Card
from harness.catalog.registry import Entry, catalog, find
from harness.catalog.spec import MethodSpec, parse_stack
from harness.errors import EnvironmentFailed, UsageError

BASELINES_ELSEWHERE = {"decoding": "speculative"}
"""Kinds that may be measured against another kind's baseline: plain decoding is one method, ``ar``."""
CARD = {"id": "m", "kind": "pruning", "title": "t", "guarantee": "exact", "baseline": "kv_full"}


@pytest.mark.parametrize("change", [{"kind": "prunning"}, {"guarantee": "sure"}])
def test_a_card_knows_its_words(change):
    with pytest.raises(ValueError, match=r"is not one of"):
        Card(**CARD | change)


def test_every_card_of_the_zoo_is_whole():
    for entry in catalog().values():
        card = entry.card
        assert card.baseline in catalog(), f"{card.id}: its baseline {card.baseline} is no method"
        assert catalog()[card.baseline].card.kind in (card.kind, BASELINES_ELSEWHERE.get(card.kind))
        assert card.id == entry.source.stem and card.kind == entry.source.parent.name
        for claim in card.claims:
            assert {"metric", "value", "against", "on"} <= set(claim), card.id
        assert card.details, f"{card.id} does not say where its details come from"


def test_every_identity_is_a_valid_setting():
    for entry in catalog().values():
        if entry.card.identity:
            MethodSpec(entry.card.id, entry.card.identity).build()


def test_every_parameter_has_a_description():
    for entry in catalog().values():
        for row in pages.parameters(entry):
            assert row["description"], f"{entry.card.id}: {row['name']}"


def test_cards_read_from_text_are_those_of_the_classes():
    for entry in catalog().values():
        assert entry.load().card == entry.card


def test_an_unknown_id_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'kv_snapkv'"):
        find("kv_snapvk")


def test_one_package_named_twice_is_read_once(monkeypatch):
    points = [EntryPoint(name, "methods", registry.GROUP) for name in ("a", "b")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    held = registry.read_catalog.__wrapped__()
    assert not held.problems and set(held.entries) == set(catalog())


def test_a_method_that_fails_to_import_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "gone.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EnvironmentFailed, match="nothing_of_this_name"):
        Entry(Card(**CARD), "gone", "Gone", tmp_path / "gone.py", "test").load()


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("kv_snapkv", {}),
        ("kv_snapkv@keep_ratio=0.25@window=8", {"keep_ratio": 0.25, "window": 8}),
        (" kv_snapkv@window = 8 ", {"window": 8}),
        ("token_recycling@reset=request", {"reset": "request"}),
        ("kv_snapkv@keep_ratio=1e-1", {"keep_ratio": 0.1}),
    ],
)
def test_parameters_are_read_as_they_are_written(text, params):
    spec = MethodSpec.parse(text)
    assert spec.params == params
    assert MethodSpec.parse(str(spec)) == spec
    built = spec.build()
    assert all(getattr(built, name) == value for name, value in params.items())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty method name"),
        ("  ", "empty method name"),
        ("kv_snapkv@window", "write parameters as"),
        ("kv_snapkv@=3", "write parameters as"),
        ("kv_snapkv+nothing", "unknown method 'nothing'"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error(text, reason):
    with pytest.raises(UsageError, match=reason):
        parse_stack(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("kv_snapkv@keep_ratio=0", "keep_ratio=0"),
        ("kv_snapkv@keep_ratio=nan", "keep_ratio"),
        ("kv_snapkv@window=many", "window='many'"),
        ("kv_snapkv@windw=3", "did you mean 'window'"),
        ("token_recycling@reset=sometimes", "reset='sometimes'"),
    ],
)
def test_values_out_of_range_name_the_parameter(text, reason):
    with pytest.raises(UsageError, match=reason):
        MethodSpec.parse(text).build()


def test_a_stack_competes_where_its_last_method_does():
    stack = parse_stack("kv_streaming@keep_ratio=0.5+token_recycling")
    assert (stack.kind, str(stack.baseline)) == ("speculative", "ar")
    assert str(stack) == "kv_streaming@keep_ratio=0.5+token_recycling"


def test_a_number_with_a_sign_does_not_split_a_stack():
    assert str(parse_stack("kv_snapkv@keep_ratio=5e+0")) == "kv_snapkv@keep_ratio=5.0"


def test_a_page_holds_the_card_and_no_path_of_this_machine():
    page = pages.method_page(find("kv_snapkv"))
    assert page.startswith("# `kv_snapkv`\n") and "arXiv:2404.14469" in page
    assert "| keep_ratio | float | 0.5 | > 0, <= 1 | part of the tokens kept |" in page
    assert "| speedup_decode | 3.6 | full cache | inputs of 16K tokens (abstract) |" in page
    assert str(Path.cwd()) not in pages.all_pages(catalog().values())


def test_pages_escape_what_would_break_a_table(tmp_path):
    path = tmp_path / "m.py"
    path.write_text('"""Says it."""\n', encoding="utf-8")
    card = Card(**CARD, details={"a|b": "one\ntwo"})

    class Plain(Entry):
        def load(self):
            return object

    page = pages.method_page(Plain(card, "m", "M", path, "test"))
    assert "| a\\|b | one two |" in page


def test_the_document_of_all_methods_stands_by_kind():
    text = pages.all_pages(catalog().values())
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert headings == [kind for kind in pages.KINDS if kind in headings]
