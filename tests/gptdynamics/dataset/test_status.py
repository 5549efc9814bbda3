from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from gptdynamics.configs import RunSettings
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.status import (
    ConfigStatus,
    folder_status,
    held_claims,
    short_time,
    status_notes,
    status_table,
)
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.plans import Plan, PlanEntry, read_plan

HOLD = """
import sys
from pathlib import Path
from gptdynamics.collection.claims import Claims
claims = Claims(Path(sys.argv[1]))
print(all([claims.take(name) for name in sys.argv[2:]]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def wanted(make_settings: Callable[..., RunSettings]) -> Plan:
    """More than was collected: eight runs and one on unseen rows of a config, one of a config not begun."""
    entries = PlanEntry(make_settings(), 8, 1), PlanEntry(make_settings("webnlg_other"), 1)
    return Plan("wanted", entries)


@pytest.fixture
def hold(collected: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Another process that holds claims of the folder until its input ends."""
    begun = []

    def start(*claims: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(collected), *claims]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        begun.append(process)
        assert process.stdout and process.stdout.readline() == "True\n"
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def shown(statuses: list[ConfigStatus]) -> list[str]:
    """The table as it is printed on a terminal of 80 columns."""
    console = Console(file=io.StringIO(), width=80)
    console.print(status_table(statuses))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def set_time(root: Path, run: str, **seconds: float) -> None:
    path = DatasetFolder(root).sidecar_path("rte_tiny", run, "timing")
    path.write_text(json.dumps(seconds), encoding="utf-8")


def test_a_complete_folder_is_done(collected_once: Path) -> None:
    rte, webnlg = folder_status(collected_once)
    assert (rte.config, webnlg.config) == ("rte_tiny", "webnlg_tiny")
    runs = [f"{at:04d}" for at in range(6)]
    for status in (rte, webnlg):
        assert (status.done, status.running, status.failed, status.missing) == (runs, [], {}, [])
        assert (status.planned, status.seconds_left, status.timed) == (6, 0.0, 6)
        assert status.seconds > 0
    assert rte.counts("train") == {"done": 4, "running": 0, "failed": 0, "missing": 0}


def test_a_plan_says_what_is_missing(collected: Path, wanted: Plan) -> None:
    folder = DatasetFolder(collected)
    folder.run_path("rte_tiny", "0003").unlink()
    folder.add_failure("rte_tiny", "0006", "loss is not finite")
    rte, other = folder_status(collected, wanted)
    assert rte.done == ["0000", "0001", "0002", "0004", "0005"]
    assert (rte.failed, rte.missing) == ({"0006": "loss is not finite"}, ["0003", "0007", "u0000"])
    assert (rte.planned, rte.extra) == (9, [])
    assert (other.config, other.missing, other.seconds_left) == ("webnlg_other", ["0000"], None)


def test_runs_beyond_the_plan_are_told_apart(collected: Path, make_settings: Callable[..., RunSettings]) -> None:
    (status,) = folder_status(collected, Plan("few", (PlanEntry(make_settings(), 2),)))
    assert (status.done, status.extra) == (["0000", "0001"], ["0002", "0003", "0004", "0005"])
    assert status_notes([status]) == [
        "2 of 2 runs done",
        "rte_tiny: finished, but not planned: 0002, 0003, 0004 and 1 more",
    ]


def test_the_time_left_is_that_of_mean_runs(collected: Path, wanted: Plan) -> None:
    for run in ("0000", "0001", "0002", "0003"):
        set_time(collected, run, update=1.0, loss=2.0, generation=0.5, gradients=0.25, products=0.25, forward=99.0)
    set_time(collected, "0004", update=24.0)
    DatasetFolder(collected).sidecar_path("rte_tiny", "0005", "timing").write_text("{", encoding="utf-8")
    rte = folder_status(collected, wanted)[0]
    assert (rte.seconds, rte.timed, len(rte.missing)) == (40.0, 5, 3)
    assert rte.seconds_left == 3 * 8.0


def test_what_another_process_does_is_running_until_it_dies(
    collected: Path, wanted: Plan, hold: Callable[..., subprocess.Popen[str]]
) -> None:
    process = hold("rte_tiny.0007", "rte_tiny.u0000", "rte_tiny.base", "webnlg_other.0000", "rte_tiny.0001")
    locks = {path: path.stat().st_ino for path in (collected / ".claims").iterdir()}
    for _ in range(3):
        rte, other = folder_status(collected, wanted)
        assert (rte.running, rte.missing, rte.projecting) == (["0007", "u0000"], ["0006"], True)
        assert "0001" in rte.done
        assert (other.running, other.missing) == (["0000"], [])
    assert {path: path.stat().st_ino for path in (collected / ".claims").iterdir()} == locks
    assert process.poll() is None
    process.kill()
    process.wait()
    rte, other = folder_status(collected, wanted)
    assert (rte.running, rte.missing, rte.projecting) == ([], ["0006", "0007", "u0000"], False)
    assert (other.running, other.missing) == ([], ["0000"])


