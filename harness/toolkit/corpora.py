"""Text that is there on every machine: the standard library of the Python that runs, and the user's own files.

Nothing is copied into the project: the text is read where Python keeps it, under Python's own licence. It differs a
little from one Python version to the next, and is the same for one version. The parallel corpora alone are fetched,
once (:mod:`harness.toolkit.parallel`).
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import random
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from harness.errors import EnvironmentFailed, UsageError, unknown_name
from harness.toolkit import parallel

SPLITS = ("train", "valid", "test")
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3"}
SKIPPED_FOLDERS |= {"ensurepip", "pydoc_data", "encodings"}
TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py")
PIECE_BYTES = 4000
RECALL_SEED = 1_000_003
TRIPLE_QUOTED = re.compile(r'(\A(?:\s|#[^\n]*\n)*[rR]?|:[ \t]*(?:#[^\n]*)?\n\s*[rR]?)?"""(.*?)"""', re.DOTALL)

Pieces = tuple[tuple[str, str], ...]
"""``(origin, text)`` pairs; all pieces of one origin fall into one split."""


@dataclass(frozen=True)
class Corpus:
    """A corpus by name: what it is, whose licence it is under, and how it is read."""

    title: str
    licence: str
    read: Callable[[], Pieces]


def split_of(origin: str) -> str:
    """``test`` and ``valid`` get a tenth each, ``train`` the rest, by the hash of where a text comes from."""
    tenth = hashlib.sha256(origin.encode()).digest()[0] * 10 // 256
    return {0: "test", 1: "valid"}.get(tenth, "train")


def cut(text: str, limit: int = PIECE_BYTES) -> Iterator[str]:
    """The text in pieces of at most ``limit`` bytes where its blank lines allow; joined they are the text again."""
    held = ""
    for block in re.split(r"(?<=\n)(?=\n*\S)(?<=\n\n)", text):
        if held and len((held + block).encode()) > limit:
            yield held
            held = ""
        held += block
    if held:
        yield held


def is_prose(paragraph: str) -> bool:
    """Whether a one-line paragraph reads as English sentences rather than code, a list, a table or a signature."""
    words = paragraph.split()
    if not 80 <= len(paragraph) <= 3000 or not paragraph[0].isupper() or paragraph[-1] != ".":
        return False
    letters = sum(c.isalpha() or c == " " for c in paragraph) / len(paragraph)
    common = len({"the", "a", "is", "of", "to", "and", "in"} & {w.lower() for w in words})
    return letters > 0.9 and common >= 2 and not re.search(r"[\\{}=<>|]|::", paragraph)


def paragraphs(text: str) -> Iterator[str]:
    """The prose paragraphs of a docstring, each on one line; indented blocks and lists are left out."""
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        line = " ".join(block.split())
        if line and not re.search(r"^(\s{4,}|\s*[-*>.|#])", block, re.MULTILINE) and is_prose(line):
            yield line


def docstrings(source: str) -> Iterator[str]:
    """Triple-quoted strings at the start of a module or of a block, as written: parsing all files takes seconds."""
    return (text for lead, text in TRIPLE_QUOTED.findall(source) if lead or source.startswith('"""' + text))


