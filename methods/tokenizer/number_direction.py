"""Digits in chunks of three, from the left or from the right: the model's own tokenizer with other numbers.

From the right, chunks have a place value: 12345 + 678 is 12|345 + 678; from the left it is 123|45 + 678, where no
chunk stands above the one that it is added to. A fraction is always cut from the left, away from its point. Signs,
points, separators and all other text are the base tokenizer's.
"""

from typing import Literal

from pydantic import Field

from harness.catalog import method
from harness.kinds.tokenizer import Properties, TokenizerMethod
from harness.kinds.tokenizer.checks import measured_properties
from harness.kinds.tokenizer.numbers import Number, NumberTable, chunk, digit_strings

SIZES = {"digits1": 1, "digits3_l2r": 3, "digits3_r2l": 3}


def pieces(number: Number, scheme: str) -> list[str]:
    """The chunks of a plain number, with the point as one of its own."""
    size = SIZES[scheme]
    whole = chunk(number.integer, size, from_right=scheme.endswith("r2l"))
    return [*whole, ".", *chunk(number.fraction, size, from_right=False)] if number.fraction else whole


@method(
    id="number_direction",
    kind="tokenizer",
    title="Digit chunks from the left or from the right",
    paper="arXiv:2402.14903",
    guarantee="approximate",
    baseline="native",
    identity={"scheme": "digits_bpe"},
    claims=[
        {
            "metric": "exact digits of the sum",
            "value": 0.978,
            "against": "0.739 without separators (its own chunks, from the left)",
            "on": "gpt-3.5-turbo-0301, 8 shots, 7 to 9 digits, commas from the right in the prompt",
        }
    ],
    details={
        "scheme": "paper: chunks of 3; digits1 and digits_bpe (the base tokenizer's own) are its comparisons",
        "claims": "paper: forced by separators in the prompt; here the tokenizer cuts, without training after it",
        "decimals": "reconstruction: the integer from the right, the fraction from the left",
        "digits": "ours: ASCII digits; leading zeros are kept, and a chunk that the model has as a token is that token",
        "embeddings": "mean of the rows of the digits that a new chunk had before",
    },
)
class NumberDirection(TokenizerMethod):
    """``scheme`` names how digits are cut; at most 1,110 chunks are added to the vocabulary."""

    scheme: Literal["digits3_r2l", "digits3_l2r", "digits1", "digits_bpe"] = Field(
        "digits3_r2l", description="digits_bpe leaves them to the base tokenizer"
    )

    def declared(self, tokenizer) -> Properties:  # type: ignore[no-untyped-def]
        """What holds of the base tokenizer."""
        return measured_properties(tokenizer)

    def make(self, tokenizer, artifact):  # type: ignore[no-untyped-def]
        """The base tokenizer with chunks of digits."""
        if self.scheme == "digits_bpe":
            return tokenizer
        table = NumberTable(tokenizer)
        ids = {text: table.held(text) for text in [".", *digit_strings(SIZES[self.scheme])]}
        return table.tokenizer(self.scheme, lambda number: [ids[piece] for piece in pieces(number, self.scheme)])
