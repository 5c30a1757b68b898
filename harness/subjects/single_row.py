"""The faster CPU kernel for a step of one token: torch's own bfloat16 matrix-vector product instead of oneDNN's.

oneDNN treats one row as a small matrix product, and takes about twice as long for it as torch's vector kernel on CPUs
with AVX512-BF16. For two rows and more oneDNN is the faster one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch


@lru_cache(maxsize=1)
def vector_kernel_is_faster() -> bool:
    """Whether this CPU has the instructions torch's vector kernel is written for."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16")) and torch.backends.mkldnn.is_available()


@contextmanager
def row_kernels(rows: int, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Choose the kernels of linear layers for a forward over ``rows`` rows (batch times tokens)."""
    if rows != 1 or dtype != torch.bfloat16 or device.type != "cpu" or not vector_kernel_is_faster():
        yield
        return
    before = torch.backends.mkldnn.set_flags(False)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before[0])
