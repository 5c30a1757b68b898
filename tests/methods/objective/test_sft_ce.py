"""Plain fine-tuning: its loss, its adapters, and its checks."""

import math
from dataclasses import replace

import pytest
import torch

from harness.errors import Refused
from harness.kinds.checking import run_checks
from harness.kinds.method import PrepareContext
from harness.kinds.objective.finetune import TextBatch, held_out_loss, weighted_nll
from methods.objective.sft_ce import SftCe


def test_a_batch_weighs_every_real_token_but_the_first():
    batch = TextBatch.of((torch.ones(2, 3, dtype=torch.long), torch.tensor([[True] * 3, [True, True, False]])))
    assert batch.weight_BT.tolist() == [[0, 1, 1], [0, 1, 0]]


def test_the_loss_is_the_mean_over_weighted_tokens(tiny):
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    batch = TextBatch.of((ids, ids > 0))
    logp = tiny.model(ids).logits.log_softmax(-1)
    picked = [logp[0, 0, 6], logp[0, 1, 7], logp[0, 2, 8], logp[1, 0, 10]]
    torch.testing.assert_close(SftCe().loss(tiny.model, batch), -torch.stack(picked).mean())


def test_a_weight_of_zero_takes_a_token_out():
    logits, target = torch.randn(1, 3, 7), torch.tensor([[1, 2, 3]])
    ours = weighted_nll(logits, target, torch.tensor([[1.0, 0.0, 2.0]]))
    logp = logits.log_softmax(-1)
    torch.testing.assert_close(ours, -(logp[0, 0, 1] + 2 * logp[0, 2, 3]))


def test_checkpointing_gives_the_same_gradients(tiny):
    batch = TextBatch.of((torch.arange(40)[None], torch.ones(1, 40, dtype=torch.bool)))
    found = []
    for checkpointing in (False, True):
        method = SftCe(checkpointing=checkpointing)
        model, trainable = method.learner(tiny, 0)
        found.append(torch.autograd.grad(method.loss(model, batch), list(trainable.values())))
    torch.testing.assert_close(*found)


def test_training_lowers_the_loss_of_the_text_it_sees(tiny, tmp_path):
    method = SftCe(rows=1, length=64, steps=30, learning_rate=2e-2, rank=4)
    with torch.inference_mode():
        artifact = method.prepare(tiny, PrepareContext(0, tmp_path, lambda _: tiny, lambda _: None))
    assert artifact["losses"][-1] < artifact["losses"][0] - 0.5
    found = {m.metric: m.value for m in method.training_measurements(artifact)}
    assert found["trained_tokens"] == 30 * 64 and found["held_out_loss"] == artifact["figures"]["held_out_loss"]
    with method.apply(tiny, artifact) as trained:
        from harness.toolkit.rows import windows

        rows = windows(tiny.text_tokenizer(), "python_docs", "valid", 8, 64, 0)
        assert math.isclose(held_out_loss(trained.model, rows), found["held_out_loss"], abs_tol=1e-4)


def test_without_an_artifact_it_is_refused(tiny):
    with pytest.raises(Refused, match="zoo train sft_ce"), SftCe().apply(tiny):
        pass


def test_one_update_is_a_workload(tiny):
    (workload,) = replace(SftCe(), length=32).workloads(tiny)
    call = workload.make()
    assert workload.units == {"tokens": 32} and torch.equal(call(), call())


def test_its_checks_hold(tiny):
    results = run_checks(SftCe(), tiny)
    assert results and all(r.passed for r in results), [r for r in results if not r.passed]
