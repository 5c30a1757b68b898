"""A pruned cache that another environment holds: its process reads, continues and scores, and answers in numbers."""

from harness.kinds.pruning.foreign.checks import foreign_checks
from harness.kinds.pruning.foreign.presses import press_spec
from harness.kinds.pruning.foreign.process import interpreter, opened_worker
from harness.kinds.pruning.foreign.subject import HeldProbe, foreign_subject

__all__ = ["HeldProbe", "foreign_checks", "foreign_subject", "interpreter", "opened_worker", "press_spec"]
