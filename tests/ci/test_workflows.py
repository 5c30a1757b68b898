"""The recipes for continuous integration fit the command line as it is, parse, and keep to safe patterns."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from harness.catalog.spec import parse_stack
from harness.cli.app import VERBS, make_command, normalize
from harness.gate.policy import GateTrial, Policy, load_policy

ROOT = Path(__file__).resolve().parents[2]
ACTION = ROOT / "ci" / "action" / "action.yml"
README = ROOT / "ci" / "README.md"
PIN = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")


class Loader(yaml.SafeLoader):
    """YAML in which ``on`` is a word, as it is for GitHub."""


Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:bool" or first not in "oO"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load(text):
    return yaml.load(text, Loader)


WORKFLOWS = {path.name: load(path.read_text(encoding="utf-8")) for path in (ROOT / ".github/workflows").glob("*.yml")}
EXAMPLE = load(re.search(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[1])
JOBS = {
    f"{name}: {job}": body
    for name, workflow in {**WORKFLOWS, "the example": EXAMPLE}.items()
    for job, body in workflow["jobs"].items()
}
STEPS = {f"{name}, step {n}": s for name, job in JOBS.items() for n, s in enumerate(job["steps"])}
STEPS |= {f"the action, step {n}": s for n, s in enumerate(load(ACTION.read_text(encoding="utf-8"))["runs"]["steps"])}
SCRIPTS = {name: step["run"] for name, step in STEPS.items() if "run" in step}


def commands(text):
    """The words after ``zoo`` of every call in a script or a page."""
    for line in text.replace("\\\n", " ").splitlines():
        for call in re.finditer(r"(?:^|[\s`$/])zoo ([a-z-]+ [^`|&]*)|-m harness\.cli ([a-z-]+ [^|]*)", line):
            yield shlex.split(call[1] or call[2], comments=True)


def test_there_is_something_to_look_at():
    assert set(WORKFLOWS) == {"test.yml", "gate.yml"} and len(SCRIPTS) > 10
    found = [words[0] for script in SCRIPTS.values() for words in commands(script)]
    assert found.count("gate") == 4


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_shell_can_read_it_and_nothing_is_pasted_into_it(name):
    read = subprocess.run(["bash", "-n"], input=SCRIPTS[name], text=True, capture_output=True, timeout=20)
    assert not read.returncode, read.stderr
    assert "${{" not in SCRIPTS[name], "expressions go through env, where the shell does not read them as code"


@pytest.mark.parametrize("text", [*SCRIPTS.values(), README.read_text(encoding="utf-8")], ids=[*SCRIPTS, "README"])
def test_every_command_is_one_that_zoo_has(text):
    for words in commands(text):
        assert words[0] in VERBS
        known = {normalize(name) for p in make_command(words[0]).params for name in (*p.opts, *p.secondary_opts)}
        given = {normalize(word.partition("=")[0]) for word in words[1:] if re.match(r"-{1,2}[a-z]", word)}
        assert given <= known, (words, given - known)


@pytest.mark.parametrize("target", sorted({word for s in SCRIPTS.values() for word in re.findall(r"make (\w+)", s)}))
def test_every_make_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", [n for n, step in STEPS.items() if "uses" in step])
def test_foreign_actions_are_pinned_to_a_commit(name):
    uses = STEPS[name]["uses"]
    assert PIN.fullmatch(uses) or uses.startswith("OWNER/token-zoo/ci/action@")
    if uses.startswith("actions/checkout@"):
        assert STEPS[name]["with"]["persist-credentials"] is False


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_read_and_ends_in_time(name):
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] == {} and "pull_request_target" not in workflow["on"]
    for job in workflow["jobs"].values():
        assert job["permissions"] == {"contents": "read"} and job["timeout-minutes"] <= 180


@pytest.mark.parametrize("name", [n for n, job in JOBS.items() if "self-hosted" in str(job["runs-on"])])
def test_our_own_runner_never_sees_a_fork_and_runs_one_gate_at_a_time(name):
    condition = JOBS[name]["if"]
    own = "github.event.pull_request.head.repo.full_name == github.repository"
    assert condition == "github.event_name != 'pull_request'" or condition.endswith(own)
    assert "||" not in condition
    assert JOBS[name]["concurrency"]["group"] == "gate-gpu"
    assert not JOBS[name]["concurrency"].get("cancel-in-progress")


def test_clocks_are_noted_and_never_changed():
    calls = [call for s in SCRIPTS.values() for call in re.findall(r"nvidia-smi (\S+)", s) if call != ">"]
    assert calls and all(call == "-q" or call.startswith("--query-") for call in calls)


@pytest.mark.parametrize("job", ["gpu", "cpu"])
def test_a_pull_request_is_gated_against_its_base_in_one_job(job):
    steps = WORKFLOWS["gate.yml"]["jobs"][job]["steps"]
    assert steps[0]["with"]["fetch-depth"] == 0
    (gate,) = [step["run"] for step in steps if "zoo gate" in step.get("run", "")]
    assert '--base "origin/$GITHUB_BASE_REF"' in gate and ("--strict" in gate) == (job == "gpu")
    kept = steps[-1]
    assert kept["if"] == "always()" and {"gate.xml", "gate.md", "results/gates/"} <= set(kept["with"]["path"].split())


def test_pull_requests_have_exactly_one_gate():
    """The two conditions exclude each other: one asks for the runner and no fork, the other for either's opposite."""
    gpu, cpu = (WORKFLOWS["gate.yml"]["jobs"][job]["if"] for job in ("gpu", "cpu"))
    ours = r"vars.ZOO_GPU_RUNNER == 'yes'", "github.event.pull_request.head.repo.full_name == github.repository"
    assert all(part in gpu for part in ours) and all(part.replace("==", "!=") in cpu for part in ours)
    assert " || ".join(part.replace("==", "!=") for part in ours) in cpu


