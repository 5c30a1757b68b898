"""FLOPs and bytes of a decoder-only transformer by count, and how near a measured time came to the machine's ceilings.

The ledger counts what the algorithm cannot avoid: every linear weight read once a forward, every visible key and value
read once, two operations for a multiply-add. What an implementation moves beyond that (copies, padding, masks computed
and thrown away) is not counted, so a poor implementation shows as a low MFU or MBU, never as more work done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import Refused

CO_BINDING = 1.05
"""A second ceiling within 5% of the lowest binds as well."""

CONFIRMED = 0.6
"""An MBU or MFU from here on confirms that memory or compute binds."""

OVERHEAD_BELOW = 0.5
"""Below half of the lowest ceiling, with nothing confirmed, what binds is neither: it is overhead."""

POWER_REACHED = 0.97
"""Mean power from here on, as a share of the enforced limit, confirms that power binds."""

ENERGY_SOURCES_MEASURED = ("counter",)


@dataclass(frozen=True)
class ModelShape:
    """What the ledger has to know of a model. ``windows`` holds one entry a layer: None sees everything before it.

    ``body_params`` are the weights of linear layers without the head, ``head_params`` those of the output head (also
    where it is tied to the embedding), ``other_params`` what a forward reads besides, such as norms and biases; of
    embedding tables a forward reads single rows. Widths are in numbers, ``weight_bytes`` and ``kv_bytes`` in bytes a
    number.
    """

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    windows: tuple[int | None, ...]
    body_params: int
    head_params: int
    other_params: int
    total_params: int
    weight_bytes: float
    kv_bytes: float

    @property
    def layers(self) -> int:
        """Number of attention layers."""
        return len(self.windows)

    @property
    def kv_bytes_per_slot(self) -> float:
        """Bytes of one token's keys and values in one layer."""
        return 2 * self.kv_heads * self.head_dim * self.kv_bytes


def model_shape(model: Any) -> ModelShape:
    """Read the shape from a transformers causal model: widths from its config, parameters from its modules."""
    from torch import nn

    config = model.config.get_text_config()
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    if experts:
        raise Refused(f"{type(model).__name__} routes tokens to {experts} experts; the ledger counts dense models only")
    head = model.get_output_embeddings().weight
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} | {id(head)}
    read = [p for p in model.parameters() if id(p) not in tables]
    body = sum(p.numel() for p in read if p.dim() == 2)
    heads = config.num_attention_heads
    return ModelShape(
        hidden=config.hidden_size,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        windows=_windows(config),
        body_params=body,
        head_params=head.numel(),
        other_params=sum(p.numel() for p in read) - body,
        total_params=sum(p.numel() for p in model.parameters()),
        weight_bytes=head.element_size(),
        kv_bytes=head.element_size(),
    )


def _windows(config: Any) -> tuple[int | None, ...]:
    window: int | None = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return (window,) * int(config.num_hidden_layers)
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _shape(model: Any) -> ModelShape:
    return model if isinstance(model, ModelShape) else model_shape(model)


def forward_flops(model: Any, tokens: int, context: int = 0, batch: int = 1, logits: int | None = None) -> float:
    """FLOPs of one causal forward of ``tokens`` new tokens a row, after ``context`` tokens that are cached.

    ``model`` is a transformers model or its :class:`ModelShape`. ``logits`` is the number of positions a row whose
    logits are computed (default: all; a prefill for generation computes one). Counted are the linear layers,
    ``2 * parameters`` a token, and attention, ``4 * heads * head_dim`` for each visible pair of positions; norms,
    activations and the softmax are left out (below one percent in common models).
    """
    shape = _shape(model)
    head_tokens = tokens if logits is None else logits
    linear = 2.0 * (shape.body_params * tokens + shape.head_params * head_tokens)
    pairs = sum(_visible_pairs(tokens, context, window) for window in shape.windows)
    return batch * (linear + 4.0 * shape.heads * shape.head_dim * pairs)


def _visible_pairs(tokens: int, context: int, window: int | None) -> int:
    """Sum over the new positions of how many positions each sees, itself included."""
    if window is None or context + tokens <= window:
        return tokens * context + tokens * (tokens + 1) // 2
    growing = max(0, window - context)
    return growing * context + growing * (growing + 1) // 2 + (tokens - growing) * window


