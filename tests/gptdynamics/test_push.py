"""Pushing a dataset folder to the loopback Hub, and what may go wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.schema import read_parquet, write_parquet
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import DataError, GPTDynamicsError, SettingsError
from gptdynamics.hub import repository as repositories
from gptdynamics.hub.push import PushOptions, push
from gptdynamics.hub.repository import UnreachableError
from tests.cards import code
from tests.hub.faults import Fault
from tests.hub.server import Hub
from tests.hub.store import File

ID = "ada/dynamics"
COMMIT = "POST /api/datasets/ada/dynamics/commit"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repositories, "FIRST_PAUSE_SECONDS", 0.001)
    # The client's own pauses before it tries an upload again.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


def part_of(folder: Path, out: Path, *runs: str, config: str = "rte_tiny") -> Path:
    """A copy of a folder with only these runs of one config."""
    shutil.copytree(folder, out)
    task = config.split("_")[0]
    for path in [*out.glob("data/*/*.parquet"), *out.glob("manifests/*"), *out.glob("sidecar/*/*")]:
        examples = path.parent.name == f"{task}_examples"
        its_own = path.stem == config or path.parent.name in (config, f"{config}_runs")
        if not examples and not (its_own and (path.parent.name == "manifests" or path.stem[-4:] in runs)):
            path.unlink()
    DatasetFolder(out).write_card()
    return out


@pytest.fixture
def first(collected_once: Path, tmp_path: Path) -> Path:
    """The first four runs."""
    return part_of(collected_once, tmp_path / "first", "0000", "0001", "0002", "0003")


@pytest.fixture
def second(collected_once: Path, tmp_path: Path) -> Path:
    """The other two."""
    return part_of(collected_once, tmp_path / "second", "0004", "0005")


def as_user(name: str, monkeypatch: pytest.MonkeyPatch, role: str = "write") -> None:
    monkeypatch.setenv("HF_TOKEN", f"hf_{name}_{role}")


def fetched(hub: Hub, out: Path, id: str = ID, revision: str = "main") -> Path:
    """The repository's files as a folder."""
    for path, content in hub.store.files("dataset", id, revision).items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(content)
    return out


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


def test_only_new_runs_go_up_and_the_card_is_of_all(
    hub: Hub, first: Path, second: Path, collected_once: Path, tmp_path: Path
) -> None:
    push(first, ID)
    hub.faults.clear()
    pushed = push(second, ID)
    assert pushed.runs == ["rte_tiny/0004", "rte_tiny/0005"]
    assert pushed.files == [
        "README.md",
        "data/rte_tiny/test-0004.parquet",
        "data/rte_tiny/train-0005.parquet",
        "data/rte_tiny_runs/test-0004.parquet",
        "data/rte_tiny_runs/train-0005.parquet",
    ]
    whole = part_of(collected_once, tmp_path / "whole", *(f"000{at}" for at in range(6)))
    card = (whole / "README.md").read_text().replace('"path/to/this/folder"', f'"{ID}"')
    files = hub.store.files("dataset", ID)
    assert files["README.md"].decode() == card
    assert files["trajectories.svg"] == (whole / "trajectories.svg").read_bytes()
    again = push(whole, ID)
    assert (again.files, again.runs, again.url) == ([], [], None)
    assert len(hub.store.history("dataset", ID)) == 3


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


def test_what_somebody_wrote_into_the_card_is_kept(hub: Hub, first: Path, second: Path) -> None:
    push(first, ID)
    card = hub.store.files("dataset", ID)["README.md"].decode()
    edited = card.replace("pretty_name: GPTDynamics\nlicense: other\n", "pretty_name: Ours\nlicense: mit\n", 1)
    edited = edited.replace("tags:\n", "tags:\n- mine\n", 1)
    edited = (
        edited.replace("\n<!-- gptdynamics: gen", "\nA word before.\n\n<!-- gptdynamics: gen", 1) + "\nAnd after.\n"
    )
    hub.store.put("dataset", ID, {"README.md": edited.encode(), "notes.txt": b"kept"})
    push(second, ID)
    files = hub.store.files("dataset", ID)
    new = files["README.md"].decode()
    assert files["notes.txt"] == b"kept"
    for kept in ("pretty_name: Ours", "license: mit", "- mine", "- training-dynamics", "A word before.", "And after."):
        assert kept in new
    assert "| 4 / 1 / 1 / 0 |" in new and "| 3 / 1 / 0 / 0 |" not in new
    assert new.count("# GPTDynamics") == 1 and "split: test\n" in new
    assert push(second, ID).files == []


