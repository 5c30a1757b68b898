"""Where a small model would write another token than a large one, and whether that changes what is said.

The large model answers greedily, and the small one reads the answer. Where their best tokens differ, the large model
goes on from the small one's token to the end of the sentence; a judge compares this with the sentence as it stands.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from harness.subjects.cache import KVCache
from harness.subjects.runner import Runner
from harness.subjects.subject import Subject
from harness.toolkit.students import TeacherText, hidden_states

SENTENCE_ENDS = (".", "!", "?", "\n")
BRANCHES_AT_ONCE = 32

Judge = Callable[[str, str], bool]
"""From the sentence as the large model wrote it and the one after the small model's token, each from that token on, to
whether they say different things."""


@dataclass(frozen=True)
class Features:
    """What a router sees where a token is about to be written, all of the small model.

    ``hidden_ND``: the state from which it is predicted; ``embed_ND``: the embedding of the best token; ``top_NK``: the
    largest logits, falling.
    """

    hidden_ND: Tensor
    embed_ND: Tensor
    top_NK: Tensor

    def rows(self, index: Tensor | slice) -> Features:
        """Some of the places."""
        return Features(self.hidden_ND[index], self.embed_ND[index], self.top_NK[index])


@dataclass(frozen=True)
class Labelled:
    """Places of some texts: what the router sees, whether the token is critical, whether it differs at all."""

    features: Features
    critical_N: Tensor
    differs_N: Tensor


def features_of(subject: Subject, hidden_ND: Tensor, logits_NV: Tensor, token_N: Tensor, top: int) -> Features:
    """Features in float32. Models with fewer than ``top`` tokens give as many as they have."""
    embed_ND = subject.model.get_input_embeddings()(token_N)
    top_NK = logits_NV.float().topk(min(top, logits_NV.shape[-1])).values
    return Features(hidden_ND.float(), embed_ND.float(), top_NK)


def overlap_judge(least: float) -> Judge:
    """A judge by words: two sentences differ where their numbers do, or the F1 of their words is below ``least``."""

    def differ(ours: str, theirs: str) -> bool:
        words, others = (Counter(re.findall(r"\w+", text.lower())) for text in (ours, theirs))
        numbers, other_numbers = (re.findall(r"\d+", text) for text in (ours, theirs))
        if numbers != other_numbers:
            return True
        total = words.total() + others.total()
        return total > 0 and 2 * (words & others).total() / total < least

    return differ


def label_tokens(own: Sequence[int], other: Sequence[int], critical: Callable[[list[int]], list[bool]]) -> list[int]:
    """1 where tokens differ and the place is critical. ``critical`` is asked once, about the differing places alone."""
    places = [place for place, (a, b) in enumerate(zip(own, other, strict=True)) if a != b]
    found = dict(zip(places, critical(places), strict=True)) if places else {}
    return [int(found.get(place, False)) for place in range(len(own))]


def sentence(subject: Subject, tokens: Sequence[int]) -> str:
    """The text up to where its first sentence ends."""
    text = subject.text_tokenizer().decode(tokens)
    return text[: min((at for end in SENTENCE_ENDS if (at := text.find(end)) >= 0), default=len(text))]


def label_text(
    large: Subject, text: TeacherText, small_T: Sequence[int], branch_tokens: int, judge: Judge
) -> list[int]:
    """1 for each token of the large model's answer that the small one's best token would spoil, by the judge."""
    own, eos = text.continuation, set(large.text_tokenizer().eos_ids)

    def critical(places: list[int]) -> list[bool]:
        goes_on = {place: small_T[place] for place in places if small_T[place] not in eos}
        branches = continued(large, text, goes_on, branch_tokens)
        verdicts = []
        for place in places:
            theirs = [small_T[place], *next(branches)] if place in goes_on else [small_T[place]]
            ours = own[place : place + 1 + branch_tokens]
            verdicts.append(judge(sentence(large, ours), sentence(large, theirs)))
        return verdicts

    return label_tokens(own, small_T, critical)


def continued(large: Subject, text: TeacherText, tokens: Mapping[int, int], new_tokens: int) -> Iterator[list[int]]:
    """Greedy continuations where one of ``tokens`` stands at its place of the answer; the text is read only once."""
    eos = large.text_tokenizer().eos_ids
    read = Runner(large.model, partial(KVCache, large.model.config.get_text_config().num_hidden_layers))
    read.prefill([[*text.prompt, *text.continuation]])
    places = list(tokens)
    for first in range(0, len(places), BRANCHES_AT_ONCE):
        some = places[first : first + BRANCHES_AT_ONCE]
        starts = [len(text.prompt) + place for place in some]
        for row in branched(read.fork(), starts, [tokens[place] for place in some], new_tokens):
            yield row[: min((row.index(token) for token in eos if token in row), default=len(row))]


def branched(runner: Runner, starts: Sequence[int], tokens: Sequence[int], new_tokens: int) -> list[list[int]]:
    """What follows the first ``starts`` tokens of the text that was read and then one of ``tokens``, row by row."""
    runner.select_rows(torch.zeros(len(starts), dtype=torch.long, device=runner.device))
    runner.cache.rewind(torch.tensor(starts, device=runner.device))
    ids_B, written = torch.tensor(tokens, device=runner.device), []
    for _ in range(new_tokens):
        ids_B = runner.forward(ids_B[:, None])[:, -1].argmax(-1)
        runner.commit()
        written.append(ids_B)
    return torch.stack(written, 1).tolist()  # type: ignore[no-any-return]


def labelled_tokens(
    large: Subject, small: Subject, texts: Sequence[TeacherText], judge: Judge, branch_tokens: int, top: int
) -> Labelled:
    """Every place at which the large model wrote a token of these texts."""
    # Not in inference mode, whose tensors cannot be trained on.
    with torch.inference_mode(False), torch.no_grad():
        parts = [_labelled_text(large, small, text, judge, branch_tokens, top) for text in texts]
    names = ("hidden_ND", "embed_ND", "top_NK")
    features = Features(*(torch.cat([getattr(part.features, name) for part in parts]) for name in names))
    return Labelled(features, torch.cat([p.critical_N for p in parts]), torch.cat([p.differs_N for p in parts]))


def _labelled_text(
    large: Subject, small: Subject, text: TeacherText, judge: Judge, branch_tokens: int, top: int
) -> Labelled:
    hidden_CD = hidden_states(small, [*text.prompt, *text.continuation[:-1]])[len(text.prompt) - 1 :]
    logits_CV = small.model.get_output_embeddings()(hidden_CD)
    best_C = logits_CV.float().argmax(-1)
    critical = label_text(large, text, best_C.tolist(), branch_tokens, judge)
    features = features_of(small, hidden_CD, logits_CV, best_C, top)
    return Labelled(features, best_C.new_tensor(critical), best_C != best_C.new_tensor(text.continuation))
