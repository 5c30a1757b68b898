"""The model's own tokenizer: the reference row of every tokenizer table."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.catalog import method
from harness.kinds.tokenizer import Properties, TokenizerMethod
from harness.kinds.tokenizer.checks import measured_properties


@method(
    id="native",
    kind="tokenizer",
    title="The model's own tokenizer",
    guarantee="exact",
    baseline="native",
    identity={},
    details={"properties": "measured on the subject, as they differ from model to model"},
)
class Native(TokenizerMethod):
    """Changes nothing."""

    def declared(self, tokenizer) -> Properties:  # type: ignore[no-untyped-def]
        """What is found to hold of the subject's tokenizer."""
        return measured_properties(tokenizer)

    def make(self, tokenizer, artifact):  # type: ignore[no-untyped-def]
        """The subject's tokenizer."""
        return tokenizer

    @contextmanager
    def apply(self, subject, artifact=None) -> Iterator:  # type: ignore[no-untyped-def,type-arg]
        """The subject as it is."""
        yield subject
