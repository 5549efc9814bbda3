from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from gptdynamics.collection import Collected, CollectSettings, collect
from gptdynamics.collection.claims import Claims
from gptdynamics.configs import RunSettings
from gptdynamics.dataset import DatasetFolder
from gptdynamics.errors import DataError
from gptdynamics.plans import Plan, PlanEntry

JOB = "rte_tiny.0001"


def test_a_job_is_claimed_by_one_collector_until_it_gives_it_back(tmp_path: Path) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take(JOB)
    assert not second.take(JOB)
    assert second.take("rte_tiny.0002")
    first.give_back(JOB)
    assert second.take(JOB)
    assert not first.take(JOB)


def test_claims_of_different_folders_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    assert Claims(tmp_path / "one").take(JOB)
    assert Claims(tmp_path / "other").take(JOB)


def test_claims_that_were_given_back_leave_no_files(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    for run in range(3):
        assert claims.take(f"rte_tiny.000{run}")
    claims.give_back("rte_tiny.0001")
    assert len(list((tmp_path / ".claims").iterdir())) == 2
    claims.give_back_all()
    assert not list((tmp_path / ".claims").iterdir())


def test_the_claim_of_a_killed_process_is_free_and_its_file_can_be_removed(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom gptdynamics.collection.claims import Claims\n"
        f"assert Claims(Path(sys.argv[1])).take({JOB!r})\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / ".claims").iterdir()] == [f"{JOB}.lock"]
    ours = Claims(tmp_path)
    assert ours.take("rte_tiny.0002")
    Claims(tmp_path).remove_left()
    assert [path.name for path in (tmp_path / ".claims").iterdir()] == ["rte_tiny.0002.lock"]
    assert ours.take(JOB)


def test_what_all_collectors_write_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    held: list[str] = []

    def other() -> None:
        with Claims(tmp_path).whole_folder():
            held.append("other")

    with ThreadPoolExecutor(1) as pool:
        with Claims(tmp_path).whole_folder():
            waiting = pool.submit(other)
            time.sleep(0.2)
            held.append("this")
        waiting.result()
    assert held == ["this", "other"]


def test_an_error_while_the_folder_is_held_is_passed_on_and_lets_go_of_it(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    with pytest.raises(PermissionError, match="of the caller"), claims.whole_folder():
        raise PermissionError("of the caller")
    with claims.whole_folder():
        pass


@pytest.mark.parametrize("use", [lambda claims: claims.take(JOB), lambda claims: claims.whole_folder().__enter__()])
def test_a_folder_that_cannot_be_written_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[Claims], object]
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(DataError, match=f"cannot write {tmp_path / 'file' / '.claims'}: Not a directory"):
        use(Claims(tmp_path / "file"))

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(DataError, match=f"cannot write {tmp_path / '.claims'}: Read-only file system"):
        use(Claims(tmp_path))


@pytest.fixture
def second_collector(
    make_settings: Callable[..., RunSettings], rows_folder: Path, tmp_path: Path
) -> Iterator[Callable[[int], Future[Collected]]]:
    """Begin to collect so many runs into `tmp_path` in another thread, while this one holds claims."""
    with ThreadPoolExecutor(1) as pool:

        def begin(runs: int) -> Future[Collected]:
            plan = Plan("shared", (PlanEntry(make_settings(), runs),))
            return pool.submit(collect, CollectSettings(plan, tmp_path, rows_folder, workers=1))

        yield begin


def wait_until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_run_that_another_collector_has_claimed_is_left_to_it_and_waited_for(
    second_collector: Callable[[int], Future[Collected]], tmp_path: Path
) -> None:
    claims, folder = Claims(tmp_path), DatasetFolder(tmp_path)
    assert claims.take(JOB)
    collecting = second_collector(3)
    wait_until(lambda: folder.finished("rte_tiny") == ["0000", "0002"])
    time.sleep(0.2)
    assert not collecting.done()
    claims.give_back(JOB)
    assert collecting.result().done == ["rte_tiny/0000", "rte_tiny/0002", "rte_tiny/0001"]
    assert folder.finished("rte_tiny") == ["0000", "0001", "0002"]


def test_a_run_that_diverged_in_another_collector_is_told_as_failed(
    second_collector: Callable[[int], Future[Collected]], tmp_path: Path
) -> None:
    claims, folder = Claims(tmp_path), DatasetFolder(tmp_path)
    assert claims.take(JOB)
    collecting = second_collector(2)
    wait_until(lambda: folder.finished("rte_tiny") == ["0000"])
    folder.add_failure("rte_tiny", "0001", "training loss is not finite at update 1")
    claims.give_back(JOB)
    result = collecting.result()
    assert (result.done, result.skipped) == (["rte_tiny/0000"], [])
    assert result.failed == {"rte_tiny/0001": "training loss is not finite at update 1"}
