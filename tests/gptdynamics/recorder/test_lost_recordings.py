"""Recording never ends a training: what cannot be recorded is said once, and what was recorded is kept."""

from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.schema import read_parquet
from gptdynamics.dataset.status import folder_status
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.recorder import DynamicsRecorder, RecordSettings, StepRecorder
from gptdynamics.recorder.checkpoint import read_partial, save_partial, unfinished_path
from tests.gptdynamics.recorder.conftest import Examples
from tests.gptdynamics.recorder.training import Loop, NotingTrainer, make_trainer, tokenised

CONFIG = "rte_tiny"

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def trainer_of(tiny_model_folder: Path, rte: Examples, tmp_path: Path) -> Callable[..., NotingTrainer]:
    from transformers import AutoTokenizer

    rows = tokenised(AutoTokenizer.from_pretrained(tiny_model_folder), rte[0])
    return lambda **arguments: make_trainer(tiny_model_folder, rows, tmp_path / "t", **arguments)


def row_of(folder: Path, run: str = "0000") -> dict[str, Any]:
    return read_parquet(DatasetFolder(folder).run_row_path(CONFIG, run)).to_pylist()[0]


class Kind(Enum):
    GOOD = "good"


@dataclass
class Told:
    rate: float
    where: pathlib.Path


class Odd:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_what_json_has_no_place_for_is_kept_as_its_text(tiny_model_folder: Path, rte: Examples, tmp_path: Path) -> None:
    told: dict[Any, Any] = {
        "path": pathlib.Path("rows.jsonl"),
        "set": {"b", "a"},
        "kind": Kind.GOOD,
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "array": np.arange(3),
        "scalar": np.float32(0.5),
        "tensor": torch.tensor([[1, 2]]),
        "class": Told(0.5, pathlib.Path("x")),
        "nan": float("nan"),
        "infinite": np.inf,
        "large": 2**70,
        "surrogate": "\ud800",
        "odd": Odd(),
        "nested": {1: [{"deep": {3, 2}}]},
        7: None,
    }
    told["itself"] = told
    loop = Loop(tiny_model_folder, rte[0], 1)
    made = loop.model, loop.tokenizer, loop.optimizer
    with StepRecorder(tmp_path, CONFIG, *rte, *made, hyperparameters=told) as recorder, recorder.step([0, 1]):
        loop.update([0, 1])
    said = json.loads(row_of(tmp_path)["hyperparameters"], parse_constant=pytest.fail)
    expected = {"path": "rows.jsonl", "set": ["a", "b"], "kind": "good", "device": "cpu", "dtype": "torch.float32"}
    expected |= {"array": [0, 1, 2], "scalar": 0.5, "tensor": [[1, 2]], "class": {"rate": 0.5, "where": "x"}}
    expected |= {"nan": "nan", "infinite": "inf", "large": str(2**70), "surrogate": "?", "odd": "<Odd>", "7": None}
    expected |= {"nested": {"1": [{"deep": [2, 3]}]}}
    assert {name: said[name] for name in expected} == expected
    assert verify(tmp_path).faults == []


class NoRate(torch.optim.SGD):
    """An optimiser whose groups do not say their rate."""

    def __init__(self, parameters: Any, missing: bool) -> None:
        super().__init__(parameters, lr=1e-3)
        self.hidden = [group["lr"] for group in self.param_groups]
        self.missing = missing
        self.hide()

    def hide(self) -> None:
        for group in self.param_groups:
            if self.missing:
                del group["lr"]
            else:
                group["lr"] = None

    def step(self, closure: Any = None) -> Any:
        for group, rate in zip(self.param_groups, self.hidden, strict=True):
            group["lr"] = rate
        super().step(closure)
        self.hide()


