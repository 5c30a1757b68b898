"""Parameters that are lists of numbers, as they are written on the command line."""

from __future__ import annotations

from typing import Any


def written_numbers(given: Any, form: str, least: int = 0) -> str:
    """``2,2,1`` as text, however it came; empty stays empty. ``form`` says in the error how to write it."""
    # On the command line 2,2,1 is read as a tuple and 3 as a number.
    text = ",".join(map(str, given)) if isinstance(given, tuple) else str(given)
    if text and not all(part.isdigit() and int(part) >= least for part in text.split(",")):
        raise ValueError(f"write {form} (got {text!r})")
    return text
