"""Made ``passages.jsonl`` once: prose from the docstrings of Python's standard library (PSF licence), as it is in 3.11.

The file is shipped, so scores do not depend on the Python that runs them. This script is kept as its provenance:
``python tasks/data/collect_passages.py > passages.jsonl``.
"""

from __future__ import annotations

import ast
import json
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

COUNT, SHORTEST, LONGEST, PER_FILE, SEED = 100, 500, 1400, 4, 0
SKIPPED = re.compile(r"(site|dist)-packages|test|idlelib|lib2to3|encodings|config-|turtle|pydoc_data|tkinter")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is sentences: no indentation, lists, code or tables, and nearly all letters."""
    if not paragraph.strip() or re.search(r"^\s{2,}|^\s*[-*>.|]|>>>|::", paragraph, re.MULTILINE):
        return False
    plain = sum(c.isalpha() or c in " ,.'" for c in paragraph) / len(paragraph)
    return paragraph.isascii() and paragraph[0].isupper() and paragraph.rstrip()[-1] == "." and plain > 0.95


def passages(docstring: str) -> Iterator[str]:
    """Runs of neighbouring prose paragraphs, each joined into one line."""
    run: list[str] = []
    for paragraph in [*re.split(r"\n\s*\n", docstring.strip()), "-"]:
        line = " ".join(paragraph.split())
        if is_prose(paragraph) and sum(map(len, run)) + len(line) <= LONGEST:
            run.append(line)
            continue
        if len(" ".join(run)) >= SHORTEST:
            yield " ".join(run)
        run = [line] if is_prose(paragraph) and len(line) <= LONGEST else []


def collect(root: Path) -> list[dict[str, str]]:
    """A seeded choice of passages, at most ``PER_FILE`` of one file, of files that are plainly PSF's own."""
    found: list[dict[str, str]] = []
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        text = "" if SKIPPED.search(name) else path.read_text(encoding="utf-8", errors="replace")
        if not text or re.search(r"copyright|licen[sc]e", text, re.IGNORECASE):
            continue
        docs = [ast.get_docstring(n) for n in ast.walk(ast.parse(text)) if isinstance(n, DOCUMENTED)]
        here = dict.fromkeys(t for doc in docs if doc for t in passages(doc) if t not in seen)
        seen.update(here)
        found += [{"source": name, "text": t} for t in list(here)[:PER_FILE]]
    random.Random(SEED).shuffle(found)
    return found[:COUNT]


if __name__ == "__main__":
    for row in collect(Path(sysconfig.get_paths()["stdlib"])):
        print(json.dumps(row))
