"""``zoo lm-eval``: lm-eval's own command line with the model ``zoo`` registered.

lm-eval finds models in its registry only, and looks for no plug-ins, so it cannot find the zoo by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from harness.errors import EnvironmentFailed, ZooError

SUBCOMMANDS = ("run", "ls", "validate")


def _names_tasks_folder(arguments: Sequence[str]) -> bool:
    """Whether the user names a folder of tasks, as an option (argparse takes beginnings, too) or in a configuration."""
    for index, word in enumerate(arguments):
        name, _, value = word.partition("=")
        if len(name) > 4 and "--include_path".startswith(name):
            return True
        if name in ("--config", "-C"):
            config = Path(value or " ".join(arguments[index + 1 : index + 2]))
            if config.is_file() and "include_path:" in config.read_text(encoding="utf-8", errors="replace"):
                return True
    return False


def with_our_tasks(arguments: Sequence[str]) -> list[str]:
    """lm-eval's arguments with the folder of our tasks added, unless they name one or ask for help."""
    words = list(arguments)
    if not words or {"-h", "--help"} & set(words) or words == ["run"] or _names_tasks_folder(words):
        return words
    from tasks import include_path

    if words[0] not in SUBCOMMANDS:
        words = ["run", *words]
    return [words[0], "--include_path", str(include_path()), *words[1:]]


def register_model() -> None:
    """Make ``--model zoo`` known; the class is imported when it is asked for."""
    import lm_eval.models  # noqa: F401 - fills the registry, which is otherwise filled only while it is empty
    from lm_eval.api.registry import model_registry

    model_registry.register("zoo", target="harness.evaluate.lm:ZooLM")


def lm_eval(context: typer.Context) -> None:
    """lm-eval's own command line: --model zoo --model_args pretrained=MODEL,method=METHOD. All else is lm-eval's."""
    from lm_eval.__main__ import cli_evaluate

    register_model()
    before = sys.argv
    sys.argv = ["lm-eval", *with_our_tasks(context.args)]
    try:
        cli_evaluate()
    except ZooError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise EnvironmentFailed(f"lm-eval failed: {reason} (--debug for the traceback)") from error
    finally:
        sys.argv = before
