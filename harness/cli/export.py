"""`zoo export`: records in the forms that other programs read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import OutputPath

if TYPE_CHECKING:
    from harness.records.export import Document


def export(
    format_: Annotated[str, typer.Argument(metavar="FORMAT", help="pytest-benchmark, lm-eval, bencher or csv.")],
    output_path: OutputPath = None,
    suite: Annotated[str, typer.Option("--suite", help="Trials of one suite only.")] = "",
    run: Annotated[str, typer.Option("--run", help="Trials of one run only, by its folder's name.")] = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", help="File to write; for lm-eval a folder, or a .json file for one document."),
    ] = None,
) -> None:
    """Write records for other programs, on stdout or into --output.

    lm-eval gets one document a model and method; several on stdout are a JSON list.
    """
    from harness.cli.output import print_text, warn
    from harness.records.export import find_form, read_records

    form = find_form(format_)
    records = read_records(output_path or Path("results"), suite, run)
    documents = form.make(records)
    for note in records.notes:
        warn(note)
    if output is None:
        print_text(documents[0].text if len(documents) == 1 else _json_list(documents))
    else:
        for file in write(documents, output, form.many):
            print_text(str(file))


def _json_list(documents: Sequence[Document]) -> str:
    return "[" + ",\n".join(document.text for document in documents) + "]"


def write(documents: Sequence[Document], output: Path, many: bool) -> list[Path]:
    """Write documents and return the files. A folder takes them under their own names, else ``output`` is the file.

    Raises :class:`UsageError` for several documents in one file, :class:`EnvironmentFailed` where it cannot be written.
    """
    from harness.errors import EnvironmentFailed, UsageError

    folder = output.is_dir() or (many and output.suffix != ".json")
    if len(documents) > 1 and not folder:
        raise UsageError(f"{len(documents)} documents do not go into one file {output}; give a folder as --output")
    files = [output / document.name if folder else output for document in documents]
    try:
        for file, document in zip(files, documents, strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(document.text.rstrip("\n") + "\n", encoding="utf-8")
    except OSError as error:
        raise EnvironmentFailed(f"cannot write {output}: {error.strerror}; give another --output") from error
    return files
