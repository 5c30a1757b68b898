"""Smaller models: what they share with the target, that they leave it alone, and names that are refused."""

import pytest
import torch

from harness.errors import UsageError, ZooError
from harness.toolkit.small_models import kept_layers, open_small

TEXT = torch.tensor([[(7 * i) % 250 for i in range(9)]])


def logits_of(subject):
    return subject.model(TEXT).logits


def test_the_first_layers_share_their_weights_and_leave_the_target_alone(tiny):
    before = logits_of(tiny)
    cut = open_small("layers:1", tiny)
    assert cut.model.model.layers[0].mlp is tiny.model.model.layers[0].mlp
    assert not torch.allclose(logits_of(cut), before)
    assert torch.equal(logits_of(tiny), before) and len(tiny.model.model.layers) == 2
    assert torch.allclose(logits_of(open_small("layers:2", tiny)), before)


def test_kept_layers_are_the_target_s_own_and_leave_it_alone(tiny):
    before = logits_of(tiny)
    second = kept_layers(tiny, [1])
    assert second.model.model.layers[0].mlp is tiny.model.model.layers[1].mlp
    assert second.model.model.layers[0].self_attn.layer_idx == 0 and tiny.model.model.layers[1].self_attn.layer_idx == 1
    assert not torch.allclose(logits_of(second), before)
    assert torch.equal(logits_of(tiny), before)


def test_noise_changes_a_copy(tiny):
    before = logits_of(tiny)
    assert torch.equal(logits_of(open_small("noised:0.0", tiny)), before)
    assert not torch.allclose(logits_of(open_small("noised:0.2", tiny)), before)
    assert torch.equal(logits_of(tiny), before)


@pytest.mark.parametrize("name", ["layers:0", "layers:3", "noised:much", "smolm2-135m-q4"])
def test_a_wrong_name_is_refused_in_one_line(tiny, name):
    with pytest.raises(ZooError) as error:
        open_small(name, tiny)
    assert isinstance(error.value, UsageError) and "\n" not in str(error.value)
