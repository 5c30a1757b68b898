"""The frame of ``zoo``: finds verbs, turns every failure into one line, and sets the exit code.

Exit codes of all verbs: 0 done or pass, 1 regression or failed check, 2 usage, 3 inconclusive, 4 nothing measured or
environment failed, 130 interrupted. The result goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from harness.errors import UsageError, ZooError, unknown_name

# typer has its own copy of click or uses the real one, by version; its public BadParameter leads to both.
ClickError: type[Any] = typer.BadParameter.__mro__[2]
ENVIRONMENT_CODE, INTERRUPTED_CODE = 4, 130


@dataclass(frozen=True)
class Verb:
    """A command: its one-line help and panel, and the module whose function of the verb's name it is."""

    help: str
    panel: str
    module: str
    function: str
    settings: dict[str, Any] = field(default_factory=dict)


PASS_THROUGH = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
    "allow_interspersed_args": False,
    "help_option_names": [],
}
VERBS: dict[str, Verb] = {
    "run": Verb("Measure methods: quality, speed, memory and energy.", "Measure", "run", "run"),
    "bench": Verb("Time operators against their references.", "Measure", "bench", "bench"),
    "compare": Verb("Compare two methods, models or revisions, in pairs.", "Measure", "compare", "compare"),
    "gate": Verb("Say regression, pass or inconclusive, under a policy.", "Measure", "gate", "gate"),
    "equal-compute": Verb(
        "Compare tokenizers and models trained at equal FLOPs.", "Measure", "equal_compute", "equal_compute"
    ),
    "train": Verb("Make a method's artifact alone.", "Measure", "train", "train"),
    "leaderboard": Verb("Show what was measured, ranked by kind.", "Read", "leaderboard", "leaderboard"),
    "strata": Verb("Part a task's answers by what a tokenizer makes of its words.", "Read", "strata", "strata"),
    "reproduce": Verb("Run a recorded trial again: does it agree?", "Read", "reproduce", "reproduce"),
    "export": Verb("Write records for other programs.", "Read", "export", "export"),
    "list": Verb("List methods, suites, tasks or models.", "Read", "list_", "list_"),
    "info": Verb("Show a method's card, parameters and claims.", "Read", "info", "info"),
    "new": Verb("Write a method, its test and its card, ready to run.", "Write methods", "new", "new"),
    "check": Verb("Test a method's invariants on a model.", "Write methods", "check", "check"),
    "doctor": Verb("Say what can be measured on this machine.", "Around", "doctor", "doctor"),
    "lm-eval": Verb("lm-eval's own command line, with the model 'zoo'.", "Around", "lm_eval", "lm_eval", PASS_THROUGH),
}


def normalize(token: str) -> str:
    """``--batch_size`` is ``--batch-size``, and ``lm_eval`` is ``lm-eval``."""
    return token.replace("_", "-")


def make_command(name: str) -> Any:
    """Import a verb and build its command. Each option without a variable of its own gets ``ZOO_<NAME>``."""
    verb = VERBS[name]
    function = getattr(importlib.import_module(f"harness.cli.{verb.module}"), verb.function)
    app = typer.Typer(add_completion=False)
    settings = {"token_normalize_func": normalize, "help_option_names": ["--help", "-h"], **verb.settings}
    app.command(name, context_settings=settings)(function)
    command: Any = typer.main.get_command(app)
    for option in command.params:
        if option.param_type_name == "option" and option.envvar is None:
            option.envvar = "ZOO_" + max(option.opts, key=len).lstrip("-").replace("-", "_").upper()
            option.show_envvar = True
    return command


def close_quietly() -> None:
    """The reader of stdout has gone: point the file elsewhere, so that the exit does not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class LazyGroup(TyperGroup):
    """Knows its verbs by name and imports the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All verbs."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb's command, or None."""
        return make_command(cmd_name) if cmd_name in VERBS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb that was called; an unknown one is answered with the nearest."""
        if normalize(args[0]) not in VERBS and not args[0].startswith("-"):
            raise unknown_name("command", args[0], VERBS, "zoo --help shows all")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Call the verb. A reader of stdout that leaves early (``zoo list | head -1``) is no failure."""
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            close_quietly()
            return 0

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Help in panels, made from :data:`VERBS` so that no verb is imported."""
        from harness.cli.output import print_panels

        panels: dict[str, list[tuple[str, str]]] = {}
        for name, verb in VERBS.items():
            panels.setdefault(verb.panel, []).append((name, verb.help))
        options: list[Any] = self.get_params(ctx)
        panels["Options"] = [(", ".join(option.opts), option.help) for option in options]
        intro = "zoo COMMAND [ARGS]...\n\nToken-level efficiency methods for language models, behind one interface."
        print_panels(intro, panels, "zoo COMMAND --help explains a command. Every option has a variable ZOO_<OPTION>.")


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        sys.stdout.write(f"zoo {version('token-zoo')}\n")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="ZOO_DEBUG", help="Show tracebacks; works after any command, too.")
    ] = False,
) -> None:
    """Token Zoo."""


def make_app() -> Any:
    """The whole command line as a click group."""
    settings = {"help_option_names": ["--help", "-h"], "token_normalize_func": normalize}
    app = typer.Typer(cls=LazyGroup, add_completion=False, context_settings=settings, name="zoo")
    app.callback()(_root)
    return typer.main.get_command(app)


def _debugging() -> bool:
    return os.environ.get("ZOO_DEBUG", "").lower() not in ("", "0", "false", "no")


def _say(line: str) -> None:
    """One line on stderr, after the traceback where it was asked for."""
    if _debugging():
        traceback.print_exc()
    print(f"zoo: {line}", file=sys.stderr)


def _click_line(error: Any) -> str:
    """A usage error of the parser as one line that names the help page."""
    text = " ".join(error.format_message().split()).rstrip(".")
    where = error.ctx.command_path if getattr(error, "ctx", None) is not None else "zoo"
    return f"{text[:1].lower()}{text[1:]}; '{where} --help' shows what there is"


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code. SystemExit of a foreign command line passes."""
    words = [word for word in arguments if word != "--debug"]
    if len(words) < len(arguments):
        os.environ["ZOO_DEBUG"] = "1"  # the workers of a run inherit it
    try:
        code = make_app().main(args=words or ["--help"], prog_name="zoo", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except ZooError as error:
        _say(str(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        return INTERRUPTED_CODE
    except BrokenPipeError:
        close_quietly()
        return 0
    except ClickError as error:
        _say(_click_line(error))
        return UsageError.exit_code
    except Exception as error:  # noqa: BLE001 - the last net: a user sees one line, --debug the traceback
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        _say(f"internal error: {reason}; run with --debug for the traceback")
        return ENVIRONMENT_CODE


def main() -> NoReturn:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))
