"""A model's fingerprint: equal for equal weights, another for whatever makes another model."""

import pytest
import torch
from torch import nn

from harness.subjects.fingerprint import SAMPLES, weights_fingerprint
from harness.subjects.tiny import random_llama


def fingerprint(**tensors):
    """Of a model that is nothing but named tensors."""
    return weights_fingerprint(nn.ParameterDict({name: nn.Parameter(t, False) for name, t in tensors.items()}))


def test_two_loads_of_the_same_weights_agree_and_another_seed_does_not():
    one, again, other = (weights_fingerprint(random_llama(seed)[0]) for seed in (0, 0, 1))
    assert one == again != other
    assert len(one) == 16 and int(one, 16) >= 0


def test_name_shape_and_type_belong_to_it():
    values = torch.arange(12.0)
    variants = [
        fingerprint(a=values),
        fingerprint(b=values),
        fingerprint(a=values.view(3, 4)),
        fingerprint(a=values.view(4, 3)),
        fingerprint(a=values.bfloat16()),
        fingerprint(a=values, b=values),
        fingerprint(a=values.view(3, 4).t().contiguous()),
        fingerprint(a=-values),
    ]
    assert len(set(variants)) == len(variants)


def test_the_way_a_tensor_lies_in_memory_does_not_matter():
    values = torch.arange(12.0).view(3, 4)
    assert fingerprint(a=values.t().contiguous().t()) == fingerprint(a=values)
    assert fingerprint(a=values, b=-values) == fingerprint(b=-values, a=values)


@pytest.mark.parametrize("size", [1, SAMPLES, SAMPLES + 1, 10 * SAMPLES + 7])
def test_a_scaled_matrix_of_any_size_is_another(size):
    values = torch.linspace(-1, 1, size + 1)[1:]
    assert fingerprint(a=values * 1.001) != fingerprint(a=values)
    assert fingerprint(a=torch.empty(0), b=values) != fingerprint(b=values)


def test_every_element_of_a_small_tensor_is_read():
    values = torch.zeros(SAMPLES)
    found = {fingerprint(a=values)}
    for index in (0, 1, SAMPLES // 2, SAMPLES - 1):
        changed = values.clone()
        changed[index] = 1e-6
        found.add(fingerprint(a=changed))
    assert len(found) == 5


def test_a_quantised_copy_is_another_model():
    model, _, _ = random_llama()
    before = weights_fingerprint(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16).to(parameter.dtype))
    assert weights_fingerprint(model) != before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_the_device_does_not_matter():
    model, _, _ = random_llama()
    before = weights_fingerprint(model)
    assert weights_fingerprint(model.to("cuda")) == before