def test_asking_takes_no_claim_from_a_collector(collected: Path, hold: Callable[..., subprocess.Popen[str]]) -> None:
    hold("rte_tiny.0007")
    assert held_claims(collected) == {("rte_tiny", "0007")}
    hold("rte_tiny.0006")
    assert held_claims(collected) == {("rte_tiny", "0006"), ("rte_tiny", "0007")}


def test_claims_of_configs_with_points_in_their_names(
    collected: Path, hold: Callable[..., subprocess.Popen[str]]
) -> None:
    hold("flan_2.8b.0003", "flan_2.8b.base")
    assert held_claims(collected) == {("flan_2.8b", "0003"), ("flan_2.8b", "base")}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_only_be_read_is_read(collected: Path, hold: Callable[..., subprocess.Popen[str]]) -> None:
    hold("rte_tiny.0007")
    for path in [*collected.rglob("*"), collected]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert held_claims(collected) == {("rte_tiny", "0007")}


def test_nothing_is_written(collected_once: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in collected_once.rglob("*")}
    folder_status(collected_once)
    assert {path: path.stat().st_mtime_ns for path in collected_once.rglob("*")} == before


def test_other_settings_than_the_plans_are_told(collected: Path, make_settings: Callable[..., RunSettings]) -> None:
    with pytest.raises(SettingsError, match=r"learning_rate: 0\.001 there, 0\.5 now"):
        folder_status(collected, Plan("other", (PlanEntry(make_settings(learning_rate=0.5), 6),)))


def test_a_folder_that_is_not_there_needs_a_plan(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such dataset folder"):
        folder_status(tmp_path / "nothing")
    with pytest.raises(DataError, match="it has no configs"):
        folder_status(tmp_path)
    statuses = folder_status(tmp_path / "nothing", read_plan("paper"))
    assert sum(len(status.missing) for status in statuses) == 352


@pytest.mark.parametrize("planned", [{"runs": "many"}, {"runs": [3]}])
def test_counts_that_are_none_are_named(collected: Path, planned: dict[str, object]) -> None:
    path = DatasetFolder(collected).manifest_path("rte_tiny")
    content = json.loads(path.read_text(encoding="utf-8")) | {"planned": planned}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=r"rte_tiny\.json: planned .* must be numbers of runs"):
        folder_status(collected)


def test_the_table_shows_runs_by_split_and_times(collected: Path, wanted: Plan) -> None:
    folder = DatasetFolder(collected)
    folder.add_failure("rte_tiny", "0006", "loss is not finite")
    for at in range(6):
        set_time(collected, f"{at:04d}", loss=600.0)
    lines = shown(folder_status(collected, wanted))
    assert lines[0].split() == "config train val test unseen failed missing spent left".split()
    assert [line.split() for line in lines[2:4]] == [
        "rte_tiny 4/6 1/1 1/1 0/1 1 2 1h00m 20m".split(),
        "webnlg_other 0/1 - - - - 1 - ?".split(),
    ]
    assert status_notes(folder_status(collected, wanted)) == [
        "6 of 10 runs done; left: 20m with one worker, without 1 configs that have no finished run yet",
        "rte_tiny: run 0006 diverged: loss is not finite",
    ]


def test_the_table_of_every_release_fits_80_columns() -> None:
    for plan in ("paper", "nano"):
        statuses = [
            ConfigStatus(
                entry.config,
                done=entry.run_names[:30],
                running=entry.run_names[30:32],
                missing=entry.run_names[32:] * 40,
                seconds=30 * 86400 * 25,
                timed=30,
            )
            for entry in read_plan(plan)
        ]
        lines = shown(statuses)
        assert all(len(line) <= 80 and "…" not in line for line in lines)
        # Where a plan has runs made again, the longest names take two lines.
        assert len(lines) - len(statuses) - 2 <= 2 * any("c" in run for run in statuses[0].missing)


def test_a_status_is_plain_json(collected: Path, wanted: Plan) -> None:
    rte = json.loads(json.dumps(folder_status(collected, wanted)[0].to_dict()))
    assert (rte["config"], rte["planned"], rte["missing"]) == ("rte_tiny", 9, ["0006", "0007", "u0000"])
    assert rte["splits"] == {
        "train": {"done": 4, "running": 0, "failed": 0, "missing": 2},
        "validation": {"done": 1, "running": 0, "failed": 0, "missing": 0},
        "test": {"done": 1, "running": 0, "failed": 0, "missing": 0},
        "test_unseen": {"done": 0, "running": 0, "failed": 0, "missing": 1},
    }
    assert rte["seconds_left"] == pytest.approx(rte["seconds"] / 6 * 3)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (0, "-"),
        (0.2, "0s"),
        (59.4, "59s"),
        (59.5, "1m"),
        (3569, "59m"),
        (3571, "1h00m"),
        (86399, "1d00h"),
        (4.5 * 86400, "4d12h"),
        (750 * 86400, "750d"),
    ],
)
def test_times_are_short(seconds: float | None, text: str) -> None:
    assert short_time(seconds) == text
