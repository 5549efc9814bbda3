"""Releases in the authors' layout that are damaged or lack something: what is sound is kept, all else is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptdynamics.dataset import DatasetFolder, read_dynamics
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import DataError, GPTDynamicsError
from gptdynamics.exchange import Imported, export_release, import_release
from tests.gptdynamics.exchange.authors_layout import FILES, RTE, RUNS, STEPS, WEBNLG, change, files


def twice(rows: list[Any]) -> list[Any]:
    return [row for row in rows for _ in range(2)]


def points(how: Callable[[list[Any]], list[Any]]) -> Callable[[list[Any]], list[Any]]:
    return lambda rows: [row | {"loss_trajectory": how(row["loss_trajectory"])} for row in rows]


def lossy(seed: int, value: object) -> Callable[[Path], None]:
    def make(release: Path) -> None:
        change(
            release / RTE.format(seed) / FILES["loss"],
            points(lambda at: [*at[:3], {"step": 4, "loss": value}, *at[4:]]),
        )

    return make


def remove_task(release: Path, task: str) -> None:
    for part in ("runs", "sft_tasks"):
        shutil.rmtree(release / part / task)


@pytest.fixture
def rte_release(release: Path) -> Path:
    """That release with runs of rte alone."""
    remove_task(release, "webnlg")
    return release


@pytest.fixture(scope="module")
def rte_dataset(sound_release: tuple[Path, Path, Imported], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What those runs are imported into; not to be changed."""
    root = tmp_path_factory.mktemp("rte")
    shutil.copytree(sound_release[0], root / "release", ignore=shutil.ignore_patterns("flan*", "webnlg*"))
    import_release(root / "release", root / "dataset")
    return root / "dataset"


@pytest.fixture
def webnlg_release(release: Path) -> Path:
    """That release with runs of webnlg alone."""
    remove_task(release, "rte")
    return release


