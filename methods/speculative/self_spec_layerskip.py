"""Self-speculation: the target drafts for itself with some of its layers left out.

Early exit (LayerSkip): the first E layers, the final norm and the head draft a chain. Skipping (Draft & Verify): the
layers of a set Z are left out instead. The full model verifies. A model that was not trained for it drafts badly.
"""

from typing import Any

from pydantic import Field, field_validator

from harness.catalog import method
from harness.kinds.speculative import SpeculativeMethod
from harness.kinds.speculative.chains import ChainDrafter
from harness.kinds.speculative.drafts import DraftModel
from harness.kinds.speculative.verify import recursive_rejection
from harness.kinds.speculative.written import written_numbers
from harness.toolkit.small_models import kept_layers


@method(
    id="self_spec_layerskip",
    kind="speculative",
    title="Self-speculative decoding by leaving out layers",
    paper="arXiv:2404.16710, arXiv:2309.08168",
    guarantee="distribution",
    baseline="ar",
    claims=[
        {
            "metric": "speedup_total",
            "value": 2.16,
            "against": "autoregressive decoding",
            "on": "LayerSkip on summarisation of CNN/DM, models trained for early exit (abstract)",
        },
        {
            "metric": "speedup_total",
            "value": 1.99,
            "against": "autoregressive decoding",
            "on": "Draft & Verify, Llama 2 and its variants (abstract, up to)",
        },
    ],
    details={
        "exit_layer": "own: 0 takes a third of the layers; the papers train for an exit or search for one",
        "skip": "whole layers, given by hand; the paper skips attention and MLP apart and searches for the set",
        "cache": "keys and values of its own (re-run form); sharing those of the first layers is left out",
        "min_confidence": "own: 0.4, as transformers has it; a chain ends where the draft is less sure",
    },
)
class SelfSpecLayerSkip(SpeculativeMethod):
    """Chains of ``num_draft`` tokens of the target's first ``exit_layer`` layers, or of those not in ``skip``."""

    exit_layer: int = Field(0, ge=0, description="layers of the draft; 0: a third")
    skip: str = Field("", description="layers to leave out instead, as 10,12,14")
    num_draft: int = Field(0, ge=0, description="drafted tokens a step; 0: as many as pay, none where none do")
    longest: int = Field(8, ge=1, description="longest chain where the length is chosen")
    min_confidence: float = Field(0.4, ge=0, le=1, description="a chain ends where the draft's best token has less")

    rule = staticmethod(recursive_rejection)
    width_field = "num_draft"

    @field_validator("skip", mode="before")
    @classmethod
    def _numbers(cls, given: Any) -> str:
        return written_numbers(given, "layers as 10,12,14")

    def drafter(self, subject, artifact):  # type: ignore[no-untyped-def]
        """The shortened target, one chain ahead."""
        total = subject.model.config.get_text_config().num_hidden_layers
        if self.skip:
            left_out = set(map(int, self.skip.split(",")))
            kept = [layer for layer in range(total) if layer not in left_out]
        else:
            kept = list(range(min(self.exit_layer or max(1, total // 3), total)))
        model = DraftModel(kept_layers(subject, kept), subject)
        return ChainDrafter(model, self.num_draft, self.longest, self.min_confidence)
