"""What a figure came from: versions of packages, the state of a checkout, the environment. Imports nothing heavy."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = ("token-zoo", "torch", "transformers", "tokenizers", "lm_eval", "codecarbon", "polars")
PRIVATE = ("_TOKEN", "_KEY", "_SECRET", "_CACHE", "_PATH")
VARIABLES = ("CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM")


@dataclass(frozen=True)
class GitState:
    """The commit of a checkout, and whether files differ from it; an untracked file that git does not ignore counts."""

    commit: str
    dirty: bool


def versions() -> dict[str, str | None]:
    """Version by package, Python's first; None where a package is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_state(path: Path) -> GitState | None:
    """The state of the checkout around ``path``; None outside one, without git, or where git refuses."""
    commit = _git(path, "rev-parse", "HEAD")
    if not commit:
        return None
    return GitState(commit, dirty=bool(_git(path, "status", "--porcelain")))


def _git(path: Path, *words: str) -> str:
    # Without optional locks a reader never stands in the way of a git command that someone runs meanwhile.
    command = ["git", "--no-optional-locks", "-C", str(path), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that can change a figure: threads, devices, offline mode and ``ZOO_*``, less places and secrets."""
    source = os.environ if variables is None else variables
    return {
        name: value
        for name, value in sorted(source.items())
        if name in VARIABLES or (name.startswith("ZOO_") and not name.endswith(PRIVATE))
    }
