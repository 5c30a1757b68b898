"""tiktoken: the ids of the Rust library on the same tokens, and files of ranks."""

import base64

import pytest
from tokenizers import Tokenizer as RustTokenizer

from harness.errors import EnvironmentFailed, UsageError
from harness.kinds.tokenizer import adapters
from harness.kinds.tokenizer.adapters import merges_from_ranks, read_ranks
from harness.kinds.tokenizer.bpe import ByteLevelTokenizer, merges_of, tokens_of, train_bpe
from harness.kinds.tokenizer.hostile import hostile_texts, lost
from harness.kinds.tokenizer.vocabulary import Specials
from harness.toolkit.corpora import documents
from methods.tokenizer.tiktoken_enc import TiktokenEnc

pytest.importorskip("tiktoken", reason="token-zoo[tokenizers] is not installed")
SMALL = TiktokenEnc(vocab_size=600, train_bytes=60_000)


@pytest.fixture(scope="module")
def state():
    return train_bpe(documents("python_docs", "train", 60_000), 600)


@pytest.fixture
def ranks_file(tmp_path, state):
    path = tmp_path / "own.tiktoken"
    lines = [f"{base64.b64encode(t).decode()} {rank}" for rank, t in enumerate(tokens_of(merges_of(state)))]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_ids_are_the_rust_librarys(tiny, state):
    made = SMALL.make(tiny.tokenizer, SMALL.train(documents("python_docs", "train", 60_000), 0))
    rust = ByteLevelTokenizer(RustTokenizer.from_str(state), Specials.of(tiny.tokenizer), "rust")
    for text in [*documents("python_docs", "test", 20_000), *(text for _, text in hostile_texts())]:
        assert made.encode(text) == rust.encode(text)
    assert lost(made) == [] and made.special_ids == rust.special_ids


def test_merges_are_found_again_from_the_ranks(state):
    assert merges_from_ranks(tokens_of(merges_of(state))) == merges_of(state)
    with pytest.raises(UsageError, match="no merge of two tokens"):
        merges_from_ranks([b"a", b"b", b"c", b"abc"])


def test_a_file_of_ranks_is_used(tiny, ranks_file):
    method = TiktokenEnc(ranks=str(ranks_file))
    assert method.train([], 0) == SMALL.train(documents("python_docs", "train", 60_000), 0)
    assert method.declared(None).crosses_words


def test_bad_files_are_refused_in_one_line(tmp_path, ranks_file):
    (tmp_path / "gap").write_text("YQ== 0\nYg== 2\n")
    (tmp_path / "bad").write_text("no base64 at all\n")
    for name, match in (("gap", "without gaps"), ("bad", "is no tiktoken ranks file")):
        with pytest.raises(UsageError, match=match):
            read_ranks(tmp_path / name)
    with pytest.raises(EnvironmentFailed, match="cannot be read"):
        read_ranks(tmp_path / "absent")


def test_a_missing_library_is_named_with_its_remedy(monkeypatch, tiny):
    with pytest.raises(EnvironmentFailed, match=r"pip install 'token-zoo\[tokenizers\]'"):
        adapters.optional("no_such_library")


def test_all_checks_pass_and_the_workload_pairs_with_the_rust_library(tiny):
    for check in SMALL.checks(tiny):
        check.run()
    encode = next(w for w in SMALL.workloads(tiny) if w.name == "encode")
    assert encode.max_error == 0.0 and encode.make()() == encode.reference()()
