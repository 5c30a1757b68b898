"""How far a training is, kept in a file now and then, so that a killed one goes on where it was."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.kinds.objective.batch import RolloutBatch
from harness.kinds.objective.samplers import RolloutSampler

if TYPE_CHECKING:
    from harness.kinds.objective.loop import Learner

Record = list[dict[str, float]]
NAME = "progress.pt"
SECONDS_BETWEEN = 30.0


@dataclass
class Progress:
    """The record of the updates that are done and the last batch; what ``folder`` holds is read at the start.

    Weights and the optimizer's state are kept to the bit, and batches follow from seed and update, so a training that
    was interrupted ends as if it had not been. None for ``folder`` keeps nothing.
    """

    learner: Learner
    sampler: RolloutSampler
    folder: Path | None
    record: Record = field(default_factory=list)
    previous: RolloutBatch | None = None

    def __post_init__(self) -> None:
        self._saved = time.monotonic()
        if self.folder is not None and (self.folder / NAME).is_file():
            self._load(torch.load(self.folder / NAME, weights_only=True, map_location=self.learner.model.device))

    @property
    def done(self) -> int:
        """Updates that are done."""
        return len(self.record)

    def add(self, batch: RolloutBatch, figures: dict[str, float]) -> None:
        """One more update is done."""
        self.previous = batch
        self.record.append(figures)
        if self.folder is not None and time.monotonic() - self._saved >= SECONDS_BETWEEN:
            self.save()

    def save(self) -> None:
        """Write the file, by rename."""
        assert self.folder is not None and self.previous is not None
        state = {part: getattr(self.learner, part).state_dict() for part in self._parts()}
        self.folder.mkdir(parents=True, exist_ok=True)
        work = self.folder / f"{NAME}.{os.getpid()}"
        torch.save({"record": self.record, "previous": self.previous.held(), "state": state}, work)
        work.replace(self.folder / NAME)
        self._saved = time.monotonic()

    def _parts(self) -> list[str]:
        return ["model", "optimizer", *(["critic"] if self.learner.critic is not None else [])]

    def _load(self, held: dict[str, Any]) -> None:
        self.record, self.previous = held["record"], RolloutBatch(**held["previous"])
        for part in self._parts():
            getattr(self.learner, part).load_state_dict(held["state"][part])
