"""Which machine this is, and whether others were using it while something was timed."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

MIN_CPU_SHARE = 0.9
"""Compute-bound work spends nearly all its wall time on a core; below this share it was kept off it."""

LOAD_MARGIN = 0.5
"""The one-minute load may exceed the available cores by this much: the measuring process itself queues now and then."""

OTHERS_SHARE, OTHERS_FLOOR = 0.1, 0.25
"""Others (and the hypervisor) may use a tenth of the cores, and always a quarter of one core."""

MIN_ELAPSED_S = 0.5
"""System clocks tick in hundredths of a second, so a shorter interval says nothing of others."""

RAPL_ROOT = Path("/sys/class/powercap")


@dataclass(frozen=True)
class MachineKey:
    """All that decides whether two absolute times may be compared. ``threads`` is torch's intra-op thread count."""

    cpu: str
    physical_cores: int
    logical_cores: int
    available_cores: int
    ram_gib: int
    gpus: tuple[str, ...]
    gpu_driver: str
    torch_build: str
    threads: int
    system: str

    @property
    def digest(self) -> str:
        """Twelve hex digits over every field: the same on each start of the same machine."""
        text = "\n".join(f"{name}={value}" for name, value in asdict(self).items())
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def gpu_count(self) -> int:
        """CUDA devices that torch sees."""
        return len(self.gpus)

    @property
    def label(self) -> str:
        """What a reader wants to know of the machine, in one short line."""
        gpus = ", ".join(f"{self.gpus.count(name)}x {name}" for name in dict.fromkeys(self.gpus))
        cores = f"{self.available_cores} of {self.logical_cores} cores, {self.threads} thread(s), {self.ram_gib} GiB"
        return f"{self.cpu}, {cores}" + (f", {gpus}" if gpus else "") + f", torch {self.torch_build}"

    @property
    def short(self) -> str:
        """The digest with the label."""
        return f"{self.digest} ({self.label})"


@dataclass(frozen=True)
class LoadSnapshot:
    """Clocks and load at one moment. Seconds of CPU time are sums over cores; own ones count ended
    children in, and ``stolen_s`` went to other guests.
    """

    wall_s: float
    own_cpu_s: float
    machine_cpu_s: float
    stolen_s: float
    load_1min: float
    threads: int
    cores: int


@functools.cache
def cpu_model() -> str:
    """The processor's name as the system gives it."""
    if platform.system() == "Linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return " ".join(line.split(":", 1)[1].split())
    return platform.processor() or platform.machine()


def available_cores() -> int:
    """Cores this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # absent on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def gpu_driver() -> str:
    """The NVIDIA driver's version, empty where NVML cannot be read."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return ""


def machine_key() -> MachineKey:
    """The key of this machine with torch's thread count as it is now (imports torch)."""
    import torch

    gpus = tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    release = ".".join(platform.release().split(".")[:2])
    return MachineKey(
        cpu=cpu_model(),
        physical_cores=psutil.cpu_count(logical=False) or 0,
        logical_cores=psutil.cpu_count() or 1,
        available_cores=available_cores(),
        ram_gib=round(psutil.virtual_memory().total / 2**30),
        gpus=gpus,
        gpu_driver=gpu_driver() if gpus else "",
        torch_build=f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()}",
        threads=torch.get_num_threads(),
        system=f"{platform.system()} {release} {platform.machine()}",
    )


def load_snapshot() -> LoadSnapshot:
    """Clocks and load now; take one before and one after what is timed (imports torch for its thread count)."""
    import torch

    own = psutil.Process().cpu_times()
    machine = psutil.cpu_times()
    idle = machine.idle + getattr(machine, "iowait", 0.0)
    guests = getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0)  # already part of user and nice
    return LoadSnapshot(
        wall_s=time.perf_counter(),
        own_cpu_s=own.user + own.system + own.children_user + own.children_system,
        machine_cpu_s=sum(machine) - idle - guests,
        stolen_s=getattr(machine, "steal", 0.0),
        load_1min=psutil.getloadavg()[0],
        threads=torch.get_num_threads(),
        cores=available_cores(),
    )


def busy(before: LoadSnapshot, after: LoadSnapshot, cpu_s: float | None = None, wall_s: float = 0.0) -> str | None:
    """One line that says why the machine counts as busy between two snapshots, or None.

    ``cpu_s`` and ``wall_s`` are the CPU time and wall time of the timed blocks alone, for work that computes on the
    CPU all the time; leave ``cpu_s`` out for work that waits on a GPU. Three signs, each with its threshold above:
    CPU time that others or the hypervisor took, CPU time short of wall time, and a load above the available cores.
    """
    signs = []
    elapsed = after.wall_s - before.wall_s
    if elapsed >= MIN_ELAPSED_S:
        others_s = (after.machine_cpu_s - before.machine_cpu_s) - (after.own_cpu_s - before.own_cpu_s)
        cores = others_s / elapsed
        if cores > max(OTHERS_FLOOR, OTHERS_SHARE * after.cores):
            stolen = (after.stolen_s - before.stolen_s) / elapsed
            part = f" ({stolen:.1f} of them stolen by the hypervisor)" if stolen >= 0.05 else ""
            signs.append(f"others used {cores:.1f} of {after.cores} cores{part}")
    if cpu_s is not None and wall_s > 0 and cpu_s / wall_s < MIN_CPU_SHARE:
        signs.append(f"CPU time was {100 * cpu_s / wall_s:.0f}% of wall time")
    load = max(before.load_1min, after.load_1min)
    if load > after.cores + LOAD_MARGIN:
        signs.append(f"load {load:.1f} on {after.cores} cores")
    return "busy machine: " + "; ".join(signs) if signs else None


@dataclass(frozen=True)
class CounterState:
    """Whether an energy counter of the hardware can be read by this process, how many, and what stands in the way."""

    readable: bool
    count: int
    reason: str


def rapl_state(root: Path = RAPL_ROOT) -> CounterState:
    """The CPU's energy counters under Linux's powercap."""
    files = sorted(root.glob("intel-rapl*:*/energy_uj"))
    readable = sum(os.access(file, os.R_OK) for file in files)
    if readable:
        return CounterState(True, readable, f"{readable} of {len(files)} counters readable under {root}")
    if files:
        return CounterState(False, 0, f"{files[0]} is not readable; grant it with: sudo chmod -R a+r {root}/*")
    return CounterState(False, 0, f"no counter under {root}, as on most virtual machines")


def nvml_state() -> CounterState:
    """The energy counters of NVIDIA devices."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        for handle in handles:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        return CounterState(False, 0, f"NVML: {error}")
    return CounterState(bool(handles), len(handles), f"{len(handles)} device(s) count their joules")
