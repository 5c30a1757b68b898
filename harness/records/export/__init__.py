"""Writes stored records in the forms that other programs read: pytest-benchmark, lm-eval, Bencher, CSV.

Only finished trials give figures. Of trials that differ in nothing but the code they ran, the newest counts; CSV alone
shows every trial, with its status.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import unknown_name
from harness.records.export import bencher_form, csv_form, lm_eval_form, pytest_form
from harness.records.export.selection import Document, Records, read_records

__all__ = ["FORMS", "Document", "Form", "Records", "find_form", "read_records"]


@dataclass(frozen=True)
class Form:
    """A way to write records. ``many``: it makes a folder of documents, not one."""

    make: Callable[[Records], list[Document]]
    many: bool = False


FORMS = {
    "pytest-benchmark": Form(pytest_form.documents),
    "lm-eval": Form(lm_eval_form.documents, many=True),
    "bencher": Form(bencher_form.documents),
    "csv": Form(csv_form.documents),
}


def find_form(name: str) -> Form:
    """A form by its name, hyphen or underscore. Raises :class:`UsageError` for an unknown one."""
    spelled = name.replace("_", "-")
    if spelled not in FORMS:
        raise unknown_name("format", name, FORMS)
    return FORMS[spelled]
