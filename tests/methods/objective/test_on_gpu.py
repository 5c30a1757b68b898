"""Every objective trains on a GPU: what a stage makes must lie where the batch lies."""

import pytest
import torch

from harness.catalog import MethodSpec
from harness.kinds.method import PrepareContext
from harness.kinds.objective.checks import HashTask
from harness.subjects.load import load_subject

BUDGET = "@updates=2@prompts_per_update=2@group_size=4@max_new_tokens=6"
SPECS = [
    "attn_entropy",
    "attn_entropy@tokens=position_random",
    "d3s",
    "dapo",
    "dr_grpo",
    "flowtracer",
    "gspo",
    "hapo",
    "ppo_gae",
    "reinforce@baseline=running_mean",
    "rloo",
    "rto@dpo_steps=2",
    "temporal_schedule",
    "temporal_schedule@criterion=forking@shuffle=true",
    "thr",
    "ton@sft_steps=2",
    "tppo@window=3@value_warmup=0",
    "tw_grpo",
]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("spec", SPECS)
def test_training_on_a_gpu(spec, tmp_path):
    method = MethodSpec.parse(spec + BUDGET).build()
    object.__setattr__(method, "task", HashTask)
    subject = load_subject("tiny-random", device="cuda")
    record = method.prepare(subject, PrepareContext(0, tmp_path, load_subject, None))["record"]
    assert len(record) == 2
