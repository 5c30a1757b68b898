"""How much of the machine a decode trial used: MFU and MBU, against ceilings measured here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from harness.kinds.method import Measurement
from harness.measure import roofline
from harness.measure.ceilings import ceilings
from harness.measure.pairs import Block, PairRun
from harness.subjects.subject import Subject


def ttft_s(block: Block) -> float:
    """Mean time to the first token over the rows of a batch."""
    return sum(float(row.ttft_s) for row in block.result) / len(block.result)


def _several_models(run: PairRun) -> bool:
    return any("active_parameters_per_token" in row.counts for block in run.of("candidate") for row in block.result)


def utilisation(opened: Callable[[], AbstractContextManager[Subject]], run: PairRun) -> list[Measurement]:
    """MFU of the prefill and MBU of a plain decode step, against this machine's measured ceilings.

    None where several models run, or one without a transformers configuration: the ledger is that of plain steps.
    """
    with opened() as subject:
        if not hasattr(subject.model, "config") or _several_models(run):
            return []
        shape = roofline.model_shape(subject.model)
        limits = ceilings(str(subject.device))
        dtype = str(subject.dtype).removeprefix("torch.")
    blocks = run.of("candidate")
    batch = len(blocks[0].result)
    fastest = min(blocks, key=ttft_s)
    prompt = max(row.prompt_tokens for row in fastest.result)
    flops = roofline.forward_flops(shape, prompt, batch=batch, logits=1)
    found = [Measurement("mfu_prefill", roofline.mfu(flops, ttft_s(fastest), limits.flops(dtype)), source="clock")]
    row = min((r for b in blocks for r in b.result), key=lambda r: r.tpot_s)
    if max(row.steps) == 1:
        moved = roofline.forward_bytes(shape, 1, batch=batch, kv_bytes=batch * row.counts["kv_bytes_held"])
        found.append(Measurement("mbu_decode", roofline.mbu(moved, row.tpot_s, limits.bandwidth), source="clock"))
    return [m for m in found if m.value == m.value]
