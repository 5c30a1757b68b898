"""``zoo doctor``: one JSON document or one table with the same figures, on tiny budgets."""

import functools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from harness.cli import doctor as module
from harness.errors import EnvironmentFailed, UsageError
from harness.gate import floors
from harness.measure import ceilings

SMALL = 2**18


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ceilings in milliseconds, a cache folder of the test's own, and no table folded."""
    measure = ceilings.measure_ceilings
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(ceilings, "GEMM_SIZES", (32,))
    monkeypatch.setattr(ceilings, "BLOCK_S", 0.001)
    monkeypatch.setattr(ceilings, "streaming_bytes", lambda device: SMALL)
    monkeypatch.setattr(ceilings, "measure_ceilings", lambda device, budget_s: measure(device, 0.02))


def call(*arguments: str) -> Any:
    """Run the verb alone, as a command line of its own."""
    app = typer.Typer()
    app.command()(module.doctor)
    return CliRunner().invoke(app, list(arguments))


def test_json_is_one_document_with_every_section() -> None:
    result = call("--json", "--device", "cpu")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    sections = "machine load devices dtypes ceilings noise threads counters versions environment cache model"
    assert list(report) == sections.split()
    assert report["devices"][0] == "cpu" and report["dtypes"]["float32"] == "runs"
    rates = [report["ceilings"]["copy"], *report["ceilings"]["gemm"].values(), *report["threads"]["gemv_ms"].values()]
    assert all(math.isfinite(rate) and rate > 0 for rate in rates)
    assert report["counters"]["codecarbon"]["source"] in {"counter", "model"}
    assert report["versions"]["torch"] == torch.__version__
    assert report["model"] == {"name": "smollm2-135m-q4", "state": "absent, fetched at first use"}
    assert report["cache"]["free_bytes"] > 0


def test_the_table_shows_the_same_figures() -> None:
    report = json.loads(call("--json", "--device", "cpu").stdout)
    table = call("--device", "cpu").stdout  # the ceilings come from the cache now
    assert report["machine"]["digest"] in table
    assert f"{report['ceilings']['copy'] / 1e9:.1f} GB/s" in table
    assert f"GEMM {report['ceilings']['gemm']['float32'] / 1e9:.1f} GFLOP/s" in table
    assert "OMP_NUM_THREADS=" in table and report["counters"]["rapl"]["reason"] in table


def test_refresh_measures_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    measure = ceilings.measure_ceilings
    monkeypatch.setattr(ceilings, "measure_ceilings", lambda *given: (calls.append(given[0]), measure(*given))[1])
    for arguments in ([], [], ["--refresh"]):
        assert call("--device", "cpu", *arguments).exit_code == 0
    assert calls == ["cpu", "cpu"]


def test_a_dtype_that_does_not_run_and_a_busy_machine_are_shown() -> None:
    report = module.examine("cpu")
    report["dtypes"]["float16"] = "not implemented for 'Half'"
    report["ceilings"]["busy"] = report["threads"]["caution"] = "busy machine: load 9.0 on 2 cores"
    rows = [" ".join(row) for row in module._rows(report)]
    assert any("float16 does not run: not implemented" in row for row in rows)
    assert any("caution busy machine: load 9.0" in row for row in rows)
    assert any("--refresh when it is quiet" in row for row in rows)


def test_bad_devices_are_one_line() -> None:
    assert isinstance(call("--device", "no-such").exception, UsageError)
    assert isinstance(call("--device", "meta").exception, UsageError)
    if not torch.cuda.is_available():
        assert isinstance(call("--device", "cuda").exception, EnvironmentFailed)


def test_a_cuda_index_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(EnvironmentFailed, match="sees 1 CUDA device"):
        module.examine("cuda:3")


def test_a_cache_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(EnvironmentFailed, match="ZOO_CACHE"):
        module.examine("cpu")


def test_the_model_is_found_where_it_was_converted(tmp_path: Path) -> None:
    from harness.subjects.embedded import MEMBER, SHA256

    name = Path(MEMBER)
    (tmp_path / "cache" / "downloads").mkdir(parents=True)
    (tmp_path / "cache" / "downloads" / name.name).write_text("")
    assert module._model_state()["state"] == "downloaded, converted at first use"
    folder = tmp_path / "cache" / "models" / f"{name.stem}-{SHA256[:16]}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert module._model_state()["state"] == "ready"


def test_thread_counts_and_advice() -> None:
    assert module.thread_counts(1) == [1] and module.thread_counts(2) == [1, 2]
    assert module.thread_counts(12) == [1, 2, 4, 8, 12] and module.thread_counts(16) == [1, 2, 4, 8, 16]
    assert module.advise({1: 10.0, 2: 6.0, 4: 5.9}) == 2  # four threads save under 5%
    assert module.advise({1: 10.0, 2: 12.0}) == 1


def test_an_unknown_noise_floor_says_how_to_measure_it() -> None:
    assert json.loads(call("--json", "--device", "cpu").stdout)["noise"] is None
    assert "zoo doctor --noise measures it" in call("--device", "cpu").stdout


@pytest.fixture
def short(stations_here: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Comparisons of the noise floor in this process, each of a few blocks."""
    monkeypatch.setattr(floors, "measure_noise", functools.partial(floors.measure_noise, budget_s=0.02))
    return stations_here


def test_the_noise_floor_is_measured_kept_and_shown(short: Any) -> None:
    result = call("--noise", "--repeats", "4", "--json", "--device", "cpu")
    assert result.exit_code == 0, result.output
    noise = json.loads(result.stdout)["noise"]
    assert noise["model"] == "tiny-random" and noise["machine"] == json.loads(result.stdout)["machine"]["digest"]
    assert set(noise["floors"]) == {"one process", "two processes"}
    for clocks in noise["floors"].values():
        assert set(clocks) == {"wall", "cpu", "memory"} and {f["n"] for f in clocks.values()} == {4}
        assert all(f["value"] >= max(abs(f["low"]), f["high"]) >= 0 for f in clocks.values())
    assert len(short.made) == 1 + 2 * 4  # two processes are started anew for each comparison
    assert "noise in two processes, 4 of 4" in result.stderr
    table = call("--device", "cpu").stdout  # measured once, and kept under the machine's key
    assert "one process, wall" in table and "in 4 comparisons" in table and noise["measured"] in table


def test_the_noise_floor_of_other_threads_is_another(noise_known: Any) -> None:
    noise_known(0.125)
    place = ["--device", "cpu", "--json"]
    assert json.loads(call(*place).stdout)["noise"]["floors"]["two processes"]["cpu"]["value"] == 0.125
    assert json.loads(call(*place, "--threads", "2").stdout)["noise"] is None


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("--repeats", "3"), 2, "'--repeats'"),
        (("--energy", "-1"), 2, "'--energy'"),
        (("--noise-model", "tiny-randm", "--device", "cpu"), 2, "did you mean 'tiny-random'"),
    ],
)
def test_a_wrong_wish_for_noise_is_one_line(zoo: Any, short: Any, words: list[str], code: int, line: str) -> None:
    found, out, err = zoo("doctor", "--noise", *words)
    last = err.splitlines()[-1]
    assert (found, out) == (code, "") and last.startswith("zoo: ") and line in last


def test_importing_the_verb_brings_no_torch() -> None:
    code = "import sys, harness.cli.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
