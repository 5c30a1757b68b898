"""The hierarchical indexer against the flat one: equal, near or blind where it must be."""

import pytest
import torch

from harness.kinds.checking import run_checks
from harness.kinds.kernel.indexer import Indexing, block_means, plain_scores
from harness.kinds.kernel.indexer_workloads import indexer_inputs, intersection_over_union
from methods.kernel.hisa_indexer import HisaIndexer, best_blocks, flat_tokens, hierarchical_tokens

SIZE = {"keys": 200, "queries": 3, "heads": 4, "width": 8, "block": 8, "blocks": 5}


def chosen(inputs, block=8, blocks=5, topk=24):
    asked, key = inputs[:2]
    return hierarchical_tokens(asked, key, block_means(key, block), topk, block, blocks)


def scores_of(inputs, ids_SMK):
    """Scores of the chosen ids, highest first."""
    every = plain_scores(*inputs[:2])
    assert (ids_SMK >= 0).all()
    return every.gather(-1, ids_SMK).sort(-1, descending=True).values


def test_blocks_that_hold_everything_give_the_flat_choice(tiny):
    inputs = indexer_inputs(tiny, SIZE)
    flat = flat_tokens(*inputs[:2], 24)
    assert torch.equal(chosen(inputs, 8, 25), flat)
    # One block too few for the shortcut, yet room for all that is visible.
    asked = Indexing(inputs[0].query_SMHD, inputs[0].gate_SMH, inputs[0].start_SM + 9, inputs[0].stop_SM)
    ours, theirs = chosen((asked, inputs[1]), 8, 24), flat_tokens(asked, inputs[1], 24)
    assert torch.equal(ours.sort(-1).values, theirs.sort(-1).values)


def test_blocks_of_one_token_give_the_flat_choice(tiny):
    inputs = indexer_inputs(tiny, SIZE)
    ours, flat = chosen(inputs, 1, 40), flat_tokens(*inputs[:2], 24)
    torch.testing.assert_close(scores_of(inputs, ours), scores_of(inputs, flat))


