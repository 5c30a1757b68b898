"""What is asked after training, and training with adapters."""

import copy

import pytest
import torch

from harness.catalog import MethodSpec
from harness.errors import Refused
from harness.kinds.objective.adapters import with_adapters
from harness.kinds.objective.checks import HashTask
from harness.kinds.objective.copies import training_copy
from harness.kinds.objective.held_out import HeldOutRewards
from harness.kinds.objective.loop import Learner, train
from harness.toolkit.verifiable import verifiable_task

BUDGET = "@updates=2@prompts_per_update=4@group_size=4@max_new_tokens=5"


def made(text="grpo"):
    method = MethodSpec.parse(text + BUDGET).build()
    object.__setattr__(method, "task", HashTask)
    return method


def test_held_out_figures_are_ordered_and_repeat(tiny):
    probe = HeldOutRewards(made(), problems=40, samples=8)
    first, again = (probe.measure(tiny) for _ in range(2))
    assert first == again
    found = {m.metric: m for m in first}
    # The grade is a coin: one sample is right half of the time, one of eight nearly always.
    assert 0.3 < found["pass_at_1"].value < 0.7 < found["pass_at_8"].value
    assert found["pass_at_1"].low < found["pass_at_1"].value < found["pass_at_1"].high
    assert found["pass_at_1"].n == 40 and 1 <= found["response_tokens"].value <= 5


def test_the_methods_own_task_is_asked_on_its_held_out_split():
    for name in ("chain_sum", "multi_select"):
        method = MethodSpec.parse(f"grpo@problems={name}").build()
        assert method.task() == verifiable_task(name) and method.task(held_out=True) == verifiable_task(name, True)


def test_adapters_alone_learn_and_end_up_in_the_weights(tiny):
    before = tiny.model.state_dict()
    state, record = train(made("grpo@lora_rank=2@learning_rate=0.01"), training_copy(tiny), 0)
    assert len(record) == 2 and set(state) == set(before)
    changed = {name for name, value in state.items() if not torch.equal(value, before[name])}
    assert changed and all("q_proj" in name or "v_proj" in name for name in changed)
    for name in changed:
        singular = torch.linalg.svdvals((state[name] - before[name]).double())
        assert singular[2] < 1e-4 * singular[0]


def test_merged_weights_answer_as_the_model_with_adapters_did(tiny):
    copied = training_copy(tiny)
    learner = Learner.of(made("grpo@lora_rank=2"), copied)
    for name, value in copied.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.05)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        with_them = copied.model(input_ids=ids).logits
        plain = copy.deepcopy(tiny.model)
        plain.load_state_dict(learner.finish())
        torch.testing.assert_close(plain(input_ids=ids).logits, with_them, atol=1e-5, rtol=1e-4)
        assert (with_them - tiny.model(input_ids=ids).logits).abs().max() > 1e-3


def test_a_model_without_the_projections_is_refused():
    with pytest.raises(Refused, match="no layers to adapt: the model has none named q_proj, v_proj"):
        with_adapters(torch.nn.Sequential(torch.nn.Linear(2, 2)), ("q_proj", "v_proj"), 2, 4, 0)


def test_adapters_begin_as_the_model_alone_take_gradients_and_leave_no_trace_once_merged(tiny):
    model = copy.deepcopy(tiny.model)
    names, ids = [name for name, _ in model.named_modules()], torch.arange(9)[None]
    adapted = with_adapters(model, ["q_proj"], 2, 4.0, 0)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(learning) == 2 * 2 and all("q_proj.lora" in name for name in learning)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, tiny.model(input_ids=ids).logits)
    adapted.merge_and_unload()
    assert [name for name, _ in model.named_modules()] == names
