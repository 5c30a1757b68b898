"""A revision of a git repository as a folder: what `git archive` gives, without touching the repository."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.errors import EnvironmentFailed, UsageError
from harness.subjects.catalog import cache_dir


@dataclass(frozen=True)
class Revision:
    """A commit and the folder that holds its files."""

    commit: str
    folder: Path


def _git(repository: Path, *words: str) -> bytes:
    command = ["git", "--no-optional-locks", "-C", str(repository), *words]
    try:
        return subprocess.run(command, capture_output=True, timeout=120, check=True).stdout
    except FileNotFoundError as error:
        raise EnvironmentFailed("git is not installed, so no revision can be compared") from error
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFailed(f"git {words[0]} took longer than two minutes") from error
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.decode(errors="replace").split())[:200]
        raise UsageError(f"git {words[0]} failed in {repository}: {said}") from error


def resolve(name: str, repository: Path) -> str:
    """The commit that a name stands for; an unknown one is a :class:`UsageError`."""
    try:
        return _git(repository, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").decode().strip()
    except UsageError as error:
        raise UsageError(
            f"{name!r} is no revision of the git repository at {repository}; give one that is fetched"
        ) from error


def unpack(name: str, repository: Path) -> Revision:
    """The files of a revision, in the cache under its commit; unpacked once."""
    commit = resolve(name, repository)
    root = Path(_git(repository, "rev-parse", "--show-toplevel").decode().strip())
    folder = cache_dir() / "revisions" / commit
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            files = Path(work) / "files"
            _extract(_git(root, "archive", commit), files, commit)
            try:
                files.rename(folder)
            except OSError:  # another process was quicker
                if not folder.is_dir():
                    raise
    return Revision(commit, folder)


def _extract(packed: bytes, folder: Path, commit: str) -> None:
    """Links that lead out of the folder, and a commit without a file, are refused."""
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
    except tarfile.TarError as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"revision {commit[:12]} cannot be unpacked: {said}") from error
