"""Token Zoo: verbs of ``zoo`` as functions that return polars frames. Importing this imports neither torch nor polars.

The package :mod:`harness.run` has the name of the verb ``run``, so that verb is two functions here: one for suites, one
for methods by name.
"""

from harness.api import check, leaderboard, list_methods, run_methods, run_suite

__all__ = ["check", "leaderboard", "list_methods", "run_methods", "run_suite"]
