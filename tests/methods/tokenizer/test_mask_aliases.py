"""Alias masking: exactly no phantom edit is left, the law is renormalised, and the probe adds up."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer as RustTokenizer

from harness.errors import Refused
from harness.kinds.tokenizer import Specials, Vocabulary
from harness.kinds.tokenizer.bpe import ByteLevelTokenizer, train_bpe
from harness.kinds.tokenizer.phantom import outcome
from harness.kinds.tokenizer.rewrites import Item, TokenConsistency, items, rates, sentences, tally
from harness.subjects.requests import Generation
from harness.subjects.tiny import ByteIds
from harness.toolkit.corpora import documents
from methods.tokenizer.mask_aliases import AliasMask, MaskAliases

SETTINGS = {"sentences": 4, "samples": 6}


@pytest.fixture(scope="module")
def tokenizer():
    state = train_bpe(documents("python_docs", "train", 40_000), 900)
    return ByteLevelTokenizer(RustTokenizer.from_str(state), Specials(("<p>", "<e>"), "<p>", ("<e>",)), "bpe")


def bytewise(tokenizer, data):
    """One token a byte."""
    held = Vocabulary(tokenizer).by_bytes
    return [held[data[k : k + 1]] for k in range(len(data))]


def segmentations(data, held):
    """Every way to write bytes in tokens."""
    if not data:
        yield []
    for end in range(1, len(data) + 1):
        for token in held.get(data[:end], ()):
            for rest in segmentations(data[end:], held):
                yield [token, *rest]


@pytest.mark.parametrize("word", ["list", "method", "name"])
def test_the_only_way_left_to_keep_a_word_is_its_own(tokenizer, word):
    held = {}
    for token in range(tokenizer.vocab_size):
        held.setdefault(tokenizer.token_bytes(token), []).append(token)
    source = tokenizer.encode(f"a {word}")[1:]
    assert b"".join(map(tokenizer.token_bytes, source)) == f" {word}".encode()
    mask = AliasMask(tokenizer, source, 0)
    ways = [w for lead in ("", " ", "\n", "  ") for w in segmentations((lead + word).encode(), held)]
    assert len(ways) > 20 and source in ways
    open_ways = [w for w in ways if not any(w[k] in mask.forbidden(w[:k]) for k in range(len(w)))]
    assert open_ways == [source]


def test_other_words_stay_open(tokenizer):
    mask = AliasMask(tokenizer, tokenizer.encode("a list")[1:], 0)
    for text in (" lists", " lis", " lit", " l", " other", "x"):
        ids = tokenizer.encode(text)
        assert not any(ids[k] in mask.forbidden(ids[:k]) for k in range(len(ids))), text


def test_what_is_left_is_the_law_renormalised(tokenizer):
    prompt, source = [5, 6, 7], tokenizer.encode("a list")[1:]
    mask = AliasMask(tokenizer, source, len(prompt))
    scores = torch.randn(1, tokenizer.vocab_size, generator=torch.Generator().manual_seed(0))
    before = scores.clone()
    written = tokenizer.encode(" ")
    masked = mask(torch.tensor([[*prompt, *written]]), scores)
    gone = masked[0].isinf()
    assert gone.tolist() == [i in mask.forbidden(written) for i in range(tokenizer.vocab_size)] and gone.any()
    law, kept = masked[0].softmax(-1), before[0].softmax(-1)[~gone]
    assert torch.allclose(law.sum(), torch.tensor(1.0)) and torch.allclose(law[~gone], kept / kept.sum(), atol=1e-6)
    assert torch.equal(scores, before)


def test_samples_are_counted_once(tokenizer):
    source = tokenizer.encode("a list")[1:]
    item = Item([1], source, [tokenizer.token_bytes(i) for i in source])
    dot, spelled = tokenizer.encode("."), bytewise(tokenizer, b" list")
    texts = [[*source, *dot], [*tokenizer.encode(" other"), *dot], [*spelled, *dot], dot * 3]
    found = tally(tokenizer, item, texts)
    assert found.outcomes == {"unchanged": 1, "replaced": 1, "phantom": 1, "unaligned": 1}
    assert sum(found.classes.values()) == 1 and found.one_to_one == 0
    figures = {m.metric: m.value for m in rates([found], "plain")}
    assert figures["unaligned_rate"] == 0.25
    assert figures["unchanged_rate"] + figures["replaced_rate"] + figures["phantom_rate"] == pytest.approx(1)


def test_source_tokens_are_those_of_the_word_in_its_sentence(tokenizer):
    asked = list(items(tokenizer, sentences("python_docs", 12)))
    assert len(asked) >= 10
    for item, (before, word, after) in zip(asked, sentences("python_docs", 12), strict=False):
        assert b"".join(item.source).decode() == f" {word}"
        prompt = tokenizer.decode(item.prompt)
        assert f"[{word}]{after}" in prompt and prompt.endswith(before.rstrip())


class Spells:
    """A subject that keeps every word and spells it byte by byte, unless a mask forbids its last letter."""

    def __init__(self, tokenizer):
        self.tokenizer, self.name, self.max_length = tokenizer, "spells", 4096
        self.asked = [Item(i.prompt, i.source_ids, i.source) for i in items(tokenizer, sentences("python_docs", 8))]

    def text_tokenizer(self):
        return self.tokenizer

    def generate(self, request):
        source = next(i.source for i in self.asked if i.prompt == request.prompts[0])
        row = []
        for byte in bytewise(self.tokenizer, b"".join(source)):
            scores = torch.zeros(1, self.tokenizer.vocab_size)
            for processor in request.processors:
                scores = processor(torch.tensor([[*request.prompts[0], *row]]), scores)
            row.append(byte if scores[0, byte] == 0 else self.tokenizer.encode("x")[0])
        return [Generation(len(p), tokens=[*row, *self.tokenizer.encode(".")]) for p in request.prompts]


def test_the_mask_brings_phantom_edits_to_none(tokenizer):
    probe = TokenConsistency(AliasMask, 8, 2, 1.0, 0.9, 50)
    found = {(m.metric, m.phase): m for m in probe.measure(Spells(tokenizer))}
    spelled = found["phantom_rate", "plain"]
    assert spelled.value + found["unchanged_rate", "plain"].value == pytest.approx(1) and spelled.value > 0.5
    assert found["phantom_rate", "masked"].value == 0 and found["replaced_rate", "masked"].value > 0.5
    classes = [m.value for (name, _), m in found.items() if name == "phantom_class_share"]
    assert sum(classes) == pytest.approx(1)


def test_the_probe_runs_on_a_model_and_bytes_have_no_resegmentation(tiny):
    (_, probe) = MaskAliases(**SETTINGS).probes()
    found = probe.measure(tiny)
    assert {m.phase.split()[0] for m in found} == {"plain", "masked"}
    inner = [m for m in found if m.metric == "phantom_class_share" and m.phase.split()[1] not in CLASSES_OF_BYTES]
    assert all(m.value == 0 for m in inner)
    assert found == probe.measure(tiny)  # seeded


CLASSES_OF_BYTES = ("whitespace_kind", "whitespace_detached", "whitespace_shift")


def test_a_model_that_reads_too_little_is_refused(tiny):
    short = SimpleNamespace(text_tokenizer=ByteIds, max_length=16, name="short")
    with pytest.raises(Refused, match="can be asked no sentence"):
        TokenConsistency(AliasMask, 3, 2, 1.0, 0.9, 50).measure(short)


def test_all_checks_hold(tiny):
    for check in MaskAliases().checks(tiny):
        check.run()


def test_outcome_of_equal_ids_never_is_phantom():
    for ids in itertools.product((1, 2), repeat=2):
        assert outcome(ids, list(ids), [b" a"], [b" a"]) == "unchanged"
