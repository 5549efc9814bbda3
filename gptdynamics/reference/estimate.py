"""What kernels of a reference run cost, before it is made again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gptdynamics.estimates import base_shape, task_lengths
from gptdynamics.estimates.flops import forward_flops, update_flops
from gptdynamics.estimates.lengths import Lengths, TaskLengths
from gptdynamics.estimates.throughput import matmul_rate
from gptdynamics.examples import Example
from gptdynamics.gradients.kernels import ERROR_SAMPLE
from gptdynamics.reference.kept import KeptKernels
from gptdynamics.reference.kernels import KERNEL_WORK, check_texts, checkpoint_steps
from gptdynamics.reference.run import ReferenceRun
from gptdynamics.settings.kernels import KernelSettings
from gptdynamics.tasks import get_single_task, get_task

# Share of one large matrix product's rate that is reached: measured 0.25 to 0.31, on nano and at Pythia-70m's size.
_CPU_UTILISATION = 0.3
# Numbers of a model in memory, as often as it has weights: the base model, its copy, gradients, and two moments.
_COPIES, _ADAPTER_COPIES = 5, 2


@dataclass(frozen=True)
class KernelEstimate:
    """What is to be done for kernels that were asked for.

    Attributes:
        seconds: that it takes; 0 where everything is in the cache.
        memory: bytes at most, while the run is made again.
        disk: bytes that are kept in the cache.
        pool, test: how many examples gradients are taken of at each step.
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
    """What `reference_kernels` would take for these examples, from operations and the typical lengths of their tasks.

    The time is without loading the model.

    Args:
        reference, pool, test, settings, steps: as of `reference_kernels`.
        rate: operations a second in training. Default: those of one thread of this machine, measured.

    Raises:
        SettingsError: a step is none of the run's, or the size of the base model is not known.
        DataError: an example has no texts.
        NotRepeatableError: the texts that the run trained on are not to be had.
    """
    settings = settings or KernelSettings()
    steps = checkpoint_steps(reference, settings, steps)
    check_texts(pool, test)
    trained = list(reference.load_pool().values())
    found = KeptKernels(reference, trained, settings, steps).look_up(pool, test)
    new_pool, new_test = found.missing_pool, found.missing_test
    if not new_pool:
        return KernelEstimate(0.0, 0, 0, 0, 0)
    shape, run = base_shape(reference.settings.base), reference.settings
    threads = torch.get_num_threads() if rate is None else 1
    rate = 1e12 * _CPU_UTILISATION * matmul_rate() if rate is None else rate
    lengths = _lengths(reference, [*new_pool, *new_test])
    mixed = Lengths(tuple(pair for part in get_task(run.task).parts for pair in lengths[part.name].pool.pairs))
    batches = Counter(len(batch) for batch in reference.curriculum[: steps[-1]] if batch)
    training = sum(count * update_flops(shape, size, mixed, run.lora_rank) for size, count in batches.items())
    sides = ((lengths[each.task].pool for each in new_pool), (lengths[each.task].test for each in new_test))
    passes = [
        [forward_flops(shape, each.fed, each.square, each.target, run.lora_rank) for each in side] for side in sides
    ]
    each_step = sum(map(sum, passes)) + sum(sum(side[:ERROR_SAMPLE]) for side in passes)
    copies = _ADAPTER_COPIES if run.lora_rank else _COPIES
    return KernelEstimate(
        seconds=(training + len(steps) * KERNEL_WORK * each_step / threads) / rate,
        memory=4 * copies * shape.weights + int(settings.memory * 2**30),
        disk=4 * len(steps) * len(new_pool) * len(new_test),
        pool=len(new_pool),
        test=len(new_test),
    )


def _lengths(reference: ReferenceRun, examples: Iterable[Example]) -> dict[str, TaskLengths]:
    """Lengths of inputs of the run's tasks and those of some examples, by task."""
    run = reference.settings
    tasks: list[Any] = [get_task(run.task), *map(get_single_task, dict.fromkeys(each.task for each in examples))]
    context = min(base_shape(run.base).context, run.max_length)
    lengths: dict[str, TaskLengths] = {}
    for task in tasks:
        for name, each in task_lengths(task, run.base).items():
            lengths.setdefault(name, each.cut(context))
    return lengths
