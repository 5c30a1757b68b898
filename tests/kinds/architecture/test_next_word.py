"""Which words are asked for, and what counts as right."""

from dataclasses import replace

import pytest

from harness.kinds.architecture.next_word import CONTEXT, NextWord, items
from harness.subjects.requests import Generation

FILL = "x" * CONTEXT


class Told:
    """A decoder that writes what it was told to."""

    def __init__(self, texts):
        self.texts, self.requests = list(texts), []

    def generate(self, subject, request):
        self.requests.append(request)
        return [Generation(prompt_tokens=len(p), text=self.texts.pop(0)) for p in request.prompts]


def test_the_last_full_word_is_asked_after_a_fixed_context():
    (item,) = items([f"before {FILL} word end."])
    assert item.answer == " word" and item.context == FILL
    assert not list(items(["too short a text", FILL, f"{FILL[1:]} word end"]))


def test_a_word_is_right_with_its_end_and_goes_into_its_band(tiny, monkeypatch):
    words = ["often", "seldom", "some", "often", "often"]
    texts = {
        "test": [f"{FILL} {word} end" for word in words],
        "train": ["often " * 46, "some " * 45, "seldom " * 9],
    }
    monkeypatch.setattr(
        "harness.kinds.architecture.next_word.documents", lambda corpus, split, max_bytes=None: texts[split]
    )
    decoder = Told([" often and", " seldom", " some, ", " oftener ", " often "])
    found = NextWord("any", 10**6).measure(replace(tiny, decoder=decoder))
    assert {m.phase: (m.value, m.n) for m in found} == {
        "": (2 / 5, 5),
        "frequent": (2 / 3, 3),
        "middle": (0.0, 1),
        "rare": (0.0, 1),
    }
    (request,) = decoder.requests
    assert request.temperature == 0 and request.max_new_tokens == 16
    assert list(request.prompts[0]) == [256, *FILL.encode()]


@pytest.mark.slow
def test_it_is_asked_of_a_real_subject(tiny):
    found = NextWord("python_docs", 20_000).measure(tiny)
    assert found[0].n == sum(m.n for m in found[1:]) and found[0].value == pytest.approx(0, abs=0.05)
