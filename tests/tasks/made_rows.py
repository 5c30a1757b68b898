"""The rows that a task's YAML makes, here and in processes of their own."""

import hashlib
import importlib
import os
import subprocess
import sys
from pathlib import Path

from tasks import our_configs

ROOT = Path(__file__).resolve().parents[2]
CODE = "from tests.tasks.made_rows import digest; import sys; print(digest(sys.argv[1:]))"


def rows_of(task, **changes):
    """The rows of a task, with other knobs where given."""
    config = our_configs()[task]
    module, _, name = config["custom_dataset"].removeprefix("function ").rpartition(".")
    make = getattr(importlib.import_module(module), name)
    return make(**(config["metadata"] | changes))["test"].to_list()


def digest(tasks):
    """The hash of the first rows of all these tasks."""
    return hashlib.sha256(repr([rows_of(task, n=12) for task in tasks]).encode()).hexdigest()


def digests_by_hash_seed(tasks):
    """The same as processes see it that hash strings in different ways."""
    return {
        subprocess.run(
            [sys.executable, "-c", CODE, *tasks],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "4711")
    }
