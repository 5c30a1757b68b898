"""The asking end of stations: answers, errors, limits and ends of processes; fleets; blocks within a budget.

Most tests speak to a light process: the station's own main loop around a class that loads no model.
"""

import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

import harness
from harness.errors import CheckFailed, EnvironmentFailed, Refused, UsageError
from harness.measure.pairs import ORDER, OTHER, Block
from harness.run import lockstep
from harness.run import process as process_module
from harness.run.lockstep import BlockSeries, Fleet, Place, StationProcess, fleet, log_ratio, source_roots
from harness.run.suite import DecodeSpec

LIGHT = """
import harness, harness.errors, importlib.util, time


class Light(Station):
    def load(self, model, **given):
        if model == "nosuch":
            raise harness.errors.UsageError("unknown model 'nosuch'")
        runs = "/elsewhere/harness" if model == "elsewhere" else str(Path(harness.__file__).parent)
        return {"harness": runs, "model": model, **given}

    def say(self, text):
        print("a library speaks")
        sys.stdout.flush()
        os.write(1, b"so does its C code\\n")
        os.system("echo and a program that it starts")
        return text

    def hang(self):
        time.sleep(600)

    def leave(self):
        os._exit(7)

    def fail(self, name):
        raise {**vars(harness.errors), **vars(__builtins__)}[name]("first\\nsecond" if name == "KeyError" else "a line")

    def where(self, name):
        return importlib.util.find_spec(name).origin


Station = Light
"""


@pytest.fixture
def light(tmp_path):
    """A source tree whose stations start at once."""
    tree = tmp_path / "tree"
    (tree / "harness" / "run").mkdir(parents=True)
    real = Path(harness.__file__).parent
    for name in ("__init__.py", "errors.py", "run/__init__.py", "run/process.py"):
        (tree / "harness" / name).write_text((real / name).read_text())
    ending = 'if __name__ == "__main__":'
    source = (real / "run" / "station.py").read_text()
    assert source.count(ending) == 1  # else the light processes would load models
    (tree / "harness" / "run" / "station.py").write_text(source.replace(ending, LIGHT + ending))
    return Place("tiny-random", source=str(tree))


@pytest.fixture
def started(monkeypatch):
    """Every process that was started; none outlives its test."""
    made, popen = [], process_module.subprocess.Popen

    def start(*arguments, **settings):
        made.append(popen(*arguments, **settings))
        return made[-1]

    monkeypatch.setattr(process_module, "subprocess", SimpleNamespace(Popen=start, PIPE=subprocess.PIPE))
    yield made
    for process in made:
        process.kill()
        process.wait()


@pytest.fixture
def station(light, started, tmp_path):
    """A light process."""
    return StationProcess(light, tmp_path / "log", limit_s=30)


def test_what_a_library_prints_does_not_break_the_protocol(station, tmp_path):
    assert [station.ask("say", text=text) for text in ("ä\n", "b")] == ["ä\n", "b"]
    log = (tmp_path / "log").read_text()
    assert all(words in log for words in ("a library speaks", "so does its C code", "a program that it starts"))


@pytest.mark.parametrize("error", [UsageError, CheckFailed, Refused, EnvironmentFailed])
def test_an_error_comes_back_as_itself(station, error):
    with pytest.raises(error) as caught:
        station.ask("fail", name=error.__name__)
    assert type(caught.value) is error and str(caught.value) == "a line"
    assert station.ask("say", text="alive") == "alive"


def test_any_other_error_is_one_line_and_its_traceback_is_in_the_log(station, tmp_path):
    with pytest.raises(EnvironmentFailed) as caught:
        station.ask("fail", name="KeyError")
    assert str(caught.value).startswith("KeyError:") and "\n" not in str(caught.value)
    assert "Traceback" in (tmp_path / "log").read_text()
    with pytest.raises(EnvironmentFailed, match="AttributeError"):
        station.ask("no_such_request")


def test_a_killed_process_is_named_with_its_signal_and_log(station, tmp_path):
    station.process.kill()
    for _ in range(2):  # the second request meets a closed pipe
        with pytest.raises(EnvironmentFailed, match=f"signal SIGKILL during say; see {tmp_path / 'log'}"):
            station.ask("say", text="")


def test_a_process_that_leaves_is_named_with_its_code(station):
    with pytest.raises(EnvironmentFailed, match="exit code 7 during leave"):
        station.ask("leave")


