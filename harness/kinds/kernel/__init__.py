"""Kernels: an operator or a training step computed another way, timed against the plain one."""

from harness.kinds.kernel.base import KernelMethod
from harness.kinds.kernel.merge import merge_lse
from harness.kinds.kernel.norms import relative_rms, result_error
from harness.kinds.kernel.packing import GroupBatch, Layout, PackedGroup, pack_groups
from harness.kinds.kernel.regions import region_backward, region_forward

__all__ = [
    "GroupBatch",
    "KernelMethod",
    "Layout",
    "PackedGroup",
    "merge_lse",
    "pack_groups",
    "region_backward",
    "region_forward",
    "relative_rms",
    "result_error",
]
