"""The tutorial's files and commands, run in order in a copy of the checkout, on a tiny model."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"(?:<!-- (file|append): (\S+) -->\n)?```(\w+)\n(.*?)```", re.S)
SMALLER = {"prose:512x24n4": "prose:64x12n3", "zoo_nll_text": "zoo_kvc8", "--limit 24": "--limit 4"}
"""The tiny model reads bytes, and 512 of them."""
COPIED = ("harness", "methods", "tasks", "tests", "pyproject.toml")
INSTALL = "--quiet --no-deps --no-index --no-build-isolation --disable-pip-version-check --target {site}"


def steps(text):
    """What the tutorial asks for, in order: (write, append, path, text) or ("run", command, expected lines)."""
    for action, path, language, body in BLOCK.findall(text):
        if action:
            yield action, path, body
        elif language == "console":
            for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
                lines = part.replace("\\\n", " ").splitlines()
                yield "run", lines[0], [line for line in lines[1:] if line.strip() and line != "..."]


def key_words(line):
    """What of an expected line holds with any model: no figures, no machine, no padding."""
    return [w for w in line.split() if re.fullmatch(r"[A-Za-z_./-]{2,}[:;]?", w)]


def smaller(text):
    """The text with tasks and lengths that the tiny model can answer."""
    for ours, small in SMALLER.items():
        text = text.replace(ours, small)
    return text


def commands():
    return [step for step in steps(TUTORIAL.read_text(encoding="utf-8")) if step[0] == "run"]


def test_every_command_of_the_tutorial_is_read():
    text = TUTORIAL.read_text(encoding="utf-8")
    assert len(commands()) == len(re.findall(r"^\$ ", text, flags=re.M)) >= 12
    assert {"zoo new", "zoo check", "zoo info", "zoo run", "zoo leaderboard", "zoo list"} <= {
        " ".join(command.split()[:2]) for _, command, _ in commands()
    }


@pytest.fixture
def place(tmp_path, docs_cache):
    """A copy of the checkout, and how to run a command line in it."""
    checkout, site = tmp_path / "token-zoo", tmp_path / "site"
    checkout.mkdir()
    site.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, checkout / name)
    settings = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(checkout), str(site)]),
        "ZOO_CACHE": str(docs_cache),
        "ZOO_MODEL": "tiny-random",
        "COLUMNS": "500",
    }

    def run(command):
        # Into a folder, as an editable install would change the environment that the tests run in.
        command = command.replace("pip install -e", f"pip install {INSTALL.format(site=site)}")
        return subprocess.run(
            ["bash", "-ec", smaller(command)],
            cwd=checkout,
            env=settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )

    return checkout, run


def test_the_tutorial_does_what_it_says(place):
    checkout, run = place
    for action, subject, content in steps(TUTORIAL.read_text(encoding="utf-8")):
        if action == "run":
            done = run(subject)
            assert done.returncode == 0, f"{subject}\n{done.stdout}"
            missing = [w for line in content for w in key_words(smaller(line)) if w not in done.stdout]
            assert not missing, f"{subject}\nwithout {missing}:\n{done.stdout}"
            assert ": failed" not in done.stdout and ": refused" not in done.stdout, done.stdout
        else:
            path = checkout / subject
            assert path.is_file(), f"{subject} is to be changed, but was not written"
            before = path.read_text(encoding="utf-8") + "\n\n" if action == "append" else ""
            path.write_text(before + content, encoding="utf-8")
