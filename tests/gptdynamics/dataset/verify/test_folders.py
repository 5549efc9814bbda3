"""What is sound, what is missing, and what others left behind or are writing."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.verify import verify, verify_run
from gptdynamics.dataset.withheld import copy_without_texts
from gptdynamics.errors import DataError, SettingsError
from tests.gptdynamics.dataset.verify.damage import RUN, TEST, VECTORS, at, column, manifest, rows, write
from tests.gptdynamics.dataset.verify.run_cases import RUN_CASES


def test_a_sound_folder_has_no_faults(collected_once: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = verify(collected_once, lambda done, total: seen.append((done, total)))
    assert (found.faults, found.missing, found.failed, found.running) == ([], {}, {}, [])
    assert (found.ok, found.configs, found.runs) == (True, ["rte_tiny", "webnlg_tiny"], 12)
    assert found.rows == 2 * (6 * (5 + 1) + 12 + 5)
    assert seen == [(done, 12) for done in range(1, 13)]
    assert found.summary() == [f"{collected_once}: 2 configs, 12 runs, 106 rows checked: no faults"]


def test_a_folder_with_gradients_unseen_runs_and_a_mixture_has_no_faults(with_gradients: Path) -> None:
    found = verify(with_gradients)
    assert (found.faults, found.missing, found.runs) == ([], {}, 20)


def test_a_release_without_texts_has_no_faults(with_gradients: Path, tmp_path: Path) -> None:
    copy_without_texts(with_gradients, tmp_path / "release")
    found = verify(tmp_path / "release")
    assert (found.faults, found.runs) == ([], 20)


def test_texts_withheld_without_a_source_are_a_fault(with_gradients: Path, tmp_path: Path) -> None:
    copy_without_texts(with_gradients, tmp_path / "release")
    column("source", at(4, "{}"))(tmp_path / "release" / TEST.replace("test.parquet", "pool.parquet"))
    (fault,) = verify(tmp_path / "release").faults
    assert fault.what == "example 4: texts are withheld, but dataset, split and row are not named"


def test_what_is_planned_and_not_there_is_missing_and_no_fault(gradients: Path) -> None:
    folder = DatasetFolder(gradients)
    folder.run_path("rte_tiny", "0001").unlink()
    folder.run_row_path("rte_tiny", "0001").unlink()
    folder.vectors_path("rte_tiny").unlink()
    manifest(planned={"runs": 6, "unseen_runs": 1})(folder.manifest_path("webnlg_tiny"))
    folder.add_failure("webnlg_tiny", "0005", "loss is not finite")
    shutil.rmtree(gradients / "data/flan_tiny_gradients")
    for path in gradients.glob("data/flan_*/*"):
        path.unlink()
    folder.write_card()
    found = verify(gradients)
    assert (found.ok, found.runs) == (True, 5)
    assert found.missing == {
        "flan_tiny": ["0000", "0001", "0002", "0003", "0004", "u0000", "base"],
        "rte_tiny": ["0000", "0001", "0002", "0003", "u0001", "base"],
        "webnlg_tiny": ["0000", "0002", "0003"],
    }
    assert found.failed == {"webnlg_tiny/0005": "loss is not finite"}
    assert found.summary()[1:] == [
        "flan_tiny: planned, but missing: 0000, 0001, 0002, 0003, 0004, u0000 and 1 more",
        "rte_tiny: planned, but missing: 0000, 0001, 0002, 0003, u0001, projected gradients",
        "webnlg_tiny: planned, but missing: 0000, 0002, 0003",
        "webnlg_tiny/0005: diverged, so it has no values: loss is not finite",
    ]


def test_projected_gradients_of_a_pool_that_was_planned_later_are_missing(gradients: Path) -> None:
    rows(lambda table: pa.concat_tables([table.slice(0, 12), table.slice(24)]))(gradients / VECTORS)
    found = verify(gradients)
    assert (found.faults, found.missing["rte_tiny"][-1]) == ([], "base")


def test_what_a_live_collector_is_writing_is_no_fault(few: Path) -> None:
    from gptdynamics.collection.claims import Claims

    DatasetFolder(few).run_path("rte_tiny", "0001").unlink()
    mine = f".test-0004.parquet.{os.getpid()}@{platform.node()}.abc.tmp"
    write("")(few / "data/rte_tiny" / mine)
    claims = Claims(few)
    assert claims.take("rte_tiny.0001")
    try:
        found = verify(few)
    finally:
        claims.give_back_all()
    assert (found.faults, found.missing["rte_tiny"]) == ([], ["0002", "0003", "0005"])
    assert found.running == [f"data/rte_tiny/{mine}", "rte_tiny/0001"]
    assert [fault.file for fault in verify(few).faults] == ["data/rte_tiny_runs/train-0001.parquet"]


def test_what_a_killed_process_left_behind_is_named(few: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    name = f"data/rte_tiny/.test-0004.parquet.{process.pid}@{platform.node()}.abc.tmp"
    write("")(few / name)
    (fault,) = verify(few).faults
    assert (fault.file, fault.what) == (name, "a process was killed while it wrote this file")
    DatasetFolder(few).remove_leftovers()
    assert verify(few).ok


def test_a_single_run_is_checked_alone(few: Path) -> None:
    assert verify_run(few, "rte_tiny", "0004") == []
    RUN_CASES["half right"].damage(few / RUN)
    assert [fault.where for fault in verify_run(DatasetFolder(few), "rte_tiny", "0004")] == ["accuracy"]
    (missing,) = verify_run(few, "rte_tiny", "0009")
    assert missing.what.startswith("run 0009 has no trajectories and no row")
    with pytest.raises(SettingsError, match="is not the name of a run"):
        verify_run(few, "rte_tiny", "../../x")


def test_a_source_that_is_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such dataset folder"):
        verify(tmp_path / "nothing")


def test_an_empty_folder_is_sound(tmp_path: Path) -> None:
    assert verify(tmp_path).to_dict() == {
        "source": str(tmp_path),
        "configs": [],
        "runs": 0,
        "rows": 0,
        "faults": [],
        "missing": {},
        "failed": {},
        "running": [],
        "ok": True,
    }


def test_the_findings_are_plain_json(few: Path) -> None:
    RUN_CASES["half right"].damage(few / RUN)
    found = json.loads(json.dumps(verify(few).to_dict()))
    assert found["ok"] is False
    assert found["faults"][0]["file"] == RUN and found["faults"][0]["where"] == "accuracy"


@pytest.mark.parametrize("size", ["examples", "runs", "gradients"])
def test_files_under_an_ambiguous_name_are_never_to_be_deleted(few: Path, size: str) -> None:
    """Older versions made such configs: their files are good, although they are not understood."""
    old, new = "rte_tiny", f"rte_{size}"
    for path in [each for each in few.rglob("*") if each.is_file() and old in each.relative_to(few).as_posix()]:
        target = few / path.relative_to(few).as_posix().replace(old, new)
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    for path in few.glob(f"data/{old}*"):
        path.rmdir()
    faults = verify(few).faults
    assert [fault.what for fault in faults if fault.file == f"manifests/{new}.json"] == [
        "a config's name may not have this ending: load_dataset confuses its files with another config's"
    ]
    assert not any(word in fault.remedy for fault in faults for word in ("elete", "emove"))
    assert not any(fault.file.startswith("data/") for fault in faults)
