"""Spec-Bench's own questions, from the user's copy of its file: ``path/to/question.jsonl#math_reasoning``.

Each line is ``{"question_id", "category", "turns"}``. After ``#`` stands one of six groups; the first turn is asked.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from harness.errors import UsageError, unknown_name

DIALOGUE = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
GROUPS: dict[str, tuple[str, ...]] = {
    "mt_bench": DIALOGUE,
    **{name: (name,) for name in ("translation", "summarization", "qa", "math_reasoning", "rag")},
}


def is_file(prompts: str) -> bool:
    """Whether a prompt set is written as a file."""
    return ".jsonl" in prompts


def file_digest(prompts: str) -> str:
    """Hash of the file's content, which decides what is asked."""
    return hashlib.sha256(_read(prompts)[0].encode()).hexdigest()[:16]


def _read(prompts: str) -> tuple[str, str]:
    """Text of the file, and the group."""
    name, _, group = prompts.partition("#")
    if group not in GROUPS:
        raise unknown_name("group of Spec-Bench", group, GROUPS, "write FILE.jsonl#GROUP")
    try:
        return Path(name).expanduser().read_text(encoding="utf-8"), group
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"question file {name!r} cannot be read: {error}") from error


def questions(prompts: str) -> list[str]:
    """The first turns of the group's questions, in the file's order."""
    text, group = _read(prompts)
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = json.loads(line)
            category, turn = row["category"], row["turns"][0]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UsageError(
                f"{prompts.partition('#')[0]}, line {number}: not a question with category and turns ({error!r})"
            ) from error
        if category in GROUPS[group]:
            found.append(str(turn))
    return found


def question(prompts: str, number: int) -> str:
    """One question; a number beyond the file's is refused."""
    found = questions(prompts)
    if number >= len(found):
        raise UsageError(f"{prompts} has {len(found)} questions, warm-up included; lower count or warm_up")
    return found[number]
