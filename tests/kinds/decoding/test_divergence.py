"""Where two models part and whether it matters: labels, the judge, and what a branch is."""

import pytest
import torch

from harness.kinds.decoding.divergence import label_text, label_tokens, labelled_tokens, overlap_judge, sentence
from harness.toolkit.small_models import open_small
from harness.toolkit.students import TeacherText, teacher_texts


def test_equal_tokens_are_never_asked_about():
    asked = []

    def critical(places):
        asked.append(places)
        return [place > 1 for place in places]

    assert label_tokens([1, 2, 3, 4], [1, 9, 8, 4], critical) == [0, 0, 1, 0]
    assert asked == [[1, 2]]
    assert label_tokens([1, 2], [1, 2], critical) == [0, 0] and len(asked) == 1


@pytest.mark.parametrize(
    ("ours", "theirs", "differ"),
    [
        ("the cat sat", "The cat sat,", False),
        ("the cat sat", "a dog ran", True),
        ("so it is 12", "so it is 13", True),
        ("12 apples and 3 pears", "3 pears and 12 apples", True),
        ("", "", False),
        ("", "word", True),
        ("one two three four", "one two five six", False),
        ("one two three four", "one five six seven", True),
    ],
)
def test_sentences_differ_by_numbers_or_by_half_of_their_words(ours, theirs, differ):
    judge = overlap_judge(0.5)
    assert judge(ours, theirs) is differ and judge(theirs, ours) is differ


def test_a_sentence_ends_at_the_first_of_its_ends(tiny):
    assert sentence(tiny, list(b"so it is! Or not. Yes")) == "so it is"
    assert sentence(tiny, list(b"no end")) == "no end"


def branch_by_hand(subject, start, tokens):
    """The greedy continuation of a text, one whole forward a token, up to the end of a sentence."""
    text = list(start)
    while len(text) < len(start) + tokens and not any(chr(t) in ".!?\n" for t in text[len(start) :] if t < 256):
        text.append(int(subject.model(torch.tensor([text])).logits[0, -1].argmax()))
    return text[len(start) :]


@torch.no_grad()
def test_the_judge_sees_the_large_model_s_own_sentence_and_the_one_from_the_small_model_s_token(tiny):
    text = teacher_texts(tiny, 1, 10, 0, temperature=0.0)[0]
    own = text.continuation
    small = [token if place % 3 else 65 + place for place, token in enumerate(own)]
    small[4] = 257  # end of text: nothing comes after it
    seen = []
    labels = label_text(tiny, text, small, 4, lambda *pair: seen.append(pair) or len(seen) % 2 == 1)
    places = [place for place in range(len(own)) if small[place] != own[place]]
    assert [place for place, label in enumerate(labels) if label] == places[::2]
    for place, (ours, theirs) in zip(places, seen, strict=True):
        assert ours == sentence(tiny, own[place : place + 5])
        start = [*text.prompt, *own[:place], small[place]]
        rest = [] if small[place] == 257 else branch_by_hand(tiny, start, 4)
        assert theirs == sentence(tiny, [small[place], *rest])


@torch.no_grad()
def test_labelled_places_are_those_of_the_answers_with_the_small_model_s_states(tiny):
    small = open_small("noised:0.08", tiny)
    texts = teacher_texts(tiny, 3, 6, 1, temperature=0.0)
    found = labelled_tokens(tiny, small, texts, lambda ours, theirs: True, 2, top=5)
    place = 0
    for text in texts:
        for at, token in enumerate(text.continuation):
            out = small.model(torch.tensor([[*text.prompt, *text.continuation[:at]]]), output_hidden_states=True)
            logits = out.logits[0, -1]
            best = logits.argmax()
            assert torch.allclose(found.features.hidden_ND[place], out.hidden_states[-1][0, -1], atol=1e-4)
            assert torch.allclose(found.features.top_NK[place], logits.topk(5).values, atol=1e-4)
            assert torch.equal(found.features.embed_ND[place], small.model.get_input_embeddings()(best))
            assert bool(found.differs_N[place]) == bool(found.critical_N[place]) == (int(best) != token)
            place += 1
    assert place == len(found.critical_N) and not found.features.hidden_ND.is_inference()


def test_a_model_with_few_tokens_gives_all_its_logits(tiny):
    text = TeacherText((1, 2), (3, 4), torch.empty(0))
    found = labelled_tokens(tiny, tiny, [text], lambda ours, theirs: False, 1, top=1000)
    assert found.features.top_NK.shape == (2, 258)
