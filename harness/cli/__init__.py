"""The command line ``zoo``: one file a verb, each imported only when it is called."""

from harness.cli.app import main

__all__ = ["main"]
