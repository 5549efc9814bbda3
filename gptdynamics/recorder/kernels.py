"""Kernels of a run that is recorded, taken as `gptdynamics collect --kernels` takes them."""

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


def kernel_settings(asked: KernelSettings | bool) -> KernelSettings | None:
    """How kernels are taken; None: they are not. True stands for the defaults."""
    if isinstance(asked, KernelSettings):
        return asked
    return KernelSettings() if asked else None


def kernel_plan(settings: KernelSettings | None, updates: int | None) -> dict[str, Any] | None:
    """What must be the same before and after a checkpoint that training resumes from; plain values.

    Args:
        settings: how kernels are taken; None: they are not.
        updates: of the run; None: it is not known.

    Raises:
        SettingsError: kernels are wanted, and the number of updates is not known.
    """
    if settings is None:
        return None
    if updates is None:
        raise SettingsError(
            "kernels are taken at steps spread over the run, so its number of updates is needed: "
            "give StepRecorder(updates=...)"
        )
    return {"columns": settings.columns, "seed": settings.seed, "steps": settings.steps(updates)}


def pool_tokens(
    tokens: MeasuredTokens, pool: Sequence[Example], given: Mapping[int, LabelledRow], inferred: bool
) -> list[TokenizedExample]:
    """The pool's tokens as they are trained on, of which gradients are taken.

    Args:
        tokens: makes those of the test examples.
        pool: the examples, in the order of their numbers.
        given: ids and labels that pool rows have of their own; empty if they have none.
        inferred: whether the rule of `tokens` was found in what is trained on, and not assumed.

    Raises:
        DataError: they are not known, one is too long, or none of its tokens is scored.
    """
    if given:
        for number, row in given.items():
            if not row.scored or len(row.ids) > tokens.context:
                what = f"it has {len(row.ids)} tokens, more than {tokens.context}" if row.scored else "none is scored"
                raise DataError(f"kernels: pool example {number}: {what}. Leave it out, or take no kernels")
        return [given[example.id] for example in pool]
    if tokens.rule is None or (tokens.given is not None and not inferred):
        raise DataError(
            "kernels: the tokens that pool examples are trained on are not known, for texts do not make those of the "
            "test examples. Give the pool rows input_ids and labels of their own, too (-100 where no loss is taken)"
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
    """The record of a run's kernels, with those that were taken before the checkpoint that training resumes from."""
    record = KernelRecord(model, pool, test, updates, settings)
    if resumed is not None:
        record.restore(resumed.products, resumed.kernel_checkpoints)
    return record
