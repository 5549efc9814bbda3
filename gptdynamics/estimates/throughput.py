"""The time that a plan takes on a device, from its operations and the device's rate (by name, given, or measured)."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from typing import TYPE_CHECKING

from gptdynamics.errors import SettingsError
from gptdynamics.estimates.flops import layer_calls, run_flops
from gptdynamics.estimates.lengths import task_lengths
from gptdynamics.estimates.shapes import base_shape

if TYPE_CHECKING:
    from gptdynamics.plans import Plan, PlanEntry

# fp32 peaks of the SXM boards' public data sheets, tensor cores unused, in TFLOP/s.
PEAKS = {"v100": 15.7, "a100": 19.5, "h100": 66.9}
# Assumed rate of a whole run, as a share of a GPU's peak, or on a CPU of one large matrix product's rate.
GPU_UTILISATION = 0.4
# A GPU waits for Python between the layers of a model. Measured with SmolLM2-135M on an H100: 0.11 s for an update, and
# 0.04 s for a measurement in one batch.
GPU_LAYER_SECONDS = 0.0012
CPU_UTILISATION = 0.5
DEVICES = ("cpu", *PEAKS)


def matmul_rate(device: str = "cpu", size: int = 512, seconds: float = 0.3) -> float:
    """The best rate of fp32 products of square matrices within `seconds`, in TFLOP/s; on a CPU with one thread."""
    import torch

    threads, cpu = torch.get_num_threads(), torch.device(device).type == "cpu"
    # Time of this thread, so that other work on the machine does not count.
    clock = time.thread_time if cpu else time.perf_counter
    torch.set_num_threads(1 if cpu else threads)
    try:
        left, right = torch.ones(size, size, device=device), torch.ones(size, size, device=device)
        best, deadline = math.inf, time.perf_counter() + seconds
        while best == math.inf or time.perf_counter() < deadline:
            start = clock()
            torch.mm(left, right)
            if not cpu:
                torch.cuda.synchronize(device)
            best = min(best, clock() - start)
    finally:
        torch.set_num_threads(threads)
    return 2 * size**3 / best / 1e12


def throughput(name: str | float) -> float:
    """The rate of a device over whole runs, in TFLOP/s: a share of its peak rate, or the given number.

    Raises:
        SettingsError: the name is neither a known device nor a number.
    """
    if name in PEAKS:
        return PEAKS[str(name)] * GPU_UTILISATION
    if name == "cpu":
        # Cores that this process may use: one worker with one thread on each.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return matmul_rate() * cores * CPU_UTILISATION
    try:
        rate = float(name)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        devices = ", ".join(DEVICES)
        raise SettingsError(f"unknown throughput {name!r}: give one of {devices}, or a number of TFLOP/s above 0")
    return rate


def kernel_seconds(entry: PlanEntry, device: str = "cpu") -> float:
    """Seconds that one worker takes for the kernel of one run, at all of its steps; measures its device's rate.

    Raises:
        SettingsError: the config of the base model cannot be read.
    """
    from gptdynamics.tasks import get_task

    settings = entry.settings
    lengths = task_lengths(get_task(settings.task), settings.base)
    flops = run_flops(base_shape(settings.base), settings, lengths, kernel=entry.kernel)
    share = CPU_UTILISATION if device == "cpu" else GPU_UTILISATION
    return flops.products / (matmul_rate(device) * share * 1e12)


def plan_hours(plan: Plan, tera_flops_per_second: float, device: str | None = None) -> list[tuple[str, float]]:
    """Hours that each config of a plan takes on one device; for configs in bf16, give the device's bf16 rate.

    Args:
        plan: which runs are made.
        tera_flops_per_second: rate of the device over whole runs.
        device: its name; on a known GPU each call of a layer takes time of its own.
    """
    from gptdynamics.tasks import get_task

    hours = []
    for entry in plan:
        settings = entry.settings
        shape, lengths = base_shape(settings.base), task_lengths(get_task(settings.task), settings.base)
        kinds = Counter(
            (settings.for_run(run), settings.follows_gradients(run), run in entry.kernel_runs)
            for run in entry.run_names
        )
        seconds = 0.0
        for (run_settings, follows, kernel), count in kinds.items():
            flops = run_flops(shape, run_settings, lengths, follows, entry.kernel if kernel else None)
            spent = flops.seconds(tera_flops_per_second * 1e12)
            if device in PEAKS:
                spent += layer_calls(shape, run_settings, lengths) * GPU_LAYER_SECONDS
            seconds += count * spent
        hours.append((entry.config, seconds / 3600))
    return hours
