"""HAMburger: tokens that are easy to foresee share one cache slot and one forward of the base model.

A segment of s <= ``max_steps`` tokens enters the base as one vector, mean(E) + W_o attention(W_q mean(E), [E ; pos]),
at the position of its last token; a single token enters as it is. From the base's states there a micro decoder writes
the next segment: its first token straight from the base's head, the others one after another, until a stop head gives
1 - p_stop < ``confidence``. Training rows are segmented by the base's own entropies e_t: token t joins the open segment
where it has room and e_t < 0.05 nats or e_t < 0.3 times the segment's highest. Loss = cross-entropy + 0.5 BCE(stop).

The base is a ``tiny_llama``, trained first with part of the budget; with ``max_steps`` 1 it takes all of it.
"""

from dataclasses import replace
from itertools import islice

from pydantic import Field

from harness.catalog import method
from harness.kinds.architecture import LlamaMethod, causal_loss, counted_flops, descend
from harness.kinds.architecture.macro import MacroDecoder, MacroScorer
from harness.kinds.architecture.smashed import SmashedLlama

BASE_RATE = 0.5


@method(
    id="hamburger",
    kind="architecture",
    title="HAMburger: Accelerating LLM Inference via Token Smashing",
    paper="arXiv:2505.20438",
    guarantee="approximate",
    baseline="tiny_llama",
    needs="minutes of training",
    identity={"max_steps": 1},
    claims=[
        {
            "metric": "speedup_decode",
            "value": 2.0,
            "against": "the base model",
            "on": "Llama-3.2-1B-Instruct, fully fine-tuned (abstract: up to)",
        }
    ],
    details={
        "base": "ours: a small Llama from random weights; the paper converts Llama-3.2-1B-Instruct",
        "prompt": "ours: the first quarter of a row of running text; the paper's data has questions and answers",
        "segmentation": "reference code: decreasing_v2, 0.05 nats and 0.3; entropies of the base before its conversion",
        "position": "reference code's training: the last token's; its generation is one too far after the prompt",
        "heads of the embedder": "the base's; the reference code has 64 for a width of 2048",
        "micro_layers, features": "ours: fewer, as the base is small; the reference code has 4 and 4",
        "stop head": "reference code: reads the vector that the token is read from, so it does not see the token",
        "end of a row": "ours: no stop target at a row's last token, as the text is cut there",
        "learning rates": "reference code's ratio: the base has half the rate of the new parts, all fall to a tenth",
        "teacher": "left out: the reference code's optional KL to the base",
        "scores": "ours: a continuation is scored in the segments that the stop head makes of it",
    },
)
class Hamburger(LlamaMethod):
    """One forward of the base a segment instead of one a token."""

    max_steps: int = Field(4, ge=1, le=16, description="longest segment; 1 is the base model alone")
    confidence: float = Field(0.9, ge=0, le=1, description="a segment ends where 1 - p_stop is below this")
    micro_layers: int = Field(1, ge=1, le=4, description="layers of the micro decoder")
    features: int = Field(2, ge=1, le=8, description="evenly spaced layers of the base that the micro decoder reads")
    conversion: float = Field(0.5, gt=0, lt=1, description="part of the steps in which segments are learnt")

    def build(self, subject):  # type: ignore[no-untyped-def]
        """The Llama with an embedder and a micro decoder, all with random weights."""
        model = SmashedLlama(self.config(subject), self.max_steps, self.micro_layers, self.features)
        return model.to(subject.device)

    def loss(self, model, ids_BT, mask_BT):  # type: ignore[no-untyped-def]
        """Of segmented rows; of plain ones where nothing is ever merged."""
        if self.max_steps == 1:
            return causal_loss(model, ids_BT, mask_BT)
        return model.loss(ids_BT, model.segmented(ids_BT, mask_BT))

    def fit(self, model, rows, low_precision):  # type: ignore[no-untyped-def]
        """The base alone, then all parts together on segments by the entropies that the base had."""
        converting = 0 if self.max_steps == 1 else max(1, round(self.steps * self.conversion))
        plain = self.steps - converting
        rate, new = self.learning_rate, model.new_parts()
        mine = {id(p) for p in new}
        base = [p for p in model.parameters() if id(p) not in mine]
        stages = []
        if plain:
            held = islice(rows, plain)
            stages.append(descend("base", model, causal_loss, held, plain, [(rate, base)], low_precision))
        if converting:
            model.freeze_judge()
            rates = [(rate, new), (BASE_RATE * rate, base)]
            stages.append(descend("conversion", model, self.loss, rows, converting, rates, low_precision))
        return stages

    def flops_of_step(self, model, ids_BT, mask_BT):  # type: ignore[no-untyped-def]
        """The mean of both stages' steps."""
        plain = counted_flops(lambda: causal_loss(model, ids_BT, mask_BT))
        part = 0.0 if self.max_steps == 1 else self.conversion
        return (1 - part) * plain + part * super().flops_of_step(model, ids_BT, mask_BT)

    def subject_of(self, subject, model):  # type: ignore[no-untyped-def]
        """Scores and generates by macro steps."""
        plain = super().subject_of(subject, model)
        return replace(plain, decoder=MacroDecoder(self.confidence), scorer=MacroScorer(self.confidence))

    def check_twin(self):  # type: ignore[no-untyped-def]
        """Small, and so unsure of where segments end that they have all lengths."""
        return replace(super().check_twin(), confidence=min(self.confidence, 0.5))
