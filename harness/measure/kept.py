"""What was measured of a machine, kept as files of the cache."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any


def write_kept(path: Path, document: Any) -> None:
    """Write JSON by rename. Where the cache cannot be written, figures serve this process and are measured again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
            json.dump(document, file, indent=1)
        Path(file.name).replace(path)
