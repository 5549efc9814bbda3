"""Collectors that are killed: the same command again ends with what an undisturbed one makes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.configs import RunSettings
from gptdynamics.dataset import DatasetFolder
from gptdynamics.plans import Plan, PlanEntry, read_plan

PLAN = """
[defaults]
base_model = "{model}"
learning_rate = 1e-3
pool_size = 12
subset = 8
epochs = 2
test_examples = 5

[[config]]
config = "rte_tiny"
runs = 5
unseen_runs = 1
gradients = "test"
gradient_width = 16

[[config]]
config = "webnlg_tiny"
runs = 4
generate_every = 2
"""
RUN_NAMES = {
    "rte_tiny": ["0000", "0001", "0002", "0003", "0004", "u0000"],
    "webnlg_tiny": ["0000", "0001", "0002", "0003"],
}
RUNS = 10
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A plan of a label config with gradients and a generation config on the tiny model."""
    path = tmp_path_factory.mktemp("plan") / "small.toml"
    path.write_text(PLAN.format(model=tiny_model_folder), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, plan_file: Path, rows_folder: Path) -> Path:
    """What one collector makes of that plan, in this process; not to be changed."""
    out = tmp_path_factory.mktemp("undisturbed") / "dataset"
    assert len(collect(CollectSettings(read_plan(plan_file), out, rows_folder, workers=1)).done) == RUNS
    return out


@pytest.fixture
def start(plan_file: Path, rows_folder: Path) -> Iterator[Start]:
    """Start `gptdynamics collect` with its workers in a process group of its own."""
    started: list[subprocess.Popen[str]] = []

    def run(out: Path, workers: int) -> subprocess.Popen[str]:
        arguments = ["-m", "gptdynamics.cli", "collect", "--plan", str(plan_file), "--out", str(out)]
        process = subprocess.Popen(
            [sys.executable, *arguments, "--data", str(rows_folder), "--workers", str(workers), "--device", "cpu"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        kill_group(process)


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a collector and its workers, so that no handler runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def kill_alone(process: subprocess.Popen[str]) -> None:
    """Kill a collector only, and wait until its workers have noticed."""
    process.kill()
    process.wait()
    end = time.monotonic() + 60
    while True:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        assert time.monotonic() < end, "workers go on without their collector"
        time.sleep(0.05)
    process.communicate()


def wait_for(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """Wait until something is there or the collector has ended."""
    end = time.monotonic() + 120
    while not reached() and process.poll() is None:
        assert time.monotonic() < end, "the collector makes nothing"
        time.sleep(0.01)


def files(folder: Path) -> list[Path]:
    """Every file but the sidecars, which differ between identical runs, and the lock of the whole folder."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if "sidecar" not in path.parts and path.name != "folder.lock"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files(folder)}


def claims(folder: Path) -> list[Path]:
    """Claims of single jobs."""
    return list(folder.glob(".claims/*.*.lock"))


def runs_there(folder: Path) -> int:
    return sum(len(DatasetFolder(folder).finished(config)) for config in RUN_NAMES)


@pytest.mark.slow
def test_a_collection_killed_at_random_moments_ends_with_the_bytes_of_an_undisturbed_one(
    start: Start, undisturbed: Path, plan_file: Path, rows_folder: Path, tmp_path: Path
) -> None:
    out, rng = tmp_path / "dataset", random.Random(7)
    expected = contents(undisturbed)
    killed_at = []
    for kill, workers, least in ((kill_group, 1, 0), (kill_alone, 2, 2)):
        process = start(out, workers)
        wait_for(process, lambda least=least: claims(out) != [] and runs_there(out) >= least)  # type: ignore[misc]
        time.sleep(rng.uniform(0, 0.3))
        kill(process)
        assert process.returncode == -signal.SIGKILL
        killed_at.append(runs_there(out))
        # What is there is whole, and what it should be; only the card and its picture may be behind.
        card = ("README.md", "trajectories.svg")
        whole = {name: data for name, data in contents(out).items() if name in expected and name not in card}
        assert whole == {name: expected[name] for name in whole}
        assert claims(out)
    assert killed_at[0] < killed_at[1] < RUNS
    last = collect(CollectSettings(read_plan(plan_file), out, rows_folder, workers=1))
    assert (len(last.done), len(last.skipped), last.failed) == (RUNS - killed_at[1], killed_at[1], {})
    assert contents(out) == expected


@pytest.mark.slow
def test_what_a_killed_collector_was_doing_is_done_by_another_that_is_still_there(
    start: Start, undisturbed: Path, plan_file: Path, rows_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "dataset"
    other = start(out, workers=1)
    wait_for(other, lambda: claims(out) != [])
    ours = collect(
        CollectSettings(read_plan(plan_file), out, rows_folder, workers=1), on_run=lambda run: kill_group(other)
    )
    assert other.returncode == -signal.SIGKILL
    assert (len(ours.done) + len(ours.skipped), ours.failed) == (RUNS, {})
    assert contents(out) == contents(undisturbed)


def test_two_collectors_at_once_make_every_run_exactly_once(
    undisturbed: Path, plan_file: Path, rows_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "dataset"
    settings = CollectSettings(read_plan(plan_file), out, rows_folder, workers=1)
    with ThreadPoolExecutor(2) as both:
        first, second = (future.result() for future in [both.submit(collect, settings) for _ in range(2)])
    assert sorted([*first.done, *second.done]) == sorted(
        f"{config}/{run}" for config, runs in RUN_NAMES.items() for run in runs
    )
    assert min(len(first.done), len(second.done)) > 0
    assert sorted(first.skipped) == sorted(second.done)
    assert sorted(second.skipped) == sorted(first.done)
    assert contents(out) == contents(undisturbed)


def test_a_collection_stopped_again_and_again_while_it_writes_ends_with_the_same_bytes(
    make_settings: Callable[..., RunSettings], rows_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = PlanEntry(make_settings(gradients="all", gradient_width=16), 2)
    settings = CollectSettings(Plan("two runs", (entry,)), tmp_path / "dataset", rows_folder, workers=1)
    undisturbed = replace(settings, out=tmp_path / "undisturbed")
    collect(undisturbed)
    put_in_place, allowed = Path.replace, 0

    class Stopped(BaseException):
        """Not an error that anything handles."""

    def stopping(path: Path, target: Path) -> Path:
        nonlocal allowed
        allowed -= 1
        if allowed < 0:
            raise Stopped
        return put_in_place(path, target)

    monkeypatch.setattr(Path, "replace", stopping)
    ended_at = []
    for files_more in range(20):
        allowed = files_more
        try:
            collect(settings)
            break
        except Stopped:
            ended_at.append(len(contents(settings.out)))
    # Manifest, pool, test set, vectors, and for each run its row, products, trajectories; timings and the card.
    assert ended_at[0] == 0
    assert len(ended_at) > 4
    assert contents(settings.out) == contents(undisturbed.out)


def test_vectors_that_come_last_are_in_the_card_too(
    undisturbed: Path, plan_file: Path, rows_folder: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(undisturbed, tmp_path / "dataset"))
    DatasetFolder(out).vectors_path("rte_tiny").unlink()
    assert collect(CollectSettings(read_plan(plan_file), out, rows_folder, workers=1)).done == []
    assert contents(out) == contents(undisturbed)
