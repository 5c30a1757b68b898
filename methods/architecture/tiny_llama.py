"""A small Llama that is trained from random weights on the next token: what every other architecture is held against.

The loss is the mean of -log p(x_t | x_<t) over all tokens of a row but its first. Tokenizer, device and type are the
subject's; steps, rows and text are the kind's budget, so another architecture with the same budget has read the same
tokens in the same order.
"""

from harness.catalog import method
from harness.kinds.architecture import LlamaMethod


@method(
    id="tiny_llama",
    kind="architecture",
    title="Small Llama",
    guarantee="approximate",
    baseline="tiny_llama",
    needs="minutes of training",
    identity={},
    details={
        "shape": "ours: pre-norm Llama, tied embeddings, as many key/value heads as heads, inner width four times",
        "initial weights": "ours: deviation 0.02 at a width of 1024, more at less, so that outputs are as large",
        "budget": "ours: AdamW without weight decay, a rise over 20 steps, then a cosine to a tenth",
        "windows": "ours: documents joined, each after the tokenizer's prefix id; a cut one goes on in the next row",
    },
)
class TinyLlama(LlamaMethod):
    """The reference row of every architecture table."""