def run_itself(tmp_path, codes):
    """The nightly script with a ``zoo`` that exits with the given codes in turn."""
    (script,) = [s["run"] for s in WORKFLOWS["gate.yml"]["jobs"]["itself"]["steps"] if "zoo gate" in s.get("run", "")]
    fake = tmp_path / ".venv" / "bin" / "zoo"
    fake.parent.mkdir(parents=True)
    fake.write_text('#!/bin/sh\nn=$(cat n)\necho $((n + 1)) > n\nexit "$(echo "$CODES" | cut -d" " -f"$n")"\n')
    fake.chmod(0o755)
    (tmp_path / "n").write_text("1")
    names = {"POLICY": "p", "GITHUB_SHA": "s", "CODES": " ".join(map(str, codes)), "GATES": str(len(codes))}
    names |= {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "PATH": "/usr/bin:/bin"}
    bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    done = subprocess.run(bash, cwd=tmp_path, env=names, capture_output=True, text=True, timeout=20)
    return done.returncode, (tmp_path / "summary").read_text()


@pytest.mark.parametrize(
    ("codes", "code", "line"),
    [
        ([0, 0, 0], 0, "0 of 3 gates of equal sides alarmed, 0 could not be held\n"),
        ([0, 1, 0], 0, "1 of 3 gates of equal sides alarmed, 0 could not be held\n"),
        ([1, 0, 1], 1, "2 of 3 gates of equal sides alarmed, 0 could not be held\n"),
        ([0, 4, 0], 1, "0 of 3 gates of equal sides alarmed, 1 could not be held\n"),
    ],
)
def test_the_night_counts_alarms(tmp_path, codes, code, line):
    assert run_itself(tmp_path, codes) == (code, line)


def test_the_policy_loads_and_names_what_exists():
    policy = load_policy(ROOT / "ci" / "gate.toml")
    for trial in policy.trial:
        assert parse_stack(trial.method).build() and trial.wanted
    kinds = {"decode" if trial.decode else "workload" if trial.workload else "task" for trial in policy.trial}
    assert kinds == {"decode", "workload", "task"}


def rows(heading):
    """The body of the README's table whose first heading is given: first cell to the others."""
    text = README.read_text(encoding="utf-8")
    table = re.search(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)[1]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {row[0].strip("`"): row[1:] for row in cells}


@pytest.mark.parametrize(("heading", "model"), [("field", Policy), ("field of a trial", GateTrial)])
def test_the_readme_has_every_field_with_its_default(heading, model):
    table = rows(heading)
    assert list(table) == list(model.model_fields)
    for name, field in model.model_fields.items():
        shown = table[name][0]
        if field.is_required():
            assert shown == "required"
        elif field.default is None:
            assert shown == ""
        else:
            assert tomllib.loads(f"x = {shown.strip('`')}") == {"x": field.default}
        assert table[name][1]


def test_the_readme_has_every_input_of_the_action():
    inputs = load(ACTION.read_text(encoding="utf-8"))["inputs"]
    assert {name: row[0].strip("`") for name, row in rows("input").items()} == {
        name: entry["default"] for name, entry in inputs.items()
    }
    assert set(EXAMPLE["jobs"]["gate"]["steps"][1]["with"]) <= set(inputs)


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)\s]+)\)", README.read_text(encoding="utf-8"))
    assert targets and not [target for target in targets if not (README.parent / target).exists()]
