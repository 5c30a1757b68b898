"""The merged model against itself: training forward, step-by-step generation, cache, embedder, leaks."""

import copy

import pytest
import torch

from harness.kinds.architecture.macro import MacroDecoder, MacroRun, MacroScorer
from harness.kinds.architecture.segments import lay_out
from harness.kinds.architecture.smashed import SmashedLlama
from harness.subjects.load import wrap_model
from harness.subjects.requests import GenerateRequest, ScoreRequest
from harness.subjects.runner import Runner
from harness.subjects.tiny import ByteIds

NEVER, PROMPT = 0.0, 5
LENGTHS = (1, 4, 2, 1, 3, 3)


@pytest.fixture(scope="module")
def smashed():
    """A random model whose parts all matter: wide initial weights."""
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=ByteIds.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return wrap_model(SmashedLlama(config, 4, 2, 2), ByteIds(), "smashed")


def some_ids(count, seed=0):
    return torch.randint(0, 256, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def training_logits(subject, ids, lengths=LENGTHS, prompt=PROMPT):
    """What the training forward predicts of the answer, ``[N, V]``, and its stop logits."""
    layout = lay_out([prompt], [lengths], len(ids), torch.device("cpu"))
    with torch.inference_mode():
        states, stops = subject.model.written(torch.tensor([ids]), layout)
        return subject.model.lm_head(states), stops


def stepwise_logits(subject, ids, lengths=LENGTHS, prompt=PROMPT):
    """The same from macro steps over a cache, with segments of the given lengths; also the run."""
    seen, rest = [], iter(ids[prompt:])

    def pick(logits):
        seen.append(logits)
        return next(rest)

    with torch.inference_mode():
        run = MacroRun(subject, NEVER)
        run.prefill(ids[:prompt])
        for number, length in enumerate(lengths):
            segment = run.write(pick, length)
            assert len(segment) == length
            if number + 1 < len(lengths):
                run.read(segment)
    return torch.stack(seen), run


def test_training_equals_generation_on_the_same_segments(smashed):
    ids = some_ids(PROMPT + sum(LENGTHS))
    assert smashed.model.tapped_layers == [1, 3]
    trained, (stepwise, _) = training_logits(smashed, ids)[0], stepwise_logits(smashed, ids)
    assert torch.allclose(trained, stepwise, atol=1e-4)


def test_a_position_that_is_one_off_would_be_seen(smashed):
    ids = some_ids(PROMPT + sum(LENGTHS))
    layout = lay_out([PROMPT], [LENGTHS], len(ids), torch.device("cpu"))
    layout.end_BM[:, PROMPT:] += 1
    with torch.inference_mode():
        moved = smashed.model.lm_head(smashed.model.written(torch.tensor([ids]), layout)[0])
    assert (moved - stepwise_logits(smashed, ids)[0]).abs().max() > 1e-2


def test_segments_of_one_are_the_base(smashed):
    ids = some_ids(14)
    ones = [1] * (len(ids) - PROMPT)
    stepwise, run = stepwise_logits(smashed, ids, ones)
    with torch.inference_mode():
        runner = Runner(smashed.model, smashed.new_cache)
        logits = [runner.prefill([ids[:PROMPT]])[0]]
        for token in ids[PROMPT:-1]:
            logits.append(runner.forward(torch.tensor([[token]]))[0, -1])
            runner.commit()
    assert torch.equal(stepwise, torch.stack(logits))
    for ours, theirs in zip(run.runner.cache.layers, runner.cache.layers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours.live(), theirs.live(), strict=True))
    whole = smashed.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, PROMPT - 1 : -1]
    assert torch.allclose(training_logits(smashed, ids, ones)[0], whole, atol=1e-4)


def test_one_cache_slot_a_macro_step(smashed):
    ids = some_ids(PROMPT + sum(LENGTHS))
    cache = stepwise_logits(smashed, ids)[1].runner.cache
    assert cache.layers[0].length == PROMPT + len(LENGTHS) - 1
    assert int(cache.seen_B) == PROMPT + sum(LENGTHS[:-1])


def test_no_prediction_sees_its_own_or_a_later_token(smashed):
    ids = some_ids(PROMPT + sum(LENGTHS))
    logits, stops = training_logits(smashed, ids)
    for place in range(sum(LENGTHS)):
        changed = list(ids)
        changed[PROMPT + place] = (ids[PROMPT + place] + 1) % 256
        other, other_stops = training_logits(smashed, changed)
        assert torch.allclose(other[: place + 1], logits[: place + 1], atol=1e-5)
        assert torch.allclose(other_stops[: place + 1], stops[: place + 1], atol=1e-5)
        if place + 1 < len(logits):
            assert (other[place + 1] - logits[place + 1]).abs().max() > 1e-3, "a token that nothing reads"


