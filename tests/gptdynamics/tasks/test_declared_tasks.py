"""Tasks in a few lines of TOML, and tasks that a dataset folder keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptdynamics.collection import CollectSettings, collect
from gptdynamics.configs import RunSettings
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.reading import read_dynamics
from gptdynamics.dataset.verify import verify
from gptdynamics.dataset.withheld import copy_without_texts
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.hub.push import push
from gptdynamics.metrics import Metric
from gptdynamics.plans import Plan, PlanEntry
from gptdynamics.tasks import Task, add_task_file, get_single_task, get_task, load_examples, task_names
from gptdynamics.tasks.declared import declaration_of, to_toml
from gptdynamics.tasks.kept_tasks import read_kept_task
from gptdynamics.tasks.user_tasks import VARIABLE
from tests.hub.server import Hub

TICKETS = """
name = "tickets"
prompt = "Ticket: {text}\\nUrgency:"
target = " {label}"
labels = [" urgent", " later"]
"""
PYTHON = """
from gptdynamics.tasks import Task

class Tickets(Task):
    name = "tickets"
    fields = {"text": str, "label": str}
    plain = "Ticket: {text}\\nUrgency:"
    labels = (" urgent", " later")

    def target(self, row):
        return f" {row['label']}"
"""


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def rows(folder: Path) -> Path:
    for split, count in (("train", 12), ("eval", 5)):
        made = [{"id": f"t{at}", "text": f"Number {at}", "label": ("urgent", "later")[at % 2]} for at in range(count)]
        written(folder / "tickets" / f"{split}.jsonl", "".join(json.dumps(each) + "\n" for each in made))
    return folder


@pytest.fixture
def collect_tickets(
    make_settings: Callable[..., RunSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Collect a run with a task file of this text; no task file is known afterwards."""

    def make(text: str, name: str = "tickets.toml", runs: int = 1, out: str = "dataset") -> Path:
        if text:
            add_task_file(written(tmp_path / "files" / name, text))
        plan = Plan("own", (PlanEntry(make_settings("tickets_tiny"), runs),))
        collect(CollectSettings(plan, tmp_path / out, rows(tmp_path / "rows"), workers=1))
        monkeypatch.setenv(VARIABLE, "")
        monkeypatch.setenv("GPTDYNAMICS_KEPT_TASKS", "")
        return tmp_path / out

    return make


def test_a_task_in_toml_makes_examples_as_a_class_does(tmp_path: Path) -> None:
    data = rows(tmp_path)
    add_task_file(written(tmp_path / "tickets.toml", TICKETS))
    task = get_single_task("tickets")
    assert task.fields == {"text": str, "label": str} and not task.generates
    [first, *_] = load_examples(task, "pool", 12, data)
    assert (first.id, first.prompt, first.target) == (0, "Ticket: Number 0\nUrgency:", " urgent")


def test_references_and_metrics_of_a_generation_task(tmp_path: Path) -> None:
    text = 'name = "say"\nprompt = "{a}"\ntarget = " {b}"\nreferences = "all"\nmetrics = ["loss", "rougeL"]\n'
    add_task_file(written(tmp_path / "say.toml", text))
    task = get_single_task("say")
    row = {"a": "1", "b": "one", "all": ["one", "a one"]}
    assert task.example(row, 0, "here", {}).references == ("one", "a one")
    assert [metric.name for metric in task.followed_metrics] == ["loss", "rougeL"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TICKETS.replace("name", "title"), "unknown 'title'"),
        (TICKETS.replace('target = " {label}"', ""), "lacks target"),
        (TICKETS.replace("{text}", "{text.__class__}"), "{text.__class__} must be the name of a field"),
        (TICKETS.replace("{text}", "{text:>9999999999}"), "must be the name of a field"),
        (TICKETS.replace("{text}", "{text"), "write literal braces as"),
        (
            TICKETS.replace('[" urgent", " later"]', '[" urgent"]'),
            "and at least two; leave them out for a text task",
        ),
        (TICKETS.replace('[" urgent", " later"]', "[1, 2]"), "labels = [1, 2] must be a list of texts"),
        ('name = "a"\nprompt = "b"\ntarget = "c"\n', "name no field of the rows"),
        ("name =", "not a TOML file"),
        (TICKETS.replace('"tickets"', '"sst2"'), "there is a task 'sst2' already"),
    ],
)
def test_toml_that_describes_no_task_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path / "own.toml", text)
    with pytest.raises(SettingsError) as raised:
        add_task_file(path)
    assert message in str(raised.value) and str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_folder_keeps_its_task_for_every_later_command(collect_tickets: Callable[..., Path], tmp_path: Path) -> None:
    folder = collect_tickets(TICKETS)
    assert "tickets" not in task_names()
    runs = read_dynamics(folder, "tickets_tiny")
    assert runs.test[0].prompt == "Ticket: Number 0\nUrgency:"
    assert get_task("tickets").labels == (" urgent", " later")  # type: ignore[union-attr]
    assert verify(folder).faults == []
    # A second collection needs no task file.
    collect_tickets("", runs=2)
    assert DatasetFolder(folder).finished("tickets_tiny") == ["0000", "0001"]
    copy_without_texts(folder, tmp_path / "copy")
    assert verify(tmp_path / "copy").faults == []


