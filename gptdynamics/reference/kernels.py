"""Kernels of any examples along a run that is made again."""

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
# Work of an example in a kernel, in forward passes: measured 1.1 times a forward and a backward pass.
KERNEL_WORK = 1.1 * GRADIENT_PASSES
# The same, and that of an example in an update, in units of progress.
_IN_KERNEL, _IN_UPDATE = round(10 * KERNEL_WORK), 10 * GRADIENT_PASSES
# How far losses of a repetition may be from the recorded ones: in nats, in fp32 and in rougher precisions; beside that,
# as a share of what the run had changed them by.
_SAME_LOSS, _ROUGHLY_SAME_LOSS = 1e-3, 0.05
_SAME_CHANGE = 0.02


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
    """Inner products of gradients of any pool and test examples, at a few steps of a run that is made again.

    The run is trained once, up to the last of these steps, and nothing is measured but a few losses that show whether
    it is the run that was recorded. Products are kept in the cache: only those that are missing there are taken.

    Args:
        reference: the run.
        pool: N examples of registered tasks; the run need not have trained on them.
        test: M examples of registered tasks; the run need not have followed them.
        settings: how kernels are taken. Default: all defaults.
        steps: of the run, at which they are taken. Default: those of the settings.
        device: `cpu`, or a GPU such as `cuda:0`.
        progress: takes how much work is done, and how much there is: what is left takes time in proportion.
        on_note: takes a line where the repeated run differs from the recorded one, or could not be compared with it.

    Returns:
        Products `[S, N, M]`, in the order of the examples given.

    Raises:
        SettingsError: the base model cannot be loaded, a step is none of the run's, or the memory is too little.
        NotRepeatableError: the run cannot be made again here.
        DataError: an example has no texts.
    """
    settings = settings or KernelSettings()
    steps = checkpoint_steps(reference, settings, steps)
    check_texts(pool, test)
    trained = reference.load_pool()
    kept = KeptKernels(reference, list(trained.values()), settings, steps)
    found = kept.look_up(pool, test)
    if found.missing_pool:
        repetition = _Repetition(reference, trained, device)
        part = repetition.take(found.missing_pool, found.missing_test, settings, steps, progress)
        kept.add(part)
        found.fill(part)
    for note in found.notes:
        on_note(note)
    return found.products()


def checkpoint_steps(reference: ReferenceRun, settings: KernelSettings, steps: Sequence[int] | None) -> list[int]:
    """The steps at which kernels of a run are taken, ascending; raises SettingsError if one is none of the run's."""
    updates = len(reference.curriculum)
    chosen = settings.steps(updates) if steps is None else sorted(set(steps))
    if not chosen or chosen[0] < 0 or chosen[-1] > updates:
        raise SettingsError(f"steps {chosen}: {reference.label} has kernels at steps from 0 to {updates}. Give some")
    return chosen


def check_texts(pool: Sequence[Example], test: Sequence[Example]) -> None:
    """Raise DataError if there are no examples, or one has no texts."""
    for side, examples in (("pool", pool), ("test", test)):
        if not examples:
            raise DataError(f"kernels of no {side} examples: give at least one")
        for example in examples:
            if example.withheld or not example.target:
                raise DataError(
                    f"{side} example {example.id} of {example.task or 'no task'} has no texts to take gradients of. "
                    "Restore those of a release that leaves them out with restore_texts (data, --data DIR)"
                )


class _Repetition:
    """One run, ready to be made again.

    Args:
        reference: the run.
        trained: the examples that it trains on, by id.
        device: where.

    Raises:
        SettingsError, NotRepeatableError: the base model cannot be loaded, or is another one.
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
        """Make the run, and take its kernels."""
        reference, curriculum = self.reference, self.reference.curriculum
        pool_tokens, test_tokens = ([self.tokenize(example) for example in each] for each in (pool, test))
        comparison = _Comparison(reference, self.base, self.tokenize, steps[-1])
        updating = np.cumsum([0, *(_IN_UPDATE * len(batch) for batch in curriculum)])
        kernel_work = _IN_KERNEL * (len(pool) + len(test))
        total = int(updating[steps[-1]]) + len(steps) * kernel_work

        def passes(step: int, done: int, of: int) -> None:
            earlier = int(updating[step]) + sum(other < step for other in steps) * kernel_work
            progress(earlier + kernel_work * done // of, total)

        device = self.base.model.device
        own = torch.random.fork_rng([device] if device.type == "cuda" else [])
        with own, torch_threads(1) as threads:
            # Training with another number of threads rounds otherwise, and in the end is another run.
            updates = Updates(self.base.model, reference.settings, run_seed(reference.settings, reference.run))
            record = KernelRecord(updates.model, pool_tokens, test_tokens, len(curriculum), settings, steps, passes)
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
                    f"{reference.label} diverges where it is made again: {error}. Or {INSTEAD}"
                ) from error
        values = np.stack([record.products[step] for step in steps])
        return KernelPart(example_keys(pool), example_keys(test), values, record.kernel, comparison.note)


class _Comparison:
    """Compares the losses of a few test examples with those that the run recorded.

    Args:
        reference: the run.
        base: its base model.
        tokenize: makes the token ids of an example.
        last: step that the repetition ends at.

    Attributes:
        note: how the repetition differs, or why that is not known; None: it does not.
    """

    def __init__(self, reference: ReferenceRun, base: BaseModel, tokenize: ExampleTokenizer, last: int) -> None:
        self.reference = reference
        self.note: str | None = None
        self.steps = [step for step in reference.recorded.step if step <= last]
        self.losses: TargetLosses | None = None
        self.tolerance = _SAME_LOSS if reference.settings.precision == "fp32" else _ROUGHLY_SAME_LOSS
        try:
            examples = [tokenize(example) for example in reference.load_compared()]
        except GPTDynamicsError as error:
            self.note = f"{reference.label} was made again without a comparison with what it recorded: {error}"
            return
        if examples and self.steps:
            self.losses = TargetLosses(examples, device=base.model.device)

    def compare(self, updates: Updates, done: int) -> None:
        """Compare now, if it is before the first update or at the last step that was recorded.

        Raises:
            NotRepeatableError: the base model has other losses than it had.
        """
        if self.losses is None or done not in (self.steps[0], self.steps[-1]):
            return
        recorded = np.array(self.reference.recorded.values)
        with updates.mixed:
            measured, _ = self.losses.measure(updates.model)
        apart = np.abs(measured - recorded[self.steps.index(done)])
        if done == 0:
            if not apart.max() <= self.tolerance:
                raise NotRepeatableError(
                    f"{self.reference.label}: before its first update, losses of test examples are up to "
                    f"{apart.max():.2g} from those recorded: its texts became other tokens then, or its tokenizer is "
                    f"another one now. Get the files of revision {self.reference.base_revision}, or {INSTEAD}"
                )
            return
        changed = np.abs(recorded[self.steps.index(done)] - recorded[0]).mean()
        if not apart.mean() <= _SAME_CHANGE * changed + self.tolerance:
            self.note = (
                f"{self.reference.label}, made again, has other losses than it recorded: {apart.mean():.2g} apart at "
                f"step {done}, where the run had changed them by {changed:.2g} (another device, or another version of "
                "torch or transformers). Its kernels are of a run like it, not of that one"
            )
