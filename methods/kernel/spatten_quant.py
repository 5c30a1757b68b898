"""SpAtten's progressive quantization: fetch the high bits first, and the low bits only where attention is not sure.

Attention probabilities are made from the high bits of q and k. Where the largest of a row is below ``threshold`` the
low bits are fetched too and the row is made anew: the error of a softmax is small where one probability dominates.
Simulated bit by bit; what counts is the bytes fetched, not the time.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from pydantic import Field
from torch import Tensor

from harness.catalog import method
from harness.kinds.kernel import KernelMethod
from harness.kinds.kernel.fixed_point import FixedPoint
from harness.kinds.kernel.group_workloads import HeadShape
from harness.kinds.method import Workload


def progressive_rows(query: FixedPoint, key: FixedPoint, threshold: float, scale: float) -> tuple[Tensor, Tensor]:
    """Probabilities ``[B, H, T, N]`` and which rows ``[B, H, T]`` needed the low bits."""
    rough = (query.coarse @ key.coarse.transpose(-1, -2) * scale).softmax(-1)
    fetch_BHT = rough.amax(-1) < threshold
    exact = (query.full @ key.full.transpose(-1, -2) * scale).softmax(-1)
    return torch.where(fetch_BHT[..., None], exact, rough), fetch_BHT


def best_values(weight_BHTN: Tensor, value_BHND: Tensor, count: int, renormalise: bool) -> Tensor:
    """Output from the ``count`` highest probabilities of each row; the other values are not fetched."""
    count = min(count, weight_BHTN.shape[-1])
    best = weight_BHTN.topk(count)
    kept = torch.zeros_like(weight_BHTN).scatter(-1, best.indices, best.values)
    if renormalise:
        kept = kept / kept.sum(-1, keepdim=True)
    return kept @ value_BHND.float()


def fetched_share(fetch_BHT: Tensor, high: int, low: int) -> float:
    """Bits of keys fetched over those at full width: a row that is not sure fetches the low bits of every key."""
    return (high + low * float(fetch_BHT.float().mean())) / (high + low)


@method(
    id="spatten_quant",
    kind="kernel",
    title="SpAtten: progressive quantization and local value pruning",
    paper="arXiv:2012.09852",
    guarantee="approximate",
    baseline="spatten_quant",
    identity={"threshold": 1.1, "values": 1.0},
    claims=[
        {
            "metric": "DRAM access",
            "value": 0.1,
            "against": "no pruning, full width",
            "on": "mean of 30 benchmarks, with token and head pruning (abstract: '10.0x less')",
        }
    ],
    details={
        "high, low, threshold": "reconstruction, unverified: 8 and 4 bits, 0.1",
        "scale": "ours: one a head, from the largest magnitude",
        "high bits alone": "ours: stand for the middle of the range that the low bits leave open",
        "renormalise": "reconstruction: values that are not fetched count as zero; an option divides by what is left",
        "time": "a simulation in integers and float32; slower than plain attention, and no speed is claimed",
    },
)
class SpattenQuant(KernelMethod):
    """Decode steps of one layer, against attention at full precision."""

    high: int = Field(8, ge=2, le=12, description="bits that are fetched first")
    low: int = Field(4, ge=1, le=8, description="bits that are fetched where attention is not sure")
    threshold: float = Field(0.1, ge=0, description="largest probability below which a row is made anew")
    values: float = Field(1.0, gt=0, le=1, description="part of the values that each row fetches")
    renormalise: bool = Field(False, description="divide by the sum of the probabilities whose values were fetched")

    sizes = ({"keys": 4096, "queries": 16},)
    check_sizes = ({"keys": 33, "queries": 3}, {"keys": 1, "queries": 2})

    def attention(
        self, query_BHTD: Tensor, key_BHND: Tensor, value_BHND: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Output ``[B, H, T, D]`` and the rows that needed the low bits; every query reads every key."""
        parts = [FixedPoint.of(x, self.high, self.low) for x in (query_BHTD, key_BHND)]
        weight, fetch_BHT = progressive_rows(*parts, self.threshold, scale)
        count = max(1, int(self.values * weight.shape[-1] + 1e-9))
        return best_values(weight, value_BHND, count, self.renormalise).to(query_BHTD.dtype), fetch_BHT

    def workloads_at(self, subject, size: Mapping[str, int]) -> Iterator:  # type: ignore[no-untyped-def,type-arg]
        """One layer with the subject's heads; the share of bits fetched is a figure."""
        shape = HeadShape.of(subject)
        scale = shape.width**-0.5

        def inputs() -> list[Tensor]:
            query, key, value, _ = shape.inputs(subject, size["keys"])
            key, value = (x.repeat_interleave(shape.heads // shape.groups, 1) for x in (key, value))
            # Peaked and flat heads, as models have them.
            sharp = torch.linspace(0.2, 6, shape.heads, device=query.device, dtype=query.dtype)[:, None, None]
            return [query[:, :, -size["queries"] :] * sharp, key, value]

        def ours() -> Callable[[], Tensor]:
            given = inputs()
            return lambda: self.attention(*given, scale)[0]

        def full() -> Callable[[], Tensor]:
            given = inputs()
            return lambda: torch.nn.functional.scaled_dot_product_attention(*given, scale=scale)

        yield Workload(
            name=f"decode steps, {size['keys']} keys",
            make=ours,
            reference=full,
            max_error=0.05 if self.values == 1 else None,
            units={"tokens": float(size["queries"])},
            figures=lambda: {"fetched_share": fetched_share(self.attention(*inputs(), scale)[1], self.high, self.low)},
        )
