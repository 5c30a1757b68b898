"""Plain autoregressive decoding: one token a forward. The baseline of every speculative method."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.catalog import method
from harness.kinds.speculative import SpeculativeMethod
from harness.kinds.speculative.widths import WidthProbe


@method(
    id="ar",
    kind="speculative",
    title="Autoregressive decoding",
    guarantee="exact",
    baseline="ar",
    identity={},
    details={"attention": "ours: grouped matrix products at decode time, SDPA at prefill, preallocated cache"},
)
class Ar(SpeculativeMethod):
    """The subject's own decoder."""

    @contextmanager
    def apply(self, subject, artifact=None) -> Iterator:  # type: ignore[no-untyped-def,type-arg]
        """The subject as it is."""
        yield subject

    def probes(self):  # type: ignore[no-untyped-def]
        """What a forward of several tokens costs, which decides how wide the other methods draft."""
        return [WidthProbe()]
