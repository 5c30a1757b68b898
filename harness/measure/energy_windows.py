"""Energy of prefill, decode and training, in windows of their own so that the meter disturbs no timed block."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from harness.kinds.method import Measurement
from harness.measure.decode import DecodeWork
from harness.measure.energy import EnergyMeter, EnergyReading
from harness.subjects.subject import Subject

JOULES_PER_KWH = 3.6e6


def decode_energy(
    opened: Callable[[], AbstractContextManager[Subject]], work: DecodeWork, window_s: float
) -> list[Measurement]:
    """Joules a token of prefill and of decode. A window repeats whole units until it is at least ``window_s`` long.

    A decode window holds whole requests, so the energy of as many prefills is taken off, from the prefill window.
    """
    with opened() as subject, EnergyMeter(str(subject.device)) as meter:
        meter.measure_idle(min(window_s, 10.0))
        prefill, prefills = _window(meter, "prefill", lambda: _generate(subject, replace(work, new_tokens=1)), window_s)
        whole, requests = _window(meter, "decode", lambda: _generate(subject, work), window_s)
    prompt_tokens = sum(len(p) for p in work.batches()[0])
    new_tokens = (work.new_tokens - 1) * len(work.batches()[0])
    times, decoded = requests / prefills, requests * new_tokens
    gross = _figure("energy_per_token_decode", whole, _less(whole.gross_j, prefill.gross_j, times), decoded)
    net = _figure("energy_net_per_token_decode", whole, _less(whole.net_j, prefill.net_j, times), decoded)
    found = [_figure("energy_per_token_prefill", prefill, prefill.gross_j, prefills * prompt_tokens), gross, net]
    if gross is not None and whole.grid_g_per_kwh:
        grams = gross.value * 1e6 * whole.pue * whole.grid_g_per_kwh / JOULES_PER_KWH
        found.append(Measurement("co2_per_million_tokens", grams, phase="decode", source=whole.source))
    return [figure for figure in found if figure is not None]


def training_energy(
    name: str, update: Callable[[], object], tokens: float, device: str, window_s: float
) -> list[Measurement]:
    """Joules a trained token of the workload ``name``, from a window of repeated updates of ``tokens`` tokens each."""
    with EnergyMeter(device) as meter:
        reading, updates = _window(meter, name, update, window_s)
    figure = _figure("energy_per_trained_token", reading, reading.gross_j, updates * tokens)
    return [] if figure is None else [figure]


def _generate(subject: Subject, work: DecodeWork) -> None:
    subject.generate(work.request(work.batches()[0]))


def _window(meter: EnergyMeter, phase: str, once: Callable[[], object], window_s: float) -> tuple[EnergyReading, int]:
    """Repeat until the window is long enough; returns its reading and the number of repeats."""
    repeats = 0
    with meter.window(phase) as window:
        started = time.perf_counter()
        while time.perf_counter() - started < window_s:
            once()
            repeats += 1
    assert window.reading is not None
    return window.reading, repeats


def _less(whole: float | None, part: float | None, times: float) -> float | None:
    return None if whole is None or part is None else whole - part * times


def _figure(name: str, reading: EnergyReading, joules: float | None, tokens: float) -> Measurement | None:
    """Joules a token with the reading's source; None where there is no figure, or rounding made it negative."""
    if joules is None or joules <= 0:
        return None
    return Measurement(name, joules / tokens, n=int(tokens), phase=reading.phase, source=reading.source)
