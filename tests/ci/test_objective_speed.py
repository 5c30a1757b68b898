"""TRL's GRPO beside ours: what needs no TRL."""

import pytest

from ci.peers.objective_speed import Block, ours_after, table, text_tokenizer
from harness.subjects.chain_sum_text import ALPHABET, CharIds


def test_after_the_warm_up_neither_side_is_always_first():
    order = "".join("t" + "o" * ours_after(number) for number in range(7))
    assert order == "to" + "toot" * 3


def test_the_tokenizer_has_the_models_ids_and_leaves_special_ones_out():
    ours, theirs = CharIds(), text_tokenizer()
    assert theirs(ALPHABET)["input_ids"] == ours.encode(ALPHABET) and len(theirs) == ours.vocab_size
    assert (theirs.bos_token_id, theirs.eos_token_id) == (ours.prefix_id, ours.eos_ids[0])
    ids = [*ours.encode("3;1#4"), *ours.eos_ids]
    assert theirs.decode(ids, skip_special_tokens=True) == "3;1#4"


def test_ratios_are_of_blocks_in_pairs_and_shares_of_the_whole():
    def block(factor):
        return Block(
            2, wall=8 * factor, seconds={"sample": factor, "old": factor, "train": 2 * factor}, tokens=100, reward=1.0
        )

    lines = table({"ours": [block(1.0), block(3.0)], "trl": [block(2.0), block(6.0)]}).splitlines()
    cells = {line.split(" | ")[0].strip("| "): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[2:]}
    assert cells["seconds an update"][2] == "2.00 [2.00, 2.00]"
    assert cells["microseconds a generated token"][0].startswith("80000.0")
    assert cells["share of phase train"][:2] == ["0.50 [0.50, 0.50]"] * 2
    assert cells["mean reward"][0].split()[0] == pytest.approx("0.500")
