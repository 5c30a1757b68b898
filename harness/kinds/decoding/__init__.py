"""Decoding strategies: what writes a text step by step, with the states of one model or several."""

from harness.kinds.decoding.base import Continuation, DecodingMethod, StepModel, StepOut, Strategy

__all__ = ["Continuation", "DecodingMethod", "StepModel", "StepOut", "Strategy"]
