"""``zoo new``: a method, its card and its test, ready to run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.catalog.scaffold import new_method
from harness.cli.options import Json
from harness.cli.output import print_json, print_text


def new(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="pruning, speculative, kernel ...")],
    method_id: Annotated[str, typer.Argument(metavar="ID", help="Name of the method, as in my_method.")],
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Write a package of its own into this new folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a method, its test and its card, which pass as they are.

    In the zoo's checkout they go to methods/ and tests/; with --dir they become a package that is installed by pip.
    """
    written = new_method(kind, method_id, folder)
    if as_json:
        print_json({"files": [str(path) for path in written.files], "next": written.next_steps})
    else:
        print_text(
            "".join(f"wrote {path}\n" for path in written.files) + "next: " + "\n      ".join(written.next_steps)
        )
