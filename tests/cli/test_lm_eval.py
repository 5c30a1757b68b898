"""zoo lm-eval: lm-eval's own command line with the model ``zoo``."""

import json

import pytest

from harness.cli.lm_eval import with_our_defaults
from harness.errors import UsageError
from tasks import include_path

AUTO = ["--device", "auto"]
OURS = ["--include_path", str(include_path())]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["run", "--model", "zoo"], ["run", *OURS, *AUTO, "--model", "zoo"]),
        (["run", "--model=zoo", "--device", "cpu"], ["run", *OURS, "--model=zoo", "--device", "cpu"]),
        (["-M", "zoo", "--tasks", "a"], ["run", *OURS, *AUTO, "-M", "zoo", "--tasks", "a"]),
        (["run", "--model", "hf", "--tasks", "zoo"], ["run", *OURS, "--model", "hf", "--tasks", "zoo"]),
        (["ls", "tasks"], ["ls", *OURS, "tasks"]),
        (["validate", "--tasks", "a"], ["validate", *OURS, "--tasks", "a"]),
        (["run", "--include_path", "mine"], ["run", "--include_path", "mine"]),
        (["run", "--include_path=mine"], ["run", "--include_path=mine"]),
        (["run", "--inc", "mine"], ["run", "--inc", "mine"]),
        (["run"], ["run"]),
        (["--help"], ["--help"]),
        (["run", "--help"], ["run", "--help"]),
        ([], []),
    ],
)
def test_tasks_and_device_are_added_unless_they_are_named(given, wanted):
    assert with_our_defaults(given) == wanted


def test_a_folder_named_in_a_configuration_wins(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("include_path: mine\n", encoding="utf-8")
    assert with_our_defaults(["run", "--config", str(config)]) == ["run", "--config", str(config)]
    assert with_our_defaults(["run", f"--config={config}"]) == ["run", f"--config={config}"]
    config.write_text("model: zoo\nmetadata: {include_path: no}\n", encoding="utf-8")
    assert with_our_defaults(["run", "--config", str(config)])[:3] == ["run", *OURS]


@pytest.fixture
def own_task(tmp_path):
    """A user's own YAML with its data."""
    rows = [{"question": f"{n} and one make", "answer": str(n + 1)} for n in range(4)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    lines = [
        "task: own_sums",
        "dataset_path: json",
        f"dataset_kwargs: {{data_files: {{test: {data}}}}}",
        "test_split: test",
        "output_type: generate_until",
        'doc_to_text: "{{question}}"',
        'doc_to_target: "{{answer}}"',
        "generation_kwargs: {max_gen_toks: 4, until: ['.']}",
        "metric_list: [{metric: exact_match}]",
    ]
    (tmp_path / "own.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def test_the_zoo_answers_lm_eval(process, own_task, tmp_path):
    arguments = ["--model", "zoo", "--model_args", "pretrained=tiny-random,method=prompt_lookup"]
    more = [
        "--tasks",
        "own_sums",
        "--include_path",
        str(own_task),
        "--limit",
        "3",
        "--output_path",
        str(tmp_path / "out"),
    ]
    cache = {"HF_HOME": str(tmp_path / "home"), "ZOO_CACHE": str(tmp_path / "cache")}
    result = process("main()", "lm-eval", *arguments, *more, **cache)
    assert result.returncode == 0, result.stderr
    assert "own_sums" in result.stdout and "exact_match" in result.stdout
    (written,) = (tmp_path / "out").rglob("results_*.json")
    document = json.loads(written.read_text(encoding="utf-8"))
    assert document["config"]["model"] == "zoo" and document["n-samples"]["own_sums"]["effective"] == 3


def test_lm_evals_own_usage_errors_and_help_are_kept(zoo):
    code, _, err = zoo("lm-eval", "run", "--nonsense")
    assert code == 2 and "lm-eval" in err
    code, out, _ = zoo("lm_eval", "--help")
    assert code == 0 and "usage: lm-eval" in out


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("unknown method 'x'"), 2, "zoo: unknown method 'x'\n"),
        (ValueError("Tasks not\nfound"), 4, "zoo: lm-eval failed: ValueError: Tasks not found"),
        (SystemExit(7), 7, ""),
    ],
)
def test_what_goes_wrong_inside_is_one_line(zoo, monkeypatch, error, code, line):
    seen = {}

    def fail():
        import sys

        seen["words"] = sys.argv
        raise error

    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", fail)
    got, _, err = zoo("lm-eval", "run", "--model_args", "a=1", "b=2", "--limit", "3")
    assert got == code and err.startswith(line) and err.count("\n") <= 1
    assert seen["words"] == ["lm-eval", "run", *OURS, "--model_args", "a=1", "b=2", "--limit", "3"]
