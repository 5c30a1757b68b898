"""A model's fingerprint: tells whether two loads gave the same weights, without reading all of them."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

SAMPLES = 4096


def weights_fingerprint(model: Any) -> str:
    """Sixteen hex digits over the name, shape, dtype and up to 4096 evenly spaced elements of every tensor.

    Other weights, another quantisation, another dtype or another layout give another fingerprint; changing a few single
    elements of a large matrix may not. It takes milliseconds on any size.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, -(-flat.numel() // SAMPLES))].contiguous().cpu()
        digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
