"""Bytes as a method."""

import torch

from harness.kinds.stack import applied
from harness.subjects.requests import GenerateRequest, ScoreRequest
from methods.tokenizer.byte import Byte


def test_ids_are_the_utf8_bytes(tiny):
    with applied([Byte()], tiny) as changed:
        made = changed.tokenizer
        assert made.encode("a\u00e9\x00") == [97, 0xC3, 0xA9, 0]
        assert (made.vocab_size, made.prefix_id, made.eos_ids) == (258, 256, (257,))
        assert made.encode("<eos>") == list(b"<eos>")


def test_on_a_byte_model_it_is_the_same_model(tiny):
    ids = tuple(tiny.tokenizer.encode("some text"))
    request = ScoreRequest(context=ids[:3], continuation=ids[3:])
    prompt = GenerateRequest(prompts=[ids], max_new_tokens=8, ignore_eos=True)
    with applied([Byte()], tiny) as changed:
        assert changed.score([request]) == tiny.score([request])
        assert changed.generate(prompt)[0].tokens == tiny.generate(prompt)[0].tokens
        assert torch.equal(changed.model.lm_head.weight, tiny.model.lm_head.weight)


def test_all_checks_pass(tiny):
    for check in Byte().checks(tiny):
        check.run()
