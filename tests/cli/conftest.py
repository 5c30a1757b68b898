"""Ways to call the command line: in this process, and as a process of its own."""

import os
import subprocess
import sys
from types import ModuleType

import pytest

from harness.cli import app


@pytest.fixture
def zoo(capsys, monkeypatch, tmp_path):
    """``zoo("list", "--json")`` gives the exit code, stdout and stderr."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZOO_DEBUG", "")

    def call(*arguments):
        try:
            code = app.run(arguments)
        except SystemExit as leave:
            code = leave.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def verb(monkeypatch):
    """Adds a verb ``probe`` whose function is given."""

    def add(function):
        module = ModuleType("harness.cli.probe_verb")
        module.probe = function
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(app.VERBS, "probe", app.Verb("A test's verb.", "Around", "probe_verb", "probe"))

    return add


@pytest.fixture
def process():
    """Runs Python code that has ``run`` of the command line, with arguments, in a process of its own."""

    def call(code, *arguments, **environment):
        lines = f"import sys\nfrom harness.cli.app import main, run\n{code}"
        command = [sys.executable, "-c", lines, *arguments]
        settings = {**os.environ, **environment}
        return subprocess.run(command, capture_output=True, text=True, env=settings, timeout=120)

    return call
