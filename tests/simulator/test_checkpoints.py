"""A training that is killed goes on as if it had not been; what does not belong to it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gptdynamics.errors import DataError, SettingsError
from simulator import GPTfluenceSimulator
from simulator.training import TrainSettings, markov_training, train_and_save
from simulator.training.checkpoints import Checkpoints
from simulator.training.session import make_session

CONFIG = "mini_sentiment_nano"
pytestmark = pytest.mark.usefixtures("quick_markov")


def settings_of(dataset: Path, **changes: object) -> TrainSettings:
    plain = {"dataset": str(dataset), "config": CONFIG, "dynamics": "markov", "encoder": "label"}
    return TrainSettings(**(plain | changes))


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let a training be killed at its so-many-th update, with a checkpoint after each update before."""
    monkeypatch.setattr(Checkpoints, "due", lambda self, name: True)
    update = markov_training._update

    def arrange(count: int) -> None:
        made = [0]

        def counted(*arguments: object) -> float:
            made[0] += 1
            if made[0] == count:
                raise KeyboardInterrupt
            return update(*arguments)

        monkeypatch.setattr(markov_training, "_update", counted)

    return arrange


@pytest.mark.parametrize(
    ("changes", "kills"),
    [
        ({}, (3,)),
        ({}, (30, 45)),
        ({"projection": "mlp", "order": 3}, (3,)),
        ({"preset": "paper-finetune"}, (3,)),
        ({"objective": "rollout", "metric": ("loss", "accuracy")}, (30, 45)),
    ],
)
def test_a_killed_training_gives_the_same_bits(
    dataset: Path,
    tmp_path: Path,
    changes: dict[str, object],
    kills: tuple[int, ...],
    kill_at: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("simulator.training.markov_fit.FINETUNE_EPOCHS", 25)
    settings = settings_of(dataset, bands=kills != (3,), **changes)
    whole = train_and_save(settings, tmp_path / "whole")
    for count in kills:
        kill_at(count)
        with pytest.raises(KeyboardInterrupt):
            train_and_save(settings, tmp_path / "killed")
    names = {path.suffix for path in (tmp_path / "killed" / "checkpoints").iterdir()}
    assert names == {".json", ".safetensors"}
    kill_at(-1)
    gone_on = train_and_save(settings, tmp_path / "killed")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, gone_on.model.state_dict()[name]), name
    assert gone_on.fitted == whole.fitted
    assert not (tmp_path / "killed" / "checkpoints").exists()
    loaded = GPTfluenceSimulator.from_pretrained(tmp_path / "killed")
    assert loaded.config.groups == whole.model.config.groups


def test_checkpoints_of_another_training_are_refused_with_the_difference(
    dataset: Path, tmp_path: Path, kill_at: Callable[[int], None]
) -> None:
    kill_at(3)
    with pytest.raises(KeyboardInterrupt):
        train_and_save(settings_of(dataset), tmp_path)
    with pytest.raises(SettingsError, match=r"order: there 1, now 2\).*begin anew"):
        train_and_save(settings_of(dataset, order=2), tmp_path)
    with pytest.raises(SettingsError, match=r"metric: there 'loss', now 'accuracy'; runs of mini_sentiment_nano, acc"):
        train_and_save(settings_of(dataset, metric="accuracy"), tmp_path)


@pytest.mark.parametrize("damage", ["cut", "emptied", "json", "no json"])
def test_a_damaged_checkpoint_is_named(
    dataset: Path, tmp_path: Path, kill_at: Callable[[int], None], damage: str
) -> None:
    kill_at(3)
    with pytest.raises(KeyboardInterrupt):
        train_and_save(settings_of(dataset), tmp_path)
    folder = tmp_path / "checkpoints"
    path = folder / ("settings.json" if "json" in damage else "setting-00.safetensors")
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-20], "emptied": b"", "json": b"[1]", "no json": b"{"}[damage])
    with pytest.raises(DataError, match=rf"{path.name}: a damaged checkpoint \(.+Delete .*checkpoints to begin anew"):
        train_and_save(settings_of(dataset), tmp_path)


def test_a_checkpoint_is_due_after_so_many_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("simulator.training.checkpoints.time.monotonic", lambda: now[0])
    checkpoints = Checkpoints(tmp_path / "new", {"a": 1}, seconds=30)
    assert not checkpoints.due("fit")
    now[0] += 31
    assert checkpoints.due("fit")
    checkpoints.save("fit", {"x": torch.arange(3.0)}, {"update": 4})
    assert not checkpoints.due("fit")
    tensors, progress = checkpoints.load("fit") or ({}, {})
    assert tensors["x"].tolist() == [0, 1, 2]
    assert progress == {"update": 4}
    assert checkpoints.load("other") is None
    replace(checkpoints, settings={"a": 1}).check()
    with pytest.raises(SettingsError, match=r"a: there 1, now None; b: there None, now 2"):
        replace(checkpoints, settings={"b": 2}).check()


def test_trackers_are_told_of_every_validation(dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained = train_and_save(settings_of(dataset, bands=False), tmp_path, ("tensorboard",))
    read = EventAccumulator(str(tmp_path / "logs" / "gptfluence"))
    read.Reload()
    checks = trained.fitted[0].checks
    assert [check.update for check in checks] == [10, 20]
    for name in ("loss", "error"):
        told = [(event.step, event.value) for event in read.Scalars(f"setting-00/{name}")]
        assert told == [(check.update, pytest.approx(getattr(check, name))) for check in checks]


def test_trackers_that_are_unknown_or_missing_are_named(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"report_to='diary' must be one of .*tensorboard"):
        make_session({}, report_to=("diary",))
    with pytest.raises(SettingsError, match=r"report_to='trackio' needs the package trackio: pip install trackio"):
        make_session({}, report_to=("trackio",), logs=tmp_path)


def test_the_training_of_a_model_is_written_beside_it(dataset: Path, tmp_path: Path) -> None:
    train_and_save(settings_of(dataset, bands=False), tmp_path)
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["settings"]["bands"] is False
    assert [check["update"] for check in record["fitted"][0]["checks"]] == [10, 20]
    model = GPTfluenceSimulator.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="this model has no bands"):
        model.simulate([[0, 1]] * 10, initial=[1.0] * 6, interval=0.5)
