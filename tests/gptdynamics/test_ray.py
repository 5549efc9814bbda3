"""Collecting on a real Ray cluster of two nodes on this machine, of which one is killed."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gptdynamics.collection import CollectSettings, RaySettings, collect
from gptdynamics.collection.ray_worker import installed_versions
from gptdynamics.configs import RunSettings
from gptdynamics.dataset import DatasetFolder
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import GPTDynamicsError, SettingsError
from gptdynamics.plans import Plan, PlanEntry
from gptdynamics.tasks.user_tasks import VARIABLE

pytest.importorskip("ray", reason="the extra `ray` is not installed")

STEPS, RUNS = 20, 5
NAMES = [f"mini_sentiment_nano/{run:04d}" for run in range(RUNS)]
# Of the head: it notices within a second that a node is gone, and workers are no slower than the tests beside them.
RAY_OPTIONS = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "300",
    "RAY_health_check_timeout_ms": "20000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_worker_niceness": "0",
}

# Ends every process that imports it, but for this one.
DEADLY = f"""
import os
if os.getpid() != {os.getpid()}:
    os._exit(1)
from gptdynamics.tasks.rte import RTE

class Deadly(RTE):
    name = "deadly"
"""


def patiently(start: Callable[[], Any]) -> Any:
    """Start a node; Ray gives it 30 seconds, which a busy machine may need more than once."""
    for _ in range(2):
        with suppress(Exception, SystemExit):
            return start()
    return start()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster whose head has room for one worker."""
    from gptdynamics.collection.ray_cluster import import_ray

    with pytest.MonkeyPatch.context() as patch:
        for name, value in RAY_OPTIONS.items():
            patch.setenv(name, value)
        import_ray()
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "include_dashboard": False}
        made = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        try:
            yield made
        finally:
            made.shutdown()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the sidecars, which differ between identical runs, and locks."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: data for name, data in found.items() if not name.startswith(("sidecar/", ".claims/"))}


@pytest.fixture(scope="module")
def plan() -> Plan:
    settings = RunSettings(config="mini_sentiment_nano", learning_rate=1e-3, steps=STEPS, test_examples=8)
    return Plan("two nodes", (PlanEntry(settings, RUNS),))


