"""Pushing a dataset folder to the loopback Hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import DataError, GPTDynamicsError, SettingsError
from gptdynamics.hub import repository as repositories
from gptdynamics.hub.push import PushOptions, push
from tests.cards import code
from tests.gptdynamics.hub.pushing import COMMIT, ID, as_user, fetched
from tests.hub.faults import Fault
from tests.hub.server import Hub


def test_a_folder_is_pushed_in_one_commit_and_read_by_id(hub: Hub, collected: Path, tmp_path: Path) -> None:
    pushed = push(collected, ID)
    assert (pushed.created, len(pushed.runs)) == (True, 12)
    assert [commit.title for commit in hub.store.history("dataset", ID)] == [
        "Add 12 runs of rte_tiny, webnlg_tiny",
        "initial commit",
    ]
    assert hub.store.history("dataset", ID)[0].sha == pushed.sha
    local, remote = read_dynamics(collected, "rte_tiny", "loss"), read_dynamics(ID, "rte_tiny", "loss")
    assert (remote.values == local.values).all() and remote.runs == local.runs
    assert remote.pool == local.pool and remote.test == local.test
    assert verify(fetched(hub, tmp_path / "fetched")).ok
    assert not any("timing" in path or ".claims" in path for path in hub.store.files("dataset", ID))
    from datasets import load_dataset

    rows = load_dataset(ID, "rte_tiny", split="test")
    assert rows["loss"][:] == load_dataset(str(collected), "rte_tiny", split="test")["loss"][:]


def test_the_code_on_the_card_runs(hub: Hub, first: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    push(first, ID)
    on_hub, local = hub.store.files("dataset", ID)["README.md"].decode(), (first / "README.md").read_text()
    local = local.replace("path/to/this/folder", str(first))
    for card in (on_hub, local):
        names: dict[str, Any] = {}
        (plot,) = code(card, "python")
        exec(plot, names)
        assert names["row"]["run"] == "0000"
        (line,) = names["plt"].gca().lines
        assert line.get_ydata().tolist() == names["row"]["loss"]
        names["plt"].close()


def test_private_branch_tag_and_dry_run(hub: Hub, first: Path, second: Path) -> None:
    planned = push(first, ID, PushOptions(private=True, dry_run=True))
    assert (planned.created, planned.sha, len(planned.runs)) == (True, None, 4)
    assert ("dataset", ID) not in hub.store.repositories
    pushed = push(first, ID, PushOptions(private=True, tag="v1"))
    assert pushed.files == planned.files
    repository = hub.store.repositories["dataset", ID]
    assert repository.private and repository.tags == {"v1": pushed.sha}
    with pytest.raises(SettingsError, match="already has a tag 'v1'"):
        push(second, ID, PushOptions(tag="v1"))
    planned = push(second, ID, PushOptions(branch="more", dry_run=True))
    assert planned.runs == ["rte_tiny/0004", "rte_tiny/0005"] and "more" not in repository.branches
    push(second, ID, PushOptions(branch="more"))
    assert "data/rte_tiny/test-0004.parquet" in hub.store.files("dataset", ID, "more")
    assert "data/rte_tiny/test-0004.parquet" not in hub.store.files("dataset", ID)
    repository.private = False
    with pytest.raises(SettingsError, match="exists and is public"):
        push(second, ID, PushOptions(private=True))


def test_a_pull_request_of_somebody_else(hub: Hub, first: Path, second: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(first, ID)
    as_user("ben", monkeypatch)
    with pytest.raises(SettingsError, match=r"your token has no write access\. .*--create-pr"):
        push(second, ID)
    before = hub.store.files("dataset", ID)
    pushed = push(second, ID, PushOptions(create_pr=True))
    assert str(pushed.url).endswith("/datasets/ada/dynamics/discussions/1")
    assert hub.store.files("dataset", ID) == before
    assert "data/rte_tiny/test-0004.parquet" in hub.store.files("dataset", ID, "refs/pr/1")


@pytest.mark.parametrize(
    ("repo", "user", "message"),
    [
        ("dynamics", "ada", "'dynamics' is not the name of a repository: give <owner>/<name>"),
        ("../up", "ada", "'../up' is not the name of a repository"),
        (ID, None, "ada/dynamics: no token. Run `hf auth login`, or set HF_TOKEN"),
        (ID, "nobody", "ada/dynamics: no valid token"),
        (ID, "ben", "ada/dynamics: your token has no write access"),
        ("cy/dynamics", "cy", "cy/dynamics: your token has no write access"),
        ("ada/secret", "ben", "ada/secret: your token has no write access"),
        ("ada/other", "ada", "ada/other is not a GPTDynamics dataset"),
    ],
)
def test_what_may_not_be_is_one_line_and_changes_nothing(
    hub: Hub, first: Path, monkeypatch: pytest.MonkeyPatch, repo: str, user: str | None, message: str
) -> None:
    ada = hub.store.users["hf_ada_write"]
    hub.store.create("dataset", "ada/secret", ada, private=True)
    hub.store.create("dataset", "ada/other", ada)
    hub.store.put("dataset", "ada/other", {"data/something.csv": b"a,b"})
    before = {key: dict(each.branches) for key, each in hub.store.repositories.items()}
    if user is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        as_user(user, monkeypatch, "read" if user == "cy" else "write")
    with pytest.raises(GPTDynamicsError) as raised:
        push(first, repo)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)
    assert "hf_" not in str(raised.value)
    assert {key: dict(each.branches) for key, each in hub.store.repositories.items()} == before


def test_the_short_name_is_read_where_a_dataset_is_asked_for(
    hub: Hub, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(first, ID)
    expected = read_dynamics(first, "rte_tiny", "loss").values
    for named in (ID, str(first)):
        monkeypatch.setenv("GPTDYNAMICS_DATASET", named)
        assert (read_dynamics("gptdynamics", "rte_tiny", "loss").values == expected).all()
        assert verify("gptdynamics").runs == 4


def test_a_folder_without_runs_is_not_pushed(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such dataset folder"):
        push(tmp_path / "nothing", ID)
    with pytest.raises(DataError, match="there are no finished runs to push"):
        push(tmp_path, ID)
    assert not hub.store.repositories


def test_the_push_command(hub: Hub, first: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    status, output, errors = command("push", str(first), ID, "--dry-run")
    assert status == 0
    assert errors.startswith("note: rte_tiny: the base model tiny_model") and errors.count("\n") == 1
    assert errors.endswith("publish it with gptdynamics push-base, and collect with --base-model <owner>/<name>\n")
    assert "data/rte_tiny/train-0000.parquet\n" in output and "4 runs, 13 files, " in output
    assert output.endswith("MiB would be pushed to ada/dynamics (a new repository)\n")
    status, output, _ = command("push", str(first), ID, "--private", "--json", str(tmp_path / "pushed.json"))
    sha = json.loads((tmp_path / "pushed.json").read_text())["sha"]
    assert output.splitlines()[-1] == f"{hub.url}/datasets/ada/dynamics/commit/{sha}"
    status, output, errors = command("push", str(first), "dynamics")
    assert (status, output) == (1, "")
    assert errors.startswith("error: 'dynamics' is not the name of a repository") and errors.count("\n") == 1


def test_runs_are_pushed_as_they_end(
    hub: Hub,
    tmp_path: Path,
    tiny_model_folder: Path,
    rows_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., tuple[int, str, str]],
) -> None:
    collect = (
        *("collect", "rte_tiny", "--out", str(tmp_path / "out"), "--data", str(rows_folder)),
        *("--base-model", str(tiny_model_folder), "--learning-rate", "0.001", "--runs", "2", "--steps", "2"),
        *("--test-examples", "4", "--workers", "1", "--push-to", ID),
    )
    monkeypatch.setattr(repositories, "ATTEMPTS", 1)
    monkeypatch.delenv("HF_TOKEN")
    status, _, errors = command(*collect)
    assert (status, "no token" in errors, (tmp_path / "out").exists()) == (1, True, False)
    as_user("ada", monkeypatch)
    hub.faults.add(Fault(COMMIT, status=500))
    status, output, errors = command(*collect)
    assert status == 0, errors
    assert "note: rte_tiny/0000 is not on the Hub yet: ada/dynamics: the Hub answers 500" in errors
    assert "rte_tiny/0000 is in ada/dynamics\nrte_tiny/0001 is in ada/dynamics\n" in output
    assert read_dynamics(ID, "rte_tiny", "loss").runs == ["0000", "0001"]
