"""Architectures: models of another build, trained from random weights at one budget."""

from harness.kinds.architecture.base import ArchitectureMethod
from harness.kinds.architecture.ledger import counted_flops
from harness.kinds.architecture.llama import LlamaMethod
from harness.kinds.architecture.recommend import RecommenderMethod
from harness.kinds.architecture.stepwise import StepMethod
from harness.kinds.architecture.training import causal_loss, descend, next_token_loss

__all__ = [
    "ArchitectureMethod",
    "LlamaMethod",
    "RecommenderMethod",
    "StepMethod",
    "causal_loss",
    "counted_flops",
    "descend",
    "next_token_loss",
]