def test_a_card_whose_yaml_is_broken_is_left_alone(hub: Hub, first: Path, second: Path) -> None:
    push(first, ID)
    hub.store.put("dataset", ID, {"README.md": b"---\nconfigs: [\n---\nmine\n"})
    before = hub.store.files("dataset", ID)
    with pytest.raises(DataError, match=r"ada/dynamics: README.md: its YAML cannot be read .*Mend it by hand"):
        push(second, ID)
    assert hub.store.files("dataset", ID) == before


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
    assert waits == ["ada/dynamics: somebody else's commit came first"]


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
    assert sum("somebody else's commit came first; trying again" in each for each in said) == 1


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
    with pytest.raises(UnreachableError, match=r"answers 500, 2 times. What was uploaded is kept: run the same"):
        push(second, ID)
    assert hub.store.files("dataset", ID) == before
    uploaded = hub.faults.asked("PUT /_objects")
    push(second, ID)
    assert uploaded > 0 and hub.faults.asked("PUT /_objects") == uploaded


def test_runs_made_with_other_settings_are_refused(hub: Hub, first: Path, second: Path) -> None:
    push(first, ID)
    manifest = second / "manifests" / "rte_tiny.json"
    changed = json.loads(manifest.read_text())
    changed["settings"]["seed"] = 5
    manifest.write_text(json.dumps(changed))
    before = hub.store.files("dataset", ID)
    with pytest.raises(SettingsError, match=r"holds rte_tiny made with other settings \(seed: 0 there, 5 here\)"):
        push(second, ID)
    assert hub.store.files("dataset", ID) == before


def test_other_numbers_of_the_same_run_are_refused_unless_they_replace_it(hub: Hub, first: Path) -> None:
    push(first, ID)
    path = DatasetFolder(first).run_path("rte_tiny", "0001")
    table = read_parquet(path)
    losses = [[value * 2 for value in row] for row in table["loss"].to_pylist()]
    column = pa.array(losses, table.schema.field("loss").type)
    write_parquet(table.set_column(table.column_names.index("loss"), "loss", column), path)
    with pytest.raises(SettingsError, match=r"has other numbers for rte_tiny/0001, .* or give --replace"):
        push(first, ID)
    assert push(first, ID, PushOptions(replace=True)).runs == ["rte_tiny/0001"]
    assert hub.store.files("dataset", ID)["data/rte_tiny/train-0001.parquet"] == path.read_bytes()


def test_other_examples_are_refused(hub: Hub, first: Path, second: Path) -> None:
    push(first, ID)
    path = second / "data" / "rte_examples" / "pool.parquet"
    table = read_parquet(path)
    prompts = pa.array(["another text", *table["prompt"].to_pylist()[1:]])
    write_parquet(table.set_column(table.column_names.index("prompt"), "prompt", prompts), path)
    with pytest.raises(SettingsError, match=r"example 0 of data/rte_examples/pool.parquet is another one there"):
        push(second, ID)


def test_texts_can_be_left_out(hub: Hub, first: Path, second: Path) -> None:
    push(first, ID, PushOptions(no_texts=True))
    prompts = read_dynamics(ID, "rte_tiny", "loss").pool
    assert {example.prompt for example in prompts} == {""}
    push(second, ID, PushOptions(no_texts=True))
    assert {example.prompt for example in read_dynamics(ID, "rte_tiny", "loss").pool} == {""}


@pytest.mark.parametrize("content", [b"not parquet", b""])
def test_a_damaged_run_is_not_pushed(hub: Hub, first: Path, content: bytes) -> None:
    DatasetFolder(first).run_path("rte_tiny", "0002").write_bytes(content)
    with pytest.raises(DataError, match=r"train-0002.parquet.*cannot be read as Parquet"):
        push(first, ID)
    assert set(hub.store.files("dataset", ID)) == {".gitattributes"}


