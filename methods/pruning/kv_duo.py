"""DuoAttention, without its training: a few retrieval heads keep the whole prompt, the others its ends.

m_h = mean over decoding steps of the attention that head h gives to slots between the first ``num_sinks`` and the last
``window``; a key/value head counts as its most far-sighted query head. The ``retrieval`` part of all key/value heads
of the model with the largest m keep everything; the others keep sinks and window, once after the prompt.
"""

from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.pruning import LayerView, QueryView, group_queries, keep_where, logits
from harness.kinds.pruning.calibration import Calibrated, largest_part


def remote_mass(view: QueryView, num_sinks: int, window: int) -> Tensor:
    """Attention of the view's only query to the middle of the text, by key/value head, ``[G]``."""
    weights_GRN = (logits(group_queries(view), view.keys_BGND) * view.scaling).softmax(-1)[0, :, :, 0]
    return weights_GRN[..., num_sinks : max(num_sinks, view.num_slots - window)].sum(-1).amax(-1)


@method(
    id="kv_duo",
    kind="pruning",
    title="DuoAttention: retrieval heads and streaming heads",
    paper="arXiv:2410.10819",
    guarantee="approximate",
    baseline="kv_full",
    identity={"retrieval": 1.0},
    needs="calibration of seconds",
    claims=[
        {
            "metric": "decode speed-up",
            "value": 2.18,
            "against": "full cache",
            "on": "models without grouped heads (abstract: 'up to 2.18x'; 1.50x with)",
        }
    ],
    details={
        "heads": "ours: by attention to the middle of ordinary text while decoding; the paper trains a gate a head",
        "num_sinks, window": "a common library has 128 and 256; smaller here, for prompts of 1K",
        "decoded tokens": "ours: all stay; the paper moves the window on",
        "memory": "heads of a layer are stored padded to the longest: a layer with a retrieval head frees nothing",
    },
)
class KvDuo(Calibrated):
    """Whole heads keep everything or little."""

    retrieval: float = Field(0.25, ge=0, le=1, description="part of the key/value heads that keep everything")
    num_sinks: int = Field(4, ge=0, description="first tokens that the others keep")
    window: int = Field(64, ge=1, description="last tokens of the prompt that the others keep")
    heads: Literal["calibrated", "random"] = Field("calibrated", description="random: the control")

    def check_twin(self):  # type: ignore[no-untyped-def]
        """With random heads."""
        return replace(self, heads="random")

    def prepare(self, subject, ctx):  # type: ignore[no-untyped-def]
        """Mean mass ``[L, G]`` over texts and steps."""
        measure = partial(remote_mass, num_sinks=self.num_sinks, window=self.window)
        return {"mass_LG": self.mean_of(subject, ctx.seed, measure)}

    def cache_options(self, subject, artifact):  # type: ignore[no-untyped-def]
        """A cache that evicts by head."""
        config = subject.model.config.get_text_config()
        mass_LG = torch.rand(
            config.num_hidden_layers, config.num_key_value_heads, generator=torch.Generator().manual_seed(0)
        )
        if self.heads == "calibrated":
            mass_LG = artifact["mass_LG"]
        whole_LG = largest_part(mass_LG, self.retrieval)
        return {"evict": lambda view: self.evict(view, whole_LG[view.layer])}

    def evict(self, view: LayerView, whole_G: Tensor):  # type: ignore[no-untyped-def]
        """Everything of the retrieval heads, sinks and window of the others."""
        position = view.position_BHN
        ends = (position < self.num_sinks) | (position >= view.seen_B[:, None, None] - self.window)
        stays_BHN = ends.expand(-1, view.keys_BHND.shape[1], -1) | whole_G.to(position.device)[:, None]
        return keep_where(stays_BHN if view.valid_BHN is None else stays_BHN & view.valid_BHN)