def test_every_token_lies_in_a_chosen_block_and_no_score_exceeds_the_flat_ones(tiny):
    inputs = indexer_inputs(tiny, SIZE, shuffled=True)
    ours, flat = chosen(inputs), flat_tokens(*inputs[:2], 24)
    blocks = best_blocks(inputs[0], block_means(inputs[1], 8), 8, 5)
    for query in range(3):
        assert set((ours[0, query] // 8).tolist()) <= set(blocks[0, query].tolist())
        assert {0, 24} <= set(blocks[0, query].tolist())
    assert (scores_of(inputs, ours) <= scores_of(inputs, flat) + 1e-6).all()


def test_what_both_choose_grows_with_the_number_of_blocks(tiny):
    inputs = indexer_inputs(tiny, SIZE, shuffled=True)
    flat = flat_tokens(*inputs[:2], 24)
    shares = [intersection_over_union(chosen(inputs, 8, blocks), flat) for blocks in (3, 6, 12, 25)]
    assert shares == sorted(shares) and shares[0] < shares[-1] == 1.0


def test_at_the_published_setting_the_choice_is_nearly_the_flat_one_unless_neighbours_are_unlike(tiny):
    """128 tokens a block, 64 blocks, 2048 tokens of 16K; shuffled keys are the control."""
    size = {"keys": 16384, "queries": 2, "heads": 8, "width": 64, "block": 128, "blocks": 64}
    shares = []
    for shuffled in (False, True):
        inputs = indexer_inputs(tiny, size, shuffled)
        shares.append(intersection_over_union(chosen(inputs, 128, 64, 2048), flat_tokens(*inputs[:2], 2048)))
    assert shares[0] >= 0.99
    assert shares[1] < 0.6


def test_a_query_that_sees_fewer_tokens_than_it_may_choose_gets_minus_ones(tiny):
    asked, key, _ = indexer_inputs(tiny, SIZE)
    early = Indexing(asked.query_SMHD, asked.gate_SMH, asked.start_SM + 30, torch.full_like(asked.stop_SM, 37))
    ids = chosen((early, key))
    assert (ids[..., 7:] == -1).all()
    assert ids[..., :7].sort(-1).values.tolist() == [[list(range(30, 37))] * 3]


def test_two_sequences_in_one_buffer_choose_as_each_alone(tiny):
    asked, key, _ = indexer_inputs(tiny, SIZE | {"queries": 2})
    spans = torch.tensor([[0, 80], [80, 200]])
    packed = Indexing(asked.query_SMHD, asked.gate_SMH, spans[None, :, 0], spans[None, :, 1])
    together = chosen((packed, key), 8, 4, 10)
    for query, (start, stop) in enumerate(spans.tolist()):
        part = [x[:, query : query + 1] for x in (asked.query_SMHD, asked.gate_SMH)]
        alone = Indexing(*part, torch.tensor([[0]]), torch.tensor([[stop - start]]))
        assert torch.equal(chosen((alone, key[:, start:stop]), 8, 4, 10) + start, together[:, query : query + 1])


def test_all_scores_zero_still_give_visible_tokens(tiny):
    asked, key, _ = indexer_inputs(tiny, SIZE)
    silent = Indexing(torch.zeros_like(asked.query_SMHD), asked.gate_SMH, asked.start_SM, asked.stop_SM)
    for ids, stop in zip(chosen((silent, key))[0], silent.stop_SM[0].tolist(), strict=True):
        assert len(set(ids.tolist())) == 24 and ids.min() >= 0 and ids.max() < stop


def test_a_spike_in_a_block_of_opposite_keys_is_missed(tiny):
    """Means are no bound: this is how the method fails, and the flat indexer does not."""
    asked, key, _ = indexer_inputs(tiny, SIZE)
    asked = Indexing(asked.query_SMHD, asked.gate_SMH.abs(), asked.start_SM, asked.stop_SM)
    toward = asked.query_SMHD[0, 0].sum(0)
    key = key.clone()
    key[0, 96:104] = -9 * toward
    key[0, 99] = 30 * toward
    assert 99 in flat_tokens(asked, key, 8)[0, 0]
    assert 99 not in chosen((asked, key), 8, 4, 8)[0, 0]


def test_its_checks_hold(tiny):
    results = run_checks(HisaIndexer(), tiny)
    assert results and all(r.passed for r in results), [r for r in results if not r.passed]


def test_workloads_say_what_they_score(tiny):
    found = list(HisaIndexer().workloads(tiny))
    assert [w.details["keys"] for w in found] == [2048, 8192, 32768]
    assert [w.details["bound_by_compute"] for w in found] == [1.0, 1.0, round(32768 / (64 * 128 + 256), 3)]
    assert found[2].flops == 2 * 4 * (8192 + 256) * 64 * 128
    small = next(iter(HisaIndexer().workloads_at(tiny, HisaIndexer.check_sizes[0])))
    assert 0 < small.figures()["selection_iou"] <= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_chooses_what_the_cpu_chooses(tiny):
    inputs = indexer_inputs(tiny, SIZE)
    there = Indexing(*(getattr(inputs[0], name).cuda() for name in ("query_SMHD", "gate_SMH", "start_SM", "stop_SM")))
    ours = chosen((there, inputs[1].cuda()))
    torch.testing.assert_close(scores_of(inputs, ours.cpu()), scores_of(inputs, chosen(inputs)), rtol=1e-4, atol=1e-4)


def queries_and_keys(layers, tokens):
    """Rotated queries and keys of the default model's first layers on prose, ``(q [1, H, T, D], k [1, G, T, D])``."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    from harness.subjects.catalog import DEFAULT_MODEL
    from harness.subjects.load import load_subject
    from harness.toolkit.rows import windows

    subject, seen = load_subject(DEFAULT_MODEL, device="cpu", dtype="float32"), []

    def noting(module, query, key, value, mask, **kwargs):
        seen.append((query, key))
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)

    AttentionInterface.register("noting", noting)
    AttentionMaskInterface.register("noting", sdpa_mask)
    subject.model.set_attn_implementation("noting")
    subject.model.model.layers = subject.model.model.layers[:layers]
    ids, _ = windows(subject.text_tokenizer(), "python_docs", "test", 1, tokens, 0)
    with torch.no_grad():
        subject.model.model(input_ids=ids, use_cache=False)
    return seen


@pytest.mark.slow
def test_on_keys_of_a_real_model_more_is_shared_than_once_neighbours_are_torn_apart():
    """Each key/value head is an indexer: its group's queries, evenly weighted. A quarter of the tokens is scored."""
    shares = {False: [], True: []}
    for query, key in queries_and_keys(6, 1024)[1:]:
        queries = query[0, :, -16:].unflatten(0, (key.shape[1], -1)).transpose(1, 2)
        gate, start = torch.ones(queries.shape[:3]) / queries.shape[2], torch.zeros(key.shape[1], 16, dtype=torch.long)
        asked = Indexing(queries, gate, start, torch.arange(1009, 1025).expand_as(start))
        for shuffled in shares:
            order = torch.randperm(1024, generator=torch.Generator().manual_seed(0)) if shuffled else torch.arange(1024)
            inputs = (asked, key[0, :, order])
            shares[shuffled].append(intersection_over_union(chosen(inputs, 16, 16, 64), flat_tokens(*inputs, 64)))
    whole, torn = (sum(values) / len(values) for values in shares.values())
    print(f"overlap with the flat indexer: {whole:.3f} on prose, {torn:.3f} on shuffled keys")
    assert whole > torn + 0.1
