"""Decode steps of a whole model over a long cache: methods that select against reading everything, in pairs.

Run `python ci/bench/long_decode.py [METHOD ...] [--dtype float32] [--slots 8192 32768]`. The cache is filled with
random keys and values, as only time is asked for: the default model is trained to 8192 tokens. Prints for each length
the ratio of times with its 95 % interval and the milliseconds of a plain step.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch

from harness.catalog.spec import MethodSpec
from harness.measure.pairs import BASELINE, Side, run_pairs, timed_sides
from harness.subjects.catalog import DEFAULT_MODEL
from harness.subjects.load import load_subject
from harness.subjects.runner import Runner
from harness.subjects.subject import Subject

LENGTHS = (2048, 8192, 16384, 32768)
STEPS, UNITS = 4, 5
METHODS = (
    "hisa@tokens=512@page=128",
    "token_select@tokens=512",
    "fasa@tokens=512@group=sum@chunks=random",
    "kv_quest@tokens=512@page=64",
)


def filled(subject: Subject, slots: int) -> Runner:
    """A runner whose layers hold ``slots`` random slots."""
    runner = Runner(subject.model, subject.new_cache)
    runner.prefill([[1]])
    generator = torch.Generator().manual_seed(0)
    for layer in runner.cache.layers:
        shape = (1, layer.keys.shape[1], slots + 64, layer.keys.shape[3])
        layer.keys, layer.values = (torch.randn(shape, generator=generator).to(layer.keys) for _ in range(2))
        layer.length = slots
    runner.cache.seen_B = torch.tensor([slots], device=runner.device)
    return runner


def steps(runner: Runner) -> None:
    """Plain decode steps."""
    ids = torch.tensor([[5]], device=runner.device)
    for _ in range(STEPS):
        runner.forward(ids)
        runner.commit()


def side(runner: Runner) -> Side:
    """Each visit goes on from the full cache; a first round of steps, which makes buffers and notes, is not timed."""

    @contextmanager
    def opened(unit: int) -> Iterator[Callable[[], None]]:
        branch = runner.fork()
        steps(branch)
        yield lambda: steps(branch)

    return opened


def main() -> None:
    """Every method at every length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--dtype", help="left out: the model's own")
    parser.add_argument("--slots", type=int, nargs="+", default=LENGTHS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    subject = load_subject(DEFAULT_MODEL, dtype=args.dtype)
    for name in args.methods:
        method = MethodSpec.parse(name).build()
        for slots in args.slots:
            with torch.inference_mode(), ExitStack() as stack:
                changed = stack.enter_context(method.apply(subject))
                full, pruned = filled(subject, slots), filled(changed, slots)
                run = run_pairs(timed_sides(side(pruned), side(full)), range(UNITS))
            ratio = run.speedup()
            plain = 1e3 * min(b.wall_s for b in run.of(BASELINE)) / STEPS
            figures = f"{ratio.value:.2f} times kv_full's speed [{ratio.low:.2f}, {ratio.high:.2f}]"
            print(f"{name}, {slots} slots: {figures}, a plain step takes {plain:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
