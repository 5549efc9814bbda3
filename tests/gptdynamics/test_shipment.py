"""What travels to other machines makes the same runs there, with none of the sender's files."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gptdynamics.collection.jobs import RunJob
from gptdynamics.collection.shipment import Shipment
from gptdynamics.configs import RunSettings
from gptdynamics.errors import SettingsError
from gptdynamics.runs import Bench
from gptdynamics.tasks import add_task_file, task_names
from gptdynamics.tasks.user_tasks import VARIABLE

QUIZ = '''
from gptdynamics.tasks.rte import RTE

class Quiz(RTE):
    """Entailment under another name."""
    name = "quiz"
'''


@pytest.mark.parametrize("config", ["webnlg_tiny", "quiz_tiny"])
def test_a_run_is_the_same_where_the_senders_files_are_not(
    config: str,
    make_settings: Callable[..., RunSettings],
    tiny_model_folder: Path,
    rows_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = shutil.copytree(tiny_model_folder, tmp_path / "sender" / "model")
    rows = shutil.copytree(rows_folder, tmp_path / "sender" / "rows")
    shutil.copytree(rows / "rte", rows / "quiz")
    for name in ("quiz.py", "other/quiz.py"):
        path = tmp_path / "sender" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(QUIZ.replace('"quiz"', f'"{name.split("/")[0].removesuffix(".py")}"'), encoding="utf-8")
        add_task_file(path)
    (model / "notes").mkdir()
    (model / "pytorch_model.bin").write_bytes(b"not needed")
    settings = make_settings(config, base_model=str(model))
    expected = Bench.load(settings, rows).run("0000")
    sent = pickle.dumps(Shipment.pack(RunJob(settings, rows, False, "0000")))
    shutil.rmtree(tmp_path / "sender")
    monkeypatch.setenv(VARIABLE, "/nowhere/of_this_machine.py")
    shipment = pickle.loads(sent)
    assert shipment.model_files.keys() == {path.name for path in tiny_model_folder.iterdir()}
    made = shipment.unpack("cpu").run("0000")
    assert made.metrics.keys() == expected.metrics.keys()
    for name, values in expected.metrics.items():
        np.testing.assert_array_equal(made.metrics[name], values)
    assert {"quiz", "other"} <= set(task_names())


def test_unseen_rows_travel_too(make_settings: Callable[..., RunSettings], rows_folder: Path) -> None:
    settings = make_settings()
    bench = Shipment.pack(RunJob(settings, rows_folder, True, "u0000")).unpack("cpu")
    assert len(bench.pool) == 2 * settings.pool_size
    np.testing.assert_array_equal(
        bench.run("u0000").metrics["loss"], Bench.load(settings, rows_folder, unseen=True).run("u0000").metrics["loss"]
    )


def test_models_that_every_machine_finds_by_name_are_not_sent(
    make_settings: Callable[..., RunSettings], rows_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nano").mkdir()
    monkeypatch.chdir(tmp_path)
    assert (
        Shipment.pack(RunJob(make_settings(base_model=None, config="rte_nano"), rows_folder, False, "0000")).model_files
        is None
    )


def test_other_weights_of_the_same_name_are_refused_with_the_node(
    make_settings: Callable[..., RunSettings], rows_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.node", lambda: "far-away")
    shipment = Shipment.pack(RunJob(make_settings(base_model="nano"), rows_folder, False, "0000"))
    with pytest.raises(
        SettingsError, match=r"^node far-away: its nano has revision \w{12}, that of the collecting machine elsewhere"
    ):
        replace(shipment, base_revision="elsewhere").unpack("cpu")


def test_a_task_file_that_needs_its_neighbours_is_refused_with_the_node(
    make_settings: Callable[..., RunSettings], rows_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.node", lambda: "far-away")
    shipment = Shipment.pack(RunJob(make_settings(), rows_folder, False, "0000"))
    with pytest.raises(SettingsError, match=r"^node far-away: .*mine\.py: cannot be imported: ModuleNotFoundError"):
        replace(shipment, task_files=[("mine.py", "import a_neighbour")]).unpack("cpu")
