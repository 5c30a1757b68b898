"""The options of all verbs: a frozen list, so that adding one is deliberate, and their common habits.

``python tests/cli/test_options.py`` writes the list anew.
"""

from pathlib import Path

import pytest

from harness.cli import options
from harness.cli.app import VERBS, make_command

FROZEN = Path(__file__).with_name("options.txt")


def all_options():
    """One line an option: verb, names, variable."""
    lines = []
    for name in VERBS:
        for option in make_command(name).params:
            if option.param_type_name == "option" and option.name != "help":
                names = "/".join([*option.opts, *option.secondary_opts])
                lines.append(f"{name} {names} {option.envvar}")
    return sorted(lines)


def test_options_are_those_of_the_list():
    assert all_options() == FROZEN.read_text(encoding="utf-8").splitlines()


def test_every_option_has_a_variable_of_the_zoo_and_a_help():
    for name in VERBS:
        for option in make_command(name).params:
            if option.param_type_name == "option" and option.name != "help":
                assert option.envvar.startswith("ZOO_") and option.help, (name, option.opts)


@pytest.fixture
def echo(verb):
    """A verb that has all common options and keeps what it was given."""
    got = {}

    def probe(
        model: options.Model = options.DEFAULT_MODEL,
        tasks: options.Tasks = None,
        limit: options.Limit = None,
        num_fewshot: options.NumFewshot = None,
        device: options.Device = "auto",
        dtype: options.Dtype = None,
        seed: options.Seed = 0,
        batch_size: options.BatchSize = 8,
        output_path: options.OutputPath = None,
        log_samples: options.LogSamples = False,
        as_json: options.Json = False,
    ):
        got.update(locals())

    verb(probe)
    return got


@pytest.mark.parametrize("name", ["--batch_size", "--batch-size", "--batch_size=4"])
def test_hyphen_and_underscore_are_one(zoo, echo, name):
    assert zoo("probe", name, *([] if "=" in name else ["4"]))[0] == 0
    assert echo["batch_size"] == 4


def test_variables_fill_in_and_the_command_line_wins(zoo, echo, monkeypatch):
    monkeypatch.setenv("ZOO_BATCH_SIZE", "2")
    monkeypatch.setenv("ZOO_JSON", "1")
    monkeypatch.setenv("ZOO_OUTPUT_PATH", "out")
    zoo("probe", "--seed", "5")
    assert (echo["batch_size"], echo["seed"], echo["as_json"], echo["output_path"]) == (2, 5, True, Path("out"))
    zoo("probe", "--batch_size", "3")
    assert echo["batch_size"] == 3


@pytest.mark.parametrize(
    "wrong", [("--batch_size", "0"), ("--limit", "-1"), ("--num_fewshot", "-1"), ("--seed", "x"), ("--modle", "m")]
)
def test_values_out_of_range_are_2(zoo, echo, wrong):
    code, _, err = zoo("probe", *wrong)
    assert code == 2 and err.count("\n") == 1 and not echo


def test_names_are_split_at_commas():
    assert options.split_names(" a, b,,c ") == ["a", "b", "c"]
    assert options.split_names(None) == []


def test_help_names_the_variable(zoo, echo):
    assert "ZOO_BATCH_SIZE" in zoo("probe", "--help")[1]


if __name__ == "__main__":
    FROZEN.write_text("\n".join(all_options()) + "\n", encoding="utf-8")
