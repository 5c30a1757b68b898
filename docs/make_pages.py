"""Makes the pages that are read out of the code: methods, metrics and options. `make docs` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.catalog.pages import all_pages
from harness.catalog.registry import catalog
from harness.cli.app import VERBS, make_app, make_command
from harness.records.metrics import dictionary_page

HERE = Path(__file__).parent
OWN = "token-zoo"
OPTIONS_HEAD = """# Commands and options

Made by `docs/make_pages.py` from the commands themselves; `zoo COMMAND --help` shows the same. A hyphen in an option's
name may be written as an underscore. Every option has a variable, which counts where the option is not given.
"""


def methods_page() -> str:
    """Pages of the methods that come with the zoo; those of other installed packages are left out."""
    return all_pages(entry for entry in catalog().values() if entry.distribution == OWN)


def options_page() -> str:
    """Every command with its arguments, options, variables and defaults."""
    parts = [OPTIONS_HEAD, "\n".join(["## `zoo`", "", *_table(make_app())])]
    for name, verb in VERBS.items():
        command = make_command(name)
        words = " ".join(_argument(p) for p in command.params if p.param_type_name == "argument")
        lines = [f"## `zoo {name}{' ' + words if words else ''}`", "", _first_paragraph(command.help or verb.help), ""]
        parts.append("\n".join([*lines, *_table(command)]))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _first_paragraph(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())


def _argument(argument: Any) -> str:
    name = (argument.metavar or argument.name).strip("[]").upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _table(command: Any) -> list[str]:
    rows = [f"| {' | '.join(row)} |" for row in _rows(command)]
    return ["| option | variable | default | what it does |", "| --- | --- | --- | --- |", *rows] if rows else []


def _rows(command: Any) -> Iterator[tuple[str, str, str, str]]:
    for parameter in command.params:
        help_text = (getattr(parameter, "help", None) or "").replace("|", "\\|")
        if parameter.param_type_name == "argument":
            yield f"`{_argument(parameter)}`", "", _default(parameter), help_text
        elif parameter.name not in ("help", "version"):
            names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
            yield names, f"`{parameter.envvar}`" if parameter.envvar else "", _default(parameter), help_text


def _default(parameter: Any) -> str:
    value = getattr(parameter.default, "value", parameter.default)
    unset = value is None or value is False or value in ("", [], ()) or callable(value)
    return "" if unset else f"`{value}`"


PAGES = {"methods.md": methods_page, "metrics.md": dictionary_page, "options.md": options_page}


def main() -> None:
    """Write all pages."""
    for name, make in PAGES.items():
        (HERE / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
