"""A real `transformers.Trainer` becomes a run: which examples were where, what was measured, what is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import draw_curriculum
from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.schema import read_parquet
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import SettingsError
from gptdynamics.plans import Plan, PlanEntry
from gptdynamics.recorder import DynamicsRecorder, RecordSettings
from tests.gptdynamics.recorder.conftest import NANO, Examples
from tests.gptdynamics.recorder.training import NotingTrainer, faults, make_trainer, tokenised

CONFIG = "rte_tiny"


@pytest.mark.parametrize("task", ["rte", "webnlg"])
def test_trajectories_are_those_of_collect(
    task: str,
    tiny_model_folder: Path,
    rows_folder: Path,
    make_settings: Callable[..., RunSettings],
    request: pytest.FixtureRequest,
    trainer_of: Callable[..., NotingTrainer],
    tmp_path: Path,
) -> None:
    config = f"{task}_tiny"
    settings = make_settings(config, epochs=2, eval_every=3, generate_every=2)
    collect(CollectSettings(Plan("one", (PlanEntry(settings, 1),)), out=tmp_path / "a", data=rows_folder, workers=1))
    pool, test = request.getfixturevalue(task)
    batches = draw_curriculum(settings, "0000")
    trainer = trainer_of([pool[at] for batch in batches for at in batch], train_sampling_strategy="sequential")
    recorder = DynamicsRecorder(
        tmp_path / "b", config, pool, test, settings=RecordSettings(eval_every=3, generate_every=2)
    )
    recorder.attach(trainer)
    trainer.train()
    assert faults(tmp_path / "b") == []
    for metric in ("loss", "accuracy") if task == "rte" else ("loss", "bleu", "rougeL"):
        collected, recorded = (read_dynamics(tmp_path / name, config, metric) for name in "ab")
        np.testing.assert_allclose(recorded.values, collected.values, atol=1e-5)
        assert metric != "loss" or np.abs(recorded.values[0, :, -1] - recorded.values[0, :, 0]).max() > 1e-2
        assert recorded.step.tolist() == collected.step.tolist()
        assert recorded.curricula == collected.curricula
        np.testing.assert_array_equal(recorded.learning_rate, collected.learning_rate)
        assert recorded.base_revision == collected.base_revision


def test_trajectories_of_nano_are_those_of_collect(collected_nano: Path, sentiment: Examples, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from gptdynamics.models.nano import MODEL_FOLDER

    pool, test = sentiment
    ordered = [pool[at] for batch in draw_curriculum(NANO, "0000") for at in batch]
    rows = tokenised(AutoTokenizer.from_pretrained(MODEL_FOLDER), ordered, 512)
    trainer = make_trainer(MODEL_FOLDER, rows, tmp_path / "t", rate=5e-4, train_sampling_strategy="sequential")
    DynamicsRecorder(tmp_path / "d", NANO.config, pool, test).attach(trainer)
    trainer.train()
    collected, recorded = (read_dynamics(each, NANO.config, "loss") for each in (collected_nano, tmp_path / "d"))
    assert recorded.base_model == "nano"
    assert recorded.curricula == collected.curricula
    np.testing.assert_allclose(recorded.values, collected.values, atol=1e-5)
    assert np.abs(recorded.values[0, :, -1] - recorded.values[0, :, 0]).max() > 0.1
    assert faults(tmp_path / "d") == []


def final_state(trainer: NotingTrainer) -> dict[str, torch.Tensor]:
    states = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    optimizer = trainer.optimizer.state_dict()["state"]
    states |= {f"{at}.{name}": value for at, each in optimizer.items() for name, value in each.items()}
    return states | {"torch": torch.get_rng_state(), "numpy": torch.tensor(np.random.get_state()[1].astype(np.int64))}


@pytest.mark.parametrize("arguments", [{}, {"dataloader_num_workers": 1}], ids=str)
def test_training_is_bit_for_bit_what_it_would_be_without(
    arguments: dict[str, Any], webnlg: Examples, trainer_of: Callable[..., NotingTrainer], tmp_path: Path
) -> None:
    pool, test = webnlg

    def trained(recorded: bool) -> tuple[dict[str, torch.Tensor], list[Any], Any, list[bool]]:
        trainer = trainer_of(pool, dropout=0.2, num_train_epochs=2, logging_steps=1, **arguments)
        if recorded:
            DynamicsRecorder(tmp_path / "d", "webnlg_tiny", pool, test).attach(trainer)
        trainer.train()
        losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
        modes = [module.training for module in trainer.model.modules()]
        return final_state(trainer), [losses, trainer.seen], random.getstate(), modes

    random.seed(1)
    without, with_recorder = trained(False), trained(True)
    assert without[0].keys() == with_recorder[0].keys()
    for name, value in without[0].items():
        assert torch.equal(value, with_recorder[0][name]), name
    assert without[1:] == with_recorder[1:]
    assert len(without[1][0]) == 6
    assert read_dynamics(tmp_path / "d", "webnlg_tiny", "bleu").values.shape == (1, 5, 7)


def test_the_trainer_is_left_as_it_was(rte: Examples, trainer_of: Callable[..., NotingTrainer], tmp_path: Path) -> None:
    trainer = trainer_of(rte[0])
    before, callbacks = set(vars(trainer)), list(trainer.callback_handler.callbacks)
    recorder = DynamicsRecorder(tmp_path / "d", CONFIG, *rte)
    recorder.attach(trainer)
    trainer.train()
    assert not {"train", "training_step", "get_train_dataloader", "_remove_unused_columns"} & set(vars(trainer))
    assert before <= set(vars(trainer))
    assert trainer.callback_handler.callbacks == callbacks
    trainer.train()
    assert DatasetFolder(tmp_path / "d").finished(CONFIG) == ["0000"]


class StopAt(TrainerCallback):
    """Ends training after an update: with an error, or as early stopping does."""

    def __init__(self, update: int, error: type[BaseException] | None = None) -> None:
        self.update, self.error = update, error

    def on_step_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        if state.global_step == self.update:
            if self.error:
                raise self.error("stop")
            control.should_training_stop = True


@pytest.mark.parametrize("interrupt", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_training_leaves_no_run_and_can_be_made_again(
    interrupt: type[BaseException], rte: Examples, trainer_of: Callable[..., NotingTrainer], tmp_path: Path
) -> None:
    trainer = trainer_of(rte[0], callbacks=[StopAt(2, interrupt)])
    DynamicsRecorder(tmp_path / "d", CONFIG, *rte, run="0000").attach(trainer)
    with pytest.raises(interrupt):
        trainer.train()
    checked = verify(tmp_path / "d")
    assert checked.ok
    assert (checked.runs, checked.missing, checked.running) == (0, {CONFIG: ["0000"]}, [])
    again = trainer_of(rte[0])
    DynamicsRecorder(tmp_path / "d", CONFIG, *rte, run="0000").attach(again)
    again.train()
    assert verify(tmp_path / "d").runs == 1
    assert faults(tmp_path / "d") == []


def test_resuming_goes_on_with_the_recording(
    webnlg: Examples, llama_folder: Path, trainer_of: Callable[..., NotingTrainer], tmp_path: Path
) -> None:
    pool, test = webnlg
    long: dict[str, Any] = {"num_train_epochs": 2, "folder": llama_folder}
    settings = RecordSettings(eval_every=2, generate_every=3)

    def record(name: str, **arguments: Any) -> NotingTrainer:
        trainer = trainer_of(pool, **long, **arguments)
        recorder = DynamicsRecorder(tmp_path / name, "webnlg_tiny", pool, test, settings=settings)
        recorder.attach(trainer)
        return trainer

    record("whole").train()
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    with pytest.raises(RuntimeError, match="stop"):
        record("parts", callbacks=[StopAt(3, RuntimeError)], **saving).train()
    record("parts", **saving).train(resume_from_checkpoint=True)
    assert faults(tmp_path / "parts") == []
    whole, parts = DatasetFolder(tmp_path / "whole"), DatasetFolder(tmp_path / "parts")
    for path in ("run_path", "run_row_path"):
        one, other = (read_parquet(getattr(folder, path)("webnlg_tiny", "0000")) for folder in (whole, parts))
        assert one.equals(other)
    with pytest.raises(SettingsError, match=r"recorded with other settings .*eval_every: 2 then, 1 now"):
        trainer = trainer_of(pool, **long, **saving)
        DynamicsRecorder(tmp_path / "other", "webnlg_tiny", pool, test).attach(trainer)
        trainer.train(resume_from_checkpoint=str(tmp_path / "t" / "checkpoint-2"))
    (tmp_path / "t" / "checkpoint-2" / "gptdynamics_recording.safetensors").unlink()
    with pytest.raises(SettingsError, match="no record of the 2 updates before it"):
        record("third", **saving).train(resume_from_checkpoint=str(tmp_path / "t" / "checkpoint-2"))
    assert not (tmp_path / "third").exists()


def test_hyperparameters_are_those_that_were_used(
    rte: Examples, trainer_of: Callable[..., NotingTrainer], tmp_path: Path
) -> None:
    trainer = trainer_of(rte[0], num_train_epochs=2, lr_scheduler_type="cosine", warmup_steps=2, seed=7)
    recorder = DynamicsRecorder(tmp_path / "d", CONFIG, *rte)
    recorder.attach(trainer)
    rates: list[float] = []
    trainer.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    trainer.train()
    row = read_parquet(DatasetFolder(tmp_path / "d").run_row_path(CONFIG, "0000")).to_pylist()[0]
    assert len(rates) == 6
    assert row["learning_rate"] == [float(np.float32(rate)) for rate in rates]
    assert row["learning_rate"][0] < row["learning_rate"][1]
    expected = {"seed": 7, "optimizer": "adamw", "weight_decay": 0.001, "epsilon": 1e-6, "batch_size": 4, "epochs": 2}
    expected |= {"schedule": "cosine after warm-up", "subset": 12, "pool_size": 12, "lora_rank": 0}
    assert {name: row[name] for name in expected} == expected
    told = json.loads(row["hyperparameters"])
    assert (told["gradient_accumulation_steps"], told["warmup_steps"], told["lr_scheduler_type"]) == (2, 2, "cosine")
    assert not any("/" in str(value) for value in told.values())
    assert {"torch", "transformers", "accelerate"} <= json.loads(row["versions"]).keys()


def test_a_diverged_run_is_failed_with_its_reason_and_training_goes_on(
    rte: Examples, trainer_of: Callable[..., NotingTrainer], tmp_path: Path
) -> None:
    trainer = trainer_of(rte[0], rate=1e30)
    recorder = DynamicsRecorder(tmp_path / "d", CONFIG, *rte)
    recorder.attach(trainer)
    trainer.train()
    assert trainer.state.global_step == 3
    checked = verify(tmp_path / "d")
    assert checked.ok
    assert list(checked.failed) == [f"{CONFIG}/0000"]
    assert "is not finite after" in checked.failed[f"{CONFIG}/0000"]
    assert recorder.failure == checked.failed[f"{CONFIG}/0000"]
    again = trainer_of(rte[0])
    next_run = DynamicsRecorder(tmp_path / "d", CONFIG, *rte)
    next_run.attach(again)
    again.train()
    assert next_run.run == "0001"


def test_an_early_end_is_measured_whatever_the_distance(
    rte: Examples, trainer_of: Callable[..., NotingTrainer], tmp_path: Path
) -> None:
    trainer = trainer_of(rte[0], num_train_epochs=3, callbacks=[StopAt(5)])
    DynamicsRecorder(tmp_path / "d", CONFIG, *rte, settings=RecordSettings(eval_every=4)).attach(trainer)
    trainer.train()
    assert read_dynamics(tmp_path / "d", CONFIG, "loss").step.tolist() == [0, 4, 5]
    assert faults(tmp_path / "d") == []
    longer = trainer_of(rte[0], num_train_epochs=3)
    DynamicsRecorder(tmp_path / "d", CONFIG, *rte, settings=RecordSettings(eval_every=4)).attach(longer)
    with pytest.raises(SettingsError, match="have 5 updates, but this training has 9"):
        longer.train()
    shorter = trainer_of(rte[0], max_steps=5, callbacks=[StopAt(3)])
    recorder = DynamicsRecorder(tmp_path / "d", CONFIG, *rte, settings=RecordSettings(eval_every=4))
    recorder.attach(shorter)
    shorter.train()
    assert recorder.failure is not None
    assert recorder.failure.startswith("it ended after 3 updates: runs of rte_tiny have 5 updates")


def test_a_recorder_is_for_one_trainer(rte: Examples, trainer_of: Callable[..., NotingTrainer], tmp_path: Path) -> None:
    recorder = DynamicsRecorder(tmp_path / "d", CONFIG, *rte)
    trainer = trainer_of(rte[0], callbacks=[recorder])
    recorder.attach(trainer)
    assert trainer.callback_handler.callbacks.count(recorder) == 1
    with pytest.raises(SettingsError, match="already attached to a trainer"):
        recorder.attach(trainer)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_adapters_are_recorded(rte: Examples, trainer_of: Callable[..., NotingTrainer], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    full, adapted = trainer_of(rte[0]), trainer_of(rte[0])
    DynamicsRecorder(tmp_path / "d", CONFIG, *rte).attach(full)
    full.train()
    torch.manual_seed(0)
    model = get_peft_model(adapted.model, LoraConfig(r=2, lora_alpha=8, target_modules=["query_key_value"]))
    adapted.model = adapted.model_wrapped = model
    adapted.optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=0.1)
    DynamicsRecorder(tmp_path / "d", CONFIG, *rte).attach(adapted)
    adapted.train()
    read = read_dynamics(tmp_path / "d", CONFIG, "loss")
    # Adapters begin as nothing, so both begin at the same model; then they part.
    np.testing.assert_allclose(read.values[0, :, 0], read.values[1, :, 0], atol=1e-6)
    assert np.abs(read.values[1, :, -1] - read.values[1, :, 0]).max() > 1e-3
    row = read_parquet(DatasetFolder(tmp_path / "d").run_row_path(CONFIG, "0001")).to_pylist()[0]
    assert (row["lora_rank"], row["lora_alpha"], row["peak_learning_rate"]) == (2, 8, pytest.approx(0.1))
    assert faults(tmp_path / "d") == []