@pytest.mark.parametrize("stopped", [False, True])
def test_a_request_beyond_its_limit_ends_the_process(station, stopped):
    station.limit_s = 1.0
    if stopped:
        os.kill(station.process.pid, signal.SIGSTOP)
    with pytest.raises(EnvironmentFailed, match="hang took longer than the limit of 1 s"):
        station.ask("hang")
    assert station.process.poll() == -signal.SIGKILL


@pytest.mark.parametrize("busy", [False, True])
def test_a_process_ends_with_the_one_that_asks(station, busy):
    """Its standard input closes then, however the other came to its end."""
    if busy:
        station.process.stdin.write(b'{"do": "hang", "with": {}}\n')
        station.process.stdin.flush()
    station.process.stdin.close()
    assert station.process.wait(timeout=30) == 0


def test_a_model_that_cannot_be_loaded_leaves_no_process(light, started, tmp_path):
    with pytest.raises(UsageError, match="unknown model 'nosuch'"):
        StationProcess(Place("nosuch", source=light.source), tmp_path / "log")
    assert [process.poll() for process in started] == [-signal.SIGKILL]


def test_a_process_that_runs_other_sources_is_refused(light, started, tmp_path):
    with pytest.raises(EnvironmentFailed, match="runs /elsewhere/harness instead of its own"):
        StationProcess(Place("elsewhere", source=light.source), tmp_path / "log")
    assert started[0].poll() is not None
    link = tmp_path / "link"
    link.symlink_to(light.source)
    assert StationProcess(Place("tiny-random", source=str(link)), tmp_path / "log").hello["model"] == "tiny-random"


def test_a_place_is_passed_on_and_relative_paths_hold_in_its_folder(light, started, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "wrapper").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "wrapper").chmod(0o755)
    (tmp_path / "python").symlink_to("wrapper")
    place = Place("model", "cpu", "float32", 2, 3, light.source, "./python")
    hello = StationProcess(place, tmp_path / "log", cores=(0,)).hello
    assert {k: hello[k] for k in ("model", "device", "dtype", "threads", "seed", "cores")} == {
        "model": str(tmp_path / "model"),
        "device": "cpu",
        "dtype": "float32",
        "threads": 2,
        "seed": 3,
        "cores": [0],
    }
    assert started[0].args[0] == str(tmp_path / "python")  # not what it links to: an environment's is a link


def test_an_interpreter_that_is_not_there_is_one_line(light, tmp_path):
    with pytest.raises(UsageError, match="'no/python' cannot be run"):
        StationProcess(Place("tiny-random", python="no/python"), tmp_path / "log")


def test_packages_under_src_are_found_before_others(light, started, tmp_path):
    package = Path(light.source, "src", "polars.py")
    package.parent.mkdir()
    package.write_text("")
    assert StationProcess(light, tmp_path / "log").ask("where", name="polars") == str(package)
    assert source_roots(light.source) == (light.source, f"{light.source}/src")


def test_a_tree_older_than_stations_is_refused(tmp_path):
    (tmp_path / "harness").mkdir()
    with pytest.raises(UsageError, match="older than `zoo gate`"):
        source_roots(str(tmp_path))
    with pytest.raises(UsageError, match="older than `zoo gate`"):
        StationProcess(Place("tiny-random", source=str(tmp_path)), tmp_path / "log")


def test_a_fleet_has_one_process_a_place_and_side(light, started, tmp_path):
    with fleet(tmp_path / "log", limit_s=20) as ships:
        one = ships.at(light)
        assert ships.at(Place("tiny-random", source=light.source)) is one and one.limit_s == 20
        others = [ships.at(light, "second"), ships.at(Place("tiny-random", seed=1, source=light.source))]
        assert len({one, *others}) == 3
        bound = {tuple(station.hello["cores"]) for station in (one, *others)}
        can_be_bound = hasattr(os, "sched_getaffinity")
        assert len(bound) == 1 and len(bound.pop()) == (1 if can_be_bound else 0)
    assert [process.poll() for process in started] == [-signal.SIGKILL] * 3


def test_a_fleet_starts_a_dead_process_anew(light, started, tmp_path):
    ships = Fleet(tmp_path / "log")
    first = ships.at(light)
    with pytest.raises(EnvironmentFailed):
        first.ask("leave")
    assert ships.at(light) is not first and ships.at(light).ask("say", text="alive") == "alive"
    ships.close()
    assert not ships.running and all(process.poll() is not None for process in started)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no process can be bound to cores here")
