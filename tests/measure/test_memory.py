"""The peak of a phase is seen though it was given back, and is told apart from what was there before."""

import time

import pytest
import torch

from harness.errors import UsageError
from harness.measure.memory import peak_memory, tensor_bytes_peak

MIB = 2**20


def test_a_peak_that_was_given_back_is_seen() -> None:
    with peak_memory(interval_s=0.002) as peak:
        block = bytearray(64 * MIB)
        time.sleep(0.05)
        del block
    assert 60 * MIB <= peak.rss_added <= 120 * MIB
    assert peak.rss_peak == peak.rss_baseline + peak.rss_added and peak.samples >= 2
    assert peak.device_added is None


def test_what_was_held_before_is_baseline() -> None:
    held = bytearray(64 * MIB)
    with peak_memory() as peak:
        time.sleep(0.03)
    assert len(held) == 64 * MIB and peak.rss_added < 16 * MIB


def test_it_is_complete_after_an_exception() -> None:
    with pytest.raises(ValueError, match="inside"), peak_memory() as peak:
        raise ValueError("inside")
    assert peak.samples >= 1 and peak.rss_added >= 0


def test_a_bad_interval_is_refused() -> None:
    with pytest.raises(UsageError, match="interval"), peak_memory(interval_s=0.0):
        pass


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_peak() -> None:
    with peak_memory("cuda") as peak:
        block = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
        del block
    assert peak.device_added is not None and peak.device_added >= 64 * MIB


def test_bytes_of_tensors_are_counted_while_they_live():
    weight = torch.randn(100, 100, requires_grad=True)

    def one_after_the_other():
        for _ in range(3):
            torch.ones(1000)

    def at_one_time():
        return [torch.ones(1000)[:3] for _ in range(5)]

    def update():
        return torch.autograd.grad((torch.ones(50, 100) @ weight).sum(), weight)

    assert tensor_bytes_peak(one_after_the_other) == 4000
    assert tensor_bytes_peak(at_one_time) == 20000
    assert tensor_bytes_peak(lambda: weight[:5].view(-1)) == 0
    # The ones and their gradient's operands, the gradient itself, and the two scalars.
    assert tensor_bytes_peak(update) == 20000 + 40000 + 4 + 4


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_weights_in_the_library_s_own_order_are_not_counted() -> None:
    def call() -> None:
        packed = torch.ops.mkldnn._reorder_linear_weight.default(weight, 16)
        torch.ops.mkldnn._linear_pointwise.default(rows, packed, None, "none", [], "")

    weight, rows = torch.randn(100, 50), torch.randn(4, 50)
    with torch.inference_mode():
        assert tensor_bytes_peak(call) == 4 * 4 * 100
