"""The test set of a config: what is measured of a model at one step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gptdynamics.base_model import BaseModel
from gptdynamics.configs import RunSettings
from gptdynamics.examples import Example
from gptdynamics.measurement.generation import Generator
from gptdynamics.measurement.loss import TargetLosses
from gptdynamics.measurement.scores import score_texts
from gptdynamics.tasks import Task
from gptdynamics.tokens import TokenizedExample, tokenize_example, tokenize_text


class TestSet:
    """Test examples of a task, tokenised once, measured at every step.

    Args:
        task: says whether labels are compared or text is generated.
        examples: the test examples, in the order of the results.
        base: the model's tokenizer and context.
        settings: sampling and length limits.
        pool_targets: targets of the pool; generated text is at most their 99th percentile long.
    """

    __test__ = False

    def __init__(
        self,
        task: Task,
        examples: Sequence[Example],
        base: BaseModel,
        settings: RunSettings,
        pool_targets: Sequence[TokenizedExample],
    ) -> None:
        self.task = task
        self.examples = list(examples)
        self.settings = settings
        context = min(base.context, settings.max_length)
        tokenizer = base.tokenizer

        def tokenize(target: str | None = None) -> list[TokenizedExample]:
            return [tokenize_example(tokenizer, e, context, task.generates, target) for e in self.examples]

        self.tokenized = tokenize()
        label_ids = [tokenize_text(tokenizer, label) for label in task.labels]
        single = all(len(ids) == 1 for ids in label_ids)
        self.answers = [task.labels.index(e.target) for e in self.examples] if task.labels else []
        self.losses = TargetLosses(self.tokenized, [ids[0] for ids in label_ids] if single else (), self.answers)
        self.label_losses = [] if single else [TargetLosses(tokenize(label)) for label in task.labels]
        self.generator: Generator | None = None
        if task.generates:
            lengths = [len(example.target) for example in pool_targets]
            longest = int(np.ceil(np.percentile(lengths, 99)))
            prompts = [example.prompt[-max(1, context - longest) :] for example in self.tokenized]
            self.generator = Generator(tokenizer, prompts, longest, settings.temperature, settings.top_p)

    @property
    def cut(self) -> int:
        """Test examples whose prompt was cut to fit the context."""
        return sum(example.cut > 0 for example in self.tokenized)

    def measure(self, base: BaseModel) -> dict[str, np.ndarray]:
        """`loss`, and for label tasks `accuracy`: `[examples]` float32 each."""
        loss, accuracy = self.losses.measure(base.model)
        if self.label_losses:
            each = np.stack([losses.measure(base.model)[0] for losses in self.label_losses])
            accuracy = (each.argmin(0) == np.array(self.answers)).astype(np.float32)
        return {"loss": loss} if accuracy is None else {"loss": loss, "accuracy": accuracy}

    def generate(self, base: BaseModel, seed: Sequence[int]) -> dict[str, np.ndarray]:
        """Sample text for every test example and score it: `bleu`, `rougeL`, `[examples]` float32 each.

        Args:
            base: the model as it is now.
            seed: of the run and the step; each example adds its own id.
        """
        if self.generator is None:
            return {}
        texts = self.generator.sample(base.model, [[*seed, example.id] for example in self.examples])
        return score_texts(texts, [example.references for example in self.examples])
