"""Kernels of any examples along a repeated run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from gptdynamics.curriculum import run_seed
from gptdynamics.dataset.gradient_reading import GradientProducts
from gptdynamics.errors import DataError, DivergedRunError, GPTDynamicsError, SettingsError
from gptdynamics.estimates.flops import GRADIENT_PASSES
from gptdynamics.examples import Example
from gptdynamics.measurement.loss import TargetLosses
from gptdynamics.models.tokens import ExampleTokenizer
from gptdynamics.reference.kept import KeptKernels, KernelPart, example_keys
from gptdynamics.reference.run import INSTEAD, NotRepeatableError, ReferenceRun
from gptdynamics.runs.kernel_record import KernelRecord
from gptdynamics.runs.threads import torch_threads
from gptdynamics.runs.updates import Updates
from gptdynamics.settings.kernels import KernelSettings

if TYPE_CHECKING:
    from gptdynamics.models.base_model import BaseModel

OnNote = Callable[[str], None]
Progress = Callable[[int, int], None]
# Cost of an example in a kernel, in forward passes: measured 1.1 times a forward and a backward pass.
KERNEL_WORK = 1.1 * GRADIENT_PASSES
# Cost of an example in a kernel and in an update, in units of progress.
_IN_KERNEL, _IN_UPDATE = round(10 * KERNEL_WORK), 10 * GRADIENT_PASSES
# How far the losses of a repeated run may be from the recorded ones: in nats, for fp32 and for lower precisions; after
# training, also a share of how much the run had changed them.
_LOSS_TOLERANCE, _LOW_PRECISION_LOSS_TOLERANCE = 1e-3, 0.05
_CHANGE_TOLERANCE = 0.02


def reference_kernels(
    reference: ReferenceRun,
    pool: Sequence[Example],
    test: Sequence[Example],
    settings: KernelSettings | None = None,
    *,
    steps: Sequence[int] | None = None,
    device: str = "cpu",
    progress: Progress = lambda done, total: None,
    on_note: OnNote = lambda line: None,
) -> GradientProducts:
    """Inner products of gradients of any pool and test examples, at a few steps of a repeated run.

    The run is trained up to the last of these steps. A few losses are measured to check that it is the recorded run.
    Products are stored in the cache: only those that are missing there are computed.

    Args:
        reference: the run.
        pool: N examples of registered tasks; the run need not have trained on them.
        test: M examples of registered tasks; the run need not have measured them.
        settings: how kernels are computed. Default: all defaults.
        steps: of the run, at which kernels are computed. Default: those of the settings.
        device: `cpu`, or a GPU such as `cuda:0`.
        progress: called with the work done and the total work, in proportion to time.
        on_note: called with a line if the repeated run differs from the recorded one, or could not be compared with it.

    Returns:
        Products `[S, N, M]`, in the order of the examples.

    Raises:
        SettingsError: the base model cannot be loaded, the run does not have one of the steps, or the memory is too
            little.
        NotRepeatableError: the run cannot be repeated here.
        DataError: an example has no texts.
    """
    settings = settings or KernelSettings()
    steps = checkpoint_steps(reference, settings, steps)
    check_texts(pool, test)
    trained = reference.load_pool()
    cache = KeptKernels(reference, list(trained.values()), settings, steps)
    cached = cache.look_up(pool, test)
    if cached.missing_pool:
        repetition = _Repetition(reference, trained, device)
        part = repetition.take(cached.missing_pool, cached.missing_test, settings, steps, progress)
        cache.add(part)
        cached.fill(part)
    for note in cached.notes:
        on_note(note)
    return cached.products()


def checkpoint_steps(reference: ReferenceRun, settings: KernelSettings, steps: Sequence[int] | None) -> list[int]:
    """The steps at which kernels of a run are computed, ascending; raises SettingsError if the run lacks one."""
    updates = len(reference.curriculum)
    chosen = settings.steps(updates) if steps is None else sorted(set(steps))
    if not chosen or chosen[0] < 0 or chosen[-1] > updates:
        raise SettingsError(f"steps {chosen} must be from 0 to {updates}, the last step of {reference.label}")
    return chosen


def check_texts(pool: Sequence[Example], test: Sequence[Example]) -> None:
    """Raise DataError if there are no examples, or one has no texts."""
    for part, examples in (("pool", pool), ("test", test)):
        if not examples:
            raise DataError(f"kernels need {part} examples: give at least one")
        for example in examples:
            if example.withheld or not example.target:
                raise DataError(
                    f"{part} example {example.id} of {example.task or 'no task'} has no texts, which gradients need. "
                    "If the release leaves texts out, load them with restore_texts (data, --data DIR)"
                )


class _Repetition:
    """One run, ready to be repeated.

    Args:
        reference: the run.
        trained: the examples that it trains on, by id.
        device: to train on.

    Raises:
        SettingsError, NotRepeatableError: the base model cannot be loaded, or has another revision.
    """

    def __init__(self, reference: ReferenceRun, trained: dict[int, Example], device: str) -> None:
        self.reference = reference
        self.base: BaseModel = reference.load_base(device)
        settings = reference.settings
        self.tokenize = ExampleTokenizer(self.base, settings.max_length, settings.tokenization)
        self.trained = {key: self.tokenize(example) for key, example in trained.items()}

    def take(
        self,
        pool: Sequence[Example],
        test: Sequence[Example],
        settings: KernelSettings,
        steps: Sequence[int],
        progress: Progress,
    ) -> KernelPart:
        """Train the run and compute its kernels."""
        reference, curriculum = self.reference, self.reference.curriculum
        pool_tokens, test_tokens = ([self.tokenize(example) for example in side] for side in (pool, test))
        comparison = _Comparison(reference, self.base, self.tokenize, steps[-1])
        updating = np.cumsum([0, *(_IN_UPDATE * len(batch) for batch in curriculum)])
        kernel_work = _IN_KERNEL * (len(pool) + len(test))
        total = int(updating[steps[-1]]) + len(steps) * kernel_work

        def report_passes(step: int, done: int, of: int) -> None:
            earlier = int(updating[step]) + sum(other < step for other in steps) * kernel_work
            progress(earlier + kernel_work * done // of, total)

        device = self.base.model.device
        random_state = torch.random.fork_rng([device] if device.type == "cuda" else [])
        with random_state, torch_threads(1) as threads:
            # One thread, as collected runs have: with more, rounding differs, and in the end the run does.
            updates = Updates(self.base.model, reference.settings, run_seed(reference.settings, reference.run))
            record = KernelRecord(
                updates.model, pool_tokens, test_tokens, len(curriculum), settings, steps, report_passes
            )
            try:
                for done in updates.iterate(self.trained, curriculum, reference.learning_rate):
                    comparison.compare(updates, done)
                    progress(int(updating[done]) + sum(other < done for other in steps) * kernel_work, total)
                    with torch_threads(threads):
                        record.take_products(done)
                    if done == steps[-1]:
                        break
            except DivergedRunError as error:
                raise NotRepeatableError(
                    f"{reference.label} diverges when it is repeated: {error}. Instead, {INSTEAD}"
                ) from error
        values = np.stack([record.products[step] for step in steps])
        return KernelPart(example_keys(pool), example_keys(test), values, record.kernel, comparison.note)


class _Comparison:
    """Compares the losses of a few test examples with those that the run recorded.

    Args:
        reference: the run.
        base: its base model.
        tokenize: tokenises an example.
        last: the last step of the repeated run.

    Attributes:
        note: how the repeated run differs, or why that is not known; None if it does not.
    """

    def __init__(self, reference: ReferenceRun, base: BaseModel, tokenize: ExampleTokenizer, last: int) -> None:
        self.reference = reference
        self.note: str | None = None
        self.steps = [step for step in reference.recorded.step if step <= last]
        self.losses: TargetLosses | None = None
        self.tolerance = _LOSS_TOLERANCE if reference.settings.precision == "fp32" else _LOW_PRECISION_LOSS_TOLERANCE
        try:
            examples = [tokenize(example) for example in reference.load_compared()]
        except GPTDynamicsError as error:
            self.note = f"{reference.label} was repeated, but could not be compared with its recorded losses: {error}"
            return
        if examples and self.steps:
            self.losses = TargetLosses(examples, device=base.model.device)

    def compare(self, updates: Updates, step: int) -> None:
        """Compare, if `step` is the first or the last recorded step.

        Raises:
            NotRepeatableError: the losses of the base model are not the recorded ones.
        """
        if self.losses is None or step not in (self.steps[0], self.steps[-1]):
            return
        recorded = np.array(self.reference.recorded.values)
        with updates.mixed:
            measured, _ = self.losses.measure(updates.model)
        difference = np.abs(measured - recorded[self.steps.index(step)])
        if step == 0:
            if not difference.max() <= self.tolerance:
                raise NotRepeatableError(
                    f"{self.reference.label}: before the first update, losses of test examples differ by up to "
                    f"{difference.max():.2g} from the recorded ones: texts or tokenizer have changed since. "
                    f"Get the base model's files of revision {self.reference.base_revision}, or {INSTEAD}"
                )
            return
        changed = np.abs(recorded[self.steps.index(step)] - recorded[0]).mean()
        if not difference.mean() <= _CHANGE_TOLERANCE * changed + self.tolerance:
            self.note = (
                f"{self.reference.label}, repeated, differs from the recorded run: its losses at step {step} are "
                f"{difference.mean():.2g} from the recorded ones, which had changed by {changed:.2g} (another device, "
                "or another version of torch or transformers). Its kernels are those of a similar run, not of that one"
            )
