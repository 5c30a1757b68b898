"""Any press of the package kvpress that compresses the cache once, after the prompt, in a process of its own.

kvpress needs an older transformers than the zoo, so its process holds the same weights and answers in numbers. Of n
prompt tokens the press is told to keep max(1, floor(keep_ratio * n)), as the zoo's own methods do.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import Field, field_validator

from harness.catalog import method
from harness.kinds.method import Artifact
from harness.kinds.pruning import PruningMethod
from harness.kinds.pruning.foreign import HeldProbe, foreign_checks, foreign_subject, opened_worker, press_spec


@method(
    id="kvpress",
    kind="pruning",
    title="Presses of kvpress, run by kvpress itself",
    paper="github.com/NVIDIA/kvpress 0.5.5; each press has a paper of its own",
    needs="training-free; an environment of its own (ci/peers/make_environment.sh kvpress)",
    guarantee="approximate",
    baseline="kv_full",
    identity={"keep_ratio": 1.0},
    details={
        "papers": "SnapKV arXiv:2404.14469, Knorm arXiv:2406.11430, StreamingLLM arXiv:2309.17453, "
        "TOVA arXiv:2401.06104, ObservedAttention arXiv:2306.14048, PyramidKV arXiv:2406.02069, "
        "AdaKV arXiv:2407.11550; the others in kvpress's list of presses",
        "press": "kvpress 0.5.5; its defaults are kvpress's (SnapKV: window_size=64)",
        "keep_ratio": "ours: the compression ratio at which the press keeps our budget of the prompt, a whole number",
        "continuation": "as kvpress's pipeline, token by token where layers differ in length or heads mask slots",
        "kv_bytes_held": "of kvpress's own cache: presses by head (AdaKV) mask slots and free none",
        "speed": "not measured: another process, another transformers, other kernels",
    },
)
class KvPress(PruningMethod):
    """The subject as kvpress's process answers for it; it stands alone in a stack."""

    replaces = frozenset({"cache", "decoder", "tokenizer", "weights"})

    press: str = Field("SnapKV", description="class of kvpress, with options: SnapKV(window_size=32), AdaKV(SnapKV)")
    keep_ratio: float = Field(0.5, gt=0, le=1, description="part of the prompt's tokens kept")
    version: str = Field("0.5.5", description="version of kvpress that its environment must hold")

    @field_validator("press")
    @classmethod
    def _readable(cls, value: str) -> str:
        press_spec(value)
        return value

    @contextmanager
    def apply(self, subject, artifact: Artifact = None) -> Iterator:  # type: ignore[type-arg, no-untyped-def]
        """The subject with kvpress's process behind it."""
        with opened_worker(subject, self.version) as ask:
            pruned = foreign_subject(subject, ask)
            ask("press", spec=press_spec(self.press), keep_ratio=self.keep_ratio)
            yield pruned

    def probes(self):  # type: ignore[no-untyped-def]
        """What the other process holds after a prompt."""
        return [HeldProbe()]

    def checks(self, subject):  # type: ignore[no-untyped-def]
        """Invariants by answers; refused without the environment."""
        return foreign_checks(self, subject)
