"""zoo strata: from lm-eval's logged samples to tables, for the tokenizer of a model or of a method."""

import json

import pytest

from harness.evaluate.quality import EvalOptions, run_task


@pytest.fixture(scope="module")
def logged(tiny, tmp_path_factory):
    """Samples of a group as a run leaves them."""
    folder = tmp_path_factory.mktemp("logged")
    run_task(tiny, "charbench", EvalOptions(limit=14), folder)
    return folder


def test_tables_of_every_task_of_a_folder(zoo, logged):
    code, out, err = zoo("strata", str(logged), "--model", "tiny-random", "--json")
    assert code == 0, err
    found = {one["task"]: one for one in json.loads(out)["tasks"]}
    assert set(found) == {f"charbench_{name}" for name in ("unique", "frequency", "first", "last")}
    for one in found.values():
        assert one["n"] == 14 and one["metric"] == "acc"
        lengths = [s for s in one["strata"] if s["covariate"] == "length"]
        tokens = [s for s in one["strata"] if s["covariate"] == "tokens"]
        assert (
            [(s["low"], s["n"]) for s in lengths]
            == [(s["low"], s["n"]) for s in tokens]
            == [(k, 2) for k in range(4, 11)]
        )
    code, out, _ = zoo("strata", str(logged), "--model", "tiny-random")
    assert code == 0 and "charbench_first: acc" in out and "Strata" in out


def test_a_method_s_tokenizer_gives_other_tokens(zoo, logged):
    code, out, err = zoo(
        "strata", str(logged), "--model", "tiny-random", "--json", "--method", "bpe@vocab_size=600@train_bytes=20000"
    )
    assert code == 0, err
    strata = json.loads(out)["tasks"][0]["strata"]
    assert max(s["high"] for s in strata if s["covariate"] == "characters_per_token") > 1


def test_a_task_without_a_share_is_left_out_of_a_folder_and_refused_alone(zoo, logged, tmp_path):
    for file in logged.rglob("samples_charbench_first*.jsonl"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    other = tmp_path / "samples_bits_1.jsonl"
    other.write_text('{"doc": {}, "target": "", "bits_per_byte": 1.0}\n', "utf-8")
    code, out, err = zoo("strata", str(tmp_path), "--model", "tiny-random", "--json")
    assert code == 0 and [t["task"] for t in json.loads(out)["tasks"]] == ["charbench_first"]
    assert "warning: the samples of bits have none of acc" in err
    code, _, err = zoo("strata", str(other), "--model", "tiny-random")
    assert code == 2 and err.count("\n") == 1


def test_a_wrong_path_is_one_line(zoo, tmp_path):
    code, _, err = zoo("strata", str(tmp_path), "--model", "tiny-random")
    assert code == 2 and err.count("\n") == 1 and "--log_samples" in err
