"""Runs recorded in somebody's own training: asked about with nothing trained before, and made again by a recipe."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import simulator
from gptdynamics.dataset import read_dynamics
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.recorder import DynamicsRecorder, KernelSettings, RecordSettings, StepRecorder
from gptdynamics.recorder.retraining import retrain
from gptdynamics.tasks import get_task, load_examples
from simulator.cli import main
from simulator.use_cases.own_simulator import own_simulator
from tests.gptdynamics.recorder.training import Loop, load, tokenised

CONFIG = "mini_sentiment_own"
POOL, UPDATES, BATCH = 24, 12, 4


@dataclass(frozen=True)
class Own:
    """A loop of one's own with its recipe, and the folder that it was recorded into."""

    root: Path
    train: Callable[[list[list[int]]], None]


def batches(seed: int) -> list[list[int]]:
    """Each row twice, shuffled."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(POOL) for _ in range(UPDATES * BATCH // POOL)]).reshape(-1, BATCH).tolist()


@pytest.fixture
def own(tmp_path: Path, tiny_model_folder: Path) -> Own:
    task = get_task("mini_sentiment")
    pool, test = load_examples(task, "pool", POOL), load_examples(task, "test", 6)
    root = tmp_path / "recorded"

    def train(given: list[list[int]]) -> None:
        loop = Loop(tiny_model_folder, pool, UPDATES, rate=1e-2)
        settings = RecordSettings(eval_every=3)
        with StepRecorder(
            root, CONFIG, pool, test, loop.model, loop.tokenizer, loop.optimizer, settings=settings,
            kernels=KernelSettings(checkpoints=2), updates=len(given),
        ) as recorder:  # fmt: skip
            for ids in given:
                with recorder.step(ids):
                    loop.update(ids)

    train(batches(0))
    return Own(root, train)


def test_one_run_is_ranked_with_nothing_trained_before(
    own: Own, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def influence() -> str:
        monkeypatch.setattr(sys, "argv", ["gptfluence", "influence", str(own.root)])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code
        return capsys.readouterr().out

    first, second = influence(), influence()
    kept = own.root.with_name("recorded-simulators") / f"{CONFIG}-loss"
    assert f"tangent was trained on 1 run and kept in {kept}" in first and (kept / "model.safetensors").is_file()
    assert f"simulator: {kept}, trained on these runs before" in second
    assert "ranked helpful: " in first and "a ranking only" in first and "helped: " not in first
    config = kept / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"fade_rates"', '"former_name"'), encoding="utf-8")
    assert "was trained on 1 run" in own_simulator(str(own.root))[1]
    effects = simulator.influence(str(own.root))
    assert np.abs(effects.final).max() > 0 and effects.error is None and effects.measured is not None
    assert "recipe=train" in first.splitlines()[-1]
    run = simulator.what_if(str(own.root))
    assert float((run.drop([0]).simulate() - run.simulate())[:, -1].abs().max()) > 0
    before = (kept / "model.safetensors").stat().st_mtime_ns
    own.train(batches(1))
    assert "2 runs" in own_simulator(str(own.root))[1]
    assert (kept / "model.safetensors").stat().st_mtime_ns != before


def test_a_recipe_makes_recorded_runs_again(own: Own, tmp_path: Path) -> None:
    before = sorted(path.name for path in own.root.rglob("*.parquet"))
    checked = simulator.validate(
        str(own.root), tmp_path / "checked", recipe=own.train, each=3, test_examples=4, measured=3
    )
    # Every row of the pool is in the run: none can take another's place.
    assert checked.kinds == ["leave_out"] * 3 + ["reorder"] * 3
    assert checked.truth.shape == (6, 4, 3) and checked.step.tolist() == [0, 6, 12]
    assert {"tangent", "mean_curve", "tracin_cp_10"} == set(checked.predicted)
    assert "LDS of tangent over 3 retrained runs" in checked.result().notes[0]
    assert sorted(path.name for path in own.root.rglob("*.parquet")) == before
    fact = read_dynamics(own.root, CONFIG)
    same = retrain(own.train, fact, fact.curricula[0], tmp_path / "same")
    np.testing.assert_allclose(same.values, fact.values, atol=1e-5)
    kept = simulator.validate(
        str(own.root), tmp_path / "checked", recipe=lambda given: pytest.fail("made again"), each=3, test_examples=4,
        measured=3,
    )  # fmt: skip
    np.testing.assert_array_equal(kept.truth, checked.truth)


def test_the_recorder_says_what_it_recorded_and_what_comes_next(own: Own, capsys: pytest.CaptureFixture[str]) -> None:
    said = capsys.readouterr().out.splitlines()
    assert said == [] or "recorded run 0000" in said[-1]
    own.train(batches(1))
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("recorded ")]
    assert line == (
        f"recorded run 0001 of {CONFIG} in {own.root}: {UPDATES} updates, 6 test examples at 5 steps, kernels at 2 "
        f"steps. Next: gptfluence influence {own.root}"
    )
    assert "note:" not in line
    read = read_dynamics(own.root, CONFIG)
    figure = read.plot("0001", [2])
    np.testing.assert_array_equal(figure.data[0].y, read.values[1, 2])
    assert len(read.plot().data) == 6
    with pytest.raises(SettingsError, match="no test example 99"):
        read.plot(test_ids=[99])


def test_runs_of_other_rates_are_told(own: Own, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = get_task("mini_sentiment")
    pool, test = load_examples(task, "pool", POOL), load_examples(task, "test", 6)
    loop = Loop(tiny_model_folder, pool, UPDATES, rate=5e-3)
    settings = RecordSettings(eval_every=3)
    with StepRecorder(
        own.root, CONFIG, pool, test, loop.model, loop.tokenizer, loop.optimizer, settings=settings
    ) as recorder:
        for ids in batches(2):
            with recorder.step(ids):
                loop.update(ids)
    said = capsys.readouterr().out
    assert "note: run 0001 differs from run 0000 in learning rates: memory and tangent need runs with the same" in said
    with pytest.raises(
        DataError,
        match=r"0001 have other learning rates than 0000 \(at most 0.005; there 0.01\).*one schedule\. "
        "Train with --dynamics markov, or have each schedule as a config of its own",
    ):
        simulator.train(str(own.root), CONFIG)
    assert repr(recorder).startswith(f"StepRecorder: recorded run 0001 of {CONFIG} in ")
    new = StepRecorder(own.root, CONFIG, pool, test, loop.model, loop.tokenizer, loop.optimizer, settings=settings)
    assert repr(new).endswith("(24 pool rows, 6 test examples) that has not started")


def test_without_a_recipe_it_is_said_what_can_be_asked(own: Own, tmp_path: Path) -> None:
    for ask in (simulator.validate, simulator.select):
        with pytest.raises(SettingsError, match=r"only you can make again.*recipe=train.*influence, what-if"):
            ask(str(own.root), tmp_path / "out", **({"count": 4} if ask is simulator.select else {}))
    with pytest.raises(SettingsError, match="recorded no run"):
        simulator.validate(str(own.root), tmp_path / "out", recipe=lambda given: None, each=3, test_examples=4)
    with pytest.raises(SettingsError, match="not one run with exactly the 12 given"):
        simulator.validate(
            str(own.root), tmp_path / "other", recipe=lambda given: own.train(batches(5)), each=3, test_examples=4
        )


def test_wrong_labels_are_searched_with_what_was_recorded(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulator.use_cases.mislabel.train_all", None)
    found = simulator.mislabel(str(own.root), tmp_path / "found")
    assert set(found.scores) == {"ridge_left_out", "kernel_harm", "mean_rank"}
    assert sorted(found.ranking()) == list(range(POOL)) and len(found.likelier) == POOL
    assert f"Ordered by {found.order.by} (given labels predicted from other rows: ridge" in " ".join(
        repr(found).split()
    )
    for asked in ({"flip": 0.2}, {"learning_rate": 1e-3}):
        with pytest.raises(SettingsError, match="was recorded and is not trained again here: leave out --"):
            simulator.mislabel(str(own.root), tmp_path / "found", **asked)
    with pytest.raises(SettingsError, match="by='memory_left_out' is not available here: give auto or one of ridge"):
        simulator.mislabel(str(own.root), tmp_path / "found", by="memory_left_out")


@pytest.mark.parametrize(
    ("target", "labels", "why"),
    [
        (" answer {at}", None, "the targets are 8 different texts of 8 rows and no labels"),
        (" yes", (" yes", " no"), "all 8 rows have the target 'yes'"),
    ],
)
@pytest.mark.parametrize("with_kernels", [False, True])
def test_where_there_are_no_labels_kernels_order_the_rows(
    tiny_model_folder: Path, tmp_path: Path, target: str, labels: tuple[str, ...] | None, why: str, with_kernels: bool
) -> None:
    pool = [{"id": f"row {at}", "prompt": f"Question {at}:", "target": target.format(at=at)} for at in range(8)]
    model, tokenizer = load(tiny_model_folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    kernels = KernelSettings(checkpoints=2) if with_kernels else None
    settings = RecordSettings(labels=labels, eval_every=2, generate_every=2)
    # A test set that is the pool.
    with StepRecorder(
        tmp_path / "own", "asked_own", pool, pool, model, tokenizer, optimizer, settings=settings, kernels=kernels,
        updates=2,
    ) as recorder:  # fmt: skip
        for ids in (range(4), range(4, 8)):
            with recorder.step([f"row {at}" for at in ids]):
                for at in ids:
                    tokens = tokenizer(pool[at]["prompt"] + pool[at]["target"], return_tensors="pt")["input_ids"]
                    model(input_ids=tokens, labels=tokens).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
    if not with_kernels:
        with pytest.raises(SettingsError, match=f"{why}, and no run has kernels.*influence and what-if can be asked"):
            simulator.mislabel(tmp_path / "own", tmp_path / "found")
        return
    found = simulator.mislabel(tmp_path / "own", tmp_path / "found")
    assert found.order.by == "kernel_harm" and why in repr(found).replace("\n", " ")
    assert sorted(found.ranking()) == list(range(8)) and found.likelier == ()


def trainer_of(folder: Path, rows: list[dict[str, Any]], out: Path, seed: int) -> Any:
    from datasets import Dataset
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    model, tokenizer = load(folder)
    arguments = TrainingArguments(
        str(out), per_device_train_batch_size=BATCH, num_train_epochs=2, learning_rate=1e-2, report_to=[],
        save_strategy="no", use_cpu=True, seed=seed, disable_tqdm=True,
    )  # fmt: skip
    return Trainer(
        model, arguments, DataCollatorForSeq2Seq(tokenizer), Dataset.from_list(rows), processing_class=tokenizer
    )


def test_a_trainer_is_its_own_recipe(tiny_model_folder: Path, tmp_path: Path) -> None:
    task = get_task("mini_sentiment")
    pool, test = load_examples(task, "pool", POOL), load_examples(task, "test", 6)
    rows = tokenised(load(tiny_model_folder)[1], pool)
    trainer = trainer_of(tiny_model_folder, rows, tmp_path / "trainer", 0)
    recorder = DynamicsRecorder(tmp_path / "recorded", CONFIG, pool, test, kernels=KernelSettings(checkpoints=2))
    recorder.attach(trainer, repeatable=True)
    trainer.train()
    ended = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    fact = read_dynamics(tmp_path / "recorded", CONFIG)
    same = retrain(recorder.recipe, fact, fact.curricula[0], tmp_path / "same")
    np.testing.assert_allclose(same.values, fact.values, atol=1e-4)
    assert all(torch.allclose(value, ended[name], atol=1e-4) for name, value in trainer.model.state_dict().items())
    fewer = [[key for key in batch if key != 3] for batch in fact.curricula[0]]
    assert not np.allclose(retrain(recorder.recipe, fact, fewer, tmp_path / "fewer").values, fact.values, atol=1e-4)
    assert len(read_dynamics(tmp_path / "recorded", CONFIG).runs) == 1
    other = DynamicsRecorder(tmp_path / "recorded", CONFIG, pool, test)
    with pytest.raises(SettingsError, match=re.escape("attach(trainer, repeatable=True)")):
        _ = other.recipe


@pytest.mark.slow
def test_an_own_trainer_recorded_once_is_ranked_and_more_runs_make_it_sure(tmp_path: Path) -> None:
    """The second walk of issue 21, on nano: one run, a ranking; three more, standard errors and a score to compare."""
    from gptdynamics.models.nano import MODEL_FOLDER

    task = get_task("mini_sentiment")
    pool, test = load_examples(task, "pool", 48), load_examples(task, "test", 12)
    rows = tokenised(load(MODEL_FOLDER)[1], pool, 256)
    recorders = []

    def record(seed: int) -> None:
        trainer = trainer_of(MODEL_FOLDER, rows, tmp_path / "trainer", seed)
        trainer.args.learning_rate = 1e-3
        settings = RecordSettings(base_model=str(MODEL_FOLDER))
        recorder = DynamicsRecorder(tmp_path / "own", CONFIG, pool, test, settings=settings, kernels=True)
        recorder.attach(trainer, repeatable=not seed)
        trainer.train()
        recorders.append(recorder)

    record(0)
    one = simulator.influence(str(tmp_path / "own"), test_ids=(0,))
    assert one.error is None and "a ranking only" in one.verdict() and len(one.helped()) == len(one.harmed()) == 5

    def score(name: str) -> float:
        recipe = recorders[0].recipe
        checked = simulator.validate(
            str(tmp_path / "own"), tmp_path / name, recipe=recipe, run="0000", each=10, test_examples=12, measured=2
        )
        print(checked.result().notes[0])
        finals = [row for row in checked.result().rows if row.get("outcome") == "final" and row["over"] == "leave_out"]
        return float(finals[0]["value"])

    first = score("one")
    for seed in (1, 2, 3):
        record(seed)
    several = simulator.influence(str(tmp_path / "own"), run="0000", test_ids=(0,))
    assert several.error is not None and "larger than two standard errors" in several.verdict()
    print(one.verdict(), several.verdict(), first, score("four"), sep="\n")
