"""Vocabulary trimming: the draft's head keeps the tokens that the target writes often, and drafts faster.

With C(k) the share of the k most frequent tokens in the target's own answers and R(k) = 1 - F(k) / F(V) the saving of
FLOPs a token, k maximises alpha C(k) + (1 - alpha) R(k) within its bounds and subject to C(k) >= c_min. C is concave
and R linear, so the optimum is the last k whose token's share exceeds (1 - alpha) / alpha 2h / F(V): no search.
"""

import torch
from pydantic import Field

from harness.catalog import method
from harness.kinds.speculative.chains import ChainDrafter
from harness.kinds.speculative.changed_drafts import trimmed
from harness.kinds.speculative.drafts import DraftedMethod, DraftModel
from harness.kinds.speculative.verify import recursive_rejection
from harness.toolkit.small_models import is_made, open_small
from harness.toolkit.students import teacher_texts

TEXTS, NEW_TOKENS = 320, 96


def best_size(shares_V: torch.Tensor, saving: float, alpha: float, c_min: float, bounds: tuple[int, int]) -> int:
    """The size k with the highest utility. ``shares_V`` falls; ``saving`` is what one token less saves of all FLOPs."""
    low, high = min(bounds[0], len(shares_V)), min(bounds[1], len(shares_V))
    pays = alpha * shares_V.double() > (1 - alpha) * saving
    covered = shares_V.double().cumsum(0) >= c_min - 1e-12
    least = int(covered.to(torch.int8).argmax()) + 1 if bool(covered.any()) else high
    return min(max(int(pays.sum()), least, low), high)


def chosen_tokens(counts_V: torch.Tensor, size: int, always: tuple[int, ...]) -> torch.Tensor:
    """Ids ``[k]`` of the ``size`` most frequent tokens, lower ids first among equals, with ``always``; in order."""
    frequent = torch.argsort(counts_V, descending=True, stable=True)[:size].tolist()
    return torch.tensor(sorted({*frequent, *always}))


@method(
    id="vocab_trim",
    kind="speculative",
    title="Balancing Coverage and Draft Latency in Vocabulary Trimming for Faster Speculative Decoding",
    paper="arXiv:2603.05210",
    guarantee="distribution",
    baseline="ar",
    claims=[
        {
            "metric": "speedup_total",
            "value": 1.2,
            "against": "the same draft with its whole vocabulary",
            "on": "throughput of domain tasks (abstract: up to 20 % higher, latency up to 16 % lower)",
        }
    ],
    details={
        "counts": "own: the target's answers to generated requests; the paper counts assistant text of a chat corpus",
        "alpha, c_min, k_min": "reference code, class defaults: 0.7, 0.95, 1000",
        "search": "exact, as the utility has one peak; the reference code searches with Optuna",
        "F": "reconstruction: 2 FLOPs a parameter of the draft's layers, and 2hk of the head",
        "always kept": "own: end-of-text tokens",
        "draft": "a student distilled from the target by adaspec, drafting a chain",
    },
)
class VocabTrim(DraftedMethod):
    """A chain of the model ``draft`` with a head of ``vocab_size`` tokens."""

    draft: str = Field("adaspec", description="layers:N, noised:SHARE, a method that makes drafts, or a model's name")
    vocab_size: int = Field(0, ge=0, description="tokens of the head; 0: the size of highest utility")
    alpha: float = Field(0.7, gt=0, le=1, description="weight of coverage against saving")
    c_min: float = Field(0.95, ge=0, le=1, description="least coverage")
    k_min: int = Field(1000, ge=1, description="smallest head")
    k_max: int = Field(50_000, ge=1, description="largest head")
    num_draft: int = Field(0, ge=0, description="drafted tokens a step; 0: as many as pay, none where none do")
    longest: int = Field(8, ge=1, description="longest chain where the length is chosen")

    rule = staticmethod(recursive_rejection)
    width_field = "num_draft"

    @property
    def trains(self):  # type: ignore[no-untyped-def,override]
        """The counts are made first, whatever the draft."""
        return True

    def prepare(self, subject, ctx):  # type: ignore[no-untyped-def]
        """How often the target writes each token, and the draft."""
        size = int(subject.model.config.get_text_config().vocab_size)
        texts = teacher_texts(subject, TEXTS, NEW_TOKENS, ctx.seed)
        written = torch.tensor([token for text in texts for token in text.continuation])
        draft = ctx.artifact_of(self.draft) if is_made(self.draft) else None
        return {"counts": torch.bincount(written, minlength=size), "draft": draft}

    def subset(self, draft, counts_V):  # type: ignore[no-untyped-def]
        """Ids of the tokens that the head keeps."""
        shares_V = counts_V.sort(descending=True).values / counts_V.sum().clamp(min=1)
        head = draft.model.get_output_embeddings().weight
        body = sum(p.numel() for p in draft.model.get_decoder().layers.parameters())
        saving = head.shape[1] / (body + head.numel())
        size = self.vocab_size or best_size(shares_V, saving, self.alpha, self.c_min, (self.k_min, self.k_max))
        return chosen_tokens(counts_V, size, tuple(draft.text_tokenizer().eos_ids))

    def drafter(self, subject, artifact):  # type: ignore[no-untyped-def]
        """The trimmed draft; without an artifact all tokens count alike, so that lower ids are kept."""
        held = artifact or {"counts": None, "draft": None}
        draft = open_small(self.draft, subject, held["draft"])
        vocabulary = int(subject.model.config.get_text_config().vocab_size)
        counts_V = torch.ones(vocabulary) if held["counts"] is None else held["counts"].cpu()
        model = DraftModel(trimmed(draft, self.subset(draft, counts_V)), subject)
        return ChainDrafter(model, self.num_draft, self.longest)
