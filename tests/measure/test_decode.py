"""Decode costs on a tiny model: the figures that are there, their counts, and what is refused."""

import gc
from contextlib import contextmanager
from dataclasses import replace

import pytest

from harness.catalog import parse_stack
from harness.errors import Refused
from harness.kinds.stack import applied
from harness.measure import decode as decode_module
from harness.measure import utilisation as utilisation_module
from harness.measure.ceilings import Ceilings
from harness.measure.decode import DecodeWork, measure_decode


@pytest.fixture(autouse=True)
def known_ceilings(monkeypatch):
    """Ceilings as data: what they are is tested elsewhere."""
    known = Ceilings("m", "cpu", 1, 1, 1e10, {"float32": 1e11}, {}, {}, {}, None, 0.0)
    monkeypatch.setattr(utilisation_module, "ceilings", lambda device: known)


@pytest.fixture(autouse=True)
def frozen():
    """As a bench does: the collection before each timed block need not walk over what is loaded."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def opened(text, subject):
    methods = parse_stack(text).build()
    return lambda: applied(methods, subject)


WORK = DecodeWork(prompts=[[1, 2, 3] * 8, [4, 5, 6, 7] * 6, [9] * 24], warm_up=[[8, 8, 8]], new_tokens=10)


def figures_of(result):
    return {m.metric: m for m in result.measurements}


def test_figures_of_a_speculative_method(tiny):
    found = figures_of(measure_decode(opened("prompt_lookup", tiny), opened("ar", tiny), WORK, budget_s=60))
    for name in ("speedup_total", "speedup_decode", "speedup_ttft", "speedup_cpu"):
        assert found[name].low <= found[name].value <= found[name].high and found[name].n == 3
    assert found["mean_accepted_tokens"].value >= 1
    assert found["forwards_saved"].value == pytest.approx(1 - 1 / found["mean_accepted_tokens"].value, abs=0.15)
    assert found["tokens_forwarded_per_token"].value >= 1
    assert found["ttft_p50"].value > 0 and found["peak_memory_bytes"].value >= 0
    assert "gap_p99" not in found
    assert found["mfu_prefill"].value > 0


def test_plain_decoding_has_an_mbu_and_saves_nothing(tiny):
    found = figures_of(measure_decode(opened("ar", tiny), opened("ar", tiny), WORK, budget_s=60))
    assert found["mbu_decode"].value > 0
    assert found["forwards_saved"].value == 0
    assert found["tokens_forwarded_per_token"].value == 1
    assert found["kv_kept_fraction"].value == 1


def test_counts_of_a_pruned_cache(tiny):
    found = figures_of(
        measure_decode(opened("kv_streaming@keep_ratio=0.5", tiny), opened("kv_full", tiny), WORK, budget_s=60)
    )
    seen = 24 + 9
    assert found["kv_kept_fraction"].value == pytest.approx(12 / seen)
    assert (
        found["kv_bytes_held"].value
        < figures_of(measure_decode(opened("kv_full", tiny), opened("kv_full", tiny), WORK, budget_s=60))[
            "kv_bytes_held"
        ].value
    )


def test_figures_of_two_models_that_write_one_text(tiny):
    text = "r2r@small=layers:1@router=random@threshold=0.5"
    found = figures_of(measure_decode(opened(text, tiny), opened("ar", tiny), WORK, budget_s=60))
    share, size = found["large_model_share"].value, sum(p.numel() for p in tiny.model.parameters())
    assert 0 < share < 1 and found["forwards_saved"].value == pytest.approx(1 - share)
    assert 0 < found["tokens_forwarded_per_token"].value <= 1
    assert share * size < found["active_parameters_per_token"].value < (1 + share) * size
    # One model's ledger says nothing of them.
    assert "mbu_decode" not in found and "mfu_prefill" not in found


def test_every_block_starts_from_the_state_after_the_warm_up(tiny):
    work = replace(WORK, prompts=[[1, 2, 3] * 8] * 3)
    result = measure_decode(opened("token_recycling@num_nodes=16", tiny), opened("ar", tiny), work, budget_s=60)
    forwards = [s["value"] for s in result.samples if s["name"] == "forwards" and s["side"] == "candidate"]
    # Equal prompts from equal states take equally many forwards: nothing was learnt from the blocks before.
    assert len(forwards) == 6 and len(set(forwards)) == 1


def test_raw_samples_hold_every_block(tiny):
    result = measure_decode(opened("prompt_lookup", tiny), opened("ar", tiny), WORK, budget_s=60)
    assert len(result.samples) == 3 * 4 * 6
    assert {s["side"] for s in result.samples} == {"candidate", "baseline"}


def test_a_side_that_ends_early_is_refused(tiny):
    class Short:
        def snapshot(self):
            return None

        def restore(self, state):
            return None

        def generate(self, subject, request):
            return tiny.decoder.generate(subject, replace(request, max_new_tokens=4))

    @contextmanager
    def shortened():
        yield replace(tiny, decoder=Short())

    with pytest.raises(Refused, match="ended after 4"):
        measure_decode(shortened, opened("ar", tiny), WORK, budget_s=60)


def test_batches_are_units(tiny):
    work = replace(WORK, prompts=WORK.prompts[:1] * 4, batch=2)
    assert [len(b) for b in work.batches()] == [2, 2]
    one = figures_of(measure_decode(opened("ar", tiny), opened("kv_full", tiny), work, budget_s=60))
    assert one["speedup_total"].n == 2
    assert one["tokens_forwarded_per_token"].value == 1 and one["forwards_saved"].value == 0
    alone = figures_of(measure_decode(opened("ar", tiny), None, replace(work, batch=1), budget_s=60))
    assert one["kv_bytes_held"].value == alone["kv_bytes_held"].value


@pytest.mark.parametrize("method", ["prompt_lookup", "r2r@small=layers:1@router=oracle", "kv_full+prompt_lookup"])
def test_a_batch_is_refused_where_rows_are_decoded_in_turn(tiny, method):
    with pytest.raises(Refused, match="one after the other, so a batch of 2 has no speed of its own") as error:
        measure_decode(opened(method, tiny), opened("ar", tiny), replace(WORK, batch=2), budget_s=60)
    assert "\n" not in str(error.value)


def test_texts_that_loop_are_counted_and_left_out(tiny):
    """Of three prompts the text of the first is made a loop: its units are known in the samples."""
    texts = {tuple(p): [5] * 20 if i == 0 else list(range(20)) for i, p in enumerate(WORK.prompts)}
    work = replace(WORK, new_tokens=20, texts=texts)
    result = measure_decode(opened("prompt_lookup", tiny), opened("ar", tiny), work, budget_s=60)
    found = figures_of(result)
    assert found["loop_share"].value == pytest.approx(1 / 3)
    assert (
        found["speedup_total"].n == 3 and found["speedup_total_no_loops"].n == found["speedup_decode_no_loops"].n == 2
    )
    loops = {(s["unit"], s["side"]): s["value"] for s in result.samples if s["name"] == "loops"}
    assert loops == {(unit, side): float(unit == 0) for unit in range(3) for side in ("candidate", "baseline")}
    only = replace(work, prompts=WORK.prompts[:1])
    alone = figures_of(measure_decode(opened("ar", tiny), None, only, budget_s=60))
    assert alone["loop_share"].value == 1 and "speedup_total_no_loops" not in alone


def test_a_side_paired_with_itself_needs_half_the_visits(tiny):
    result = measure_decode(opened("ar", tiny), None, WORK, budget_s=60)
    assert len(result.samples) == 3 * 2 * 6
    assert figures_of(result)["speedup_total"].low <= 1.5


COUNTS = ("mean_accepted_tokens", "forwards_saved", "tokens_forwarded_per_token", *decode_module.ROW_COUNTS)


@pytest.mark.parametrize(("method", "baseline"), [("prompt_lookup", "ar"), ("kv_streaming@keep_ratio=0.5", None)])
def test_counts_do_not_depend_on_the_time_budget(tiny, method, baseline):
    # Prompts of growing length, the last ones repetitive: the first three alone would give other counts.
    prompts = [[*range(i, 40 + 7 * i)] if i < 3 else [i, i + 1] * (10 + i) for i in range(6)]
    work = replace(WORK, prompts=prompts)
    against = None if baseline is None else opened(baseline, tiny)

    def measured(work, budget_s):
        return figures_of(measure_decode(opened(method, tiny), against, work, budget_s))

    def counts(found):
        return {name: (found[name].value, found[name].n) for name in COUNTS if name in found}

    cut, whole, first = measured(work, 0.0), measured(work, 60), measured(replace(work, prompts=prompts[:3]), 60)
    assert cut["speedup_total"].n == 3 and whole["speedup_total"].n == 6  # the clocks stop with the budget
    assert counts(cut) == counts(whole) != counts(first)
    assert counts(cut)["forwards_saved"][1] == 6
