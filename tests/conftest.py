"""Settings of the whole suite: no hub, one thread, a cache of its own for what tests make."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import hypothesis
import pytest
import torch

if not torch.cuda.is_available():
    # Triton reads it when a kernel is defined; without a GPU its kernels run in Python.
    os.environ.setdefault("TRITON_INTERPRET", "1")

from harness.subjects.load import load_subject
from harness.subjects.subject import Subject

torch.set_num_threads(1)
# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("zoo", deadline=None)
hypothesis.settings.load_profile("zoo")


@pytest.fixture(scope="session")
def tiny() -> Subject:
    """A random Llama over bytes, float32 on the CPU."""
    return load_subject("tiny-random", device="cpu")
