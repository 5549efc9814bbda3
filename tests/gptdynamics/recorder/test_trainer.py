"""A real `transformers.Trainer` becomes a run: which examples were where, what was measured, what is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import draw_curriculum
from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.schema import read_parquet
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import DataError, GPTDynamicsError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.plans import Plan, PlanEntry
from gptdynamics.recorder import DynamicsRecorder, RecordSettings
from tests.gptdynamics.recorder.conftest import NANO, Examples
from tests.gptdynamics.recorder.training import NotingTrainer, make_trainer, tokenised

CONFIG = "rte_tiny"


@pytest.fixture
def trainer_of(tiny_model_folder: Path, tmp_path: Path) -> Callable[..., NotingTrainer]:
    """A trainer on rows of a pool."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)

    def make(examples: list[Example], **arguments: Any) -> NotingTrainer:
        rows, folder = arguments.pop("rows", None), arguments.pop("folder", tiny_model_folder)
        return make_trainer(
            folder, tokenised(tokenizer, examples) if rows is None else rows, tmp_path / "t", **arguments
        )

    return make


def curriculum(folder: Path, config: str, run: str = "0000") -> list[list[int]]:
    return read_parquet(DatasetFolder(folder).run_row_path(config, run))["curriculum"][0].as_py()


def faults(folder: Path) -> list[str]:
    return [str(fault) for fault in verify(folder).faults]


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
        assert metric != "loss" or np.abs(recorded.values[0, -1] - recorded.values[0, 0]).max() > 1e-2
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
    assert np.abs(recorded.values[0, -1] - recorded.values[0, 0]).max() > 0.1
    assert faults(tmp_path / "d") == []