Mutation = Callable[[Path], Any]
KEPT: dict[str, tuple[Mutation, str]] = {
    "repeated batches": (lambda at: change(at / RTE.format(3) / "train_samples_id.json", twice), "same batch"),
    "repeated steps": (lambda at: change(at / RTE.format(3) / FILES["loss"], points(twice)), "same value"),
    "repeated examples": (lambda at: change(at / RTE.format(3) / FILES["loss"], twice), "more than once"),
    "unordered steps": (lambda at: change(at / RTE.format(3) / FILES["loss"], points(lambda p: p[::-1])), "in order"),
    "steps without batch": (
        lambda at: change(at / RTE.format(3) / FILES["loss"], points(lambda p: [*p, {"step": STEPS + 1, "loss": 1.0}])),
        "step 13 has no batch",
    ),
    "unknown test example": (
        lambda at: change(at / RTE.format(3) / FILES["loss"], lambda rows: [*rows, rows[0] | {"id": 99}]),
        "id 99 is not one of the test examples",
    ),
    "a file more": (lambda at: (at / RTE.format(3) / "log.out").write_text("x"), "no such file"),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_a_run_that_can_be_mended_is_kept_whole_and_what_was_done_is_one_line(
    name: str, rte_release: Path, sound_release: tuple[Path, Path, Imported], tmp_path: Path
) -> None:
    mutate, words = KEPT[name]
    mutate(rte_release)
    imported = import_release(rte_release, tmp_path / "dataset")
    (finding,) = imported.findings
    assert words in str(finding) and finding.place.startswith(RTE.format(3))
    assert verify(tmp_path / "dataset").faults == []
    wanted, found = (read_dynamics(folder, "rte_410m", "loss") for folder in (sound_release[1], tmp_path / "dataset"))
    np.testing.assert_array_equal(found.values, wanted.values)
    assert found.curricula == wanted.curricula


OUT: dict[str, tuple[Mutation, str]] = {
    "empty loss": (lambda at: (at / RTE.format(3) / FILES["loss"]).write_text(""), "it is empty"),
    "no loss": (lambda at: (at / RTE.format(3) / FILES["loss"]).unlink(), "has no all_loss_trajectory.out"),
    "no batches": (lambda at: (at / RTE.format(3) / "train_samples_id.json").unlink(), "has no train_samples_id.json"),
    "empty batches": (lambda at: (at / RTE.format(3) / "train_samples_id.json").write_text(""), "it is empty"),
    "missing batch": (
        lambda at: change(at / RTE.format(3) / "train_samples_id.json", lambda rows: [*rows[:4], *rows[5:]]),
        "step 5 is missing",
    ),
    "missing step": (
        lambda at: change(at / RTE.format(3) / FILES["loss"], points(lambda each: [*each[:4], *each[5:]])),
        "lacks step 5",
    ),
    "missing test example": (
        lambda at: change(at / RTE.format(3) / FILES["loss"], lambda rows: rows[1:]),
        "lacks test example 0",
    ),
    "fewer updates": (
        lambda at: [
            change(at / RTE.format(3) / "train_samples_id.json", lambda rows: [*rows, {"step": 13, "samples_id": [1]}])
        ],
        "has 13 updates",
    ),
    "unknown training example": (
        lambda at: change(
            at / RTE.format(3) / "train_samples_id.json",
            lambda rows: [rows[0] | {"samples_id": [77, 1, 2, 3]}, *rows[1:]],
        ),
        "id 77 is not one of the training examples",
    ),
    "two values": (
        lambda at: change(at / RTE.format(3) / FILES["loss"], points(lambda p: [p[0], p[0] | {"loss": 9.0}, *p[1:]])),
        "two different values",
    ),
    "negative": (lossy(3, -1.0), "loss is -1 somewhere"),
}  # fmt: skip


@pytest.mark.parametrize("name", OUT)
def test_a_run_that_is_not_sound_is_left_out_alone(
    name: str, rte_release: Path, sound_release: tuple[Path, Path, Imported], tmp_path: Path
) -> None:
    mutate, words = OUT[name]
    mutate(rte_release)
    imported = import_release(rte_release, tmp_path / "dataset")
    assert any(words in str(each) for each in imported.findings)
    assert imported.findings[-1].done == "the run is left out"
    found = verify(tmp_path / "dataset")
    assert (found.faults, found.missing) == ([], {"rte_410m": ["0002"]})
    wanted, kept = (read_dynamics(folder, "rte_410m", "loss") for folder in (sound_release[1], tmp_path / "dataset"))
    assert kept.runs == [run for run in wanted.runs if run != "0002"]
    np.testing.assert_array_equal(kept.values, np.delete(wanted.values, 2, axis=0))


@pytest.mark.parametrize("name", ["two values", "two batches"])
def test_of_different_values_the_last_is_kept_where_that_is_asked_for(
    name: str, rte_release: Path, sound_release: tuple[Path, Path, Imported], tmp_path: Path
) -> None:
    folder = rte_release / RTE.format(3)
    if name == "two values":
        change(folder / FILES["loss"], points(lambda each: [each[0] | {"loss": 9.0}, *each]))
    else:
        change(folder / "train_samples_id.json", lambda rows: [{"step": 1, "samples_id": [0, 1, 2, 3]}, *rows])
    assert len(import_release(rte_release, tmp_path / "not asked").findings) == 1
    imported = import_release(rte_release, tmp_path / "asked", last=True)
    (finding,) = imported.findings
    assert finding.done == "the last is kept"
    runs = [read_dynamics(root, "rte_410m", "loss") for root in (sound_release[1], tmp_path / "asked")]
    np.testing.assert_array_equal(runs[0].values, runs[1].values)
    assert runs[0].curricula == runs[1].curricula
    assert len(read_dynamics(tmp_path / "not asked", "rte_410m", "loss").runs) == RUNS - 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_run_that_diverged_is_recorded_as_failed(rte_release: Path, tmp_path: Path, value: float) -> None:
    lossy(3, value)(rte_release)
    imported = import_release(rte_release, tmp_path / "dataset")
    reason = "loss of test example 0 is not finite at step 4"
    assert [str(each) for each in imported.findings] == [
        f"{RTE.format(3)}: {reason}; the run is recorded as failed, without values"
    ]
    found = verify(tmp_path / "dataset")
    assert (found.faults, found.failed, found.missing) == ([], {"rte_410m/0002": reason}, {})


@pytest.mark.parametrize(
    ("mutate", "words"),
    [
        (lambda path: path.unlink(), "it has no all_bleu_trajectory.out"),
        (lambda path: path.write_text(""), "it is empty"),
        (lambda path: change(path, points(lambda each: each[1:])), "lacks step 1"),
        (lambda path: change(path, lambda rows: rows[1:]), "lacks test example 0"),
        (lambda path: change(path, points(lambda each: [{"step": 1, "loss": 101.0}, *each[1:]])), "bleu is 101"),
        (lambda path: change(path, points(lambda each: [{"step": 1, "loss": float("nan")}, *each[1:]])), "not finite"),
    ],
)
def test_a_run_without_a_sound_second_metric_keeps_the_others(
    webnlg_release: Path, tmp_path: Path, mutate: Mutation, words: str
) -> None:
    mutate(webnlg_release / WEBNLG.format(3) / FILES["bleu"])
    imported = import_release(webnlg_release, tmp_path / "dataset")
    (finding,) = imported.findings
    assert words in str(finding) and finding.done == "this metric of the run is left out"
    assert verify(tmp_path / "dataset").faults == []
    counts = {
        metric: len(read_dynamics(tmp_path / "dataset", "webnlg_410m", metric).runs)
        for metric in ("loss", "bleu", "rougeL")
    }
    assert counts == {"loss": RUNS, "bleu": RUNS - 1, "rougeL": RUNS}
    export_release(tmp_path / "dataset", tmp_path / "back")
    back = files(tmp_path / "back")
    assert f"{WEBNLG.format(3)}/{FILES['bleu']}" not in back
    left = {name: rows for name, rows in files(webnlg_release).items() if name != f"{WEBNLG.format(3)}/{FILES['bleu']}"}
    assert back == left


def test_configs_without_examples_and_folders_of_other_names_are_named(release: Path, tmp_path: Path) -> None:
    (release / "sft_tasks/rte/rte_0_39_train.json").unlink()
    (release / "runs/webnlg/evil\nname").mkdir()
    shutil.copytree(release / RTE.format(1), release / RTE.replace("rte", "unheard").format(1))
    imported = import_release(release, tmp_path / "dataset")
    notes = [str(each) for each in imported.findings]
    assert len(notes) == 3 and all("\n" not in note for note in notes)
    assert "it is not named output_" in notes[0]
    assert "rte_410m: there are no training examples of rte" in notes[1] and "its 7 runs are left out" in notes[1]
    assert "unheard" in notes[2] and "--task-file" in notes[2]
    assert DatasetFolder(tmp_path / "dataset").configs() == ["webnlg_410m"]


def test_a_folder_that_is_no_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder runs/"):
        import_release(tmp_path, tmp_path / "dataset")
    with pytest.raises(DataError, match="no such dataset folder"):
        import_release(tmp_path / "absent", tmp_path / "dataset")
    (tmp_path / "runs").mkdir()
    with pytest.raises(DataError, match="nothing in it can be imported"):
        import_release(tmp_path, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize("folder", ["../evil", "runs/../../evil", "/tmp/evil"])
def test_a_folder_that_a_dataset_names_cannot_lead_outside(
    sound_release: tuple[Path, Path, Imported], tmp_path: Path, folder: object
) -> None:
    shutil.copytree(sound_release[1], tmp_path / "dataset")
    path = DatasetFolder(tmp_path / "dataset").manifest_path("flan_14m")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["origin"]["runs"]["0000"]["folder"] = folder
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(DataError, match="not a path inside runs/"):
        export_release(tmp_path / "dataset", tmp_path / "a" / "b")
    assert not (tmp_path / "evil").exists() and not (tmp_path / "a" / "evil").exists()


@pytest.mark.parametrize(
    "runs",
    [
        None,
        [],
        {"0000": None},
        {"0000": {}},
        {"0000": {"folder": 3}},
        {"0000": {"folder": "runs/x", "orders": [1]}},
        {"0000": {"folder": "runs/x", "orders": {"loss": 1}}},
        {"0000": {"folder": "runs/x", "batches_after": [1]}},
        {"0000": {"folder": "runs/x", "other": 1}},
    ],
)
def test_a_damaged_origin_is_an_error_of_ours(
    rte_release: Path, rte_dataset: Path, tmp_path: Path, runs: object
) -> None:
    shutil.copytree(rte_dataset, tmp_path / "dataset")
    path = DatasetFolder(tmp_path / "dataset").manifest_path("rte_410m")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["origin"]["runs"] = runs
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(DataError, match=r"rte_410m\.json: its origin is damaged"):
        export_release(tmp_path / "dataset", tmp_path / "out", ["rte_410m"])
    with pytest.raises(DataError, match=r"rte_410m\.json: its origin is damaged"):
        import_release(rte_release, tmp_path / "dataset")


def test_every_error_is_one_of_ours(release: Path, tmp_path: Path) -> None:
    """Nothing that can be in a file makes anything else than a finding or an error of ours."""
    odd: list[bytes] = [b"\x00\xff", b"[" * 5000, b"null", b'{"id": {}}', b'{"step": 1, "samples_id": [[1]]}', b"1e999"]
    for at, content in enumerate(odd):
        for path in (
            release / RTE.format(2) / FILES["loss"],
            release / RTE.format(3) / "train_samples_id.json",
            release / "sft_tasks/webnlg/webnlg_dev_0-6.json",
        ):
            path.write_bytes(content)
        try:
            imported = import_release(release, tmp_path / f"dataset {at}")
        except GPTDynamicsError as error:
            raise AssertionError(f"the sound runs should have been imported: {error}") from error
        assert {each.config: len(each.runs) for each in imported.configs} == {"rte_410m": RUNS - 2}
