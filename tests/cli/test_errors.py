"""Every failure is one line on stderr, with the exit code of the table."""

import os
import subprocess
import sys

import pytest
import typer

from harness.errors import CheckFailed, EnvironmentFailed, Refused, UsageError


def one_line(text):
    assert text.startswith("zoo: ") and text.count("\n") == 1 and text.endswith("\n"), text
    return text


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError, 2), (Refused, 2), (CheckFailed, 1), (EnvironmentFailed, 4)],
)
def test_an_error_of_the_zoo_is_its_line_and_its_code(zoo, verb, error, code):
    def probe():
        raise error("what was wrong; the remedy")

    verb(probe)
    assert zoo("probe") == (code, "", "zoo: what was wrong; the remedy\n")


def raise_unexpected():
    raise KeyError("a\nb")


def test_an_unexpected_error_is_one_line_and_4(zoo, verb):
    verb(raise_unexpected)
    code, out, err = zoo("probe")
    assert (code, out) == (4, "")
    assert "internal error: KeyError" in one_line(err) and "--debug" in err


@pytest.mark.parametrize("arguments", [("--debug", "probe"), ("probe", "--debug")])
def test_debug_adds_the_traceback_before_or_after_the_verb(zoo, verb, arguments):
    verb(raise_unexpected)
    code, _, err = zoo(*arguments)
    assert code == 4 and "Traceback" in err and "raise_unexpected" in err


def test_the_variable_of_debug_adds_the_traceback(zoo, verb, monkeypatch):
    verb(raise_unexpected)
    monkeypatch.setenv("ZOO_DEBUG", "1")
    assert "Traceback" in zoo("probe")[2]


def test_interruption_is_130(zoo, verb):
    def probe():
        raise KeyboardInterrupt

    verb(probe)
    assert zoo("probe")[0] == 130


@pytest.mark.parametrize("give", [lambda: 3, lambda: (_ for _ in ()).throw(typer.Exit(3))])
def test_a_verb_gives_its_exit_code_by_return_or_exit(zoo, verb, give):
    def probe():
        return give()

    verb(probe)
    assert zoo("probe") == (3, "", "")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("lits",), "did you mean 'list'?"),
        (("list", "--jsn"), "--json"),
        (("list", "metods"), "did you mean 'methods'?"),
        (("list", "--kind", "prunning"), "did you mean 'pruning'?"),
        (("list", "--kind"), "'--kind' requires an argument"),
        (("check",), "missing argument 'ID'"),
        (("check", "kv_full", "extra"), "extra"),
        (("check", "kv_ful"), "did you mean 'kv_full'?"),
        (("check", "kv_snapkv@keep_ratio=2"), "keep_ratio=2"),
        (("check", "kv_snapkv@keep_ration=1"), "did you mean 'keep_ratio'?"),
        (("check", "kv_full", "--model", "tiny-randm"), "did you mean 'tiny-random'?"),
        (("check", "kv_full", "--dtype", "float31"), "float32"),
        (("check", "kv_full", "--device", "cpuu"), "unknown device"),
        (("info", "kv_snapvk"), "did you mean 'kv_snapkv'?"),
        (("--nonsense",), "--nonsense"),
    ],
)
def test_wrong_usage_is_2_and_names_the_nearest(zoo, arguments, hint):
    code, out, err = zoo(*arguments)
    assert (code, out) == (2, "")
    assert hint in one_line(err)


def test_a_reader_that_leaves_is_no_failure():
    code = "from harness.cli.app import run\nimport sys\nsys.exit(run(['list']))"
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")
