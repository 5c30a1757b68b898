"""Dynamic chunking over bytes, one stage, with GRU blocks: a subject whose model is no transformers model.

p_t = (1 - cos(W_q h_{t-1}, W_k h_t)) / 2 marks a boundary where it exceeds 1/2. The main network sees boundary states
only; s_k = P_k z_k + (1 - P_k) s_{k-1} smooths its outputs, which are copied back to all bytes of their chunk. The loss
is next-byte cross-entropy plus ``alpha`` times N/(N-1) ((N-1) F G + (1-F)(1-G)), F = mean boundary, G = mean p.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from pydantic import Field

from harness.catalog import method
from harness.errors import Refused
from harness.kinds.method import Check, Measurement, Method, PrepareContext
from harness.subjects.subject import GENERATE, SCORE, TRAIN, Subject
from harness.subjects.tiny import ByteIds
from spike_zoo.hnet_model import HNet, HNetDecoder, HNetScorer, ratio_loss

TEXT = "the cat sat on the mat. "


class ChunkProbe:
    """Bytes per chunk on the training text."""

    name = "chunks"

    def measure(self, subject: Subject) -> list[Measurement]:
        """One figure."""
        ids = subject.text_tokenizer().encode(TEXT)
        with torch.inference_mode():
            boundary = subject.model(torch.tensor([ids], device=subject.device))[2]
        return [Measurement("bytes_per_chunk", len(ids) / float(boundary.sum()), n=len(ids))]


def no_cache():  # type: ignore[no-untyped-def]
    """The answer to code that asks this subject for a key/value cache."""
    raise Refused("hnet carries a recurrent state, it has no key/value cache")


@method(
    id="hnet",
    kind="architecture",
    title="H-Net: dynamic chunking over bytes",
    paper="arXiv:2507.07955",
    guarantee="approximate",
    baseline="hnet",
    needs="from scratch",
    details={
        "blocks": "reconstruction: GRU instead of state-space and attention layers",
        "alpha": "re-implementations",
    },
)
class Hnet(Method):
    """One stage of width ``width``, trained for ``steps`` updates."""

    trains = True
    replaces = frozenset({"weights", "cache", "decoder", "tokenizer"})
    width: int = Field(32, ge=4, description="width of all blocks")
    target: float = Field(4.0, gt=1, description="bytes per chunk that the ratio loss aims at")
    alpha: float = Field(0.03, ge=0, description="weight of the ratio loss")
    steps: int = Field(60, ge=1, description="training updates")

    def build(self, seed: int) -> HNet:
        """An untrained model; the global random state is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return HNet(self.width)

    def prepare(self, subject: Subject, ctx: PrepareContext):  # type: ignore[no-untyped-def]
        """Train on windows of the text; returns the weights and the loss of each update."""
        model, rng = self.build(ctx.seed).to(subject.device), torch.Generator().manual_seed(ctx.seed)
        data = torch.tensor(ByteIds().encode(TEXT * 8), device=subject.device)
        optimizer, losses = torch.optim.Adam(model.parameters(), lr=2e-2), []
        for _ in range(self.steps):
            starts = torch.randint(len(data) - 33, (8,), generator=rng).tolist()
            batch = torch.stack([data[s : s + 33] for s in starts])
            logits, p, b, _ = model(batch[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad()
            (loss + self.alpha * ratio_loss(p, b, self.target)).backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        return {"state": model.state_dict(), "losses": losses}

    @contextmanager
    def apply(self, subject: Subject, artifact=None) -> Iterator[Subject]:  # type: ignore[no-untyped-def]
        """A subject of another model, tokenizer, scorer and decoder."""
        model = self.build(0).to(subject.device).eval()
        model.load_state_dict(artifact["state"])
        yield Subject(
            name=subject.name,
            model=model,
            tokenizer=ByteIds(),
            new_cache=no_cache,
            scorer=HNetScorer(),
            decoder=HNetDecoder(),
            capabilities=frozenset({SCORE, GENERATE, TRAIN}),
        )

    def probes(self) -> Iterable[ChunkProbe]:
        """Bytes per chunk."""
        return (ChunkProbe(),)

    def checks(self, subject: Subject) -> Iterable[Check]:
        """Causality, on an untrained model."""

        def causal() -> None:
            model, ids = self.build(0), torch.randint(256, (1, 24), generator=torch.Generator().manual_seed(1))
            changed = ids.clone()
            changed[0, 12:] = (ids[0, 12:] + 1) % 256
            error = (model(ids)[0] - model(changed)[0])[0, :12].abs().max()
            assert error <= 1e-6, f"a later byte moves an earlier logit by {error:.2e}"

        return (Check("causal", causal),)
