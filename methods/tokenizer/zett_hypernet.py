"""A hypernetwork that predicts embeddings: from the rows of a token's parts to the row of the token.

A token is spelled by old tokens s_1..s_m, the first ``max_parts`` of them counting. Their standardised rows go through
a linear layer with a residual GELU block, get a learnt vector for their place, and pass a small Transformer encoder;
from the state at the first place a residual block and a linear layer make the row, to which the parts' mean is added.
It learns from the model's own tokens: first each from itself, then from random splits into other tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from harness.catalog import method
from harness.kinds.method import Check, Measurement
from harness.kinds.tokenizer import Vocabulary, split_table
from harness.kinds.tokenizer.hypernet import Scaler, draws, fit, gathered, held_out_figures, held_out_split
from harness.kinds.tokenizer.initialise import Initialiser, Made, Missing
from harness.kinds.tokenizer.trained import TrainedBpe
from harness.kinds.tokenizer.transplant import joined_rows


class Block(nn.Module):
    """x + W_2 gelu(W_1 x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        """The same shape."""
        return states + self.outer(F.gelu(self.inner(states)))


class RowPredictor(nn.Module):
    """From the rows of the parts to the row of the whole. At the start it gives the mean of the parts."""

    def __init__(self, row: int, width: int, layers: int, heads: int, parts: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Linear(row, width), Block(width))
        self.place = nn.Parameter(torch.randn(parts, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.leave, self.out = Block(width), nn.Linear(width, row)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, rows_BPD: Tensor, real_BP: Tensor) -> Tensor:
        """Rows ``[B, D]``; what stands in padding, where ``real_BP`` is False, does not matter."""
        held_BPD = rows_BPD * real_BP[..., None]
        states = self.enter(held_BPD) + self.place[: rows_BPD.shape[1]]
        first_BH = self.encoder(states, src_key_padding_mask=~real_BP)[:, 0]
        return self.out(self.leave(first_BH)) + held_BPD.sum(1) / real_BP.sum(1, keepdim=True)


@method(
    id="zett_hypernet",
    kind="tokenizer",
    title="Zero-shot tokenizer transfer by a hypernetwork",
    paper="arXiv:2405.07883",
    guarantee="approximate",
    baseline="bpe",
    needs="minutes of training on the model's embedding rows; the model itself is not run",
    details={
        "training": "reconstruction of the identity phase alone: rows are learnt from rows. The paper goes on with the "
        "frozen model's loss over sampled tokenizers, which is not built",
        "spellings": "ours: random splits within the vocabulary, never the token itself; new tokens are spelled by the "
        "model's own merges, as in the release",
        "mean": "ours: the parts' mean is added to the output, which begins at zero. On SmolLM2, 600 updates put the "
        "true row at a median rank of 54 of 49,152 with it and of 4,059 without; the mean alone at 9,578",
        "scale": "reference code: rows by deviation; less the mean row as well, else it hides everything",
        "size": "ours for a CPU: width 128, one layer; the release has 768, three layers and 200,000 steps",
        "max_parts": "reference code: 7 in released runs",
        "untied": "input and output rows are predicted side by side",
        "held out": "ours: a fifth of the tokens that split; cosine and rank are of standardised rows",
    },
)
class ZettHypernet(TrainedBpe):
    """The target is a byte-level BPE, as in ``bpe``; the rows that the model lacks are predicted."""

    max_parts: int = Field(7, ge=1, le=32, description="parts of a token that are seen, from its front")
    width: int = Field(128, ge=8, multiple_of=4, description="width of the network")
    layers: int = Field(1, ge=1, le=12, description="layers of its encoder")
    identity_steps: int = Field(100, ge=0, description="first updates, on tokens as they are")
    steps: int = Field(600, ge=0, description="updates on split tokens")
    batch: int = Field(128, ge=1, description="tokens of an update")
    learning_rate: float = Field(1e-3, gt=0, description="highest rate of AdamW")
    held_out: float = Field(0.2, ge=0, lt=1, description="share of the tokens that is not learnt from")

    def train(self, texts, seed):  # type: ignore[no-untyped-def]
        """The tokenizer alone."""
        return {"tokenizer": super().train(texts, seed)}

    def learn(self, subject, texts, seed):  # type: ignore[no-untyped-def]
        """The tokenizer, the network's weights, and what it does on held-out tokens."""
        vocabulary = Vocabulary(subject.text_tokenizer())
        rows_VD = joined_rows(subject.model, len(vocabulary.tokens)).float()
        unit_VD, splits = Scaler.of(rows_VD).to_unit(rows_VD), split_table(vocabulary)
        plain = [i for i, token in enumerate(vocabulary.tokens) if token]
        train, held = held_out_split(splits, plain, self.held_out, seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = self.network(unit_VD)
        sizes = self.identity_steps, self.steps
        batches = draws(train, splits, self.max_parts, sizes, self.batch, seed)
        fit(net, unit_VD, batches, sum(sizes), self.learning_rate)
        figures = held_out_figures(net.eval(), unit_VD, held, splits, self.max_parts) if held and splits else {}
        weights = {name: value.cpu() for name, value in net.state_dict().items()}
        return {**self.train(texts, seed), "weights": weights, "held_out": figures}

    def checks(self, subject) -> Iterable[Check]:  # type: ignore[no-untyped-def]
        """Those of the kind, after a few updates: they hold whatever was learnt."""
        quick = replace(self, identity_steps=min(self.identity_steps, 3), steps=min(self.steps, 3))
        return super(ZettHypernet, quick).checks(subject)

    def network(self, rows_VD: Tensor) -> RowPredictor:
        """A network as it begins, for rows like these."""
        return RowPredictor(rows_VD.shape[1], self.width, self.layers, 4, self.max_parts).to(rows_VD.device)

    def training_measurements(self, artifact) -> Sequence[Measurement]:  # type: ignore[no-untyped-def]
        """How near the predicted rows of held-out tokens are to the true ones, beside plain guesses."""
        return [
            Measurement(f"held_out_row_{figure}", value, phase=name)
            for name, figures in artifact["held_out"].items()
            for figure, value in figures.items()
        ]

    def make(self, tokenizer, artifact):  # type: ignore[no-untyped-def]
        """The trained tokenizer with the subject's special tokens."""
        return super().make(tokenizer, artifact["tokenizer"])

    def initialiser(self, artifact) -> Initialiser:  # type: ignore[no-untyped-def]
        """The network's predictions; a token without known parts gets the mean row."""

        def rows(missing: Missing, rows_VD: Tensor) -> Made:
            scaler, net = Scaler.of(rows_VD.float()), self.network(rows_VD)
            net.load_state_dict(artifact["weights"])
            unit_VD, made_ND = scaler.to_unit(rows_VD.float()), rows_VD.mean(0).repeat(len(missing.parts), 1)
            known = [n for n, parts in enumerate(missing.parts) if parts]
            for start in range(0, len(known), 512):
                part = known[start : start + 512]
                spellings = [missing.parts[n][: self.max_parts] for n in part]
                with torch.inference_mode():
                    made_ND[part] = scaler.back(net.eval()(*gathered(unit_VD, spellings))).to(made_ND.dtype)
            return Made(made_ND, len(missing.parts) - len(known))

        return rows
