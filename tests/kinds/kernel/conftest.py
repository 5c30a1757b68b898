"""Where Triton kernels are tested: in the interpreter on the CPU, compiled on CUDA."""

from collections.abc import Iterator

import pytest
import torch

from harness.kinds.kernel.triton_support import has_triton, interpreted

CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
)


@pytest.fixture(params=["cpu", CUDA])
def device(request) -> torch.device:
    """A device on which Triton kernels run."""
    if not has_triton():
        pytest.skip("Triton is not installed")
    if request.param == "cpu" and not interpreted():
        pytest.skip("Triton runs on the CPU in its interpreter alone, which is off")
    return torch.device(request.param)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """New buffers hold NaN, so that a place a kernel forgets to write shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
