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


def _values(arguments: Sequence[str], option: str, short: str = "") -> list[str]:
    """Values of an option as argparse reads it: whole or by its beginning, apart or after an equals sign."""
    found = []
    for index, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if word == short or (len(name) > 4 and option.startswith(name)):
            found.append(value if equals else " ".join(arguments[index + 1 : index + 2]))
    return found


def _is_given(arguments: Sequence[str], option: str) -> bool:
    """Whether an option is on the command line or in the configuration file that it names."""
    if _values(arguments, f"--{option}"):
        return True
    configs = map(Path, _values(arguments, "--config", "-C"))
    texts = [config.read_text(encoding="utf-8", errors="replace") for config in configs if config.is_file()]
    return any(line.startswith(f"{option}:") for text in texts for line in text.splitlines())


def with_our_defaults(arguments: Sequence[str]) -> list[str]:
    """lm-eval's arguments with the folder of our tasks, and a device for our model, where they name none.

    lm-eval's default device is the first GPU, present or not; its own models fall back, ours refuses.
    """
    words = list(arguments)
    if not words or {"-h", "--help"} & set(words) or words == ["run"]:
        return words
    if words[0] not in SUBCOMMANDS:
        words = ["run", *words]
    added = []
    if not _is_given(words, "include_path"):
        from tasks import include_path

        added += ["--include_path", str(include_path())]
    if words[0] == "run" and "zoo" in _values(words, "--model", "-M") and not _is_given(words, "device"):
        added += ["--device", "auto"]
    return [words[0], *added, *words[1:]]


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
    sys.argv = ["lm-eval", *with_our_defaults(context.args)]
    try:
        cli_evaluate()
    except ZooError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise EnvironmentFailed(f"lm-eval failed: {reason} (--debug for the traceback)") from error
    finally:
        sys.argv = before
