"""The model with written weights: it reads all that the tasks say, and looks up what a text says once."""

import random

import pytest
import torch

from harness.errors import UsageError
from harness.subjects.load import load_subject
from harness.subjects.recall_model import recall_llama
from harness.subjects.recall_words import RecallWords
from harness.subjects.requests import GenerateRequest, ScoreRequest
from harness.toolkit.corpora import documents
from tasks.generated import generators, ruler
from tasks.words import COMMON

WORDS = RecallWords()
TASKS = {
    "needle": ruler.needle(10, 0, sentences=50),
    "multikey": ruler.multikey(10, 0, sentences=190),
    "multikey, hidden": ruler.multikey(10, 0, sentences=34, hidden=True),
    "tracking": ruler.tracking(10, 0, sentences=44, chains=3, hops=1),
    "common": ruler.common(10, 0, words=100),
    "passkey": generators.passkey(10, 0, sentences=30),
    "kvc": generators.kvc(10, 0, pairs=16),
    "induct": generators.induct(10, 0, words=24),
}


@pytest.fixture(scope="module")
def recall():
    return load_subject("tiny-recall", device="cpu")


@pytest.mark.parametrize("task", TASKS)
def test_the_tasks_are_read_without_loss(task):
    for row in TASKS[task]["test"]:
        for choice in row["choices"]:
            text = row["context"] + choice
            assert WORDS.decode(WORDS.encode(text)) == text
            assert WORDS.encode(row["context"]) + WORDS.encode(choice) == WORDS.encode(text)


def test_ids_are_pieces_and_two_more():
    assert b"".join(map(WORDS.token_bytes, WORDS.encode("The pass key of Tom is 10."))) == b"The pass key of Tom is 10."
    special = {WORDS.prefix_id, *WORDS.eos_ids}
    assert special == {WORDS.vocab_size - 2, WORDS.vocab_size - 1}
    assert {WORDS.token_bytes(i) for i in special} == {None}
    assert WORDS.decode([WORDS.prefix_id, *WORDS.encode("The pass"), *WORDS.eos_ids]) == "The pass"


@pytest.mark.parametrize(("text", "what"), [("The pass key of Merlin is", "Merlin"), ("The (pass key)", "marks")])
def test_what_is_not_in_the_vocabulary_is_named(text, what):
    with pytest.raises(UsageError, match=what):
        WORDS.encode(text)


@pytest.mark.parametrize("task", ["needle", "multikey", "multikey, hidden", "tracking", "passkey", "kvc"])
def test_it_finds_what_a_text_says_once(recall, task):
    right = 0
    for row in TASKS[task]["test"]:
        context = tuple(WORDS.encode(row["context"]))
        asked = [ScoreRequest(context=context, continuation=tuple(WORDS.encode(c))) for c in row["choices"]]
        scores = [score.logprob for score in recall.score(asked)]
        right += max(range(len(scores)), key=scores.__getitem__) == row["answer"]
    assert right >= 9


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_list_is_repeated_from_any_distance(dtype):
    subject = load_subject("tiny-recall", device="cpu", dtype=dtype)
    rng = random.Random(0)
    listed, between = rng.sample(COMMON, 24), [rng.choice(COMMON) for _ in range(3000)]
    prompt = WORDS.encode("\n".join([" ".join(listed), " ".join(between), " ".join(listed[:3])]))
    written = subject.generate(GenerateRequest(prompts=[prompt], max_new_tokens=12))[0].tokens
    assert WORDS.decode(written).split() == listed[3:15]


def test_it_is_the_same_on_every_machine_and_another_seed_gives_other_codes():
    before = torch.random.get_rng_state()
    first, second, other = recall_llama()[0], recall_llama()[0], recall_llama(seed=1)[0]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.get_input_embeddings().weight, other.get_input_embeddings().weight)


def test_texts_to_calibrate_on_are_none_of_a_task():
    texts = documents("recall_text")
    assert all(WORDS.encode(text) for text in texts)
    numbers = {word.strip() for row in TASKS["multikey"]["test"] for word in row["choices"]}
    assert not any(number in text for number in numbers for text in texts)
