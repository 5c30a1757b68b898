"""The command line opens without the heavy libraries, and each verb is imported only when it is called."""

import pytest

from harness.cli.app import VERBS

HEAVY = ("torch", "transformers", "numpy", "scipy", "polars", "lm_eval", "codecarbon")
REPORT = "code = run(sys.argv[1:])\nprint('|', *sys.modules, file=sys.stderr)\nsys.exit(code)"


def imported(result):
    assert result.returncode == 0, result.stderr
    return set(result.stderr.rpartition("|")[2].split())


def test_help_names_every_verb_and_imports_none(process):
    result = process(REPORT, "--help")
    modules = imported(result)
    assert not modules & {*HEAVY, "pydantic", *(f"harness.cli.{verb.module}" for verb in VERBS.values())}
    for name, verb in VERBS.items():
        assert f" {name} " in result.stdout and verb.help in result.stdout


@pytest.mark.parametrize("arguments", [["list"], ["list", "models"], ["list", "--json"], ["--version"]])
def test_listing_imports_nothing_heavy(process, arguments):
    assert not imported(process(REPORT, *arguments)) & set(HEAVY)


def test_no_argument_shows_help(zoo):
    code, out, _ = zoo()
    assert code == 0 and "zoo COMMAND" in out


def test_version_is_that_of_the_distribution(zoo):
    from importlib.metadata import version

    assert zoo("--version") == (0, f"zoo {version('token-zoo')}\n", "")


def test_the_console_script_leaves_with_the_exit_code(process):
    result = process("sys.argv[0] = 'zoo'\nmain()", "nonsense")
    assert result.returncode == 2 and result.stderr.startswith("zoo: unknown command 'nonsense'")
