"""The rules of the house, read from the sources: who may import whom, and how long a file may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEVELS = {
    "errors": 0,
    "stats": 1,
    "catalog": 1,
    "subjects": 2,
    "toolkit": 3,
    "kinds": 4,
    "evaluate": 4,
    "measure": 4,
    "records": 4,
    "run": 5,
    "gate": 5,
    "report": 5,
    "cli": 6,
}
"""A package imports its own level and those below: cli, then run and report, then kinds and their peers, and so on."""

METHODS_MAY = {"harness.kinds", "harness.toolkit", "harness.catalog"}
HEAVY = {"torch", "transformers", "lm_eval", "polars", "numpy", "scipy", "codecarbon", "ray"}
LIGHT = [
    "harness/cli",
    "harness/catalog",
    "harness/records",
    "harness/stats",
    "harness/run/plan.py",
    "harness/run/suite.py",
]

SOURCES = sorted(p for top in ("harness", "methods") for p in (ROOT / top).rglob("*.py"))


def imports_of(path, at_start=False):
    """Dotted names that a file imports; ``at_start``: only those that run when it is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []

    def visit(node):
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.extend(f"{node.module}.{alias.name}" for alias in node.names)
        elif at_start and (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        ):
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def within(name, packages):
    """Whether a dotted name is one of the packages or lies in one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def test_there_is_something_to_read():
    assert len(SOURCES) > 20


def test_methods_import_the_interfaces_alone():
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        if path.is_relative_to(ROOT / "methods")
        for name in imports_of(path)
        if within(name, {"harness", "tasks", "tests"}) and not within(name, METHODS_MAY)
    ]
    assert not wrong


def test_the_engine_names_no_method():
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        if path.is_relative_to(ROOT / "harness")
        for name in imports_of(path)
        if within(name, {"methods", "tests"})
    ]
    assert not wrong


def test_imports_run_one_way():
    wrong = []
    for path in SOURCES:
        place = path.relative_to(ROOT).with_suffix("").parts
        if place[0] != "harness" or len(place) < 2 or place[1] not in LEVELS:
            continue
        for name in imports_of(path):
            parts = name.split(".")
            if parts[0] == "harness" and len(parts) > 1 and LEVELS.get(parts[1], 0) > LEVELS[place[1]]:
                wrong.append(f"{path.relative_to(ROOT)}: {name}")
    assert not wrong


def test_every_package_of_the_engine_has_its_level():
    folders = {path.name for path in (ROOT / "harness").iterdir() if any(path.glob("*.py"))}
    assert folders <= set(LEVELS)


def test_kinds_do_not_import_each_other():
    wrong = []
    for path in SOURCES:
        place = path.relative_to(ROOT).parts
        if place[:2] != ("harness", "kinds") or len(place) < 4:
            continue
        others = {p.name for p in (ROOT / "harness" / "kinds").iterdir() if p.is_dir()} - {place[2]}
        for name in imports_of(path):
            if within(name, {f"harness.kinds.{other}" for other in others}):
                wrong.append(f"{path.relative_to(ROOT)}: {name}")
    assert not wrong


@pytest.mark.parametrize("place", LIGHT)
def test_what_the_command_line_reads_first_imports_nothing_heavy(place):
    files = [p for p in SOURCES if p.is_relative_to(ROOT / place)]
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in imports_of(path, at_start=True)
        if within(name, HEAVY)
    ]
    assert not wrong


def test_files_stay_short():
    """Interfaces of the kinds 200 lines, methods 150, the rest of the engine 300."""
    wrong = []
    for path in SOURCES:
        place = path.relative_to(ROOT).parts
        is_interface = place[:2] == ("harness", "kinds") and place[-1] == "base.py"
        limit = 150 if place[0] == "methods" else 200 if is_interface else 300
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > limit:
            wrong.append(f"{path.relative_to(ROOT)}: {lines} lines, at most {limit}")
    assert not wrong


def test_functions_stay_short():
    """Fifty lines of body; a command's options are its signature."""
    wrong = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.body[0].lineno + 1
                if lines > 50:
                    wrong.append(f"{path.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert not wrong
