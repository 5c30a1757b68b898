"""Methods that misbehave, shipped as a third-party distribution, and a task of a dozen items."""

import json
import os
import textwrap
from pathlib import Path

import pytest

from harness.catalog.registry import read_catalog

HEAD = """
import os, time
from contextlib import contextmanager
from harness.catalog import method
from harness.kinds.pruning import PruningMethod
"""
BODIES = {
    "bad_raise": "raise RuntimeError('on purpose')",
    "bad_kill": "os.kill(os.getpid(), 9)",
    "bad_hang": "time.sleep(600)",
    "bad_memory": "self.hog = None; hog = [bytearray(b'x' * 200_000_000) for _ in range(40)]; time.sleep(60)",
    "good_twin": "pass",
}
METHOD = '''
@method(id="{id}", kind="pruning", title="{id}", guarantee="exact", baseline="kv_full", identity={{}})
class Misbehaving(PruningMethod):
    """Does what its name says when it is applied."""

    @contextmanager
    def apply(self, subject, artifact=None):
        {body}
        yield subject
'''


def write_method(package: Path, method_id: str, body: str) -> Path:
    """One method file of the package."""
    path = package / f"{method_id}.py"
    path.write_text(HEAD + METHOD.format(id=method_id, body=body))
    return path


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A distribution `foreign` with the methods of BODIES, seen by this process and by its children."""
    root = tmp_path / "site"
    package = root / "foreign_methods"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for method_id, body in BODIES.items():
        write_method(package, method_id, body.replace("self.hog = None; ", ""))
    info = root / "foreign-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[token_zoo.methods]\nforeign = foreign_methods\n")
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
    read_catalog.cache_clear()
    yield package
    read_catalog.cache_clear()


@pytest.fixture
def task_folder(tmp_path):
    """A folder with one multiple-choice task `tiny_choice` of twelve items."""
    folder = tmp_path / "own_tasks"
    folder.mkdir()
    rows = [{"q": f"The word after {i} is", "c": [" one", " two big", " three"], "a": i % 3} for i in range(12)]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tiny_choice.yaml").write_text(
        textwrap.dedent(
            f"""
            task: tiny_choice
            dataset_path: json
            dataset_kwargs: {{data_files: {{test: {folder / "items.jsonl"}}}}}
            test_split: test
            output_type: multiple_choice
            doc_to_text: "{{{{q}}}}"
            doc_to_choice: "{{{{c}}}}"
            doc_to_target: "{{{{a}}}}"
            metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
            """
        )
    )
    return folder


@pytest.fixture
def write(foreign):
    """Writes a method file into the foreign package."""
    return lambda method_id, body: write_method(foreign, method_id, body)
