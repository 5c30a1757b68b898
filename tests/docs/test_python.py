"""The blocks of the Python page, run in order in one process of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@pytest.mark.slow  # a minute on a busy machine; tests/test_api.py covers the verbs by default
def test_the_blocks_of_the_python_page_run(tmp_path, docs_cache):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) >= 7
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    settings = {**os.environ, "ZOO_CACHE": str(docs_cache), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "approximate speculative ar" in done.stdout
    assert "['zoo_agree1'] 1" in done.stdout and "'status': 'ok'" in done.stdout
    assert "passed" in done.stdout and "kv_streaming@keep_ratio=0.25" in done.stdout
