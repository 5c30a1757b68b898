"""What counts alone say of a kernel: its arithmetic intensity, and the most it can gain over its reference."""

from __future__ import annotations


def ridge_figures(flops: float, moved: float, flat_flops: float, flat_moved: float) -> dict[str, float]:
    """``intensity`` in FLOPs a byte, and the speed-up over the reference where memory or compute alone binds.

    A machine whose ridge (its FLOPs a second over its bytes a second) lies below the intensity is bound by compute.
    """
    return {
        "intensity": round(flops / moved, 3),
        "bound_by_memory": round(flat_moved / moved, 3),
        "bound_by_compute": round(flat_flops / flops, 3),
    }