def forward_bytes(
    model: Any, tokens: int, context: int = 0, batch: int = 1, kv_bytes: float | None = None, logits: int | None = None
) -> float:
    """Bytes that one forward of the batch must move: weights once, cached keys and values once, new ones written.

    ``kv_bytes`` replaces the bytes of cached keys and values that are read, for all rows and layers together: give
    what a pruned cache really holds (``KVCache.held_bytes()``). Activations are left out: they stay in cache.
    """
    shape = _shape(model)
    weights = shape.body_params + shape.other_params + (shape.head_params if logits != 0 else 0)
    rows = batch * tokens * shape.hidden
    if kv_bytes is None:
        # The oldest of the new tokens sees most of the cache: a window hides what lies before it.
        slots = sum(context if w is None else min(context, w - 1) for w in shape.windows)
        kv_bytes = batch * slots * shape.kv_bytes_per_slot
    written = batch * tokens * shape.layers * shape.kv_bytes_per_slot
    return (weights + rows) * shape.weight_bytes + kv_bytes + written


def decode_bytes_per_token(model: Any, context: int, batch: int = 1, kv_bytes: float | None = None) -> float:
    """Bytes a generated token must move when each row of a batch decodes one token after ``context`` cached ones."""
    return forward_bytes(model, 1, context, batch, kv_bytes) / batch


def mfu(flops: float, seconds: float, flops_per_second: float) -> float:
    """Model FLOPs utilisation: the share of the measured matrix rate that the counted FLOPs reached."""
    return flops / seconds / flops_per_second


def mbu(moved_bytes: float, seconds: float, bytes_per_second: float) -> float:
    """Model bandwidth utilisation: the share of the measured bandwidth that the counted bytes reached.

    Above 1 the weights fitted into a cache: memory was not what they came from.
    """
    return moved_bytes / seconds / bytes_per_second


@dataclass(frozen=True)
class Binding:
    """Which constraint binds a phase. Ceilings are tokens per second; slack is ceiling over measured rate."""

    label: str
    co_binding: tuple[str, ...]
    ceilings: Mapping[str, float]
    slack: Mapping[str, float]
    evidence: Sequence[str] = field(default=())


def binding(
    rate: float,
    flops_per_token: float,
    bytes_per_token: float,
    flops_per_second: float,
    bytes_per_second: float,
    *,
    joules_per_token: float | None = None,
    power_limit_w: float | None = None,
    energy_source: str = "none",
) -> Binding:
    """Decide which constraint binds a phase that ran at ``rate`` tokens per second.

    The lowest ceiling is the candidate; evidence confirms or overrules it: power near its limit, then MBU, then MFU.
    With no evidence and a rate below half of the lowest ceiling the label is ``overhead``, else ``undetermined``.
    ``power`` needs joules from a counter: modelled joules are time in other units and prove nothing.
    """
    found = {"compute": flops_per_second / flops_per_token, "memory": bytes_per_second / bytes_per_token}
    power_share = 0.0
    if joules_per_token and power_limit_w and energy_source in ENERGY_SOURCES_MEASURED:
        found["power"] = power_limit_w / joules_per_token
        power_share = rate * joules_per_token / power_limit_w
    shares = {"power": power_share, "memory": rate / found["memory"], "compute": rate / found["compute"]}
    lowest = min(found.values())
    co_binding = tuple(sorted(name for name, value in found.items() if value <= lowest * CO_BINDING))
    evidence = [f"{name} at {share:.0%} of its ceiling" for name, share in shares.items() if name in found]
    if shares["power"] >= POWER_REACHED:
        label = "power"
    elif max(shares["memory"], shares["compute"]) >= CONFIRMED:
        label = "memory" if shares["memory"] >= shares["compute"] else "compute"
    else:
        label = "overhead" if rate < OVERHEAD_BELOW * lowest else "undetermined"
    slack = {name: value / rate for name, value in found.items()}
    return Binding(label, co_binding if len(co_binding) > 1 else (), found, slack, tuple(evidence))
