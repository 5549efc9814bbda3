"""Kernels of a recorded run, computed as in `gptdynamics collect --kernels`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.models.tokens import TokenizedExample
from gptdynamics.recorder.checkpoint import Partial
from gptdynamics.recorder.measured_tokens import MeasuredTokens
from gptdynamics.recorder.trained_tokens import LabelledRow
from gptdynamics.runs.kernel_record import KernelRecord
from gptdynamics.settings.kernels import KernelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def kernel_settings(kernels: KernelSettings | bool) -> KernelSettings | None:
    """The settings of kernels; None: there are none. True stands for the defaults."""
    if isinstance(kernels, KernelSettings):
        return kernels
    return KernelSettings() if kernels else None


def kernel_plan(settings: KernelSettings | None, updates: int | None) -> dict[str, Any] | None:
    """The settings and steps of kernels, which must be the same before and after a checkpoint; plain values.

    Args:
        settings: of the kernels; None: there are none.
        updates: number of updates of the run; None: unknown.

    Raises:
        SettingsError: there are kernels, but the number of updates is unknown.
    """
    if settings is None:
        return None
    if updates is None:
        raise SettingsError(
            "kernels are computed at steps spread over the run, so its number of updates is needed: "
            "give StepRecorder(updates=...)"
        )
    return {"columns": settings.columns, "seed": settings.seed, "steps": settings.steps(updates)}


def pool_tokens(
    tokens: MeasuredTokens, pool: Sequence[Example], row_tokens: Mapping[int, LabelledRow], inferred: bool
) -> list[TokenizedExample]:
    """The pool's tokens as in the training, for their gradients.

    Args:
        tokens: makes the tokens of the test examples.
        pool: the examples, in the order of their numbers.
        row_tokens: ids and labels that the pool rows have themselves; empty if they have none.
        inferred: whether the rule of `tokens` was inferred from the training, and not assumed.

    Raises:
        DataError: the tokens are unknown, or an example is too long or has no token with a loss.
    """
    if row_tokens:
        for number, row in row_tokens.items():
            if not row.scored or len(row.ids) > tokens.context:
                problem = (
                    f"more tokens ({len(row.ids)}) than {tokens.context}" if row.scored else "no token with a loss"
                )
                raise DataError(f"kernels: pool example {number} has {problem}. Leave it out, or set kernels=False")
        return [row_tokens[example.id] for example in pool]
    if tokens.rule is None or (tokens.given is not None and not inferred):
        raise DataError(
            "kernels: the trained tokens of pool examples are unknown, because those of the test examples are not made "
            "from their texts. Give the pool rows their own input_ids and labels, too (-100 where there is no loss)"
        )
    return [tokens.by_rule(example) for example in pool]


def begin_kernels(
    model: PreTrainedModel,
    pool: Sequence[TokenizedExample],
    test: Sequence[TokenizedExample],
    updates: int,
    settings: KernelSettings,
    resumed: Partial | None,
) -> KernelRecord:
    """The record of a run's kernels, with those computed before the checkpoint if training resumes from one."""
    record = KernelRecord(model, pool, test, updates, settings)
    if resumed is not None:
        record.restore(resumed.products, resumed.kernel_checkpoints)
    return record
