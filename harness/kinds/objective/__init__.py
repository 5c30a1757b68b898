"""Objectives: which token gets how much learning signal, in training from verifiable rewards."""

from harness.kinds.objective.base import ObjectiveMethod
from harness.kinds.objective.batch import RolloutBatch
from harness.kinds.objective.stages import aggregate, clipped_surrogate, group_normalize, response_advantage

__all__ = [
    "ObjectiveMethod",
    "RolloutBatch",
    "aggregate",
    "clipped_surrogate",
    "group_normalize",
    "response_advantage",
]
