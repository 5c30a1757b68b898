"""The invariants of every tokenizer method: its declared properties hold, and the given subject stays as it was."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from harness.errors import UsageError
from harness.kinds.method import Artifact, Check
from harness.kinds.tokenizer.base import TRAIN_WORKLOAD_BYTES, Properties, TokenizerMethod
from harness.kinds.tokenizer.hostile import LONE_SURROGATES, comes_back, hostile_texts, lost
from harness.kinds.tokenizer.transplant import transplant
from harness.kinds.tokenizer.vocabulary import TableTokenizer, Vocabulary, segments, utf8
from harness.subjects.requests import GenerateRequest, ScoreRequest
from harness.subjects.runner import Runner
from harness.subjects.subject import Subject
from harness.subjects.tokenizer import Tokenizer
from harness.toolkit.corpora import documents

SAMPLE = "The 2 quick foxes\n\tjumped over 13 lazy dogs, na\u00efvely."


def crossing_tokens(vocabulary: Vocabulary) -> list[bytes]:
    """Tokens that hold a blank between other characters."""
    return [t for t in vocabulary.by_bytes if re.search(rb"\S\s+\S", t)]


def missing_bytes(vocabulary: Vocabulary) -> list[int]:
    """Byte values that are no token of their own."""
    return [b for b in range(256) if bytes([b]) not in vocabulary.by_bytes]


def measured_properties(tokenizer: Tokenizer) -> Properties:
    """What is found to hold of a tokenizer; lossless means on all hostile texts."""
    vocabulary = Vocabulary(tokenizer)
    return Properties(
        lossless=not lost(tokenizer),
        byte_complete=not missing_bytes(vocabulary),
        crosses_words=bool(crossing_tokens(vocabulary)),
    )


def readable_sample(tokenizer: Tokenizer) -> list[int]:
    """Ids to ask a model with: of a sample sentence, else (an alphabet that lacks it) of the first text tokens."""
    try:
        return [tokenizer.prefix_id, *tokenizer.encode(SAMPLE)[:24]]
    except UsageError:
        plain = [i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) is not None]
        return [tokenizer.prefix_id, *plain[:24]]


def equal(one: Artifact, other: Artifact) -> bool:
    """Whether two artifacts hold the same, tensors bit for bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return bool(one == other)


def logits_of(model: Any, subject: Subject, ids: list[int]) -> Tensor:
    """All logits ``[T, V]`` of one sequence through the subject's cache."""
    with torch.inference_mode():
        return Runner(model, subject.new_cache).prefill([ids], all_logits=True)[0]


class _Bench:
    """One method on one subject; its artifact is trained on a small corpus, once."""

    def __init__(self, method: TokenizerMethod, subject: Subject) -> None:
        self.method = method
        self.subject = subject

    def train(self) -> Artifact:
        texts = documents(self.method.corpus, "train", TRAIN_WORKLOAD_BYTES)
        return self.method.learn(self.subject, texts, 0) if self.method.trains else None

    @cached_property
    def artifact(self) -> Artifact:
        return self.train()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return self.method.make(self.subject.text_tokenizer(), self.artifact)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.tokenizer)

    @cached_property
    def declared(self) -> Properties:
        return self.method.declared(self.subject.text_tokenizer())

    def state(self) -> tuple[Any, ...]:
        """What must not change: every parameter's place and version, the configuration, the tokenizer."""
        model = self.subject.model
        places = [(name, id(p), p.data_ptr(), p._version) for name, p in model.named_parameters()]
        return places, model.config.to_dict(), id(self.subject.tokenizer)


def _same_twice(bench: _Bench) -> None:
    artifact = bench.train()
    again = bench.method.make(bench.subject.text_tokenizer(), artifact)
    texts = [text for _, text in hostile_texts() if comes_back(bench.tokenizer, text)]
    differ = [text for text in texts if bench.tokenizer.encode(text) != again.encode(text)]
    assert not differ, f"{len(differ)} texts get other ids when trained and encoded again, first {differ[0][:40]!r}"
    assert equal(artifact, bench.artifact), "two trainings on the same texts differ"


def _round_trip(bench: _Bench) -> None:
    if bench.declared.lossless:
        failed = lost(bench.tokenizer)
        assert not failed, f"declared lossless, but {len(failed)} hostile texts do not come back: {failed[:5]}"


def _bytes_of_tokens(bench: _Bench) -> None:
    if bench.declared.normalizes:
        return
    for name, text in hostile_texts():
        if comes_back(bench.tokenizer, text):
            joined = b"".join(segments(bench.tokenizer, text))
            # Metaspace vocabularies put a blank before a text and take it away again.
            assert joined in (utf8(text), b" " + utf8(text)), f"{name}: the tokens' bytes are not the text's"