def test_quiet_cores_are_the_least_used_of_those_allowed(monkeypatch):
    usage = {0: 90.0, 1: 1.0, 2: 50.0, 3: 0.0}
    monkeypatch.setattr(psutil, "cpu_percent", lambda *_, **__: list(usage.values()))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert lockstep.quiet_cores(1) == (1,) and lockstep.quiet_cores(2) == (1, 2)
    assert lockstep.quiet_cores(9) == (0, 1, 2)
    monkeypatch.delattr(os, "sched_getaffinity")
    assert lockstep.quiet_cores(1) == ()


def test_a_real_process_measures_a_real_model(tmp_path):
    """Everything between the pipe and the clocks, once; what a station does is tested without processes."""
    cores = sorted(os.sched_getaffinity(0))[-1:] if hasattr(os, "sched_getaffinity") else []
    station = StationProcess(Place("tiny-random", "cpu"), tmp_path / "log", 120, cores)
    try:
        assert station.hello["device"] == "cpu" and station.hello["dtype"] == "float32"
        assert station.hello["harness"] == str(Path(harness.__file__).parent)
        decode = DecodeSpec(prompts="chat", new_tokens=4, count=2).model_dump()
        assert station.ask("open_decode", handle="a", method="", decode=decode) == {"units": 2}
        block = station.visits("candidate", "a")(1)
        assert (block.side, block.unit, block.result["forwards"]) == ("candidate", 1, 4)
        assert 0 < block.wall_s == block.result["total_s"] and 0 < block.cpu_s == block.result["cpu_s"]
        if cores:
            assert psutil.Process(station.process.pid).cpu_affinity() == cores
        with pytest.raises(UsageError, match="did you mean 'kv_full'"):
            station.ask("open_decode", handle="b", method="kv_ful", decode=decode)
    finally:
        station.close()
    assert station.process.poll() == -signal.SIGKILL


@pytest.fixture
def clock(monkeypatch):
    """Visits that each take one second of a clock of their own; what was visited is kept."""
    state = SimpleNamespace(now=0.0, visited=[])
    monkeypatch.setattr(lockstep, "time", SimpleNamespace(perf_counter=lambda: state.now))

    def visits_of(side):
        def visit(unit):
            state.now += 1.0
            state.visited.append((side, unit))
            return Block(side, unit, 1.0, 1.0, {"total_s": 1.0})

        return visit

    state.visits = {side: visits_of(side) for side in OTHER}
    return state


def test_a_series_cycles_through_units_and_stops_within_its_budget(clock):
    series = BlockSeries(clock.visits, units=3, budget_s=20.0)
    assert series.plan() == 5 and len(series.blocks) == 1  # a block takes four visits of a second
    assert len(series.upto(2)) == 2 and len(series.blocks) == 2
    assert len(series.upto(99)) == 5 and series.spent_s == 20.0
    assert [block[0].unit for block in series.blocks] == [0, 1, 2, 0, 1]
    assert len(series.upto(3)) == 3 and len(series.upto(99)) == 5


def test_a_budget_below_one_block_buys_one(clock):
    series = BlockSeries(clock.visits, units=3, budget_s=1.0)
    assert series.plan() == 1 and len(series.upto(9)) == 1
    assert len(BlockSeries(clock.visits, units=3, budget_s=0.0).upto(2)) == 1


def test_the_order_of_a_block_is_drawn_by_the_seed(clock):
    def orders(seed):
        blocks = BlockSeries(clock.visits, 1, math.inf, seed).upto(40)
        return [tuple(visit.side for visit in block) for block in blocks]

    drawn = orders(1)
    assert drawn == orders(1) != orders(2)
    assert set(drawn) == {ORDER, tuple(OTHER[side] for side in ORDER)}
    assert 8 <= drawn.count(ORDER) <= 32  # a fair coin: outside with probability 1e-4


def test_a_ratio_takes_the_smaller_of_two_visits():
    times = {"candidate": [3.0, 90.0], "baseline": [50.0, 2.0]}
    visits = [Block(side, 0, t, t, {"total_s": t, "cpu_s": 7.0}) for side, both in times.items() for t in both]
    random.Random(0).shuffle(visits)
    assert log_ratio(visits, "total_s") == pytest.approx(math.log(1.5))
    assert log_ratio(visits, "cpu_s") == 0.0
