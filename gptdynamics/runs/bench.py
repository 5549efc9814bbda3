"""A base model with its tokenised pool and test set, which all runs of a config share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gptdynamics.configs import RunSettings, run_parts
from gptdynamics.examples import Example

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel

    from gptdynamics.curriculum import Curriculum
    from gptdynamics.models.base_model import BaseModel
    from gptdynamics.models.tokens import TokenizedExample
    from gptdynamics.runs.run import Run
    from gptdynamics.settings.kernels import KernelSettings


@dataclass(frozen=True)
class BenchContents:
    """Settings and examples of a bench, in a form that can be sent to other processes and machines.

    Attributes:
        settings: of the runs; they name the base model.
        pool: training examples; curricula refer to their ids.
        test: examples that are measured.
        generate: whether to sample and score text for the test examples of generation tasks.
    """

    settings: RunSettings
    pool: tuple[Example, ...]
    test: tuple[Example, ...]
    generate: bool = True

    @classmethod
    def load(cls, settings: RunSettings, data: Path | None, unseen: bool = False) -> BenchContents:
        """Load the pool and the test set of a config.

        Args:
            settings: of the config.
            data: folder with local rows; None: generated rows or the Hub.
                unseen: whether some of its runs train on the pool rows of `test_unseen`.

        Raises:
            DataError: a row is damaged, or there are too few.
        """
        from gptdynamics.tasks import get_task, load_examples

        task = get_task(settings.task)
        rows = settings.pool_size * (2 if unseen else 1)
        pool = load_examples(task, "pool", rows, data)
        return cls(settings, tuple(pool), tuple(load_examples(task, "test", settings.test_examples, data)))


class Bench:
    """Everything that the runs of a config share: base model, tokenised pool and test set.

    Args:
        contents: examples and settings.
        device: `cpu`, or a GPU such as `cuda:0`.
        base: the base model, if it is already loaded.

    Attributes:
        settings: of the runs.
        pool, test: the examples.
        base: the base model.
        tokenized: the pool's tokenised examples, by id.
        test_set: measures the test examples.
        cut: examples of pool and test set whose prompts were cut to fit the context.

    Raises:
        SettingsError: the base model cannot be loaded.
        DataError: an example cannot be tokenised.
    """

    def __init__(self, contents: BenchContents, device: str = "cpu", base: BaseModel | None = None) -> None:
        from gptdynamics.measurement import TestSet
        from gptdynamics.measurement.test_set import new_token_limits
        from gptdynamics.models.base_model import load_base_model
        from gptdynamics.models.tokens import ExampleTokenizer

        settings = contents.settings
        self.settings = settings
        self.pool, self.test = list(contents.pool), list(contents.test)
        self.base = load_base_model(settings.base, device) if base is None else base
        self.tokenize = ExampleTokenizer(self.base, settings.max_length, settings.tokenization)
        self.tokenized = {example.id: self.tokenize(example) for example in self.pool}
        # Without the unseen rows, so that runs on these have the same limits as other runs.
        pool_examples = [example for example in self.pool if example.id in settings.pool_ids] or self.pool
        limits = new_token_limits(pool_examples, [self.tokenized[example.id] for example in pool_examples])
        self.test_set = TestSet(self.test, self.base, settings, limits, self.tokenize, contents.generate)
        self.cut = self.test_set.cut + sum(example.cut > 0 for example in self.tokenized.values())

    @classmethod
    def load(cls, settings: RunSettings, data: Path | None, unseen: bool = False, device: str = "cpu") -> Bench:
        """The bench of a config; see `BenchContents.load`."""
        return cls(BenchContents.load(settings, data, unseen), device)

    def run(
        self,
        run: str,
        on_step: Callable[[int], None] = lambda step: None,
        curriculum: Curriculum | None = None,
        targets: Mapping[int, str] | None = None,
        kernels: KernelSettings | None = None,
    ) -> Run:
        """Make a run.

        Args:
            run: its name, which determines its seed.
            on_step: called with the number of updates so far, after each measurement.
            curriculum: `[steps][batch]` pool ids to train on. Default: drawn with the run's seed.
            targets: targets that replace those of the pool, by id.
            kernels: settings of the run's kernel, if it is to be computed.

        Raises:
            DivergedRunError: a loss is not finite.
        """
        from gptdynamics.runs.training import train_run

        run_parts(run)
        pool = self.relabelled(targets or {})
        return train_run(self.base, pool, self.test_set, self.settings, run, on_step, curriculum, kernels)

    def relabelled(self, targets: Mapping[int, str]) -> dict[int, TokenizedExample]:
        """The pool's tokenised examples by id, with some of their targets replaced."""
        pool = {example.id: example for example in self.pool} if targets else {}
        return self.tokenized | {
            key: self.tokenize(replace(pool[key], target=target)) for key, target in targets.items()
        }

    def weights(
        self, curriculum: Curriculum, learning_rate: Sequence[float], entropy: Sequence[int]
    ) -> Iterator[PreTrainedModel]:
        """Train without measuring; yields the model before the first update and after each one (always one object).

        Args:
            curriculum: `[steps][batch]` pool ids.
            learning_rate: `[steps]`, of each update.
            entropy: of the random numbers of training (dropout, initial values of adapters); see `run_seed`.

        Raises:
            DivergedRunError: the loss of a batch is not finite.
        """
        from gptdynamics.runs.updates import Updates

        updates = Updates(self.base.model, self.settings, entropy)
        for _ in updates.iterate(self.tokenized, curriculum, learning_rate):
            yield updates.model

    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """Projected gradients of the base model's loss on every pool and test example: `[examples, width]` each."""
        from gptdynamics.gradients import GradientSketch

        sketch = GradientSketch(self.settings.gradient_width, self.settings.gradient_seed)
        pool = sketch.project(self.base.model, list(self.tokenized.values()))
        return pool, sketch.project(self.base.model, self.test_set.tokenized)
