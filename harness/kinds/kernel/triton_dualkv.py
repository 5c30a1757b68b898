"""Attention of a packed row of groups in Triton, forward and backward: one kernel visits both regions of a query.

A packed row is cut into segments, prompts and responses (``Layout.segment_S6``). Every segment reads itself causally; a
response reads its prompt as well, and so a prompt is read by all its responses, which stand in one piece. So each
program writes its own rows alone, nothing is added by atomics, and the same call gives the same bits. The readable
reference is ``methods/kernel/dualkv.py``.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from harness.kinds.kernel.packing import Layout
from harness.kinds.kernel.triton_support import block_rows, padded_width


@triton.jit
def _load(ptr, places, inside, width, WIDE: tl.constexpr):
    """Rows ``[BLOCK, WIDE]`` of a ``[T, D]`` matrix; 0 outside."""
    column = tl.arange(0, WIDE)
    mask = inside[:, None] & (column < width)[None, :]
    return tl.load(ptr + places[:, None] * width + column[None, :], mask=mask, other=0.0)


@triton.jit
def _store(ptr, value, places, inside, width, WIDE: tl.constexpr):
    """Write rows ``[BLOCK, WIDE]`` of a ``[T, D]`` matrix."""
    column = tl.arange(0, WIDE)
    mask = inside[:, None] & (column < width)[None, :]
    tl.store(ptr + places[:, None] * width + column[None, :], value.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def _product(a, b):
    """``a @ b`` in float32, without the rounding to 19 bits that GPUs do otherwise."""
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def _visible(row, rows, column, columns, CAUSAL: tl.constexpr):
    """Which query sees which key, ``[BLOCK, BLOCK]``; rows and columns beyond their number see nothing."""
    seen = (row < rows)[:, None] & (column < columns)[None, :]
    if CAUSAL:
        seen = seen & (column[None, :] <= row[:, None])
    return seen


@triton.jit
def _slope(query, key, value, grad, lse, delta, seen, scale):
    """Weights ``P`` of a tile under the whole softmax, and the gradient of its logits."""
    weight = tl.exp(tl.where(seen, _product(query, tl.trans(key)) * scale - lse[:, None], float("-inf")))
    return weight, weight * (_product(grad, tl.trans(value)) - delta[:, None]) * scale


@triton.jit
def _read(query, top, total, out, k_ptr, v_ptr, row, rows, place, columns, width, scale,
          CAUSAL: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """Running softmax (maximum, sum, unnormalised output) of a block of queries over a region of keys."""
    last = columns
    if CAUSAL:
        last = tl.minimum(columns, tl.max(row) + 1)
    for start in range(0, last, BLOCK):
        column = start + tl.arange(0, BLOCK)
        key = _load(k_ptr, place + column, column < columns, width, WIDE)
        value = _load(v_ptr, place + column, column < columns, width, WIDE)
        seen = _visible(row, rows, column, columns, CAUSAL)
        logits = tl.where(seen, _product(query, tl.trans(key)) * scale, float("-inf"))
        # A finite floor: rows beyond the segment see nothing, and -inf minus -inf would be NaN.
        higher = tl.maximum(tl.maximum(top, tl.max(logits, 1)), -1e30)
        weight, shrink = tl.exp(logits - higher[:, None]), tl.exp(top - higher)
        total = total * shrink + tl.sum(weight, 1)
        out = out * shrink[:, None] + _product(weight.to(value.dtype), value)
        top = higher
    return top, total, out


@triton.jit
def _forward(q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, segment_ptr, tokens, width, per_group, scale,
             BLOCK: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """Output and log-sum-exp of one block of queries. Grid: segments, blocks of the longest segment, heads."""
    segment, first = segment_ptr + tl.program_id(0) * 6, tl.program_id(1) * BLOCK
    place, rows, shared, num_shared = tl.load(segment), tl.load(segment + 1), tl.load(segment + 2), tl.load(segment + 3)
    if first >= rows:
        return
    head, row = tl.program_id(2).to(tl.int64), first + tl.arange(0, BLOCK)
    plane = head * tokens * width
    key_plane = head // per_group * tokens * width
    query = _load(q_ptr + plane, place + row, row < rows, width, WIDE)
    top = tl.full([BLOCK], float("-inf"), tl.float32)
    total, out = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK, WIDE], tl.float32)
    top, total, out = _read(query, top, total, out, k_ptr + key_plane, v_ptr + key_plane, row, rows,
                            shared, num_shared, width, scale, False, BLOCK, WIDE)  # fmt: skip
    top, total, out = _read(query, top, total, out, k_ptr + key_plane, v_ptr + key_plane, row, rows,
                            place, rows, width, scale, True, BLOCK, WIDE)  # fmt: skip
    total = tl.where(row < rows, total, 1.0)
    _store(out_ptr + plane, out / total[:, None], place + row, row < rows, width, WIDE)
    tl.store(lse_ptr + head * tokens + place + row, top + tl.log(total), mask=row < rows)


@triton.jit
def _query_gradient(d_query, query, grad, lse, delta, k_ptr, v_ptr, row, rows, place, columns, width, scale,
                    CAUSAL: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """Adds what a region of keys contributes to the gradient of a block of queries."""
    last = columns
    if CAUSAL:
        last = tl.minimum(columns, tl.max(row) + 1)
    for start in range(0, last, BLOCK):
        column = start + tl.arange(0, BLOCK)
        key = _load(k_ptr, place + column, column < columns, width, WIDE)
        value = _load(v_ptr, place + column, column < columns, width, WIDE)
        seen = _visible(row, rows, column, columns, CAUSAL)
        _, slope = _slope(query, key, value, grad, lse, delta, seen, scale)
        d_query += _product(slope.to(key.dtype), key)
    return d_query


@triton.jit
def _backward_query(q_ptr, k_ptr, v_ptr, grad_ptr, lse_ptr, delta_ptr, dq_ptr, segment_ptr, tokens, width, per_group,
                    scale, BLOCK: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """Gradient of one block of queries. Grid as in the forward."""
    segment, first = segment_ptr + tl.program_id(0) * 6, tl.program_id(1) * BLOCK
    place, rows, shared, num_shared = tl.load(segment), tl.load(segment + 1), tl.load(segment + 2), tl.load(segment + 3)
    if first >= rows:
        return
    head, row = tl.program_id(2).to(tl.int64), first + tl.arange(0, BLOCK)
    plane = head * tokens * width
    key_plane = head // per_group * tokens * width
    query = _load(q_ptr + plane, place + row, row < rows, width, WIDE)
    grad = _load(grad_ptr + plane, place + row, row < rows, width, WIDE)
    lse = tl.load(lse_ptr + head * tokens + place + row, mask=row < rows, other=0.0)
    delta = tl.load(delta_ptr + head * tokens + place + row, mask=row < rows, other=0.0)
    d_query = tl.zeros([BLOCK, WIDE], tl.float32)
    d_query = _query_gradient(d_query, query, grad, lse, delta, k_ptr + key_plane, v_ptr + key_plane, row, rows,
                              shared, num_shared, width, scale, False, BLOCK, WIDE)  # fmt: skip
    d_query = _query_gradient(d_query, query, grad, lse, delta, k_ptr + key_plane, v_ptr + key_plane, row, rows,
                              place, rows, width, scale, True, BLOCK, WIDE)  # fmt: skip
    _store(dq_ptr + plane, d_query, place + row, row < rows, width, WIDE)


@triton.jit
def _key_gradient(d_key, d_value, key, value, q_ptr, grad_ptr, lse_ptr, delta_ptr, column, columns, place, first, rows,
                  width, scale, CAUSAL: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """Adds what the queries ``first`` to ``rows`` of a region contribute to the gradients of a block of keys."""
    for start in range(first, rows, BLOCK):
        row = start + tl.arange(0, BLOCK)
        query = _load(q_ptr, place + row, row < rows, width, WIDE)
        grad = _load(grad_ptr, place + row, row < rows, width, WIDE)
        lse = tl.load(lse_ptr + place + row, mask=row < rows, other=0.0)
        delta = tl.load(delta_ptr + place + row, mask=row < rows, other=0.0)
        seen = _visible(row, rows, column, columns, CAUSAL)
        weight, slope = _slope(query, key, value, grad, lse, delta, seen, scale)
        d_key += _product(tl.trans(slope.to(query.dtype)), query)
        d_value += _product(tl.trans(weight.to(grad.dtype)), grad)
    return d_key, d_value


@triton.jit
def _backward_key(q_ptr, k_ptr, v_ptr, grad_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr, segment_ptr, tokens, width,
                  per_group, scale, BLOCK: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """Gradients of one block of keys and values, from all that read it. Grid: segments, blocks, key/value heads."""
    segment, first = segment_ptr + tl.program_id(0) * 6, tl.program_id(1) * BLOCK
    place, columns, readers, num_readers = (
        tl.load(segment), tl.load(segment + 1), tl.load(segment + 4), tl.load(segment + 5)
    )  # fmt: skip
    if first >= columns:
        return
    group, column = tl.program_id(2).to(tl.int64), first + tl.arange(0, BLOCK)
    plane = group * tokens * width
    key = _load(k_ptr + plane, place + column, column < columns, width, WIDE)
    value = _load(v_ptr + plane, place + column, column < columns, width, WIDE)
    d_key, d_value = tl.zeros([BLOCK, WIDE], tl.float32), tl.zeros([BLOCK, WIDE], tl.float32)
    for head in range(group * per_group, (group + 1) * per_group):
        q_plane, grad_plane = q_ptr + head * tokens * width, grad_ptr + head * tokens * width
        lse_row, delta_row = lse_ptr + head * tokens, delta_ptr + head * tokens
        # Of its own segment only queries from the block on see the block.
        d_key, d_value = _key_gradient(d_key, d_value, key, value, q_plane, grad_plane, lse_row, delta_row, column,
                                       columns, place, first, columns, width, scale, True, BLOCK, WIDE)  # fmt: skip
        d_key, d_value = _key_gradient(d_key, d_value, key, value, q_plane, grad_plane, lse_row, delta_row, column,
                                       columns, readers, 0, num_readers, width, scale, False, BLOCK, WIDE)  # fmt: skip
    _store(dk_ptr + plane, d_key, place + column, column < columns, width, WIDE)
    _store(dv_ptr + plane, d_value, place + column, column < columns, width, WIDE)


class FusedGroupAttention(torch.autograd.Function):
    """Attention of a packed row ``q [1, H, T, D]``, ``k, v [1, G, T, D]``; returns ``[1, H, T, D]``."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
        """One launch."""
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        out = torch.empty_like(query)
        lse = torch.empty(query.shape[:3], dtype=torch.float32, device=query.device)
        ctx.layout, ctx.scale = layout, scale
        _forward[_grid(layout, query)](query, key, value, out, lse, *_shape_of(query, key, layout, scale))
        ctx.save_for_backward(query, key, value, out, lse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        """Two launches: gradients of queries, and of keys with values."""
        query, key, value, out, lse = ctx.saved_tensors
        grad = grad.contiguous()
        delta = (grad.float() * out.float()).sum(-1)
        d_query, d_key, d_value = (torch.empty_like(x) for x in (query, key, value))
        shape, inputs = _shape_of(query, key, ctx.layout, ctx.scale), (query, key, value, grad, lse, delta)
        _backward_query[_grid(ctx.layout, query)](*inputs, d_query, *shape)
        _backward_key[_grid(ctx.layout, key)](*inputs, d_key, d_value, *shape)
        return d_query, d_key, d_value, None, None


def _grid(layout: Layout, rows: Tensor) -> tuple[int, int, int]:
    longest = max(max(g.prompt, *g.responses) for g in layout.groups)
    return len(layout.segment_S6), triton.cdiv(longest, block_rows(rows.shape[-1], rows.dtype)), rows.shape[1]


def _shape_of(query: Tensor, key: Tensor, layout: Layout, scale: float) -> tuple[object, ...]:
    """The arguments that all kernels end with."""
    tokens, width = query.shape[2:]
    per_group = query.shape[1] // key.shape[1]
    tile = block_rows(width, query.dtype), padded_width(width)
    return layout.segment_S6, tokens, width, per_group, scale, *tile
