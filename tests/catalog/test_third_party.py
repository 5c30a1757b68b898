"""A distribution of its own that ships one method: installed by pip, found, shown and checked by the command line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "fixtures" / "third_party"
BROKEN = {
    "not_literal.py": "@method(id='not_literal', kind=KIND)\nclass A: ...\n",
    "no_syntax.py": "@method(id='no_syntax'\n",
    "no_guarantee.py": "@method(id='no_guarantee', kind='pruning', title='t', baseline='kv_full')\nclass A: ...\n",
    "bad_kind.py": "@method(id='bad_kind', kind='odd', title='t', guarantee='exact', baseline='x')\nclass A: ...\n",
    "doubled.py": "@method(id='kv_full', kind='pruning', title='t', guarantee='exact', baseline='ar')\nclass A: ...\n",
    "no_import.py": (
        "import a_module_that_is_nowhere\n\n"
        "@method(id='no_import', kind='pruning', title='t', guarantee='exact', baseline='kv_full')\nclass A: ...\n"
    ),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which pip has installed the distribution."""
    work = tmp_path_factory.mktemp("third_party")
    shutil.copytree(SOURCE, work / "source")
    target = work / "site"
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(work / "source")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return target


@pytest.fixture
def zoo(site, tmp_path):
    """The command line in a process that sees the installed distribution."""

    def call(*arguments, path=site):
        code = "from harness.cli import main\nmain()"
        settings = {**os.environ, "PYTHONPATH": str(path), "ZOO_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=settings, timeout=120)

    return call


def test_it_is_found_beside_the_zoos_own(zoo):
    rows = {row["id"]: row for row in json.loads(zoo("list", "--json").stdout)["methods"]}
    assert rows["sample_ends"]["from"] == "zoo-sample" and rows["kv_full"]["from"] == "token-zoo"


def test_it_is_shown(zoo):
    out = zoo("info", "sample_ends").stdout
    assert "distance" in out or "further from the middle" in out
    assert "zoo_sample/sample_ends.py (zoo-sample)" in out and "> 0, <= 1" in out


def test_its_checks_run(zoo):
    result = zoo("check", "sample_ends@keep_ratio=0.4", "--device", "cpu")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "checks hold on tiny-random" in result.stdout


def test_a_name_close_to_it_is_answered_with_it(zoo):
    assert "did you mean 'sample_ends'?" in zoo("check", "sample_end").stderr


@pytest.fixture
def broken(site, tmp_path):
    """A copy of the installed distribution, with broken files beside the sound one."""
    copy = tmp_path / "broken"
    shutil.copytree(site, copy)
    for name, text in BROKEN.items():
        (copy / "zoo_sample" / name).write_text(text, encoding="utf-8")
    return copy


def test_broken_files_are_warnings_and_the_others_stay_usable(zoo, broken):
    result = zoo("list", "--json", path=broken)
    assert result.returncode == 0
    document = json.loads(result.stdout)
    ids = {row["id"] for row in document["methods"]}
    assert {"sample_ends", "kv_full", "ar"} <= ids
    assert not ids & {"not_literal", "no_syntax", "no_guarantee", "bad_kind"}
    for name in ("not_literal.py", "no_syntax.py", "no_guarantee.py", "bad_kind.py", "doubled.py"):
        assert sum(name in problem for problem in document["problems"]) == 1
        assert sum(name in line for line in result.stderr.splitlines()) == 1
    assert {row["id"]: row["from"] for row in document["methods"]}["kv_full"] == "token-zoo"


def test_a_method_that_cannot_be_imported_still_shows_its_card(zoo, broken):
    result = zoo("info", "no_import", "--json", path=broken)
    assert result.returncode == 0 and "a_module_that_is_nowhere" in result.stderr
    document = json.loads(result.stdout)
    assert document["parameters"] is None and document["title"] == "t"
    check = zoo("check", "no_import", path=broken)
    assert check.returncode == 4 and check.stderr.count("\n") == 1 and "cannot be imported" in check.stderr


def test_a_distribution_whose_package_is_gone_is_a_warning(zoo, broken):
    shutil.rmtree(broken / "zoo_sample")
    result = zoo("list", path=broken)
    assert result.returncode == 0 and "kv_full" in result.stdout
    assert "package 'zoo_sample' cannot be found" in result.stderr
