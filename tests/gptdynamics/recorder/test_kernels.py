"""Kernels are taken along a training of somebody's own, as they are along a collected run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import draw_curriculum
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.gradient_reading import read_products
from gptdynamics.dataset.schema import read_parquet, write_parquet
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.models.tokens import tokenize_example
from gptdynamics.plans import Plan, PlanEntry
from gptdynamics.recorder import DynamicsRecorder, KernelSettings, RecordSettings, StepRecorder
from tests.gptdynamics.gradients.test_kernels import slow_gradient
from tests.gptdynamics.recorder.conftest import Examples
from tests.gptdynamics.recorder.training import Loop, NotingTrainer, faults

CONFIG = "rte_tiny"
KERNEL = KernelSettings(checkpoints=2, columns=8)
# At least as many columns as any matrix has rows or columns, so that nothing is projected.
EXACT = KernelSettings(checkpoints=2, columns=1024)


def test_kernels_are_those_of_collect(
    make_settings: Callable[..., RunSettings],
    rows_folder: Path,
    rte: Examples,
    trainer_of: Callable[..., NotingTrainer],
    tmp_path: Path,
) -> None:
    settings = make_settings(CONFIG, epochs=2)
    plan = Plan("one", (PlanEntry(settings, 1, kernels=1, kernel=KERNEL),))
    collect(CollectSettings(plan, out=tmp_path / "collected", data=rows_folder, workers=1))
    batches = draw_curriculum(settings, "0000")
    ordered = [rte[0][at] for batch in batches for at in batch]
    trainer = trainer_of(ordered, train_sampling_strategy="sequential")
    DynamicsRecorder(tmp_path / "trainer", CONFIG, *rte, kernels=KERNEL).attach(trainer)
    trainer.train()
    loop = Loop(Path(str(settings.base_model)), rte[0], len(batches))
    made = loop.model, loop.tokenizer, loop.optimizer
    with StepRecorder(tmp_path / "loop", CONFIG, *rte, *made, kernels=KERNEL, updates=len(batches)) as recorder:
        for ids in batches:
            with recorder.step(ids):
                loop.update(ids)
    expected = read_products(tmp_path / "collected", CONFIG, "0000")
    assert expected.kernel is not None and expected.step.tolist() == [0, 2]
    for name in ("trainer", "loop"):
        assert faults(tmp_path / name) == []
        found = read_products(tmp_path / name, CONFIG, "0000")
        assert found.kernel is not None
        assert (found.step.tolist(), found.pool_ids, found.test_ids) == ([0, 2], expected.pool_ids, expected.test_ids)
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-3, atol=1e-4 * np.abs(expected.values).max())
        assert (found.kernel.columns, found.kernel.seed) == (8, 0)
        assert [each.covered for each in found.kernel.checkpoints] == pytest.approx([1, 1])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_of_adapters_only_what_is_trained_counts(
    rte: Examples, tiny_model_folder: Path, trainer_of: Callable[..., NotingTrainer], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    trainer = trainer_of(rte[0])
    torch.manual_seed(0)
    adapters = LoraConfig(r=2, target_modules=["query_key_value"], init_lora_weights=False)
    model = get_peft_model(trainer.model, adapters)
    trainer.model = trainer.model_wrapped = model
    trainer.optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=0.1)
    inner = model.get_base_model().eval()

    def gradients(examples: Any) -> np.ndarray:
        rows = [
            slow_gradient(inner, tokenize_example(trainer.processing_class, each, 64, False, each.target, "joined"))
            for each in examples
        ]
        return np.stack([torch.cat([each.flatten() for each in row.values()]).numpy() for row in rows])

    expected = gradients(rte[0]) @ gradients(rte[1]).T
    DynamicsRecorder(tmp_path / "d", CONFIG, *rte, kernels=EXACT).attach(trainer)
    trainer.train()
    found = read_products(tmp_path / "d", CONFIG, "0000")
    np.testing.assert_allclose(found.values[0], expected, atol=1e-5 * np.abs(expected).max())
    assert np.abs(found.values[1] - found.values[0]).max() > 0.1 * np.abs(expected).max()
    assert faults(tmp_path / "d") == []


def test_training_is_bit_for_bit_what_it_would_be_without(
    rte: Examples, trainer_of: Callable[..., NotingTrainer], tmp_path: Path
) -> None:
    def trained(recorded: bool) -> tuple[list[torch.Tensor], Any, list[bool]]:
        trainer = trainer_of(rte[0], dropout=0.2, logging_steps=1)
        if recorded:
            DynamicsRecorder(tmp_path / "d", CONFIG, *rte, kernels=KERNEL).attach(trainer)
        trainer.train()
        losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
        weights = [value.detach().clone() for value in trainer.model.parameters()]
        return [*weights, torch.get_rng_state()], losses, [module.training for module in trainer.model.modules()]

    without, with_kernels = trained(False), trained(True)
    assert all(torch.equal(one, other) for one, other in zip(without[0], with_kernels[0], strict=True))
    assert without[1:] == with_kernels[1:]


def test_kernels_from_before_a_checkpoint_are_kept(
    rte: Examples, llama_folder: Path, trainer_of: Callable[..., NotingTrainer], tmp_path: Path
) -> None:
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "folder": llama_folder}

    def train(name: str, kernels: KernelSettings | bool, resume: str | None = None, **more: Any) -> None:
        trainer = trainer_of(rte[0], **saving, **more)
        DynamicsRecorder(tmp_path / name, CONFIG, *rte, kernels=kernels).attach(trainer)
        trainer.train(resume_from_checkpoint=resume)

    train("whole", KERNEL)
    checkpoint = str(tmp_path / "t" / "checkpoint-2")
    train("resumed", KERNEL, checkpoint)
    whole, resumed = (
        read_parquet(DatasetFolder(tmp_path / name).products_path(CONFIG, "0000")) for name in ("whole", "resumed")
    )
    assert resumed.equals(whole)
    assert faults(tmp_path / "resumed") == []
    with pytest.raises(
        SettingsError, match=r"recorded with other settings \(kernels: {'columns': 8, .*} then, None now\)"
    ):
        train("other", False, checkpoint)


def test_the_number_of_updates_must_be_known(rte: Examples, tiny_model_folder: Path, tmp_path: Path) -> None:
    loop = Loop(tiny_model_folder, rte[0], 2)
    made = loop.model, loop.tokenizer, loop.optimizer
    with pytest.raises(SettingsError, match=r"its number of updates is needed: give StepRecorder\(updates=...\)"):
        StepRecorder(tmp_path / "d", CONFIG, *rte, *made, kernels=True)
    assert not (tmp_path / "d").exists()


def test_too_little_memory_is_said_before_training(
    rte: Examples, trainer_of: Callable[..., NotingTrainer], tmp_path: Path
) -> None:
    trainer = trainer_of(rte[0])
    DynamicsRecorder(tmp_path / "d", CONFIG, *rte, kernels=KernelSettings(memory=1e-6)).attach(trainer)
    with pytest.raises(SettingsError, match="of memory are too little"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_pool_whose_tokens_are_not_known_has_no_kernel(
    webnlg: Examples, tiny_model_folder: Path, tmp_path: Path
) -> None:
    def rows(examples: Any, tokens: bool) -> list[dict[str, Any]]:
        given = {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]} if tokens else {}
        return [{"prompt": each.prompt, "target": each.target} | given for each in examples]

    def record(name: str, pool_tokens: bool) -> None:
        loop = Loop(tiny_model_folder, webnlg[0], 1)
        made = loop.model, loop.tokenizer, loop.optimizer
        pool, test = rows(webnlg[0], pool_tokens), rows(webnlg[1], True)
        settings = RecordSettings(generate_every=9)
        with (
            StepRecorder(
                tmp_path / name, "own_tiny", pool, test, *made, settings=settings, kernels=EXACT, updates=1
            ) as recorder,
            recorder.step([0, 1]),
        ):
            loop.update([0, 1])

    with pytest.raises(DataError, match="Give the pool rows their own input_ids and labels"):
        record("unknown", False)
    record("known", True)
    # All examples are alike, so all products are.
    values = read_products(tmp_path / "known", "own_tiny", "0000").values
    np.testing.assert_allclose(values, values[0, 0, 0], rtol=1e-4)


@pytest.mark.parametrize("damage", ["a row is lost", "another pool example"])
def test_verify_checks_kernels_of_recorded_runs(
    damage: str, rte: Examples, tiny_model_folder: Path, tmp_path: Path
) -> None:
    loop = Loop(tiny_model_folder, rte[0], 1)
    made = loop.model, loop.tokenizer, loop.optimizer
    with StepRecorder(tmp_path, CONFIG, *rte, *made, kernels=KERNEL, updates=1) as recorder, recorder.step([0, 1]):
        loop.update([0, 1])
    path = DatasetFolder(tmp_path).products_path(CONFIG, "0000")
    table = read_parquet(path)
    if damage == "a row is lost":
        write_parquet(table.slice(1), path)
    else:
        ids = [99, *table["id"].to_pylist()[1:]]
        place = table.column_names.index("id")
        write_parquet(table.set_column(place, "id", pa.array(ids, table.schema.field("id").type)), path)
    (fault,) = faults(tmp_path)
    assert path.name in fault
    assert ("rows, not" in fault) if damage == "a row is lost" else ("id 99" in fault)


def test_a_kernel_that_cannot_be_finished_ends_the_recording_alone(
    rte: Examples, tiny_model_folder: Path, tmp_path: Path
) -> None:
    loop = Loop(tiny_model_folder, rte[0], 2)
    made = loop.model, loop.tokenizer, loop.optimizer
    with StepRecorder(tmp_path, CONFIG, *rte, *made, kernels=KERNEL, updates=2) as recorder:
        with recorder.step([0, 1]):
            loop.update([0, 1])
            for parameter in loop.model.parameters():
                parameter.requires_grad_(False)
        for parameter in loop.model.parameters():
            parameter.requires_grad_(True)
        with recorder.step([2, 3]):
            loop.update([2, 3])
    assert recorder.failure is not None and "no parameter of the model is trainable" in recorder.failure
    assert loop.done == 2