@lru_cache(maxsize=1)
def _modules() -> Pieces:
    """Sources of the standard library, ``(path, text)``, without tests and what distributions leave out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if SKIPPED_FOLDERS & set(name.parts) or str(name).startswith(("_sysconfigdata", "config-")):
            continue
        found.append((name.as_posix(), path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")))
    if not found:
        raise EnvironmentFailed(f"{root} holds no Python sources to read a corpus from; give a text file by its path")
    return tuple(found)


def _topics() -> Pieces:
    """The language reference as ``help()`` shows it; empty where the distribution leaves it out."""
    try:
        held = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        return ()
    return tuple((f"pydoc_data/{name}", text) for name, text in sorted(held.items()))


@lru_cache(maxsize=1)
def _docs() -> Pieces:
    """Prose paragraphs of docstrings and of the language reference; a repeated one stays at its first place."""
    seen: dict[str, str] = {}
    for origin, text in _modules():
        for docstring in docstrings(text):
            for paragraph in paragraphs(docstring):
                seen.setdefault(paragraph, origin)
    for origin, text in _topics():
        for paragraph in paragraphs(text):
            seen.setdefault(paragraph, origin)
    return tuple((origin, paragraph) for paragraph, origin in seen.items())


@lru_cache(maxsize=1)
def _sources() -> Pieces:
    return tuple((origin, piece) for origin, text in _modules() for piece in cut(text))


def _recall() -> Pieces:
    """Texts of about 500 tokens in the form of RULER, from a seed that no task has."""
    from tasks.generated.ruler import multikey

    rows = multikey(200, seed=RECALL_SEED, sentences=34)["test"]
    return tuple((row["id"], row["context"] + row["choices"][row["answer"]] + ".") for row in rows)


CORPORA: dict[str, Corpus] = {
    "python_docs": Corpus(
        "English prose paragraphs of the Python standard library's docstrings and language reference",
        "PSF-2.0, and the notices within the files; read in place, not redistributed",
        _docs,
    ),
    "python_source": Corpus(
        "Python sources of the standard library, in pieces of about 4 kB",
        "PSF-2.0, and the notices within the files; read in place, not redistributed",
        _sources,
    ),
    "recall_text": Corpus(
        "Numbers in neutral sentences with a question and its answer, for the model tiny-recall",
        "generated from this project's word lists (Apache-2.0)",
        _recall,
    ),
    "parallel": Corpus(
        "Short messages of Django's user interface in thirteen languages", parallel.LICENCE, parallel.pieces
    ),
} | {
    f"parallel_{language}": Corpus(
        f"Short messages of Django's user interface in the language {language}",
        parallel.LICENCE,
        partial(parallel.pieces, language),
    )
    for language in parallel.LANGUAGES
}


def _from_path(path: Path) -> Pieces:
    """A user's text file, or the text files of a folder, in pieces; each piece is an origin of its own."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in TEXT_SUFFIXES)
    if not files:
        raise UsageError(f"folder {str(path)!r} holds no file ending in {', '.join(TEXT_SUFFIXES)}")
    try:
        texts = [file.read_bytes().decode("utf-8") for file in files]
    except UnicodeDecodeError as error:
        raise UsageError(f"a corpus file under {str(path)!r} is not UTF-8: {error}; convert it first") from error
    except OSError as error:
        raise EnvironmentFailed(f"corpus {str(path)!r} cannot be read: {error}") from error
    return tuple((piece, piece) for text in texts for piece in cut(text))


def _within(texts: Iterable[str], max_bytes: int | None) -> list[str]:
    """Texts from the front while they fit into the budget together; at least one."""
    kept: list[str] = []
    room = float("inf") if max_bytes is None else max_bytes
    for text in texts:
        room -= len(text.encode("utf-8", "surrogatepass"))
        if room < 0 and kept:
            break
        kept.append(text)
    return kept


def documents(name: str, split: str = "train", max_bytes: int | None = None, seed: int = 0) -> list[str]:
    """Documents of one split of a corpus, in an order that depends on ``seed`` only, up to ``max_bytes`` of UTF-8.

    ``name``: a name of :data:`CORPORA`, or the path of a text file or of a folder with text files. Splits are
    ``train``, ``valid`` and ``test``; a text is in one of them only. Raises :class:`UsageError` for unknown names.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    path = Path(name).expanduser()
    if name in CORPORA:
        pieces = CORPORA[name].read()
    elif path.exists():
        pieces = _from_path(path)
    else:
        raise unknown_name("corpus", name, CORPORA, "or give the path of a text file")
    chosen = [text for origin, text in pieces if split_of(origin) == split]
    if not chosen:
        raise UsageError(f"corpus {name!r} is too small to have a {split!r} split; give a longer text")
    random.Random(f"{seed}:{split}").shuffle(chosen)
    return _within(chosen, max_bytes)