@pytest.mark.parametrize("kind", ["adafactor", "relative adafactor", "tensor", "None", "missing", "zero"])
def test_rates_of_any_optimiser_are_recorded_as_far_as_they_are_known(
    kind: str, tiny_model_folder: Path, rte: Examples, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import Adafactor

    loop = Loop(tiny_model_folder, rte[0], 1)
    weights = list(loop.model.parameters())
    # Once there is an SGD, torch calls hooks for its `step`, too, when that of a subclass calls it.
    torch.optim.SGD(weights, lr=0.1)
    made: dict[str, Callable[[], Any]] = {
        "adafactor": lambda: Adafactor(weights, lr=1e-3, relative_step=False, scale_parameter=False),
        "relative adafactor": lambda: Adafactor(weights, relative_step=True),
        "tensor": lambda: torch.optim.AdamW(weights, lr=torch.tensor(1e-3), eps=1e-6),
        "None": lambda: NoRate(weights, False),
        "missing": lambda: NoRate(weights, True),
        "zero": lambda: torch.optim.AdamW(weights, lr=0.0),
    }
    optimizer = made[kind]()
    with StepRecorder(tmp_path, CONFIG, *rte, loop.model, loop.tokenizer, optimizer) as recorder:
        for update in range(2):
            with recorder.step([update, update + 2]):
                tokens = torch.tensor([loop.tokens[update].ids])
                loop.model(input_ids=tokens, labels=tokens).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
    assert verify(tmp_path).faults == []
    wanted = {"adafactor": [1e-3] * 2, "tensor": [1e-3] * 2, "relative adafactor": [1e-2] * 2}.get(kind, [0.0] * 2)
    assert row_of(tmp_path)["learning_rate"] == pytest.approx(wanted)
    warned = [each for each in caplog.messages if "learning rate is unknown" in each]
    assert len(warned) == (kind in ("None", "missing"))
    assert ("unknown" in row_of(tmp_path)["hyperparameters"]) == bool(warned)


def test_trainers_with_adafactor_and_odd_adapters_are_recorded(
    trainer_of: Callable[..., NotingTrainer], rte: Examples, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    trainer = trainer_of(optim="adafactor")
    trainer.optimizer = None
    config = LoraConfig(r=2, target_modules={"query_key_value"}, task_type="CAUSAL_LM")
    config.revision = pathlib.Path("somewhere")  # type: ignore[assignment]
    trainer.model = trainer.model_wrapped = get_peft_model(trainer.model, config)
    DynamicsRecorder(tmp_path / "d", CONFIG, *rte).attach(trainer)
    trainer.train()
    row = row_of(tmp_path / "d")
    said = json.loads(row["hyperparameters"])
    assert (row["optimizer"], row["epsilon"], row["lora_rank"]) == ("adafactor", None, 2)
    assert said["adapters"]["default"]["target_modules"] == ["query_key_value"]
    assert str(tmp_path) not in row["hyperparameters"]
    assert verify(tmp_path / "d").faults == []


@pytest.mark.parametrize("where", ["measuring", "writing"])
def test_a_recording_that_fails_leaves_the_training_alone(
    where: str,
    trainer_of: Callable[..., NotingTrainer],
    rte: Examples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = trainer_of()
    recorder = DynamicsRecorder(tmp_path / "d", CONFIG, *rte)
    recorder.attach(trainer)
    if where == "writing":

        def full(*arguments: Any, **named: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(DatasetFolder, "add_tables", full)
    else:

        class Break(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
                if state.global_step == 1:
                    recorder.recording.test_set = recorder.recording.measurements.test_set = None  # type: ignore[assignment]

        trainer.add_callback(Break())
    trainer.train()
    assert trainer.state.global_step == 3
    assert len(trainer.seen) == 6
    warned = [each for each in caplog.messages if "is not recorded" in each]
    assert len(warned) == 1
    assert "The training continues" in warned[0]
    path = unfinished_path(tmp_path / "d", CONFIG, "0000")
    assert str(path) in warned[0]
    kept = read_partial(path)
    assert len(kept.curriculum) == len(kept.rates) == (3 if where == "writing" else 2)
    assert recorder.failure is not None
    checked = verify(tmp_path / "d")
    assert checked.ok
    assert list(checked.failed) == [f"{CONFIG}/0000"]
    assert folder_status(tmp_path / "d")[0].failed == {"0000": recorder.failure}


def test_a_training_that_is_killed_loses_little(
    trainer_of: Callable[..., NotingTrainer],
    rte: Examples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
) -> None:
    monkeypatch.setattr("gptdynamics.recorder.recording.SAVE_EVERY", 0.0)
    seen: list[int] = []
    path = unfinished_path(tmp_path / "d", CONFIG, "0000")

    class Look(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            seen.append(len(read_partial(path).curriculum) if path.exists() else 0)
            if state.global_step == 2:
                raise KeyboardInterrupt

    trainer = trainer_of()
    DynamicsRecorder(tmp_path / "d", CONFIG, *rte).attach(trainer)
    trainer.add_callback(Look())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert seen[:2] == [0, 1]
    kept = read_partial(path)
    assert len(kept.curriculum) == 2
    assert kept.values["loss"].shape == (5, 3)
    save_partial(tmp_path / "turned", replace(kept, values={"loss": np.ascontiguousarray(kept.values["loss"].T)}))
    with pytest.raises(DataError, match=r"loss is not of 0 or 3 steps\)\. Resume from another checkpoint"):
        read_partial(tmp_path / "turned")
    assert verify(tmp_path / "d").faults == []
    assert folder_status(tmp_path / "d")[0].missing == ["0000"]
    again = trainer_of()
    with caplog.at_level(logging.WARNING):
        DynamicsRecorder(tmp_path / "d", CONFIG, *rte).attach(again)
        again.train()
    assert any("did not finish: its unfinished record" in each for each in caplog.messages)
    assert not path.exists()
    assert DatasetFolder(tmp_path / "d").finished(CONFIG) == ["0000"]


def test_mistakes_in_a_loop_that_has_begun_end_the_recording_only(
    tiny_model_folder: Path, rte: Examples, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop(tiny_model_folder, rte[0], 3)
    with StepRecorder(tmp_path, CONFIG, *rte, loop.model, loop.tokenizer, loop.optimizer) as recorder:
        for ids in ([0, 1], [99], [2, 3]):
            with recorder.step(ids):
                loop.update([0, 1])
    assert loop.done == 3
    assert recorder.failure == "update 2: 99 is not the id of a pool example (they are 0, 1, 2, ... 11)"
    assert sum("is not recorded" in each for each in caplog.messages) == 1
    assert len(read_partial(unfinished_path(tmp_path, CONFIG, "0000")).curriculum) == 1


@pytest.mark.parametrize("first", [0, 2])
def test_a_smaller_batch_size_that_is_found_begins_a_new_record_or_says_that_it_cannot(
    first: int, trainer_of: Callable[..., NotingTrainer], rte: Examples, tmp_path: Path, caplog: Any
) -> None:
    trainer = trainer_of(auto_find_batch_size=True, gradient_accumulation_steps=1, per_device_train_batch_size=4)
    step, done = trainer.compute_loss, []

    def compute(model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
        if len(inputs["input_ids"]) > 2 and len(done) >= first:
            raise RuntimeError("CUDA out of memory.")
        done.append(len(inputs["input_ids"]))
        return step(model, inputs, *arguments, **named)

    trainer.compute_loss = compute  # type: ignore[method-assign]
    recorder = DynamicsRecorder(tmp_path / "d", CONFIG, *rte)
    recorder.attach(trainer)
    trainer.train()
    assert done == [4] * first + done[first:]
    assert max(done[first:]) <= 3
    if first:
        assert recorder.failure is not None
        assert "auto_find_batch_size restarted training after 2 updates" in recorder.failure
        assert DatasetFolder(tmp_path / "d").finished(CONFIG) == []
        assert sum("is not recorded" in each for each in caplog.messages) == 1
    else:
        assert recorder.failure is None
        assert [len(batch) for batch in read_dynamics(tmp_path / "d", CONFIG, "loss").curricula[0]] == done
    assert verify(tmp_path / "d").ok


def test_a_trainer_has_one_recorder_at_a_time(
    trainer_of: Callable[..., NotingTrainer], rte: Examples, tmp_path: Path
) -> None:
    trainer = trainer_of()
    DynamicsRecorder(tmp_path / "d", CONFIG, *rte).attach(trainer)
    other = DynamicsRecorder(tmp_path / "d", CONFIG, *rte)
    with pytest.raises(SettingsError, match="this trainer already has a recorder"):
        other.attach(trainer)
    trainer.train()
    other.attach(trainer)
    with pytest.raises(SettingsError, match="does not start where run 0000"):
        trainer.train()


ROWS = [{"id": at, "prompt": f"Is {at} even?\nAnswer:", "target": (" yes", " no")[at % 2]} for at in range(12)]
LABELS = {"two": (" yes", " no"), "five": (" yes", " no", " even", " odd", "?"), "text": None}


@pytest.mark.parametrize("order", [("text", "two"), ("two", "text"), ("two", "five"), ("five", "two")])
def test_recorders_of_one_process_have_labels_of_their_own(
    order: tuple[str, str], trainer_of: Callable[..., NotingTrainer], tiny_model_folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(tiny_model_folder)
    rows = [
        {"id": row["id"], "input_ids": (ids := words(row["prompt"] + row["target"])["input_ids"]), "labels": ids}
        for row in ROWS
    ]

    def made(kind: str, out: Path) -> Any:
        trainer = trainer_of()
        trainer.train_dataset = Dataset.from_list(rows)
        torch.manual_seed(0)
        settings = RecordSettings(labels=LABELS[kind], generate_every=10, eval_every=10)
        DynamicsRecorder(out, "even_tiny", ROWS, ROWS[:5], settings=settings).attach(trainer)
        return trainer

    def values(kind: str, out: Path) -> dict[str, list[float]]:
        metrics = ("loss", "accuracy") if LABELS[kind] else ("loss", "bleu")
        return {name: read_dynamics(out, "even_tiny", name).values[0, :, 0].tolist() for name in metrics}

    alone = {}
    for kind in order:
        made(kind, tmp_path / f"alone {kind}").train()
        alone[kind] = values(kind, tmp_path / f"alone {kind}")
    trainers = [made(kind, tmp_path / kind) for kind in order]
    for trainer in trainers:
        trainer.train()
    for kind in order:
        assert values(kind, tmp_path / kind) == alone[kind]
        assert verify(tmp_path / kind).faults == []


def test_models_made_in_memory_are_resumed_and_adapted(llama_folder: Path, rte: Examples, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer

    rows = tokenised(AutoTokenizer.from_pretrained(llama_folder), rte[0])
    how = RecordSettings(base_model="mine")

    def trainer(name: str, seed: int | None = None, zero: bool = True, **arguments: Any) -> Any:
        made = make_trainer(llama_folder, rows, tmp_path / name, **arguments)
        made.model.config._name_or_path = ""
        made.model.name_or_path = ""
        if seed is not None:
            torch.manual_seed(seed)
            config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=zero, modules_to_save=["lm_head"])
            made.model = made.model_wrapped = get_peft_model(made.model, config)
            weights = [each for each in made.model.parameters() if each.requires_grad]
            made.optimizer = torch.optim.AdamW(weights, lr=1e-3)
        DynamicsRecorder(tmp_path / f"{name} d", CONFIG, *rte, settings=how).attach(made)
        return made

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            if state.global_step == 3:
                raise RuntimeError("stop")

    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 2}
    for seed in (None, 1):
        name = f"resumed {seed}"
        with pytest.raises(RuntimeError, match="stop"):
            trainer(name, seed, callbacks=[Stop()], **saving).train()
        trainer(name, seed, **saving).train(resume_from_checkpoint=True)
        assert DatasetFolder(tmp_path / f"{name} d").finished(CONFIG) == ["0000"]
        assert verify(tmp_path / f"{name} d").faults == []
    for seed, zero in ((1, True), (2, True), (3, False), (4, False), (None, True)):
        trainer("adapted", seed, zero).train()
    assert len(DatasetFolder(tmp_path / "adapted d").finished(CONFIG)) == 5
    assert verify(tmp_path / "adapted d").faults == []
    other = trainer("adapted")
    with torch.no_grad():
        next(other.model.parameters()).add_(1)
    with pytest.raises(SettingsError, match=r"base_revision: '.*' there, '.*' now"):
        other.train()
