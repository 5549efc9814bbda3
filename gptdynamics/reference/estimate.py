"""The cost of kernels of a reference run, before it is repeated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gptdynamics.estimates import base_shape, task_lengths, worker_memory
from gptdynamics.estimates.flops import forward_flops, update_flops
from gptdynamics.estimates.lengths import Lengths, TaskLengths
from gptdynamics.estimates.memory import GIB
from gptdynamics.estimates.throughput import matmul_rate
from gptdynamics.examples import Example
from gptdynamics.gradients.kernels import ERROR_SAMPLE
from gptdynamics.reference.kept import KeptKernels
from gptdynamics.reference.kernels import KERNEL_WORK, check_texts, checkpoint_steps
from gptdynamics.reference.run import ReferenceRun
from gptdynamics.settings.kernels import KernelSettings
from gptdynamics.tasks import get_single_task, get_task

# Share reached of one large matrix product's rate: measured 0.25 to 0.31, on nano and at Pythia-70m's size.
_CPU_UTILISATION = 0.3


@dataclass(frozen=True)
class KernelEstimate:
    """The estimated cost of kernels of a reference run.

    Attributes:
        seconds: time; 0 if everything is in the cache.
        memory: the most bytes in memory, while the run is repeated.
        disk: bytes stored in the cache.
        pool, test: number of examples whose gradients are computed at each step.
    """

    seconds: float
    memory: int
    disk: int
    pool: int
    test: int


def estimate_reference_kernels(
    reference: ReferenceRun,
    pool: Sequence[Example],
    test: Sequence[Example],
    settings: KernelSettings | None = None,
    *,
    steps: Sequence[int] | None = None,
    rate: float | None = None,
) -> KernelEstimate:
    """Estimate the cost of `reference_kernels` for these examples, from operations and typical lengths of their tasks.

    The time does not include loading the model.

    Args:
        reference, pool, test, settings, steps: see `reference_kernels`.
        rate: operations per second in training. Default: measured on one thread of this machine.

    Raises:
        SettingsError: the run does not have one of the steps, or the size of the base model is not known.
        DataError: an example has no texts.
        NotRepeatableError: the texts that the run trained on are not available.
    """
    settings = settings or KernelSettings()
    steps = checkpoint_steps(reference, settings, steps)
    check_texts(pool, test)
    trained = list(reference.load_pool().values())
    cached = KeptKernels(reference, trained, settings, steps).look_up(pool, test)
    new_pool, new_test = cached.missing_pool, cached.missing_test
    if not new_pool:
        return KernelEstimate(0.0, 0, 0, 0, 0)
    shape, run = base_shape(reference.settings.base), reference.settings
    threads = torch.get_num_threads() if rate is None else 1
    rate = 1e12 * _CPU_UTILISATION * matmul_rate() if rate is None else rate
    lengths = _lengths(reference, [*new_pool, *new_test])
    pool_lengths = Lengths(tuple(pair for part in get_task(run.task).parts for pair in lengths[part.name].pool.pairs))
    batches = Counter(len(batch) for batch in reference.curriculum[: steps[-1]] if batch)
    training = sum(count * update_flops(shape, size, pool_lengths, run.lora_rank) for size, count in batches.items())
    example_lengths = ((lengths[each.task].pool for each in new_pool), (lengths[each.task].test for each in new_test))
    pass_flops = [
        [forward_flops(shape, each.fed, each.square, each.target, run.lora_rank) for each in side]
        for side in example_lengths
    ]
    step_flops = sum(map(sum, pass_flops)) + sum(sum(side[:ERROR_SAMPLE]) for side in pass_flops)
    worker = worker_memory(shape, run, lengths)
    return KernelEstimate(
        seconds=(training + len(steps) * KERNEL_WORK * step_flops / threads) / rate,
        memory=int(worker.weights + worker.training + settings.memory * GIB),
        disk=4 * len(steps) * len(new_pool) * len(new_test),
        pool=len(new_pool),
        test=len(new_test),
    )


def _lengths(reference: ReferenceRun, examples: Iterable[Example]) -> dict[str, TaskLengths]:
    """Lengths of the inputs of the run's tasks and of the examples' tasks, by task."""
    run = reference.settings
    tasks: list[Any] = [get_task(run.task), *map(get_single_task, dict.fromkeys(each.task for each in examples))]
    context = min(base_shape(run.base).context, run.max_length)
    lengths: dict[str, TaskLengths] = {}
    for task in tasks:
        for name, each in task_lengths(task, run.base).items():
            lengths.setdefault(name, each.cut(context))
    return lengths
