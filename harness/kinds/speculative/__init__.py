"""Speculative decoding: draft several tokens, verify them in one forward of the target."""

from harness.kinds.speculative.base import Drafter, DraftTree, SpeculativeMethod, Step, chain

__all__ = ["DraftTree", "Drafter", "SpeculativeMethod", "Step", "chain"]
