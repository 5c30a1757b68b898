"""RTPurbo: a few heads look far, and a learnt projection to a few channels finds what they look for.

R_h = attention that head h gives, from a second copy of a span at a document's end, to the first copy at its start; the
``retrieval`` part of all heads with the largest R_h retrieves, the others see sinks and window. A retrieval head scores
s(m, n) = (W^Q q_m)(W^K k_n) / sqrt(d) on states before the rotation and reads the fewest tokens whose softmax(s) adds
up to ``p``. W^Q and W^K, ``index_dim`` rows each, minimise KL(full attention || softmax(s)) with the model frozen.
"""

from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.pruning import LayerView, PruningMethod, QueryView, Selection, keep_where
from harness.kinds.pruning.calibration import calibration_prompts, largest_part, watch_prompts
from harness.kinds.pruning.head_mass import echo_mass, far_mass
from harness.kinds.pruning.indexer import Indexer, first_guess, fit, layer_indexers, seen_pairs
from harness.kinds.pruning.selecting import one_by_one
from harness.kinds.pruning.unrotated import Rotation, rotation_of


def top_p(score_HN: Tensor, p: float) -> Tensor:
    """``[H, N]``, True for each row's shortest run of largest probabilities that reaches ``p``; ties by place."""
    chance, order = score_HN.softmax(-1).sort(dim=-1, descending=True, stable=True)
    wanted = (chance.cumsum(-1) - chance < p) | (p >= 1)
    return torch.zeros_like(wanted).scatter(-1, order, wanted)


