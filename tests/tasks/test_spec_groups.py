"""The six groups are what they were, and a question file is read line by line."""

import hashlib
import json

import pytest

from harness.errors import UsageError
from harness.run.suite import DecodeSpec, parse_decode
from tasks.prompts import prompt_ids
from tasks.spec_bench import GROUPS as FILE_GROUPS
from tasks.spec_groups import COUNT, GROUPS, group_messages

FROZEN = "80ec45df39b0c3855a76639687f51bfa809af47b1fbc3231a3e028e3345e1ef4"


def texts(group):
    """All prompts of a group as JSON."""
    return [json.dumps(group_messages(group, number), sort_keys=True) for number in range(COUNT)]


def test_the_prompts_are_frozen():
    assert hashlib.sha256("\n".join(t for group in GROUPS for t in texts(group)).encode()).hexdigest() == FROZEN


@pytest.mark.parametrize("group", GROUPS)
def test_each_group_has_different_prompts_of_one_question(group):
    found = texts(group)
    assert len(set(found)) == COUNT
    for number in range(COUNT):
        roles = [m["role"] for m in group_messages(group, number)]
        assert roles == (["user", "assistant", "user"] if group == "conversation" else ["user"])
    with pytest.raises(UsageError, match="24 prompts"):
        group_messages(group, COUNT)


class Words:
    """A tokenizer of characters, with a chat template or without."""

    def __init__(self, template):
        self.chat_template = template

    def encode(self, text):
        return [ord(c) for c in text]

    def apply_chat_template(self, messages, add_generation_prompt):
        return "|".join(f"{m['role']}>{m['content']}" for m in messages) + "|assistant>"


def read(name, number=0, template="yes"):
    """One prompt as text."""
    return "".join(map(chr, prompt_ids(name, 1, Words(template), first=number)[0]))


def test_prompts_are_in_the_chat_format_where_there_is_one():
    assert read("qa") == "user>Who wrote the play Hamlet?|assistant>"
    assert read("qa", template=None) == "Question: Who wrote the play Hamlet?\nAnswer:"
    assert read("conversation").count("|") == 3
    assert read("conversation", template=None).count("Answer:") == 2


def test_a_rag_prompt_asks_for_one_of_its_passages():
    text = read("rag", 3)
    assert "[3]" in text and "What does passage [" in text


@pytest.fixture
def file(tmp_path):
    """A question file with two groups."""
    rows = [
        {"question_id": i, "category": c, "turns": [f"{c} {i}", "and then?"]}
        for i, c in enumerate(("math", "rag", "stem", "rag"))
    ]
    path = tmp_path / "question.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_a_question_file_gives_the_first_turns_of_a_group(file):
    assert read(f"{file}#rag", 1) == "user>rag 3|assistant>"
    assert [read(f"{file}#mt_bench", n) for n in (0, 1)] == ["user>math 0|assistant>", "user>stem 2|assistant>"]
    assert set(FILE_GROUPS) == {"mt_bench", "translation", "summarization", "qa", "math_reasoning", "rag"}


def test_faults_of_a_question_file_are_told_in_one_line(file):
    for name, said in (
        (f"{file}#rags", "did you mean"),
        (f"{file}.jsonl#rag", "cannot be read"),
        (f"{file}#qa", "has 0 questions"),
    ):
        with pytest.raises(UsageError, match=said) as error:
            read(name)
        assert "\n" not in str(error.value)
    file.write_text('{"category": "rag", "turns": ["x"]}\n{"category": "rag"}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="line 2"):
        read(f"{file}#rag")


def test_workloads_are_written_and_read_back(file):
    assert DecodeSpec.parse("ragx64n20f").name == "ragx64n20f"
    assert parse_decode("ragx64") == {"prompts": "rag", "new_tokens": 64}
    spec = DecodeSpec.parse(f"{file}#rag:512x64b2n2")
    assert (spec.prompts, spec.prompt_tokens, spec.new_tokens, spec.batch, spec.count) == (f"{file}#rag", 512, 64, 2, 2)
    assert DecodeSpec.parse(spec.name) == spec


def test_the_content_of_a_question_file_is_part_of_the_workload(file):
    before = DecodeSpec.parse(f"{file}#rag")
    assert before.digest and not DecodeSpec.parse("rag").digest
    file.write_text(file.read_text() + "\n" + json.dumps({"category": "rag", "turns": ["more"]}), encoding="utf-8")
    assert DecodeSpec.parse(f"{file}#rag").digest != before.digest
