"""Settings of the micro-benchmarks: ``pytest ci/bench`` by hand, or `zoo bench`, which sets the same options."""

from __future__ import annotations

import os

import pytest
import torch

from harness.subjects.load import load_subject
from harness.subjects.subject import Subject


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which methods, on which model, with how many threads."""
    group = parser.getgroup("token zoo")
    group.addoption("--zoo-methods", default=os.environ.get("ZOO_BENCH_METHODS", ""), help="ids, comma-separated")
    group.addoption("--zoo-kind", default=os.environ.get("ZOO_BENCH_KIND", ""), help="only methods of this kind")
    group.addoption("--zoo-model", default=os.environ.get("ZOO_BENCH_MODEL", ""), help="model instead of each kind's")
    group.addoption("--zoo-threads", type=int, default=1, help="torch threads")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a method that has workloads."""
    from harness.catalog.registry import catalog

    if "method_id" in metafunc.fixturenames:
        wanted = [name for name in metafunc.config.getoption("--zoo-methods").split(",") if name]
        asked = metafunc.config.getoption("--zoo-kind")
        kinds = (asked,) if asked else ("kernel", "tokenizer", "objective", "pruning")
        known = [name for name, entry in catalog().items() if entry.card.kind in kinds]
        metafunc.parametrize("method_id", wanted or sorted(known))


@pytest.fixture(scope="session")
def subjects(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    """Loaded subjects by name, each once."""
    torch.set_num_threads(request.config.getoption("--zoo-threads"))
    loaded: dict[str, Subject] = {}

    def get(name: str) -> Subject:
        name = request.config.getoption("--zoo-model") or name
        if name not in loaded:
            loaded[name] = load_subject(name)
        return loaded[name]

    return get
