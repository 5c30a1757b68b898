"""The budget of the kind: what is read, how the rate moves, what is recorded, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.errors import Refused, UsageError
from harness.kinds.architecture import LlamaMethod, causal_loss
from harness.kinds.architecture.held_out import HeldOut
from harness.kinds.architecture.training import rate_at
from harness.kinds.method import PrepareContext
from harness.subjects.tiny import ByteIds
from harness.toolkit.rows import batches, windows
from methods.architecture.tiny_llama import TinyLlama


def test_windows_join_documents_between_their_marks(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(f"paragraph {i} of some length" * 60 for i in range(40)), "utf-8")
    ids, mask = windows(ByteIds(), str(tmp_path), "train", 5, 16, 0)
    assert ids.shape == (5, 16) and bool(mask.all()) and ids[0, 0] == ByteIds.prefix_id
    everything, _ = windows(ByteIds(), str(tmp_path), "train", 10_000, 16, 0)
    assert 257 in everything.flatten().tolist() and len(everything) < 10_000
    assert torch.equal(everything[:5], ids)


def test_a_text_shorter_than_a_row_is_padded(tmp_path):
    path = tmp_path / "short.txt"
    for text in ("hi there", "hello", "good day", "so long", "farewell", "well then"):
        path.write_text(text, "utf-8")
        try:
            ids, mask = windows(ByteIds(), str(path), "train", 5, 64, 0)
        except UsageError:
            continue  # the text's hash puts it into another split
        assert ids.shape == (1, 64) and int(mask.sum()) == len(text) + 2
        return
    pytest.fail("no text fell into the training split")


def test_batches_go_through_all_rows_before_any_comes_again():
    rows = torch.arange(6)[:, None], torch.ones(6, 1, dtype=torch.bool)
    seen, again = (
        torch.cat([ids[:, 0] for ids, _ in batches(rows, 2, 6, 0, torch.device("cpu"))]).tolist() for _ in range(2)
    )
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6)) and seen == again


def test_the_rate_rises_and_falls_to_a_tenth():
    rates = [rate_at(step, 100) for step in range(101)]
    assert rates[0] < rates[10] < rates[19] and rates[25] > rates[60] > rates[99]
    assert rates[100] == pytest.approx(0.1)


def test_the_loss_is_that_of_the_real_tokens(tiny):
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    with torch.no_grad():
        logp = tiny.model(input_ids=ids, use_cache=False).logits.log_softmax(-1)
        expected = -(logp[0, 0, 2] + logp[0, 1, 3] + logp[0, 2, 4] + logp[1, 0, 6]) / 4
        assert float(causal_loss(tiny.model, ids, mask)) == pytest.approx(float(expected), abs=1e-5)


def test_figures_of_the_training_and_of_the_held_out_text(tiny):
    small = replace(TinyLlama().check_twin(), steps=12, length=32)
    artifact = small.prepare(tiny, PrepareContext(0, Path(), lambda name: tiny, lambda text: None))
    figures = {m.metric: m.value for m in small.training_measurements(artifact)}
    assert figures["updates"] == 12 and figures["corpus_tokens"] == 12 * 2 * 32
    assert figures["train_loss_end"] == pytest.approx(artifact["stages"][0]["losses"][-1])
    with small.apply(tiny, artifact) as trained:
        found = {m.metric: m for m in HeldOut("python_docs", 32).measure(trained)}
    assert 0 <= found["held_out_accuracy"].value < 1 and found["held_out_accuracy"].n == 16 * 24
    assert 5 < found["bits_per_byte"].value < 10


def test_an_untrained_architecture_is_refused(tiny):
    with pytest.raises(Refused, match="zoo train tiny_llama"), TinyLlama().apply(tiny):
        pass


def test_a_width_that_the_heads_do_not_divide_is_refused(tiny):
    with pytest.raises(Refused, match="no multiple of twice heads=3"):
        TinyLlama(hidden=32, heads=3).build(tiny)


def test_what_a_subclass_must_override(tiny):
    from harness.kinds.architecture import ArchitectureMethod

    assert LlamaMethod.trains and LlamaMethod.replaces == {"weights", "decoder"}
    bare = ArchitectureMethod()
    object.__setattr__(bare, "card", TinyLlama.card)
    for call in (lambda: bare.build(tiny), lambda: bare.loss(None, None, None), lambda: bare.subject_of(tiny, None)):
        with pytest.raises(NotImplementedError, match="does not override"):
            call()
