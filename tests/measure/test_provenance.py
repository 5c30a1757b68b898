"""Versions, checkout and environment are found without torch, and never fail."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness.measure.provenance import environment, git_state, versions


def git(folder: Path, *words: str) -> str:
    """Run git as someone, whatever this machine's settings."""
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_versions_name_the_packages_that_decide_a_figure() -> None:
    found = versions()
    assert {"python", "token-zoo", "torch", "transformers", "lm_eval", "tokenizers", "codecarbon", "polars"} <= set(
        found
    )
    import torch

    assert found["torch"] == torch.__version__


def test_a_missing_package_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.measure.provenance.PACKAGES", ("no-such-package",))
    assert versions()["no-such-package"] is None


def test_git_state_of_a_checkout(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "one")
    state = git_state(tmp_path)
    assert state is not None and state.commit == git(tmp_path, "rev-parse", "HEAD") and not state.dirty
    (tmp_path / "b").write_text("new")
    assert git_state(tmp_path).dirty  # type: ignore[union-attr]


def test_git_state_outside_a_checkout_or_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) is None
    assert git_state(tmp_path / "absent") is None
    monkeypatch.setenv("PATH", "")
    assert git_state(Path(__file__).parent) is None


def test_environment_keeps_what_decides_and_no_secret() -> None:
    given = {"ZOO_CACHE": "c", "ZOO_COUNTRY": "DEU"} | {
        "OMP_NUM_THREADS": "2",
        "HOME": "h",
        "ZOO_HUB_TOKEN": "t",
        "CUDA_VISIBLE_DEVICES": "0",
    }
    assert environment(given) == {"CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "2", "ZOO_COUNTRY": "DEU"}


def test_importing_it_brings_no_torch() -> None:
    code = "import sys, harness.measure.provenance, harness.measure.machine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
