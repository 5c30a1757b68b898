"""`zoo reproduce TRIAL`: a recorded trial once more, and whether it agrees."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli import options


def reproduce(
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="A trial's id, or the start of it.")],
    output_path: options.OutputPath = None,
    json_: options.Json = False,
) -> int:
    """Run a recorded trial again and compare: same within its interval, differs, or cannot be reproduced here.

    Exits with 0 where it agrees, 1 where it differs, 4 where it cannot be run or the model is another.
    """
    from harness.cli.output import print_json, print_table, print_text, progress
    from harness.errors import EnvironmentFailed
    from harness.run.reproduce import DIFFERS, IMPOSSIBLE
    from harness.run.reproduce import reproduce as run_again

    def tell(event: dict[str, Any]) -> None:
        progress(f"{event['event']} {event.get('status', '')}".strip())

    found = run_again(output_path or Path("results"), trial, tell)
    if json_:
        print_json({**asdict(found), "sentence": found.sentence})
    else:
        rows = [[f.metric, f.phase, f.then, f.now, f.verdict, f.why] for f in found.figures]
        print_table(("metric", "phase", "then", "now", "verdict", "why"), rows, found.trial_id)
        for change in found.changes:
            print_text(f"changed: {change}")
        if found.verdict != IMPOSSIBLE:
            print_text(found.sentence)
    if found.verdict == IMPOSSIBLE:
        raise EnvironmentFailed(found.sentence)
    return 1 if found.verdict == DIFFERS else 0