def test_a_damaged_file_on_the_hub_is_named(hub: Hub, first: Path, second: Path) -> None:
    push(first, ID)
    hub.store.put("dataset", ID, {"data/rte_tiny/train-0000.parquet": b"something else"})
    before = hub.store.files("dataset", ID)
    with pytest.raises(DataError, match=r"train-0000.parquet: cannot be read as Parquet"):
        push(second, ID)
    assert hub.store.files("dataset", ID) == before


def test_private_branch_tag_and_dry_run(hub: Hub, first: Path, second: Path) -> None:
    planned = push(first, ID, PushOptions(private=True, dry_run=True))
    assert (planned.created, planned.sha, len(planned.runs)) == (True, None, 4)
    assert ("dataset", ID) not in hub.store.repositories
    pushed = push(first, ID, PushOptions(private=True, tag="v1"))
    assert pushed.files == planned.files
    repository = hub.store.repositories["dataset", ID]
    assert repository.private and repository.tags == {"v1": pushed.sha}
    with pytest.raises(SettingsError, match="has a tag 'v1' already"):
        push(second, ID, PushOptions(tag="v1"))
    planned = push(second, ID, PushOptions(branch="more", dry_run=True))
    assert planned.runs == ["rte_tiny/0004", "rte_tiny/0005"] and "more" not in repository.branches
    push(second, ID, PushOptions(branch="more"))
    assert "data/rte_tiny/test-0004.parquet" in hub.store.files("dataset", ID, "more")
    assert "data/rte_tiny/test-0004.parquet" not in hub.store.files("dataset", ID)
    repository.private = False
    with pytest.raises(SettingsError, match="is there, and public"):
        push(second, ID, PushOptions(private=True))


def test_a_pull_request_of_somebody_else(hub: Hub, first: Path, second: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(first, ID)
    as_user("ben", monkeypatch)
    with pytest.raises(SettingsError, match=r"your token may not write there\. .*--create-pr"):
        push(second, ID)
    before = hub.store.files("dataset", ID)
    pushed = push(second, ID, PushOptions(create_pr=True))
    assert str(pushed.url).endswith("/datasets/ada/dynamics/discussions/1")
    assert hub.store.files("dataset", ID) == before
    assert "data/rte_tiny/test-0004.parquet" in hub.store.files("dataset", ID, "refs/pr/1")


Break = Callable[[Hub, pytest.MonkeyPatch], None]


@pytest.mark.parametrize(
    ("repo", "user", "message"),
    [
        ("dynamics", "ada", "'dynamics' is not the name of a repository: give <owner>/<name>"),
        ("../up", "ada", "'../up' is not the name of a repository"),
        (ID, None, "ada/dynamics: no token. Run `hf auth login`, or set HF_TOKEN"),
        (ID, "nobody", "ada/dynamics: no valid token"),
        (ID, "ben", "ada/dynamics: your token may not write there"),
        ("cy/dynamics", "cy", "cy/dynamics: your token may not write there"),
        ("ada/secret", "ben", "ada/secret: your token may not write there"),
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


def test_names_that_lead_out_of_a_folder_are_not_followed(hub: Hub, first: Path, second: Path, tmp_path: Path) -> None:
    push(first, ID)
    hub.store.put(
        "dataset", ID, {"data/../../../evil-0000.parquet": b"x", "data/rte_tiny_runs/../../train-0009.parquet": b"x"}
    )
    push(second, ID)
    assert not list(tmp_path.rglob("*evil*"))
    with pytest.raises(DataError, match=r"cannot contain a '\.\.' path segment"):
        read_dynamics(ID, "rte_tiny", "loss")
    assert not list(tmp_path.rglob("*evil*"))


def test_the_push_command(hub: Hub, first: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    status, output, errors = command("push", str(first), ID, "--dry-run")
    assert status == 0
    assert errors.startswith("note: rte_tiny: the base model tiny_model") and errors.count("\n") == 1
    assert errors.endswith("publish it with gptdynamics push-base, and collect with --base-model <owner>/<name>\n")
    assert "data/rte_tiny/train-0000.parquet\n" in output and "4 runs, 13 files, " in output
    assert output.endswith("MiB would go to ada/dynamics (a new repository)\n")
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
