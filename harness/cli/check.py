"""``zoo check``: does a method keep its promises?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from harness.catalog.spec import MethodSpec
from harness.cli import options
from harness.cli.output import print_json, print_text
from harness.errors import CheckFailed


def check(
    method: Annotated[str, typer.Argument(metavar="ID", help="A method, or id@name=value.")],
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model to check on; left out: a tiny random one.", rich_help_panel=options.WHAT),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    as_json: options.Json = False,
) -> int:
    """Test a method's invariants on a model.

    Exit code 1 where one does not hold. Results are remembered, and speed is not measured for a method that fails.
    """
    spec = MethodSpec.parse(method)
    from harness.kinds.checking import CHECK_MODEL, check_subject
    from harness.subjects.load import load_subject

    subject = load_subject(model or CHECK_MODEL, device, dtype)
    results = check_subject(spec, subject)
    held = sum(result.passed for result in results)
    if as_json:
        where = {
            "model": subject.name,
            "dtype": str(subject.dtype).removeprefix("torch."),
            "device": str(subject.device),
        }
        checks = [asdict(result) for result in results]
        print_json({"method": str(spec), **where, "passed": held == len(results), "checks": checks})
    else:
        for result in results:
            print_text(f"{result.outcome:<6}  {result.name}" + (f": {result.reason}" if result.reason else ""))
    line = f"{spec}: {held} of {len(results)} checks hold on {subject.name}"
    if held < len(results):
        raise CheckFailed(line)
    if not as_json:
        print_text(line)
    return 0
