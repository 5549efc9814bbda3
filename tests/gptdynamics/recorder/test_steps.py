"""A plain loop becomes a run; what comes of it is a dataset folder like any other."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import draw_curriculum
from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.schema import read_parquet, write_parquet
from gptdynamics.dataset.status import folder_status
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import DataError, GPTDynamicsError, SettingsError
from gptdynamics.plans import Plan, PlanEntry
from gptdynamics.recorder import RecordSettings, StepRecorder
from tests.gptdynamics.recorder.conftest import NANO, Examples
from tests.gptdynamics.recorder.training import Loop
from tests.hub.server import Hub

CONFIG = "rte_tiny"
BATCHES = [[0, 5, 7, 2], [3, 1, 11, 4]]


@pytest.fixture
def record(tiny_model_folder: Path, rte: Examples, tmp_path: Path) -> Callable[..., StepRecorder]:
    """Record a run of two updates, from a seed."""

    def make(out: Path = tmp_path / "d", seed: int = 0, batches: Any = None, **options: Any) -> StepRecorder:
        chosen = np.random.default_rng(seed).permutation(12)[:8].reshape(2, 4).tolist() if batches is None else batches
        loop = Loop(tiny_model_folder, rte[0], len(chosen))
        given = {"config": CONFIG, "pool": rte[0], "test": rte[1], "model": loop.model} | options
        with StepRecorder(out, tokenizer=loop.tokenizer, optimizer=loop.optimizer, **given) as recorder:
            for ids in chosen:
                with recorder.step(ids):
                    loop.update(ids)
        return recorder

    return make


def test_trajectories_of_nano_are_those_of_collect(collected_nano: Path, sentiment: Examples, tmp_path: Path) -> None:
    from gptdynamics.models.nano import MODEL_FOLDER

    batches = draw_curriculum(NANO, "0000")
    loop = Loop(MODEL_FOLDER, sentiment[0], len(batches), NANO.learning_rate)
    made = loop.model, loop.tokenizer, loop.optimizer
    with StepRecorder(tmp_path / "d", NANO.config, *sentiment, *made) as recorder:
        for ids in batches:
            with recorder.step(torch.tensor(ids)):
                loop.update(ids)
    assert verify(tmp_path / "d").faults == []
    for metric in ("loss", "accuracy"):
        collected, recorded = (read_dynamics(each, NANO.config, metric) for each in (collected_nano, tmp_path / "d"))
        np.testing.assert_allclose(recorded.values, collected.values, atol=1e-5)
        assert recorded.step.tolist() == collected.step.tolist()
        assert recorded.curricula == collected.curricula
        np.testing.assert_array_equal(recorded.learning_rate, collected.learning_rate)
        assert recorded.base_revision == collected.base_revision


def test_the_loop_is_bit_for_bit_what_it_would_be_without(
    tiny_model_folder: Path, webnlg: Examples, tmp_path: Path
) -> None:
    def trained(recorded: bool) -> tuple[list[torch.Tensor], Any, list[bool]]:
        loop = Loop(tiny_model_folder, webnlg[0], 2)
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        loop.model.gpt_neox.layers[0].train()
        loop.model.gpt_neox.layers[1].eval()
        first = next(loop.model.parameters())
        first.grad = torch.full_like(first, 1e-4)
        if recorded:
            with StepRecorder(
                tmp_path / "d", "webnlg_tiny", *webnlg, loop.model, loop.tokenizer, loop.optimizer
            ) as recorder:
                assert first.grad is not None
                for ids in BATCHES:
                    with recorder.step(ids):
                        loop.update(ids)
        else:
            for ids in BATCHES:
                loop.update(ids)
        weights = [value.detach().clone() for value in loop.model.parameters()]
        states = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        return weights, states, [module.training for module in loop.model.modules()]

    without, with_recorder = trained(False), trained(True)
    assert all(torch.equal(one, other) for one, other in zip(without[0], with_recorder[0], strict=True))
    assert without[1:] == with_recorder[1:]


def test_a_recorded_folder_is_a_dataset(
    record: Callable[..., StepRecorder], hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import load_dataset

    from gptdynamics.hub.push import PushOptions, push
    from simulator.cli import main

    out = tmp_path / "d"
    for seed in range(5):
        record(seed=seed)
    assert DatasetFolder(out).finished(CONFIG) == ["0000", "0001", "0002", "0003", "0004"]
    rows = load_dataset(str(out), CONFIG, split="test", cache_dir=tmp_path / "cache")
    assert [(row["run"], row["test_id"], row["step"]) for row in rows] == [("0004", at, [0, 1, 2]) for at in range(5)]
    runs = load_dataset(str(out), f"{CONFIG}_runs", split="train", cache_dir=tmp_path / "cache")
    assert runs["base_model"] and "hyperparameters" in runs.column_names
    status = folder_status(out)[0]
    assert (len(status.done), status.missing, status.failed) == (5, [], {})
    assert status.seconds > 0
    assert len(push(out, "ada/recorded").runs) == 5
    record(seed=5)
    pushed = push(out, "ada/recorded")
    assert pushed.runs == [f"{CONFIG}/0005"]
    assert verify("ada/recorded").ok
    withheld = push(out, "ada/withheld", PushOptions(no_texts=True))
    assert len(withheld.runs) == 6
    assert verify("ada/withheld").ok
    words = (
        f"train {out} --config {CONFIG} --metric loss --dynamics memory --encoder gradient --output {tmp_path}/model"
    )
    monkeypatch.setattr("sys.argv", ["gptfluence", *words.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("named", [None, "ada/base", "nano", "410m"])
def test_pushing_recorded_runs_says_if_others_cannot_get_their_base_model(
    record: Callable[..., StepRecorder], hub: Hub, tiny_model_folder: Path, tmp_path: Path, named: str | None
) -> None:
    from gptdynamics.hub.push import push

    out = tmp_path / "d"
    record(out, settings=RecordSettings(base_model=named if named != "nano" else None))
    if named == "nano":
        # As if it had been loaded from the bundled folder.
        path = DatasetFolder(out).manifest_path(CONFIG)
        path.write_text(path.read_text().replace(tiny_model_folder.name, "nano"))
        row = DatasetFolder(out).run_row_path(CONFIG, "0000")
        table = read_parquet(row)
        column = table.column_names.index("base_model")
        write_parquet(table.set_column(column, table.schema.field(column), [["nano"]]), row)
    notes = push(out, "ada/recorded").notes
    if named is not None:
        assert list(notes) == []
        return
    [note] = notes
    assert note.startswith(
        f"{CONFIG}: the base model {tiny_model_folder.name} is a local folder, which other users do not have"
    )
    assert note.endswith('record with RecordSettings(base_model="<owner>/<name>")')


def test_a_task_of_ones_own_needs_no_file(tiny_model_folder: Path, tmp_path: Path) -> None:
    """Label and text tasks that nobody registered: their folders say what they are, also to another process."""
    labels = (" yes", " no")
    rows = [{"prompt": f"The {at} is red. Yes or no?", "target": labels[at % 2]} for at in range(12)]
    texts = [{"id": f"t{at}", "prompt": f"Say {at}:", "completion": f" the number {at}"} for at in range(12)]
    for config, examples, ids, how in (
        ("colours_tiny", rows, [0, 2], RecordSettings(labels=labels)),
        ("numbers_tiny", texts, ["t0", "t2"], RecordSettings(generate_every=2)),
    ):
        loop = Loop(tiny_model_folder, [], 1)
        made = loop.model, loop.tokenizer, loop.optimizer
        with StepRecorder(tmp_path, config, examples, examples[:3], *made, settings=how) as recorder:
            loop.tokens = dict(enumerate(recorder.recording.test_set.tokenized))
            with recorder.step(ids):
                loop.update([0, 2])
    checked = verify(tmp_path)
    assert (checked.faults, checked.runs) == ([], 2)
    assert read_dynamics(tmp_path, "colours_tiny", "accuracy").curricula == [[[0, 2]]]
    read = read_dynamics(tmp_path, "numbers_tiny", "bleu")
    assert read.step.tolist() == [0, 1]
    assert read.pool[2].source["id"] == "t2"
    with pytest.raises(SettingsError, match="rte is a known task and has its own labels"):
        StepRecorder(
            tmp_path,
            "rte_x",
            rows,
            rows,
            loop.model,
            loop.tokenizer,
            loop.optimizer,
            settings=RecordSettings(labels=labels),
        )


def test_what_a_block_is_told_must_be_so(
    tiny_model_folder: Path, rte: Examples, record: Callable[..., StepRecorder], tmp_path: Path
) -> None:
    def refused(error: type[GPTDynamicsError], said: str, ids: list[Any], work: Callable[[Loop], None]) -> None:
        loop = Loop(tiny_model_folder, rte[0], 2)
        with (
            pytest.raises(error, match=said),
            StepRecorder(tmp_path / "d", CONFIG, *rte, loop.model, loop.tokenizer, loop.optimizer) as recorder,
            recorder.step(ids),
        ):
            work(loop)
        assert DatasetFolder(tmp_path / "d").finished(CONFIG) == []

    def twice(loop: Loop) -> None:
        loop.update([1])
        loop.update([1])

    refused(DataError, "update 1: 12 is not the id of a pool example", [0, 12], lambda loop: loop.update([0]))
    refused(DataError, "update 1: 'a' is not", ["a"], lambda loop: loop.update([0]))
    refused(DataError, "update 1: no ids", [], lambda loop: loop.update([0]))
    refused(SettingsError, "was called 0 times within the block", [1], lambda loop: None)
    refused(SettingsError, "called 2 times", [1], twice)
    assert verify(tmp_path / "d").ok
    loop = Loop(tiny_model_folder, rte[0], 2)
    recorder = StepRecorder(tmp_path / "d", CONFIG, *rte, loop.model, loop.tokenizer, loop.optimizer)
    with pytest.raises(SettingsError, match="within `with recorder:`"), recorder.step([0]):
        pass
    with recorder:
        pass
    assert recorder.failure == "the training made no update"
    with pytest.raises(SettingsError, match="a recorder records one run"), recorder:
        pass


def test_a_second_run_must_agree_with_the_first(
    record: Callable[..., StepRecorder],
    rte: Examples,
    tiny_model_folder: Path,
    collected: Path,
    make_settings: Callable[..., RunSettings],
    tmp_path: Path,
) -> None:
    pool, test = rte
    record()
    before = {path: path.read_bytes() for path in (tmp_path / "d").rglob("*") if path.is_file()}

    def refused(
        said: str, out: Path = tmp_path / "d", error: type[GPTDynamicsError] = SettingsError, **options: Any
    ) -> None:
        with pytest.raises(error, match=said):
            record(out, **options)

    refused("eval_every: 1 there, 2 now", settings=RecordSettings(eval_every=2))
    refused("test_examples: 5 there, 4 now", test=test[:4])
    refused("pool_size: 12 there, 11 now", pool=pool[:11], batches=[[0]])
    refused("example 0 has another text", error=DataError, pool=[pool[1], pool[0], *pool[2:]])
    refused(r"base_model: '.*tiny_model0' there, 'other' now", settings=RecordSettings(base_model="other"))
    refused("already has run 0000 of rte_tiny: give another name", run="0000")
    trained = Loop(tiny_model_folder, pool, 1)
    trained.update([0, 1])
    refused("does not start where run 0000 of rte_tiny did: the loss of test example", model=trained.model)
    refused("holds runs of rte_tiny that were not recorded", out=collected)
    refused("'7' is not the name of a run", run="7")
    assert {path: path.read_bytes() for path in (tmp_path / "d").rglob("*") if path.is_file()} == before
    with pytest.raises(SettingsError, match="holds runs of rte_tiny that were not collected"):
        collect(CollectSettings(Plan("one", (PlanEntry(make_settings(), 1),)), out=tmp_path / "d", workers=1))
    longer = record(batches=[[0], [1], [2]])
    assert longer.failure is not None
    assert longer.failure.startswith("it ended after 3 updates: runs of rte_tiny have 2 updates")
    named = record(run="0004")
    assert (named.run, named.failure) == ("0004", None)
    assert read_parquet(DatasetFolder(tmp_path / "d").run_path(CONFIG, "0004"))["run"][0].as_py() == "0004"
    assert verify(tmp_path / "d").faults == []


def test_a_run_that_is_being_recorded_is_left_to_who_records_it(
    record: Callable[..., StepRecorder], rte: Examples, tiny_model_folder: Path, tmp_path: Path
) -> None:
    loop = Loop(tiny_model_folder, rte[0], 2)
    first = StepRecorder(tmp_path / "d", CONFIG, *rte, loop.model, loop.tokenizer, loop.optimizer)
    with first:
        assert first.run == "0000"
        assert verify(tmp_path / "d").running == [f"{CONFIG}/0000"]
        assert record().run == "0001"
        with pytest.raises(SettingsError, match="run 0000 of rte_tiny is being recorded by another process"):
            record(run="0000")
        for ids in BATCHES:
            with first.step(ids):
                loop.update(ids)
    assert DatasetFolder(tmp_path / "d").finished(CONFIG) == ["0000", "0001"]
    assert verify(tmp_path / "d").faults == []


def test_verify_checks_recorded_runs_against_how_they_were_recorded(
    record: Callable[..., StepRecorder], tmp_path: Path
) -> None:
    record(settings=RecordSettings(eval_every=2), batches=[[0], [1], [2], [3]])
    folder = DatasetFolder(tmp_path / "d")
    path, row = folder.run_path(CONFIG, "0000"), folder.run_row_path(CONFIG, "0000")
    sound = read_parquet(path), read_parquet(row)

    def said() -> str:
        found = " ".join(map(str, verify(tmp_path / "d").faults))
        write_parquet(sound[0], path)
        write_parquet(sound[1], row)
        return found

    def changed(table: Any, column: str, value: Any) -> Any:
        place = table.column_names.index(column)
        values = type(table).from_pydict({column: [value] * table.num_rows}, schema=table.select([column]).schema)
        return table.set_column(place, table.schema.field(column), values[column])

    assert said() == ""
    write_parquet(changed(sound[0], "step", [0, 1, 4]), path)
    assert "by the settings, step 1 is not measured" in said()
    write_parquet(sound[0].slice(1), path)
    assert "0 missing" in said()
    write_parquet(changed(sound[1], "temperature", 0.5), row)
    assert "temperature: 0.5, but the manifest of rte_tiny says 0.2" in said()
    write_parquet(changed(sound[1], "hyperparameters", "[]"), row)
    assert "hyperparameters: not a JSON object" in said()
    manifest = folder.manifest_path(CONFIG)
    text = manifest.read_text()
    manifest.write_text(text.replace('"eval_every": 2', '"eval_every": 0'))
    assert "recording: eval_every=0 must be at least 1" in said()
    manifest.write_text(text.replace('"eval_every"', '"evaluate"'))
    assert "recording: it has an unknown evaluate" in said() or "recording: it lacks eval_every" in said()
    # Sound files of a run are not at fault where the manifest is.
    for damaged in ("{", text.replace('"eval_every"', '"later_setting": 1, "eval_every"')):
        manifest.write_text(damaged)
        faults = verify(tmp_path / "d").faults
        assert faults and not any(".parquet" in str(fault) for fault in faults)
