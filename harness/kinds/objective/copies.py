"""Copies of a subject that may be trained, while the given one stays as it is."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from harness.subjects.subject import Subject


def private_copy(subject: Subject) -> Subject:
    """The subject with a copy of its model, so that training and trained weights stay apart from the given one."""
    return replace(subject, model=copy.deepcopy(subject.model))


def training_copy(subject: Subject) -> Subject:
    """A private copy, in float32 where the subject's type is too coarse for small steps."""
    copied = private_copy(subject)
    if subject.dtype in (torch.bfloat16, torch.float16):
        copied.model.float()
    return copied
