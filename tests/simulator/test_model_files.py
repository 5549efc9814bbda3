"""A model's folder changes whole or not at all; what is damaged or mixed is refused, wherever it is loaded."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from gptdynamics.atomic import leftovers
from gptdynamics.errors import DataError
from simulator import GPTfluenceConfig, GPTfluenceSimulator
from simulator.evaluation.simulated import load_simulator

MakeModel = Callable[..., GPTfluenceSimulator]


@pytest.fixture
def model(make_config: Callable[..., GPTfluenceConfig], make_model: MakeModel) -> GPTfluenceSimulator:
    return make_model(make_config(dynamics="markov", order=1))


@pytest.fixture
def other(make_config: Callable[..., GPTfluenceConfig], make_model: MakeModel) -> GPTfluenceSimulator:
    """One with other weights and another configuration, of the same shapes."""
    made = make_model(make_config(dynamics="markov", order=1, base_revision="another"))
    for value in made.state_dict().values():
        value.add_(0.5)
    return made


def same(one: GPTfluenceSimulator, two: GPTfluenceSimulator) -> bool:
    mine, theirs = one.state_dict(), two.state_dict()
    return one.config.base_revision == two.config.base_revision and all(
        torch.equal(mine[name], theirs[name]) for name in mine
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("killed_at", range(1, 15))
def test_a_folder_is_of_one_saving_wherever_the_process_is_killed(
    model: GPTfluenceSimulator,
    other: GPTfluenceSimulator,
    tmp_path: Path,
    killed_at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model.save_pretrained(tmp_path)
    calls = 0
    for name in ("rename", "replace"):
        move = getattr(Path, name)

        def counted(self: Path, target: Path, move: Callable[[Path, Path], Path] = move) -> Path:
            nonlocal calls
            calls += 1
            if calls == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return move(self, target)

        monkeypatch.setattr(Path, name, counted)
    child = os.fork()
    if child == 0:
        other.save_pretrained(tmp_path)
        os._exit(0)
    os.waitpid(child, 0)
    monkeypatch.undo()
    loaded = GPTfluenceSimulator.from_pretrained(tmp_path)
    # Before the first move nothing had changed; after it, everything is there.
    assert same(loaded, model if killed_at == 1 else other)
    other.save_pretrained(tmp_path)
    assert same(load_simulator(str(tmp_path)), other)
    # What the killed process was filling is known as its own, and removed by the next training.
    assert len(leftovers(tmp_path)) == (killed_at == 1)


def test_without_space_the_folder_stays_as_it_was(
    model: GPTfluenceSimulator, other: GPTfluenceSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path)
    before = contents(tmp_path)

    def full(handle: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        other.save_pretrained(tmp_path)
    assert contents(tmp_path) == before


def test_other_files_of_a_folder_stay(model: GPTfluenceSimulator, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"


def test_saving_twice_gives_the_same_bytes(model: GPTfluenceSimulator, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "one")
    GPTfluenceSimulator.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_mixture_of_two_savings_is_refused(
    model: GPTfluenceSimulator, other: GPTfluenceSimulator, tmp_path: Path, name: str
) -> None:
    for each, folder in ((model, "one"), (other, "two")):
        each.save_pretrained(tmp_path / folder)
    (tmp_path / "one" / name).write_bytes((tmp_path / "two" / name).read_bytes())
    with pytest.raises(ValueError, match=r"config\.json and model\.safetensors are of different savings"):
        GPTfluenceSimulator.from_pretrained(tmp_path / "one")
    with pytest.raises(DataError, match="different savings"):
        load_simulator(str(tmp_path / "one"))


def test_a_changed_bit_is_refused_wherever_it_is(model: GPTfluenceSimulator, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    refused = 0
    for name in ("config.json", "model.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 60)):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << place % 8
            (tmp_path / name).write_bytes(bytes(damaged))
            try:
                loaded = load_simulator(str(tmp_path))
            except DataError:
                refused += 1
                continue
            # A space in the place of another is no change.
            assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())
            assert loaded.config.to_dict() == model.config.to_dict()
        (tmp_path / name).write_bytes(whole)
    assert refused > 90


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(
    model: GPTfluenceSimulator, tmp_path: Path, value: float
) -> None:
    model.pool_vectors[0, 0] = value
    with pytest.raises(ValueError, match="weights pool_vectors are not finite"):
        model.save_pretrained(tmp_path)
    assert not contents(tmp_path)
    # As others may have saved them.
    PreTrainedModel.save_pretrained(model, tmp_path)
    with pytest.raises(DataError, match="weights pool_vectors are not finite"):
        load_simulator(str(tmp_path))


def test_models_without_a_digest_still_load(model: GPTfluenceSimulator, tmp_path: Path) -> None:
    PreTrainedModel.save_pretrained(model, tmp_path)
    assert "digest" not in json.loads((tmp_path / "config.json").read_text())
    assert same(load_simulator(str(tmp_path)), model)


def test_weights_that_are_no_safetensors_are_refused_in_one_line(model: GPTfluenceSimulator, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    for damage in ("a pickle", "no file"):
        if damage == "a pickle":
            weights.write_bytes((tmp_path / "pytorch_model.bin").read_bytes())
        else:
            weights.unlink()
        with pytest.raises(DataError, match=r"safetensors") as error:
            load_simulator(str(tmp_path))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "6"}, "steps='6' must be a whole number of at least 1"),
        ({"order": 1.0}, r"order=1\.0 must be a whole number"),
        ({"order": 2**40}, r"order=1099511627776 must be a whole number"),
        ({"encoder_width": True}, "encoder_width=True must be a whole number"),
        ({"encoder": "label"}, "encoder='label' must be an object"),
        ({"test_keys": "abc"}, "test_keys='abc' must be a list of texts"),
        ({"pool_ids": [1, "2"]}, r"pool_ids=\[1, '2'\] must be a list of whole numbers"),
        ({"learning_rate": [None]}, r"learning_rate=\[None\] must be a list of numbers"),
        ({"metric": ["loss"]}, "metric=.* must be a text"),
        ({"dynamics": 7}, "dynamics=7 must be a text"),
        ({"parts": [{"metric": "loss"}]}, "an entry of parts lacks dataset_config"),
        ({"parts": {"metric": "loss"}}, "parts=.* must be a list of objects"),
        ({"pool_ids": [1]}, "pool_ids has 1 entries and pool_keys"),
        ({"model_type": "bert"}, "not the configuration of a model of type gptfluence"),
        ({"base_model": None}, "base_model=None must be a text"),
    ],
)
def test_wrong_values_in_a_configuration_are_named(
    model: GPTfluenceSimulator, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    PreTrainedModel.save_pretrained(model, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message) as error:
        load_simulator(str(tmp_path))
    assert "\n" not in str(error.value)


def test_weights_that_are_unknown_are_refused(model: GPTfluenceSimulator, tmp_path: Path) -> None:
    PreTrainedModel.save_pretrained(model, tmp_path)
    path = tmp_path / "model.safetensors"
    save_file(load_file(path) | {"more": torch.zeros(2)}, path, {"format": "pt"})
    with pytest.raises(DataError, match="its weights have unknown more"):
        load_simulator(str(tmp_path))
