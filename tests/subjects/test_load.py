"""Loading: what works, and one line for each way in which it does not."""

import json
import struct

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from harness.errors import EnvironmentFailed, Refused, UsageError
from harness.subjects.load import load_subject, pick_device, pick_dtype
from harness.subjects.requests import GenerateRequest
from harness.subjects.tiny import random_llama


@pytest.fixture
def folder(tmp_path):
    """A tiny model with a byte-level tokenizer, saved as transformers does."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator([], trainers.BpeTrainer(initial_alphabet=alphabet, special_tokens=["<s>", "</s>"]))
    PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>").save_pretrained(tmp_path)
    model, _, _ = random_llama()
    model.generation_config.eos_token_id = [1, 7]
    model.save_pretrained(tmp_path)
    return tmp_path


def failure(error, name, **settings):
    """The one line with which loading fails."""
    with pytest.raises(error) as caught:
        load_subject(str(name), device="cpu", **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_loads_and_writes(folder):
    subject = load_subject(str(folder), device="cpu", dtype="float32")
    assert subject.max_length == 512 and subject.dtype == torch.float32
    ids = subject.text_tokenizer().encode("hello")
    row = subject.generate(GenerateRequest(prompts=[ids], max_new_tokens=3, ignore_eos=True))[0]
    assert len(row.tokens) == 3


def test_the_model_s_own_stop_ids_are_added_to_the_tokenizer_s(folder):
    """A chat model ends its turn with an id that its tokenizer may not call end of text."""
    assert load_subject(str(folder), device="cpu").text_tokenizer().eos_ids == (1, 7)


def test_bfloat16_is_the_default_and_the_type_is_honoured(folder):
    assert load_subject(str(folder), device="cpu").dtype == torch.bfloat16
    assert load_subject(str(folder), device="cpu", dtype="float16").dtype == torch.float16
    assert load_subject("tiny-random", device="cpu").dtype == torch.float32


def test_the_random_model_is_the_same_each_time(tiny):
    again = load_subject("tiny-random", device="cpu")
    for one, other in zip(tiny.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_unknown_name_gets_the_nearest():
    assert "did you mean 'tiny-random'" in failure(UsageError, "tiny-randm")


def test_a_missing_folder_a_folder_without_config_and_a_plain_file(tmp_path):
    assert "has no config.json" in failure(UsageError, tmp_path / "nowhere")
    assert "has no config.json" in failure(UsageError, tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    assert "has no config.json" in failure(UsageError, tmp_path / "notes.txt")


def test_a_hub_id_without_network():
    assert "cannot load" in failure(EnvironmentFailed, "nobody/no-such-model-here")


def test_gguf_files_that_are_missing_foreign_or_truncated(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    assert "no such model file" in failure(EnvironmentFailed, tmp_path / "none.gguf")
    (tmp_path / "foreign.gguf").write_bytes(b"PK\x03\x04 something else")
    assert "not a GGUF file" in failure(EnvironmentFailed, tmp_path / "foreign.gguf")
    # A header that promises three tensors and ten keys, and nothing after it.
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 3, 10))
    assert "cannot convert" in failure(EnvironmentFailed, tmp_path / "cut.gguf")
    assert not list((tmp_path / "cache" / "models").glob("*"))


def test_truncated_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "cannot load the model" in failure(EnvironmentFailed, folder)


def test_weights_that_are_not_safetensors_at_all(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    assert "cannot load the model" in failure(EnvironmentFailed, folder)


def test_pickled_weights_are_refused(folder):
    model, _, _ = random_llama()
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert "cannot load the model" in failure(EnvironmentFailed, folder)


def test_code_of_a_model_is_not_run_unless_asked(folder):
    ran = folder / "ran"
    (folder / "modeling_own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "modeling_own.C", "AutoModelForCausalLM": "modeling_own.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    failure(EnvironmentFailed, folder)
    assert not ran.exists()


def test_a_config_that_is_not_json(folder):
    (folder / "config.json").write_text("{")
    assert "cannot load" in failure(EnvironmentFailed, folder)


def test_names_of_devices_and_types():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_dtype("bfloat16") is torch.bfloat16
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        pick_device("gpu")
    with pytest.raises(UsageError, match="unknown dtype 'int3'; known: float32, bfloat16, float16"):
        pick_dtype("int3")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there():
    with pytest.raises(EnvironmentFailed, match="sees no CUDA device"):
        pick_device("cuda")
    assert pick_device("auto") == torch.device("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gpu_writes_what_the_cpu_writes(tiny, dtype):
    subject = load_subject("tiny-random", device="cuda", dtype=dtype)
    request = GenerateRequest(prompts=[[5, 6, 7], list(range(60))], max_new_tokens=8, ignore_eos=True)
    texts = [row.tokens for row in subject.generate(request)]
    if dtype == "float32":
        assert texts == [row.tokens for row in tiny.generate(request)]
    assert [len(text) for text in texts] == [8, 8]


def test_a_subject_without_a_tokenizer_refuses_text(tiny):
    from dataclasses import replace

    with pytest.raises(Refused, match="has no tokenizer"):
        replace(tiny, tokenizer=None).text_tokenizer()


def test_a_model_whose_attention_was_changed_answers_nothing():
    """A library that builds another model from its config may exchange it; masks would be lost silently."""
    subject = load_subject("tiny-random", device="cpu")
    request = GenerateRequest(prompts=[[1, 2, 3]], max_new_tokens=2)
    subject.generate(request)
    subject.model.config._attn_implementation = "sdpa"
    with pytest.raises(Refused, match="changed to 'sdpa'"):
        subject.generate(request)
