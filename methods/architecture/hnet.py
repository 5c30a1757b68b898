"""H-Net: a byte model that learns where to cut its text into chunks, and thinks once a chunk.

One stage: h = Encoder(x); p_t = (1 - cos(W_q h_{t-1}, W_k h_t)) / 2 and a boundary where p_t > 1/2 (p_0 = 1); the main
network z = Main(h at boundaries) sees nothing else; s_k = P_k z_k + (1 - P_k) s_{k-1} smooths it; each place takes the
s of its chunk, times 1 with the gradient of its router's confidence, plus W_r h; then Decoder. ``Main`` may be a stage.
Loss = next-byte cross-entropy + ``alpha`` sum over stages of N/(N-1) ((N-1) F G + (1-F)(1-G)), with F the share of
boundaries and G the mean p, so that about one byte in N begins a chunk.
"""

from dataclasses import replace

from pydantic import Field

from harness.catalog import method
from harness.kinds.architecture import StepMethod, next_token_loss
from harness.kinds.architecture.blocks import Blocks
from harness.kinds.architecture.chunk_probe import Chunks
from harness.kinds.architecture.chunking import ChunkedModel, Stage


@method(
    id="hnet",
    kind="architecture",
    title="Dynamic Chunking for End-to-End Hierarchical Sequence Modeling (H-Net)",
    paper="arXiv:2507.07955",
    guarantee="approximate",
    baseline="tiny_llama",
    needs="minutes of training",
    details={
        "blocks": "reconstruction: Llama layers everywhere, in encoder and decoder over a window of 64 bytes, "
        "where the paper has Mamba-2 layers, which it finds them better",
        "router, chunks, smoothing, straight-through, ratio loss": "reference code",
        "smoothing": "ours: one weighted sum over all earlier chunks, in float64; the reference code scans",
        "extra width": "reference code: chunks enter the main network widened by a learnt constant, and leave it cut",
        "alpha": "re-implementations: 0.03",
        "target": "ours: 4 bytes a chunk at this size; the paper has about 6 in one stage, 3 and 3 in two",
        "learning rates": "ours: one for all; the paper gives outer stages higher ones",
        "head": "ours: tied to the table of bytes",
        "initial weights": "reference code: deviation 0.02, what is added to the stream scaled down by its depth",
    },
)
class HNet(StepMethod):
    """Chunks of learnt bounds; text, tokens and vocabulary are bytes."""

    hidden: int = Field(128, ge=8, description="width of encoder and decoder")
    main_hidden: int = Field(192, ge=8, description="width of the main network, at least hidden")
    heads: int = Field(4, ge=1, description="attention heads of every layer")
    encoder_layers: int = Field(2, ge=1, description="layers before the router, in each stage")
    main_layers: int = Field(3, ge=1, description="layers over chunks")
    decoder_layers: int = Field(2, ge=1, description="layers after the chunks are spread out again, in each stage")
    window: int = Field(64, ge=1, description="places that a layer of encoder and decoder sees, its own included")
    stages: int = Field(1, ge=1, le=2, description="2: the chunks are chunked again")
    target: float = Field(4.0, gt=1, description="places a chunk that the ratio loss aims at, in each stage")
    alpha: float = Field(0.03, ge=0, description="weight of the ratio loss")

    def build(self, subject):  # type: ignore[no-untyped-def]
        """The stages, one inside the other, around the main network."""
        inner, inner_width = Blocks(self.main_hidden, self.main_layers, self.heads), self.main_hidden
        for _ in range(self.stages):
            ends = [Blocks(self.hidden, n, self.heads, self.window) for n in (self.encoder_layers, self.decoder_layers)]
            inner, inner_width = Stage(ends[0], inner, ends[1], self.hidden, inner_width), self.hidden
        return ChunkedModel(self.tokenizer_of(subject).vocab_size, self.hidden, inner).to(subject.device)

    def loss(self, model, ids_BT, mask_BT):  # type: ignore[no-untyped-def]
        """Cross-entropy of the next byte, plus each stage's ratio loss."""
        logits_BTV, routes = model.routed(ids_BT, mask_BT)
        ratio = sum(route.ratio_loss(self.target) for route in routes)
        return next_token_loss(logits_BTV, ids_BT, mask_BT) + self.alpha * ratio

    def probes(self):  # type: ignore[no-untyped-def]
        """Also where the chunks begin."""
        return (*super().probes(), Chunks(self.corpus))

    def check_twin(self):  # type: ignore[no-untyped-def]
        """Narrow, one layer each, three steps."""
        layers = {"encoder_layers": 1, "main_layers": 1, "decoder_layers": 1, "window": min(self.window, 8)}
        return replace(self, steps=3, batch=2, length=24, hidden=16, main_hidden=24, heads=2, **layers)
