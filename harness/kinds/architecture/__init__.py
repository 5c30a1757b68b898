"""Architectures: models of another build, trained from random weights at one budget."""

from harness.kinds.architecture.base import ArchitectureMethod
from harness.kinds.architecture.ledger import counted_flops
from harness.kinds.architecture.llama import LlamaMethod
from harness.kinds.architecture.training import causal_loss, descend

__all__ = ["ArchitectureMethod", "LlamaMethod", "causal_loss", "counted_flops", "descend"]