@method(
    id="rtpurbo",
    kind="pruning",
    title="RTPurbo: retrieval heads with a learnt indexer",
    paper="arXiv:2605.16928",
    guarantee="approximate",
    baseline="kv_full",
    identity={"retrieval": 1.0, "p": 1.0},
    needs="training of projections, under a minute",
    claims=[
        {"metric": "prefill speed-up", "value": 9.36, "against": "full attention", "on": "1M tokens (abstract)"},
        {"metric": "decode speed-up", "value": 2.01, "against": "full attention", "on": "1M tokens (abstract)"},
    ],
    details={
        "retrieval, p, num_sinks": "published notes on the paper: 0.15, 0.9, 4",
        "index_dim": "published notes: 16 of 128 channels; here an eighth of the head",
        "window": "ours: 64; the notes have 8192 for long contexts, a small reproduction 128",
        "scale of s": "reconstruction: 1/sqrt(d), so that an exact factorisation gives the full logits",
        "training": "published notes: KL, 600 steps, lr 1e-3 with warm-up; ours: Adam, a quarter of the queries",
        "first guess": "ours: the best bilinear form of so many channels on the calibration states",
        "corpus": "ours: the Python documentation, stretches of 512 tokens; the notes: 48K tokens on average",
        "prompt": "read densely by all heads; the notes leave it open",
        "memory": "ours: local heads keep their slots too, so reads fall and memory does not",
        "stage 2": "the optional self-distillation of the whole model is not part of this method",
    },
)
class RTPurbo(PruningMethod):
    """Two kinds of heads; selection by cumulative attention."""

    trains = True

    retrieval: float = Field(0.15, ge=0, le=1, description="part of the query heads that retrieve")
    p: float = Field(0.9, gt=0, le=1, description="attention that a retrieval head's tokens add up to, by the indexer")
    index_dim: int = Field(0, ge=0, description="channels of the indexer; 0: an eighth of the head's")
    num_sinks: int = Field(4, ge=0, description="first tokens that every head reads")
    window: int = Field(64, ge=1, description="last tokens that every head reads, the query's own among them")
    scorer: Literal["needle", "remote_mass"] = Field("needle", description="what tells retrieval heads")
    unit: Literal["head", "group"] = Field("head", description="retrieval heads one by one, or by key/value head")
    indexer: Literal["trained", "guess", "random"] = Field("trained", description="random: the control, heads too")
    span: int = Field(32, ge=1, description="tokens of the needle; queries that are looked at")
    corpus: str = Field("python_docs", description="calibration texts: corpus name, or path of a file or folder")
    texts: int = Field(4, ge=1, description="calibration texts")
    text_tokens: int = Field(512, ge=8, description="tokens of each")
    steps: int = Field(600, ge=0, description="training steps")
    lr: float = Field(1e-3, gt=0, description="learning rate after warm-up")

    def check_twin(self):  # type: ignore[no-untyped-def]
        """With random heads and projections."""
        return replace(self, indexer="random")

    def prepare(self, subject, ctx):  # type: ignore[no-untyped-def]
        """Mass ``[L, H]``; projections ``[heads, 2, C, D]`` of those that retrieve; the loss of every step."""
        *texts, other = calibration_prompts(subject, self.corpus, self.texts + 1, self.text_tokens, ctx.seed)
        mass_LH = self.mass(subject, texts, other[: self.span])
        pairs = seen_pairs(subject, texts, self.heads(subject, mass_LH), rotation_of(subject, self.card.id), ctx.seed)
        weights = first_guess(pairs, self.channels(subject)) if pairs else torch.zeros(0)
        weights, losses = fit(weights, pairs, self.steps if self.indexer == "trained" else 0, self.lr)
        return {"mass_LH": mass_LH, "weights": weights.cpu(), "losses": losses}

    def mass(self, subject, texts: list[list[int]], needle: list[int]) -> Tensor:  # type: ignore[no-untyped-def]
        """What tells retrieval heads, ``[L, H]``, mean over the texts."""
        measure, prompts = partial(far_mass, span=self.span, window=self.window), texts
        if self.scorer == "needle":
            measure, prompts = partial(echo_mass, span=self.span), [needle + text + needle for text in texts]
        sums: dict[int, Tensor] = {}

        def look(view: LayerView) -> None:
            sums[view.layer] = sums.get(view.layer, 0) + measure(view).cpu() / len(prompts)

        watch_prompts(subject, prompts, look)
        return torch.stack([sums[layer] for layer in sorted(sums)])

    def heads(self, subject, mass_LH: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        """``[L, H]``, True for the heads that retrieve."""
        if self.unit == "head":
            return largest_part(mass_LH, self.retrieval)
        mass_LGR = mass_LH.unflatten(1, (subject.model.config.get_text_config().num_key_value_heads, -1))
        return largest_part(mass_LGR.amax(-1), self.retrieval).repeat_interleave(mass_LGR.shape[2], 1)

    def channels(self, subject) -> int:  # type: ignore[no-untyped-def]
        """Channels of the indexer."""
        return self.index_dim or max(1, subject.model.config.get_text_config().head_dim // 8)

    def cache_options(self, subject, artifact):  # type: ignore[no-untyped-def]
        """A cache of which attention reads a part."""
        rotation, config = rotation_of(subject, self.card.id), subject.model.config.get_text_config()
        layers, heads, groups = config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads
        if self.indexer == "random":
            generator = torch.Generator().manual_seed(0)
            mass_LH = torch.rand(layers, heads, generator=generator)
            count = int(self.heads(subject, mass_LH).sum())
            weights = torch.randn(count, 2, self.channels(subject), config.head_dim, generator=generator)
        else:
            mass_LH, weights = artifact["mass_LH"], artifact["weights"]
        indexers = layer_indexers(self.heads(subject, mass_LH), weights.to(subject.device), heads // groups)
        return {"select": partial(self.select, indexers=indexers, rotation=rotation)}

    def select(self, view: QueryView, indexers: list[Indexer], rotation: Rotation):  # type: ignore[no-untyped-def]
        """Slots to read, query by query of each row without its padding; the prompt reads everything."""
        if view.phase == "prefill":
            return None
        return one_by_one(view, partial(self.choose, indexer=indexers[view.layer], rotation=rotation))

    def choose(self, view: QueryView, indexer: Indexer, rotation: Rotation) -> Selection:
        """Sinks and window of every head, and what the retrieval heads find."""
        place = torch.arange(view.num_slots, device=view.keys_BGND.device)
        ends = (place < self.num_sinks) | (place >= view.num_slots - self.window)
        count, (_, groups, _, width) = len(indexer.heads_R), view.keys_BGND.shape
        if not count:
            return Selection(place[ends][None, None, None], None, 0.0)
        stays_HN = ends.repeat(view.queries_BHTD.shape[1], 1)
        stays_HN[indexer.heads_R] |= top_p(indexer.scores(view, rotation), self.p)
        index, valid = keep_where(stays_HN[None]) or (place.expand(1, len(stays_HN), -1), None)
        read = count * indexer.key_RCD.shape[1] / (2 * groups * width)
        return Selection(index[:, :, None], None if valid is None else valid[:, :, None], read)
