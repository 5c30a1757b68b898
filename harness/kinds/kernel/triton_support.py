"""Where Triton kernels run, and what they share. Modules named ``triton_*`` need Triton and are imported when used."""

from __future__ import annotations

import importlib.util
import os

import torch

from harness.errors import Refused

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Types the kernels take; sums run in float32."""


def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def interpreted() -> bool:
    """Whether Triton runs its kernels in Python, slowly, on any device."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


def prefers_triton(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a method that may choose takes its Triton kernel: on CUDA, compiled, for the types it knows."""
    return device.type == "cuda" and dtype in DTYPES and has_triton() and not interpreted()


def require_triton(device: torch.device, dtype: torch.dtype) -> None:
    """Raise :class:`Refused` where a Triton kernel that was asked for cannot run."""
    if not has_triton():
        raise Refused("this needs Triton, which is not installed")
    if dtype not in DTYPES:
        raise Refused(f"the Triton kernels take float32, bfloat16 and float16, not {dtype}")
    if device.type != "cuda" and not interpreted():
        raise Refused(f"Triton does not run on {device.type}; TRITON_INTERPRET=1 interprets it, slowly")
    if interpreted() and dtype == torch.bfloat16:
        raise Refused("Triton's interpreter multiplies the bits of bfloat16 as integers; take float32")


def padded_width(width: int) -> int:
    """The power of 2, 16 or more, that holds a head's width: what the matrix units take."""
    return max(16, 1 << (width - 1).bit_length())


def block_rows(width: int, dtype: torch.dtype) -> int:
    """Rows of a tile: fewer where they are wide, so that a few tiles fit into an older GPU's shared memory."""
    row_bytes = padded_width(width) * dtype.itemsize
    return 64 if row_bytes <= 128 else 32 if row_bytes <= 256 else 16
