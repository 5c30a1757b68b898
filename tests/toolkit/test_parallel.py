"""Parallel text: catalogues are read, unusable messages left out, languages stay aligned. No network is used."""

import struct

import pytest

from harness.errors import EnvironmentFailed
from harness.toolkit import parallel
from harness.toolkit.corpora import CORPORA, SPLITS, documents
from harness.toolkit.parallel import LANGUAGES, aligned, read_catalogue, translations, usable


def write_catalogue(path, messages):
    """A compiled gettext catalogue."""
    strings = [text.encode() for pair in zip(*sorted(messages.items()), strict=True) for text in pair]
    count, at, tables = len(messages), 28 + 16 * len(messages), b""
    for data in strings:
        tables += struct.pack("<2I", len(data), at)
        at += len(data) + 1
    head = struct.pack("<7I", 0x950412DE, 0, count, 28, 28 + 8 * count, 0, 0)
    path.write_bytes(head + tables + b"".join(data + b"\0" for data in strings))


@pytest.fixture
def catalogues(tmp_path, monkeypatch):
    """Three small parts for every language in place of the fetched ones."""

    def obtain(package, member):
        part, language = member.split("/locale/")[0].split("/")[-1], member.split("/")[-3]
        messages = {"": "header", f"{part} yes": f"{language} {part} ja", "%d items": "x", "one\0many": "a\0b"}
        messages |= {f"{part} {n}": f"{language} {n}" for n in range(20)}
        if language == "hi":
            del messages[f"{part} yes"]
        write_catalogue(tmp_path / "c.mo", messages)
        return tmp_path / "c.mo"

    monkeypatch.setattr(parallel.Package, "obtain", obtain)
    translations.cache_clear()
    yield
    translations.cache_clear()


def test_a_catalogue_is_read(tmp_path):
    messages = {"": "header", "Save": "\u0938\u0939\u0947\u091c\u0947\u0902", "No": "Hay\u0131r"}
    write_catalogue(tmp_path / "m.mo", messages)
    assert read_catalogue(tmp_path / "m.mo") == messages


@pytest.mark.parametrize("text", ["", "%s rows", "{name}", "<b>x</b>", "one\0two", "month\x04May", "a &amp; b"])
def test_messages_that_are_not_plain_text_are_left_out(text):
    assert not usable(text, "x") and not usable("x", text) and usable("x", "y")


def test_languages_are_aligned_over_what_all_have(catalogues):
    lines = aligned()
    assert set(lines) == set(LANGUAGES) and len({len(texts) for texts in lines.values()}) == 1
    assert len(lines["en"]) == 60 and not [m for m in lines["en"] if "yes" in m]
    at = lines["en"].index("auth 7")
    assert (lines["de"][at], lines["zh_Hans"][at]) == ("de 7", "zh_Hans 7")


def test_a_message_is_in_one_split_in_every_language(catalogues):
    assert {name for name in CORPORA if name.startswith("parallel_")} == {f"parallel_{x}" for x in LANGUAGES}
    texts = {x: {split: documents(f"parallel_{x}", split) for split in SPLITS} for x in ("de", "tr")}
    assert all(
        sorted(t[3:] for t in texts["tr"][split]) == sorted(t[3:] for t in texts["de"][split]) for split in SPLITS
    )
    for language in ("de", "tr"):
        assert sum(map(len, texts[language].values())) == 63
    assert sum(len(documents("parallel", split)) for split in SPLITS) == 60 * 2 + 63 * (len(LANGUAGES) - 2)


def test_without_the_package_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    translations.cache_clear()
    with pytest.raises(EnvironmentFailed, match="cannot fetch translated messages of Django"):
        aligned()
