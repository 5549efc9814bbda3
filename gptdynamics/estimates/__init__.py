"""The cost of a run or a plan, before it is started."""

from gptdynamics.estimates.flops import RunFlops, run_flops
from gptdynamics.estimates.lengths import Lengths, TaskLengths, task_lengths
from gptdynamics.estimates.machine import available_memory
from gptdynamics.estimates.memory import WorkerMemory, worker_memory
from gptdynamics.estimates.shapes import PYTHIA_SHAPES, ModelShape, base_shape, shape_of
from gptdynamics.estimates.throughput import DEVICES, kernel_seconds, plan_hours, throughput

__all__ = [
    "DEVICES",
    "PYTHIA_SHAPES",
    "Lengths",
    "ModelShape",
    "RunFlops",
    "TaskLengths",
    "WorkerMemory",
    "available_memory",
    "base_shape",
    "kernel_seconds",
    "plan_hours",
    "run_flops",
    "shape_of",
    "task_lengths",
    "throughput",
    "worker_memory",
]
