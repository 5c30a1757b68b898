"""The Triton kernels compile for GPUs that need not be there; the interpreter cannot show that."""

import os
import subprocess
import sys

import pytest

from harness.kinds.kernel.triton_support import has_triton

COMPILE = """
import importlib, sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

module, name, types, *constants = sys.argv[1:]
kernel = getattr(importlib.import_module("harness.kinds.kernel." + module), name)
constants = dict(zip(kernel.arg_names[len(kernel.arg_names) - len(constants):], map(int, constants)))
signature = dict(zip(kernel.arg_names, [*types.split(), *["constexpr"] * len(constants)], strict=True))
made = compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32))
assert made.asm["cubin"] and made.metadata.shared <= 99 * 1024, made.metadata.shared
"""
ATTENTION = "*i64 i32 i32 i32 fp32"
KERNELS = [
    ("triton_dualkv", "_forward", f"{'*bf16 ' * 4}*fp32 {ATTENTION}", (64, 64)),
    ("triton_dualkv", "_backward_query", f"{'*bf16 ' * 4}*fp32 *fp32 *bf16 {ATTENTION}", (64, 64)),
    ("triton_dualkv", "_backward_key", f"{'*bf16 ' * 4}*fp32 *fp32 *bf16 *bf16 {ATTENTION}", (64, 64)),
    ("triton_indexer", "_scores", "*bf16 *bf16 *bf16 *i64 *i64 *i64 *fp32 i32 i32 i32 i32 i32", (128, 128, 64, 128)),
    ("triton_paged", "_attention", "*bf16 *bf16 *bf16 *i64 *fp32 *fp32 i32 i32 i32 i32 i32 fp32", (256, 32, 16, 128)),
    ("triton_paged", "_scores", "*bf16 *bf16 *i64 *fp32 i32 i32 i32 i32", (32, 16, 128)),
    ("triton_importance", "_importance", "*bf16 *bf16 *fp32 *i64 *fp32 i32 i32 i32 i32 i32 fp32", (32, 128)),
    ("triton_importance", "_keep", "*fp32 *i64 *i8 i32", (64,)),
]


@pytest.mark.slow
@pytest.mark.skipif(not has_triton(), reason="Triton is not installed")
@pytest.mark.parametrize(("module", "name", "types", "constants"), KERNELS, ids=["-".join(k[:2]) for k in KERNELS])
def test_a_kernel_compiles_and_fits_into_shared_memory(module, name, types, constants):
    command = [sys.executable, "-c", COMPILE, module, name, types, *map(str, constants)]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "0"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