@pytest.fixture(scope="module")
def local(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What this process makes of the plan."""
    out = tmp_path_factory.mktemp("local") / "dataset"
    assert collect(CollectSettings(plan, out, workers=1, device="cpu")).done == NAMES
    return out


def test_a_node_killed_in_the_middle_costs_no_run_and_no_byte(
    cluster: Any, plan: Plan, local: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    node = patiently(lambda: cluster.add_node(num_cpus=1))
    out = tmp_path / "dataset"
    steps: list[str] = []
    notes: list[str] = []
    ended: list[str] = []

    def on_step(config: str) -> None:
        steps.append(config)
        # Two runs in progress are one on each node.
        both = len(steps) > (len(ended) + 1) * (STEPS + 1)
        if ended and both and node in cluster.list_all_nodes():
            cluster.remove_node(node, allow_graceful=False)

    settings = CollectSettings(plan, out, ray=RaySettings(cluster.address))
    capfd.readouterr()
    result = collect(settings, on_step=on_step, on_run=ended.append, on_note=notes.append)
    assert (sorted(result.done), result.failed) == (NAMES, {})
    (note,) = [note for note in notes if not note.startswith("waiting")]
    assert "was lost" in note
    assert note.endswith("is started again")
    assert len(steps) == RUNS * (STEPS + 1)
    assert verify(str(out)).ok
    assert contents(out) == contents(local)
    # Of Ray there is nothing to read.
    output, errors = capfd.readouterr()
    assert output == ""
    assert not [line for line in errors.split() if "ray" in line.lower()]


@pytest.mark.slow
def test_nodes_lost_for_good_are_named_and_what_was_finished_is_kept(
    cluster: Any, local: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    # The head has one CPU: it can take no worker that asks for two.
    node = patiently(lambda: cluster.add_node(num_cpus=2))
    out = tmp_path / "dataset"
    folder = DatasetFolder(out)

    def kill_after_one_run() -> None:
        end = time.monotonic() + 120
        while not folder.finished("mini_sentiment_nano") and time.monotonic() < end:
            time.sleep(0.02)
        cluster.remove_node(node, allow_graceful=False)

    collecting = ("collect", "mini_sentiment_nano", "--out", out, "--runs", RUNS, "--steps", STEPS)
    collecting = (*collecting, "--test-examples", 8, "--learning-rate", 1e-3)
    killer = threading.Thread(target=kill_after_one_run)
    killer.start()
    on_ray = ("--executor", "ray", "--ray-address", cluster.address, "--ray-cpus", 2, "--ray-patience", 1)
    status, _, errors = command(*collecting, *on_ray)
    killer.join()
    lines = [line for line in errors.splitlines() if line.startswith(("note: node", "error:"))]
    where = rf"{os.uname().nodename} \([\d.]+\)"
    assert status == 1
    assert len(lines) == 2
    assert re.match(rf"note: node {where} was lost \(.*\); mini_sentiment_nano/000\d is started again$", lines[0])
    assert re.match(
        rf"error: no node of the Ray cluster has room for a worker \(2 CPU\): {where}: 1 CPU, 0 GPU; lost: {where}\. "
        "Finished runs are saved: run the same command again to continue",
        lines[1],
    )
    finished = folder.finished("mini_sentiment_nano")
    assert 0 < len(finished) < RUNS
    assert verify(str(out)).ok
    status, output, _ = command(*collecting, "--workers", 1)
    assert status == 0
    assert f"{RUNS - len(finished)} runs made, {len(finished)} existed, 0 failed" in output
    assert contents(out) == contents(local)


def test_a_run_whose_workers_always_die_ends_with_an_error_that_names_the_node(
    cluster: Any,
    make_settings: Callable[..., RunSettings],
    rows_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gptdynamics.collection.ray_executor.TRIES", 2)
    deadly = tmp_path / "deadly.py"
    deadly.write_text(DEADLY, encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(deadly))
    notes: list[str] = []
    plan = Plan("deadly", (PlanEntry(make_settings(), 1),))
    settings = CollectSettings(plan, tmp_path / "out", rows_folder, ray=RaySettings(cluster.address))
    with pytest.raises(
        GPTDynamicsError,
        match=r"^rte_tiny/0000 lost its worker 2 times; the last time, a worker on node \S+ \(.*\) ended",
    ):
        collect(settings, on_note=notes.append)
    assert len([note for note in notes if not note.startswith("waiting")]) == 1


@pytest.mark.slow
def test_a_node_with_other_versions_is_refused(
    cluster: Any, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = installed_versions()
    monkeypatch.setattr("gptdynamics.collection.ray_staff.installed_versions", lambda: there | {"torch": "1.0"})
    with pytest.raises(
        SettingsError, match=rf"^node \S+ \(\S+\) has torch {re.escape(there['torch'])}, this machine 1.0:"
    ):
        collect(CollectSettings(plan, tmp_path / "out", ray=RaySettings(cluster.address)))


def test_gpus_that_the_cluster_does_not_have_are_refused_at_once(cluster: Any, plan: Plan, tmp_path: Path) -> None:
    settings = CollectSettings(plan, tmp_path / "out", device="cuda", ray=RaySettings(cluster.address))
    with pytest.raises(SettingsError, match=r"device cuda: the Ray cluster has no GPU: \S+ \(\S+\): 1 CPU, 0 GPU"):
        collect(settings)


@pytest.mark.slow
def test_a_gpu_is_asked_for_where_there_are_any_and_must_be_there(cluster: Any, plan: Plan, tmp_path: Path) -> None:
    # The only node with a GPU, as Ray is told, which torch does not see.
    node = patiently(lambda: cluster.add_node(num_cpus=1, num_gpus=1))
    try:
        with pytest.raises(SettingsError, match=r"^node \S+ \(\S+\): Ray lists a GPU there, but torch finds none"):
            collect(CollectSettings(plan, tmp_path / "out", ray=RaySettings(cluster.address)))
    finally:
        cluster.remove_node(node, allow_graceful=False)
