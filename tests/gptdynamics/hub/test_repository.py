"""Pushing at the same time as others, and to a Hub that fails."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gptdynamics.errors import DataError
from gptdynamics.hub import repository as repositories
from gptdynamics.hub.push import push
from gptdynamics.hub.repository import UnreachableError
from tests.gptdynamics.hub.pushing import COMMIT, ID
from tests.hub.faults import Fault
from tests.hub.server import Hub
from tests.hub.store import File


def test_two_that_push_at_once_lose_nothing(hub: Hub, first: Path, second: Path) -> None:
    hub.store.create("dataset", ID, hub.store.users["hf_ada_write"])
    both = threading.Barrier(2)
    for _ in range(2):
        hub.faults.add(Fault(COMMIT, before=both.wait))
    waits: list[str] = []
    threads = [threading.Thread(target=push, args=(each, ID, None, waits.append)) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = hub.store.files("dataset", ID)
    assert sum(path.startswith("data/rte_tiny/") for path in files) == 6
    assert "| 4 / 1 / 1 / 0 |" in files["README.md"].decode()
    assert waits == ["ada/dynamics: another commit came first"]


@pytest.mark.slow
def test_two_processes_that_push_at_once_lose_nothing(hub: Hub, first: Path, second: Path, tmp_path: Path) -> None:
    hub.store.create("dataset", ID, hub.store.users["hf_ada_write"])
    both = threading.Barrier(2)
    for _ in range(2):
        hub.faults.add(Fault(COMMIT, before=both.wait))
    command = [sys.executable, "-m", "gptdynamics.cli", "push"]
    environment = hub.environment(tmp_path / "home", "hf_ada_write", xet=True)
    processes = [
        subprocess.Popen([*command, str(each), ID], env=environment, text=True, stderr=subprocess.PIPE)
        for each in (first, second)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    files = hub.store.files("dataset", ID)
    assert sum(path.startswith("data/rte_tiny/") for path in files) == 6
    assert "| 4 / 1 / 1 / 0 |" in files["README.md"].decode()
    assert sum("another commit came first; trying again" in each for each in said) == 1


def test_what_comes_back_changed_is_told(hub: Hub, first: Path) -> None:
    def damage() -> None:
        commit = hub.store.history("dataset", ID)[0]
        hub.store.repositories["dataset", ID].commits[commit.sha].files["manifests/rte_tiny.json"] = File(b"{}", False)  # type: ignore[index]

    hub.faults.add(Fault("HEAD .*/manifests/", before=damage))
    with pytest.raises(DataError, match=r"ada/dynamics: manifests/rte_tiny.json came back changed from commit .*Push"):
        push(first, ID)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(COMMIT, times=2, status=500),
        Fault(COMMIT, status=429),
        Fault(COMMIT, drop_after=10),
        Fault("PUT /_objects", times=30, drop_after=100),
        Fault("POST .*/preupload", status=503),
        Fault("GET .*/resolve/.*", status=500),
    ],
    ids=lambda fault: f"{fault.pattern}-{fault.status}",
)
def test_a_failing_hub_is_tried_again(hub: Hub, first: Path, fault: Fault) -> None:
    hub.faults.add(fault)
    push(first, ID)
    assert len(hub.store.history("dataset", ID)) == 2
    assert "data/rte_tiny/train-0002.parquet" in hub.store.files("dataset", ID)


def test_an_interrupted_push_leaves_the_old_state_and_goes_on(
    hub: Hub, first: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(first, ID)
    before = hub.store.files("dataset", ID)
    monkeypatch.setattr(repositories, "ATTEMPTS", 2)
    hub.faults.clear()
    hub.faults.add(Fault(COMMIT, times=2, status=500))
    with pytest.raises(UnreachableError, match=r"answers 500, 2 times. Uploaded files are kept: run the same"):
        push(second, ID)
    assert hub.store.files("dataset", ID) == before
    uploaded = hub.faults.asked("PUT /_objects")
    push(second, ID)
    assert uploaded > 0 and hub.faults.asked("PUT /_objects") == uploaded