class Rows(torch.utils.data.Dataset):
    """Rows that are no dataset of `datasets`."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> dict[str, Any]:
        return dict(self.rows[at])


def generate_rows(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from rows


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_train_epochs": 2},
        {"dataloader_drop_last": True, "per_device_train_batch_size": 5, "gradient_accumulation_steps": 1},
        {"train_sampling_strategy": "group_by_length", "num_train_epochs": 2},
        {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 3, "num_train_epochs": 2},
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 3, "num_train_epochs": 2},
        {"kind": "torch"},
        {"kind": "torch", "dataloader_num_workers": 1},
        {"kind": "iterable", "max_steps": 3},
        {"kind": "all columns", "remove_unused_columns": False},
    ],
    ids=str,
)
def test_recorded_batches_are_those_that_were_trained_on(
    arguments: dict[str, Any], sst2: Examples, trainer_of: Callable[..., NotingTrainer], tmp_path: Path
) -> None:
    pool, test = sst2
    arguments = dict(arguments)
    kind = arguments.pop("kind", "")
    plain = list(trainer_of(pool).train_dataset)
    rows: Any = Rows(plain) if kind == "torch" else None
    if kind == "iterable":
        rows = Dataset.from_list(plain).to_iterable_dataset()
    if kind == "all columns":
        rows = Dataset.from_list(plain).remove_columns("text")
    trainer = trainer_of(pool, rows=rows, **arguments)
    settings = RecordSettings(eval_every=100)
    recorder = DynamicsRecorder(tmp_path / "d", "sst2_tiny", pool, test, settings=settings)
    recorder.attach(trainer)
    trainer.train()
    ids = {tuple(row["input_ids"]): row["id"] for row in plain}
    assert len(ids) == len(pool)
    per_update = [len(batch) for batch in curriculum(tmp_path / "d", "sst2_tiny")]
    seen = [ids[row] for micro_batch in trainer.seen for row in micro_batch]
    assert [at for batch in curriculum(tmp_path / "d", "sst2_tiny") for at in batch] == seen
    assert len(per_update) == trainer.state.global_step
    # An update is the micro-batches that lie between two steps of the optimiser.
    accumulated = trainer.args.gradient_accumulation_steps
    in_epoch = -(-len(trainer.seen) // max(1, int(trainer.args.num_train_epochs)))
    sizes: list[int] = []
    for start in range(0, len(trainer.seen), in_epoch):
        epoch = trainer.seen[start : start + in_epoch]
        sizes += [sum(map(len, epoch[at : at + accumulated])) for at in range(0, len(epoch), accumulated)]
    assert per_update == sizes
    assert "id" not in trainer.keys or kind == "all columns"
    assert faults(tmp_path / "d") == []


def test_ids_may_be_anything(rte: Examples, trainer_of: Callable[..., NotingTrainer], tmp_path: Path) -> None:
    pool, test = rte
    named = [{"key": f"row-{7 * each.id}", "prompt": each.prompt, "target": each.target} for each in pool]
    rows = list(trainer_of(pool).train_dataset)
    rows = [{**row, "key": f"row-{7 * row['id']}"} for row in random.Random(0).sample(rows, 8)]
    trainer = trainer_of(pool, rows=rows, train_sampling_strategy="sequential")
    recorder = DynamicsRecorder(tmp_path / "d", CONFIG, named, test, id_column="key")
    recorder.attach(trainer)
    trainer.train()
    assert [at for batch in curriculum(tmp_path / "d", CONFIG) for at in batch] == [row["id"] for row in rows]
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
    assert read_dynamics(tmp_path / "d", "webnlg_tiny", "bleu").values.shape == (1, 7, 5)


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
    with pytest.raises(SettingsError, match=r"recorded otherwise .*eval_every: 2 then, 1 now"):
        trainer = trainer_of(pool, **long, **saving)
        DynamicsRecorder(tmp_path / "other", "webnlg_tiny", pool, test).attach(trainer)
        trainer.train(resume_from_checkpoint=str(tmp_path / "t" / "checkpoint-2"))
    (tmp_path / "t" / "checkpoint-2" / "gptdynamics_recording.safetensors").unlink()
    with pytest.raises(SettingsError, match="no recording of the 2 updates before it"):
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
    with pytest.raises(SettingsError, match="have 5 updates, and this training will have 9"):
        longer.train()
    shorter = trainer_of(rte[0], max_steps=5, callbacks=[StopAt(3)])
    recorder = DynamicsRecorder(tmp_path / "d", CONFIG, *rte, settings=RecordSettings(eval_every=4))
    recorder.attach(shorter)
    shorter.train()
    assert recorder.failure is not None
    assert recorder.failure.startswith("it ended after 3 updates: runs of rte_tiny have 5 updates")


def test_what_cannot_be_known_is_refused_before_the_first_update(
    rte: Examples, trainer_of: Callable[..., NotingTrainer], tmp_path: Path
) -> None:
    pool, test = rte
    rows = list(trainer_of(pool).train_dataset)

    def refused(trainer: NotingTrainer, error: type[GPTDynamicsError], said: str) -> None:
        recorder = DynamicsRecorder(tmp_path / "d", CONFIG, pool, test)
        recorder.attach(trainer)
        with pytest.raises(error, match=said):
            trainer.train()
        assert trainer.seen == []
        assert DatasetFolder(tmp_path / "d").finished(CONFIG) == []

    without = [{name: value for name, value in row.items() if name != "id"} for row in rows]
    what_to_pass = "Give each row of the training dataset the id of its pool example in a column 'id'"
    refused(trainer_of(pool, rows=without), DataError, what_to_pass)
    refused(trainer_of(pool, rows=Rows(without)), DataError, what_to_pass)
    refused(trainer_of(pool, rows=[{**row, "id": row["id"] + 1} for row in rows]), DataError, "training row 11: 12 is")
    refused(trainer_of(pool, rows=Rows([{**row, "id": "x"} for row in rows])), DataError, "'x' is not the id of a pool")
    loading = trainer_of(pool)
    loading.get_train_dataloader = lambda: rows
    refused(loading, SettingsError, "Record with StepRecorder")
    losing = trainer_of(pool)
    plain = losing.get_batch_samples

    def remade(*arguments: Any) -> Any:
        batches, items = plain(*arguments)
        return [{name: batch[name] for name in ("input_ids", "labels", "attention_mask")} for batch in batches], items

    losing.get_batch_samples = remade
    refused(losing, DataError, "a batch lost the ids")
    alone = trainer_of(pool, callbacks=[DynamicsRecorder(tmp_path / "d", CONFIG, pool, test)])
    with pytest.raises(SettingsError, match=r"call recorder.attach\(trainer\) before"):
        alone.train()


def test_a_recorder_is_for_one_trainer(rte: Examples, trainer_of: Callable[..., NotingTrainer], tmp_path: Path) -> None:
    recorder = DynamicsRecorder(tmp_path / "d", CONFIG, *rte)
    trainer = trainer_of(rte[0], callbacks=[recorder])
    recorder.attach(trainer)
    assert trainer.callback_handler.callbacks.count(recorder) == 1
    with pytest.raises(SettingsError, match="attached to a trainer already"):
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
    np.testing.assert_allclose(read.values[0, 0], read.values[1, 0], atol=1e-6)
    assert np.abs(read.values[1, -1] - read.values[1, 0]).max() > 1e-3
    row = read_parquet(DatasetFolder(tmp_path / "d").run_row_path(CONFIG, "0001")).to_pylist()[0]
    assert (row["lora_rank"], row["lora_alpha"], row["peak_learning_rate"]) == (2, 8, pytest.approx(0.1))
    assert faults(tmp_path / "d") == []