def _vocabulary(bench: _Bench) -> None:
    missing, crossing = missing_bytes(bench.vocabulary), crossing_tokens(bench.vocabulary)
    assert not (bench.declared.byte_complete and missing), f"declared byte-complete, but these are missing: {missing}"
    assert bench.declared.crosses_words or not crossing, f"declared within words, but there is {crossing[:3]}"
    plain = bench.vocabulary.tokens
    assert plain[bench.tokenizer.prefix_id] is None or bench.tokenizer is bench.subject.tokenizer, "prefix is text"


def _surrogates(bench: _Bench) -> None:
    if not isinstance(bench.tokenizer, TableTokenizer):
        return
    for text in LONE_SURROGATES:
        try:
            bench.tokenizer.encode(text)
        except UsageError as error:
            assert "\n" not in str(error), "the refusal has more than one line"
        else:
            raise AssertionError(f"a lone surrogate was encoded: {text!a}")


def _identity_transplant(bench: _Bench) -> None:
    old = bench.subject.text_tokenizer()
    ids = readable_sample(old)
    model, report = transplant(bench.subject.model, old, old)
    before = logits_of(bench.subject.model, bench.subject, ids)[:, : old.vocab_size]
    after = logits_of(model, bench.subject, ids)
    assert report.composed == report.fallback == 0, f"rows were made up: {report}"
    assert torch.equal(before, after), f"logits differ by up to {float((before - after).abs().max())}"


def _restored(bench: _Bench, fail: bool) -> None:
    ids = readable_sample(bench.subject.text_tokenizer())
    state, before = bench.state(), logits_of(bench.subject.model, bench.subject, ids)
    try:
        with bench.method.apply(bench.subject, bench.artifact) as changed:
            assert bench.state() == state, "the given subject changed while the method was applied"
            logits_of(changed.model, changed, readable_sample(changed.text_tokenizer()))
            if fail:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert bench.state() == state, "the given subject changed"
    assert torch.equal(before, logits_of(bench.subject.model, bench.subject, ids)), "its logits changed"


def _answers(bench: _Bench) -> None:
    with bench.method.apply(bench.subject, bench.artifact) as changed:
        tokenizer = changed.text_tokenizer()
        ids = readable_sample(tokenizer)
        logits = logits_of(changed.model, changed, ids)
        if tokenizer is not bench.subject.tokenizer:
            assert logits.shape[-1] == tokenizer.vocab_size == changed.model.config.get_text_config().vocab_size
        assert bool(logits.isfinite().all()), "some logits are not finite"
        score = changed.score([ScoreRequest(context=tuple(ids[:4]), continuation=tuple(ids[4:]))])[0]
        assert score.logprob <= 0, f"log-probability {score.logprob}"
        made = changed.generate(GenerateRequest(prompts=[ids], max_new_tokens=4, ignore_eos=True))[0]
        assert all(0 <= token < logits.shape[-1] for token in made.tokens) and len(made.tokens) == 4
        own = {id(p) for p in bench.subject.model.parameters()}
        fresh = [name for name, p in changed.model.named_parameters() if id(p) not in own]
        assert len(fresh) <= 3, f"more than the embedding and output layers were copied: {fresh}"


def _identity(bench: _Bench) -> None:
    """At its identity a method answers as its baseline does, bit for bit."""
    twin = replace(bench.method, **dict(bench.method.card.identity or {}))  # type: ignore[type-var]
    ids = readable_sample(bench.subject.text_tokenizer())
    request = ScoreRequest(context=tuple(ids[:6]), continuation=tuple(ids[6:12]))
    prompt = GenerateRequest(prompts=[ids], max_new_tokens=4, ignore_eos=True)
    with twin.apply(bench.subject, bench.artifact) as changed:
        ours, theirs = changed.score([request]), bench.subject.score([request])
        assert ours == theirs, f"scores {ours}, the baseline's {theirs}"
        assert changed.generate(prompt)[0].tokens == bench.subject.generate(prompt)[0].tokens, "other tokens"


def tokenizer_checks(method: TokenizerMethod, subject: Subject) -> Iterable[Check]:
    """The checks of the kind, for this method on this subject."""
    bench = _Bench(method, subject)
    named: dict[str, Callable[[_Bench], None]] = {
        "same ids every time": _same_twice,
        "round trip of hostile texts": _round_trip,
        "token bytes are the text's bytes": _bytes_of_tokens,
        "vocabulary as declared": _vocabulary,
        "lone surrogates refused": _surrogates,
        "identity transplant is bit-identical": _identity_transplant,
        "subject untouched after exit": partial(_restored, fail=False),
        "subject untouched after an exception": partial(_restored, fail=True),
        "scores and generates over the new vocabulary": _answers,
    }
    if method.card.identity is not None:
        named["identity equals baseline"] = _identity
    for name, run in named.items():
        yield Check(name, partial(run, bench))
