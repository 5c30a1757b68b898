"""Errors that a user can act on: one line, a remedy, and the exit code of the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZooError(Exception):
    """Something the user can mend. ``str(error)`` is the whole line that the command line prints."""

    exit_code = 4


class UsageError(ZooError):
    """An unknown name, a parameter out of range, a malformed file."""

    exit_code = 2


class CheckFailed(ZooError):
    """An invariant of a method does not hold."""

    exit_code = 1


class Refused(ZooError):
    """A method cannot work on this subject (architecture, stack, batch); the trial is skipped with this reason."""

    exit_code = 2


class EnvironmentFailed(ZooError):
    """Files, network, memory or devices failed; nothing was measured."""

    exit_code = 4


def unknown_name(what: str, name: str, known: Iterable[str], remedy: str = "") -> UsageError:
    """Build the error for an unknown name: it names the nearest valid one, or lists what there is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        hint = f"did you mean {near[0]!r}?"
    elif len(names) <= 12:
        hint = f"known: {', '.join(names) or 'none'}"
    else:
        hint = f"there are {len(names)} of them"
    return UsageError(f"unknown {what} {name!r}; {hint}" + (f" ({remedy})" if remedy else ""))