def test_of_a_python_task_the_labels_are_kept_and_its_code_is_asked_for(
    collect_tickets: Callable[..., Path],
) -> None:
    folder = collect_tickets(PYTHON, "tickets.py")
    assert (
        DatasetFolder(folder).task_path("tickets").read_text() == 'name = "tickets"\nlabels = [" urgent", " later"]\n'
    )
    assert read_dynamics(folder, "tickets_tiny", "accuracy").values.shape == (1, 5, 3)
    assert verify(folder).faults == []
    with pytest.raises(DataError, match="Name the task's file with --task-file"):
        collect_tickets("", runs=2)
    # The same task in TOML is no other task: then its templates are kept, too.
    collect_tickets(TICKETS, runs=2)
    assert "prompt" in DatasetFolder(folder).task_path("tickets").read_text()


def test_another_task_of_the_same_name_is_refused(collect_tickets: Callable[..., Path]) -> None:
    collect_tickets(TICKETS)
    with pytest.raises(SettingsError, match=r"declares another task tickets \(prompt: .*\)"):
        collect_tickets(TICKETS.replace("Ticket:", "Mail:"), "other.toml", runs=2)


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("tickets.toml", "name = 1", "name = 1 must be a text"),
        ("tickets.toml", TICKETS.replace('"tickets"', '"other"'), "name = 'other' must be the name of the file"),
        ("sst2.toml", TICKETS.replace('"tickets"', '"sst2"'), "the package already has a task sst2"),
        ("tickets.py", PYTHON, "not named <task>.toml"),
    ],
)
def test_verify_finds_what_is_no_kept_task(
    collect_tickets: Callable[..., Path], name: str, text: str, what: str
) -> None:
    folder = collect_tickets(TICKETS)
    written(folder / "own_tasks" / name, text)
    faults = [fault for fault in verify(folder).faults if fault.file == f"own_tasks/{name}"]
    assert faults and what in faults[0].what and faults[0].remedy


def test_code_in_a_dataset_folder_is_never_run(collect_tickets: Callable[..., Path], tmp_path: Path) -> None:
    folder = collect_tickets(TICKETS)
    written(folder / "own_tasks" / "tickets.py", f"open({str(tmp_path / 'ran')!r}, 'w')\n" + PYTHON)
    read_dynamics(folder, "tickets_tiny")
    verify(folder)
    get_task("tickets")
    assert not (tmp_path / "ran").exists()


def test_what_is_kept_comes_back_from_its_file(tmp_path: Path) -> None:
    class Odd(Task):
        name = "odd"
        fields = {"a": str}
        plain = "{a}"
        metrics = ("loss", Metric("exact", lambda text, references: 1.0, least=0, title='é "quoted"'))
        text_tokenizer = "char"

        def target(self, row: Any) -> str:
            return str(row["a"])

    values = declaration_of(Odd())
    kept = read_kept_task(written(tmp_path / "odd.toml", to_toml(values)))
    assert declaration_of(kept) == values
    assert kept.followed_metrics[1].title == 'é "quoted"' and kept.text_tokenizer == "char"


def test_a_kept_task_goes_to_the_hub_and_comes_back(
    collect_tickets: Callable[..., Path], hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(collect_tickets(TICKETS), "ada/tickets")
    monkeypatch.setenv("GPTDYNAMICS_KEPT_TASKS", "")
    assert "tickets" not in task_names()
    assert read_dynamics("ada/tickets", "tickets_tiny").runs == ["0000"]
    assert get_single_task("tickets").labels == (" urgent", " later")
    other = collect_tickets(TICKETS.replace('" later"]', '" later", " never"]'), "other.toml", out="other")
    with pytest.raises(SettingsError, match=r"has another task tickets \(labels: .* here\)"):
        push(other, "ada/tickets")
