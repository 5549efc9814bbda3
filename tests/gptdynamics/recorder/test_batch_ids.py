"""Which examples are in a batch: recorded batches are those trained on, or training is refused before it begins."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.errors import DataError, GPTDynamicsError, SettingsError
from gptdynamics.recorder import DynamicsRecorder, RecordSettings
from tests.gptdynamics.recorder.conftest import Examples
from tests.gptdynamics.recorder.training import NotingTrainer, curriculum, faults

CONFIG = "rte_tiny"


class Rows(torch.utils.data.Dataset):
    """Rows that are no dataset of `datasets`."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> dict[str, Any]:
        return dict(self.rows[at])


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
