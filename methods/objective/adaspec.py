"""AdaSPEC: a draft is distilled on the tokens that it can still learn, as a plainly distilled reference shows.

d_i = KL(target || draft) and r_i = KL(target || reference) at token i; the share ``keep_share`` of tokens with the
largest d_i - r_i is trained on: loss = sum_kept d_i / N, with N all tokens (``normalize`` "all") or those kept.
"""

from typing import Literal

import torch
from pydantic import Field

from harness.catalog import method
from harness.kinds.objective.distil import DistillationMethod, Selection, keep_tokens


@method(
    id="adaspec",
    kind="objective",
    title="AdaSPEC: Selective Knowledge Distillation for Efficient Speculative Decoders",
    paper="arXiv:2510.19779",
    guarantee="approximate",
    baseline="distillspec",
    needs="minutes of training",
    identity={"keep_share": 1.0},
    claims=[
        {
            "metric": "draft_overlap",
            "value": 0.683,
            "against": "0.662 for DistillSpec",
            "on": "GSM8K, Pythia-31M for Pythia-1.4B, tuned epochs (repository; its acceptance is not defined there)",
        }
    ],
    details={
        "keep_share": "reference code: 0.4",
        "normalize": "reference code: all tokens; kept makes the steps larger by 1 / keep_share",
        "reference": "reference code: same initial weights, distilled plainly first; its steps count as cost",
        "select": "random and bottom are controls of ours",
        "texts": "own: the target's answers to generated requests, sampled at temperature 0.5",
        "student": "own: a Llama whose tied embeddings start from the target's on their leading components",
    },
)
class AdaSpec(DistillationMethod):
    """The artifact is a draft: ``spec_sampling@draft=adaspec``."""

    keep_share: float = Field(0.4, gt=0, le=1, description="share of tokens that are trained on")
    normalize: Literal["all", "kept"] = Field("all", description="tokens the loss is divided by")
    select: Selection = Field("gap", description="which tokens are kept; random and bottom are controls")

    @property
    def needs_reference(self):  # type: ignore[no-untyped-def]
        """Where all tokens are kept, or any, nothing is compared."""
        return self.keep_share < 1 and self.select != "random"

    def token_weights(self, loss_N, reference_N, step):  # type: ignore[no-untyped-def]
        """``[N]``: equal on the kept tokens, 0 elsewhere."""
        if self.select == "random":
            score_N = torch.rand(len(loss_N), generator=torch.Generator().manual_seed(step)).to(loss_N)
        else:
            gap_N = loss_N - (loss_N if reference_N is None else reference_N)
            score_N = gap_N if self.select == "gap" else -gap_N
        return keep_tokens(score_N, self.keep_share, self.normalize)
