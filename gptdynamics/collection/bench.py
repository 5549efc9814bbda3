"""A config's base model, pool and test set, ready for its runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gptdynamics.configs import RunSettings, run_parts
from gptdynamics.examples import Example

if TYPE_CHECKING:
    import numpy as np

    from gptdynamics.base_model import BaseModel
    from gptdynamics.runs import Run


@dataclass(frozen=True)
class BenchExamples:
    """The pool and the test set of a config."""

    pool: list[Example]
    test: list[Example]


def load_bench_examples(settings: RunSettings, data: Path | None, unseen: bool) -> BenchExamples:
    """Load what the runs of a config train on and what is followed.

    Args:
        settings: of the config.
        data: folder with local rows, or None.
        unseen: whether some of its runs train on the pool rows of `test_unseen`.
    """
    from gptdynamics.tasks import get_task, load_examples

    task = get_task(settings.task)
    rows = settings.pool_size * (2 if unseen else 1)
    pool = load_examples(task, "pool", rows, data)
    return BenchExamples(pool, load_examples(task, "test", settings.test_examples, data))


class Bench:
    """Everything that the runs of a config share.

    Args:
        settings: of the config.
        data: folder with local rows, None, or the examples themselves.
        unseen: whether some of its runs train on the pool rows of `test_unseen`.
        device: `cpu`, or a GPU such as `cuda:0`.
        base: the base model, if it is loaded already.
    """

    def __init__(
        self,
        settings: RunSettings,
        data: Path | BenchExamples | None,
        unseen: bool = False,
        device: str = "cpu",
        base: BaseModel | None = None,
    ) -> None:
        from gptdynamics.base_model import load_base_model
        from gptdynamics.measurement import TestSet
        from gptdynamics.measurement.test_set import new_token_limits
        from gptdynamics.tasks import get_single_task
        from gptdynamics.tokens import tokenize_example

        self.settings = settings
        examples = data if isinstance(data, BenchExamples) else load_bench_examples(settings, data, unseen)
        self.pool, self.test = examples.pool, examples.test
        self.base = load_base_model(settings.base, device) if base is None else base
        context = min(self.base.context, settings.max_length)
        self.tokenized = {
            example.id: tokenize_example(self.base.tokenizer, example, context, get_single_task(example.task).generates)
            for example in self.pool
        }
        # Runs on unseen rows are measured as the others are.
        seen = [example for example in self.pool if example.id in settings.pool_ids]
        limits = new_token_limits(seen, [self.tokenized[example.id] for example in seen])
        self.test_set = TestSet(self.test, self.base, settings, limits)
        self.cut = self.test_set.cut + sum(example.cut > 0 for example in self.tokenized.values())

    def run(self, run: str, on_step: Callable[[int], None] = lambda step: None) -> Run:
        """Make a run."""
        from gptdynamics.runs import train_run

        run_parts(run)
        return train_run(self.base, self.tokenized, self.test_set, self.settings, run, on_step)

    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """Projected gradients of the base model's loss on every pool and test example: `[examples, width]` each."""
        from gptdynamics.gradients import GradientSketch

        sketch = GradientSketch(self.settings.gradient_width, self.settings.gradient_seed)
        pool = sketch.project(self.base.model, list(self.tokenized.values()))
        return pool, sketch.project(self.base.model, self.test_set.tokenized)