def test_the_segmentation_of_a_prefix_does_not_change(smashed):
    ids = torch.tensor([some_ids(40)])
    mask = torch.ones_like(ids, dtype=torch.bool)
    whole = smashed.model.segmented(ids, mask)
    changed = ids.clone()
    changed[0, 30:] = torch.tensor(some_ids(10, 1))
    assert torch.equal(smashed.model.segmented(changed, mask).slot_BT[:, :31], whole.slot_BT[:, :31])


def test_the_judge_does_not_learn(smashed):
    model = copy.deepcopy(smashed.model)
    ids = torch.tensor([some_ids(40)])
    mask = torch.ones_like(ids, dtype=torch.bool)
    model.freeze_judge()
    before = model.segmented(ids, mask).slot_BT
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(9.0)
    assert torch.equal(model.segmented(ids, mask).slot_BT, before)
    model._judges.clear()
    assert not torch.equal(model.segmented(ids, mask).slot_BT, before)
    assert not [name for name in model.state_dict() if "judge" in name]


def naive_merge(embedder, rows):
    """The formula, head by head and token by token."""
    mean = sum(rows) / len(rows)
    width = len(mean) // embedder.heads
    query = embedder.query(mean)
    placed = [torch.cat([row, embedder.pos[i]]) for i, row in enumerate(rows)]
    keys, values = [embedder.key(p) for p in placed], [embedder.value(p) for p in placed]
    mixed = []
    for head in range(embedder.heads):
        part = slice(head * width, (head + 1) * width)
        weight = torch.stack([query[part] @ key[part] / width**0.5 for key in keys]).softmax(0)
        mixed.append(sum(w * value[part] for w, value in zip(weight, values, strict=True)))
    return mean + embedder.out(torch.cat(mixed))


def test_the_embedder_is_its_formula_and_sees_the_order(smashed):
    embedder = smashed.model.embedder
    rows = torch.randn(3, 32, generator=torch.Generator().manual_seed(2))
    padded = torch.cat([rows, torch.zeros(1, 32)])[None]
    with torch.inference_mode():
        merged = embedder(padded, torch.tensor([3]))[0]
        assert torch.allclose(merged, naive_merge(embedder, list(rows)), atol=1e-5)
        assert torch.allclose(embedder(padded[:, :3], torch.tensor([3]))[0], merged, atol=1e-6)
        assert (embedder(rows.flip(0)[None], torch.tensor([3]))[0] - merged).abs().max() > 1e-3
        assert torch.equal(embedder(rows[None, :1], torch.tensor([1]))[0], rows[0])
        held = embedder.pos.clone()
        embedder.pos.zero_()
        flat = embedder(rows[None], torch.tensor([3]))
        assert torch.allclose(embedder(rows.flip(0)[None], torch.tensor([3])), flat, atol=1e-5)
        embedder.pos.copy_(held)


@pytest.mark.parametrize("confidence", [0.0, 0.5, 1.0])
def test_what_is_generated_scores_as_greedy_and_is_counted(smashed, confidence):
    decoder, scorer = MacroDecoder(confidence), MacroScorer(confidence)
    prompt = some_ids(6)
    request = GenerateRequest(prompts=[prompt], max_new_tokens=21, ignore_eos=True)
    with torch.inference_mode():
        row = decoder.generate(smashed, request)[0]
        asked = [ScoreRequest(context=tuple(prompt), continuation=tuple(row.tokens[:n])) for n in (21, 1, 9)]
        scores = scorer.score(smashed, asked, 8)
    assert all(score.is_greedy for score in scores) and scores[0].logprob < scores[2].logprob < scores[1].logprob
    forwards = row.counts["forwards"]
    assert row.counts["tokens_per_segment"] == 21 / forwards
    assert row.counts["tokens_forwarded"] == len(prompt) + forwards - 1
    assert sum(row.steps) == 21 and row.steps[0] == 1 and max(row.steps) <= 4
    if confidence == 0.0:
        assert forwards == 6 and row.counts["kv_slots_per_token"] == 5 / 20
    if confidence == 1.0:
        assert forwards == 21 and row.counts["kv_slots_per_token"] == 1
        assert row.tokens == smashed.generate(request)[0].tokens
    else:
        assert row.tokens != smashed.generate(request)[0].tokens


def test_a_stop_string_ends_the_first_segment_at_once(smashed):
    request = GenerateRequest(prompts=[some_ids(6)], max_new_tokens=9, ignore_eos=True)
    decoder = MacroDecoder(NEVER)
    with torch.inference_mode():
        first = decoder.generate(smashed, request)[0].tokens[0]
        again = GenerateRequest(prompts=request.prompts, max_new_tokens=9, eos_ids=(first,))
        row = decoder.generate(smashed, again)[0]
    assert row.tokens == [first] and row.steps == [1] and row.stop_reason == "eos"
    assert "kv_slots_per_token" not in row.counts
