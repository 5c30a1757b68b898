"""Corpora: splits that do not overlap, the same documents every time, and the user's own files."""

import ast
import inspect
import sysconfig
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.toolkit.corpora import CORPORA, SPLITS, cut, docstrings, documents, is_prose, paragraphs, split_of


@pytest.mark.parametrize("name", ["python_docs", "python_source"])
def test_splits_share_no_document_and_lose_none(name):
    parts = {split: documents(name, split) for split in SPLITS}
    seen = [set(texts) for texts in parts.values()]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2]) or name == "python_source"
    assert sum(map(len, parts.values())) == len(CORPORA[name].read())
    assert len(parts["train"]) > 5 * len(parts["test"]) > 0


def test_all_pieces_of_one_module_fall_into_one_split():
    test = set(documents("python_source", "test"))
    by_origin = {}
    for origin, piece in CORPORA["python_source"].read():
        by_origin.setdefault(origin, []).append(piece)
    for origin, pieces in by_origin.items():
        if split_of(origin) == "test":
            assert set(pieces) <= test


def test_order_depends_on_the_seed_only():
    assert documents("python_docs", "valid", seed=3) == documents("python_docs", "valid", seed=3)
    assert documents("python_docs", "valid", seed=3) != documents("python_docs", "valid", seed=4)
    assert sorted(documents("python_docs", "valid", seed=3)) == sorted(documents("python_docs", "valid", seed=4))


def test_budget_is_kept_and_smaller_budgets_are_prefixes():
    small, large = (documents("python_docs", "train", n) for n in (5_000, 20_000))
    assert large[: len(small)] == small
    assert 4_000 < sum(len(t.encode()) for t in small) <= 5_000


def test_python_docs_is_prose_on_one_line():
    texts = documents("python_docs", "test")
    assert all("\n" not in t and t.endswith(".") and t[0].isupper() for t in texts)
    assert sum(map(len, texts)) > 20_000


def test_prose_filter_refuses_code_lists_and_tables():
    assert is_prose("Return a copy of the list in which all items that are equal to the given one have been replaced.")
    assert not is_prose(
        "x = {k: v for k, v in items()}; return the value of a function to the caller of it, and go on."
    )
    listed = "- the first item of a list is here and goes on for a while in order to be long enough for the filter."
    assert list(paragraphs(f"Summary.\n\n{listed}")) == []


@pytest.mark.parametrize("module", ["textwrap", "statistics", "json/decoder", "argparse", "threading", "heapq"])
def test_docstrings_found_are_those_python_sees(module):
    source = (Path(sysconfig.get_paths()["stdlib"]) / f"{module}.py").read_text()
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    real = {ast.get_docstring(n) for n in ast.walk(ast.parse(source)) if isinstance(n, kinds)} - {None}
    found = {inspect.cleandoc(text).strip() for text in docstrings(source)}
    # Escapes are left as written, and one-line strings in plain quotes are not looked for.
    plain = {text for text in found if "\\" not in text}
    assert plain <= {text.strip() for text in real}
    assert len(plain) >= 0.6 * len(real)


@pytest.mark.parametrize("text", ["", "a\n\nb\n\n\nc", "one line", "\n\nx\n", "x\n\n" * 50])
def test_cut_joins_to_the_text(text):
    pieces = list(cut(text, 20))
    assert "".join(pieces) == text
    assert all(len(p) <= 20 for p in pieces)


def test_a_users_file_and_folder(tmp_path):
    text = "".join(f"Paragraph number {i} of the file. {'word ' * 300}\n\n" for i in range(120))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    (tmp_path / "ignored.bin").write_bytes(b"\xff\xfe")
    parts = [documents(str(tmp_path / "a.txt"), split) for split in SPLITS]
    assert sum(len(p) for part in parts for p in part) == len(text)
    assert sorted(documents(str(tmp_path), "train")) == sorted(parts[0])


def test_errors_are_one_line_with_a_remedy(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'python_docs'"):
        documents("python_doc")
    with pytest.raises(UsageError, match="split"):
        documents("python_docs", "dev")
    with pytest.raises(UsageError, match="no file ending in"):
        documents(str(tmp_path))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 ")
    with pytest.raises(UsageError, match="not UTF-8"):
        documents(str(tmp_path / "latin.txt"))
    (tmp_path / "latin.txt").write_text("short")
    with pytest.raises(UsageError, match="too small"):
        documents(str(tmp_path / "latin.txt"), next(s for s in SPLITS if s != split_of("short")))
