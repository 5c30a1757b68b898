"""zoo new: what it writes passes at once, and what it must not do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.catalog import scaffold
from harness.catalog.card import KINDS
from harness.catalog.scaffold import checkout_root, kinds_with_templates, new_method
from harness.errors import EnvironmentFailed, UsageError


def run_python(*arguments, path=None, cwd=None):
    settings = dict(os.environ) if path is None else {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=settings, cwd=cwd, timeout=120
    )


def test_the_issue_s_kinds_have_templates():
    wanted = {"pruning", "speculative", "decoding", "kernel", "tokenizer", "objective", "architecture"}
    assert set(kinds_with_templates()) == wanted


def test_new_packages_pass_their_own_tests_at_once(tmp_path):
    kinds = kinds_with_templates()
    for kind in kinds:
        written = new_method(kind, f"my_{kind}", tmp_path / kind)
        assert all(path.is_file() for path in written.files)
    path = os.pathsep.join(str(tmp_path / kind) for kind in kinds[1:])
    # The first package is found by its own pytest settings, the others by the path: one process serves all.
    folders = [str(tmp_path / kind / "tests") for kind in kinds]
    result = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", *folders, path=path, cwd=tmp_path / kinds[0])
    assert result.returncode == 0, result.stdout
    assert int(result.stdout.split(" passed")[0].split()[-1]) >= 2 * len(kinds)


@pytest.mark.parametrize("kind", kinds_with_templates())
def test_what_is_written_is_formatted_and_clean(kind, tmp_path):
    new_method(kind, "my_first", tmp_path / "package")
    for command in (["check", "--line-length=120", "--select=E,F,W,B,UP"], ["format", "--check", "--line-length=120"]):
        result = run_python("-m", "ruff", *command, "--isolated", str(tmp_path))
        assert result.returncode == 0, result.stdout


def test_in_the_checkout_method_and_test_lie_where_the_tree_wants_them(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "token-zoo"\n', encoding="utf-8")
    (tmp_path / "methods" / "pruning").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "methods")
    written = new_method("pruning", "my_first")
    assert [str(p.relative_to(tmp_path)) for p in written.files] == [
        "methods/pruning/my_first.py",
        "tests/methods/pruning/test_my_first.py",
    ]
    assert "from methods.pruning.my_first import MyFirst" in written.files[1].read_text(encoding="utf-8")


def test_the_checkout_is_found_from_its_folders_and_nowhere_else(tmp_path):
    here = Path(__file__)
    assert checkout_root(here.parent) == here.parents[2]
    (tmp_path / "pyproject.toml").write_text("broken = [", encoding="utf-8")
    assert checkout_root(tmp_path) is None


@pytest.mark.parametrize(
    ("method_id", "remedy"),
    [
        ("My-Method", "try 'my_method'"),
        ("2fast", "try 'my_2fast'"),
        ("class", "try 'my_class'"),
        ("", "try 'my_method'"),
        ("a/../b", "try 'a_b'"),
        ("x" * 200, "try"),
        ("kv_full", "is taken by"),
    ],
)
def test_ids_that_cannot_be_are_refused(tmp_path, method_id, remedy):
    with pytest.raises(UsageError, match=remedy):
        new_method("pruning", method_id, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_kinds_are_named(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'pruning'"):
        new_method("prunning", "my_first", tmp_path / "p")
    without = next(kind for kind in KINDS if kind not in kinds_with_templates())
    with pytest.raises(UsageError, match="no template"):
        new_method(without, "my_first", tmp_path / "p")


def test_outside_the_checkout_a_folder_must_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--dir"):
        new_method("pruning", "my_first")


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="not an empty folder"):
        new_method("pruning", "my_first", tmp_path)
    with pytest.raises(UsageError, match="not an empty folder"):
        new_method("pruning", "my_first", tmp_path / "mine.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failed_write_leaves_no_file(tmp_path, monkeypatch):
    def full(path, text, encoding):
        if path.name.startswith("test_"):
            raise OSError(28, "No space left on device", str(path))
        path.touch()

    monkeypatch.setattr(scaffold.Path, "write_text", full)
    with pytest.raises(EnvironmentFailed, match="No space left"):
        new_method("pruning", "my_first", tmp_path / "package")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_class_never_takes_a_name_of_its_template(tmp_path):
    new_method("speculative", "repeater", tmp_path / "package")
    text = (tmp_path / "package" / "zoo_repeater" / "repeater.py").read_text(encoding="utf-8")
    assert text.count("class Repeater(Drafter):") == 1 and "class RepeaterMethod(SpeculativeMethod)" in text
