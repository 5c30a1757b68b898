"""The invariants of every method on a CUDA device: what `zoo check` runs where there is one, before any cost figure."""

import pytest
import torch

from harness.catalog.registry import catalog
from harness.catalog.spec import MethodSpec
from harness.errors import Refused
from harness.kinds.checking import CHECK_MODEL, run_checks
from harness.subjects.load import load_subject


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", sorted(catalog()))
def test_invariants_hold_on_a_gpu(name):
    try:
        results = run_checks(MethodSpec.parse(name).build(), load_subject(CHECK_MODEL, device="cuda", dtype="float32"))
    except Refused as reason:
        pytest.skip(str(reason))
    assert [f"{r.name}: {r.reason}" for r in results if not r.passed] == []
