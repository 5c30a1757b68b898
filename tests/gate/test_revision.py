"""A revision as a folder: the right files, once, and nothing outside it."""

import os
import subprocess

import pytest

from harness.errors import EnvironmentFailed, UsageError
from harness.gate import revision
from harness.gate.revision import resolve, unpack


@pytest.fixture
def git(tmp_path, monkeypatch):
    """Runs git in a fresh repository; ``git.folder`` is where it lies."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    who = {f"GIT_{role}_{what}": "t@t" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    folder = tmp_path / "repository"
    folder.mkdir()

    def call(*words):
        settings = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull}
        done = subprocess.run(["git", *words], cwd=folder, env=settings, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    call("init", "-q", "-b", "main")
    call.folder = folder
    return call


def commit(git, **files):
    for name, text in files.items():
        (git.folder / name).write_text(text)
    git("add", "-A")
    git("commit", "-q", "--allow-empty", "-m", "c")
    return git("rev-parse", "HEAD")


def test_a_revision_holds_the_files_of_its_commit(git):
    old = commit(git, method="old", gone="x")
    (git.folder / "gone").unlink()
    new = commit(git, method="new")
    (git.folder / "method").write_text("not committed")
    for name, whole, text in ((old[:8], old, "old"), ("main", new, "new"), ("HEAD~1", old, "old")):
        found = unpack(name, git.folder)
        assert (found.commit, (found.folder / "method").read_text()) == (whole, text)
        assert (found.folder / "gone").exists() == (whole == old)
    assert (git.folder / "method").read_text() == "not committed" and git("status", "--porcelain") == "M method"


def test_a_tag_stands_for_its_commit_and_a_subfolder_for_its_repository(git):
    (git.folder / "sub").mkdir()
    (git.folder / "sub" / "file").write_text("x")
    whole = commit(git, top="y")
    git("tag", "-a", "v1", "-m", "t")
    found = unpack("v1", git.folder / "sub")
    assert found.commit == whole and sorted(p.name for p in found.folder.iterdir()) == ["sub", "top"]


def test_a_revision_is_unpacked_once(git, monkeypatch):
    commit(git, method="x")
    first = unpack("HEAD", git.folder)
    (first.folder / "mark").write_text("")
    monkeypatch.setattr(revision.tarfile, "open", lambda **_: pytest.fail("unpacked again"))
    assert unpack("main", git.folder) == first and (first.folder / "mark").exists()
    assert [p.name for p in first.folder.parent.iterdir()] == [first.commit]  # no half-made folder is left


@pytest.mark.parametrize("name", ["nosuch", "--help", "-q", "HEAD:method", "../main", "", "a b", "main^{tree}"])
def test_an_unknown_revision_is_one_line(git, name):
    commit(git, method="x")
    with pytest.raises(UsageError, match="is no revision of the git repository at") as caught:
        unpack(name, git.folder)
    assert repr(name) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_is_no_repository_is_one_line(tmp_path, git):
    (tmp_path / "plain").mkdir()
    with pytest.raises(UsageError, match="is no revision of the git repository at") as caught:
        resolve("HEAD", tmp_path / "plain")
    assert "\n" not in str(caught.value)


def test_without_git_no_revision_can_be_compared(git, monkeypatch, tmp_path):
    commit(git, method="x")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFailed, match="git is not installed"):
        unpack("HEAD", git.folder)


@pytest.mark.parametrize("target", ["/etc", "../../outside", None])
def test_a_link_that_leads_out_or_a_commit_of_nothing_is_refused(git, tmp_path, target):
    if target:
        (git.folder / "link").symlink_to(target)
    commit(git, **({"method": "x"} if target else {}))
    with pytest.raises(UsageError, match=r"revision [0-9a-f]{12} cannot be unpacked") as caught:
        unpack("HEAD", git.folder)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache" / "revisions").iterdir()) == []


def test_a_link_within_is_kept(git):
    (git.folder / "link").symlink_to("method")
    commit(git, method="x")
    assert (unpack("HEAD", git.folder).folder / "link").read_text() == "x"
