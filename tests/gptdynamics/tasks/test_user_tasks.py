"""Tasks from files of a user's own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi

from gptdynamics.errors import DataError, SettingsError
from gptdynamics.tasks import add_task_file, get_task, load_examples, task_names
from gptdynamics.tasks.user_tasks import VARIABLE

TICKETS = '''
from gptdynamics.tasks import Task

class SupportTickets(Task):
    """Which team a support ticket goes to."""
    name = "support_tickets"
    fields = {"text": str, "team": str}
    plain = "Ticket: {text}\\nTeam:"
    labels = (" sales", " support")

    def target(self, row):
        return f" {row['team']}"
'''
GENERATED = """
from gptdynamics.tasks import Task

class Sums(Task):
    name = "sums"
    fields = {"a": int, "b": int}

    def prompt(self, row):
        return f"{row['a']} + {row['b']} ="

    def target(self, row):
        return f" {row['a'] + row['b']}"

    def references(self, row):
        return [str(row["a"] + row["b"])]

    def rows(self, split):
        return [{"a": number, "b": 1 if split == "train" else 2} for number in range(20)]
"""
DOCS = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "own-task.md"


def task_file(folder: Path, text: str, name: str = "mine.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def from_docs(part: str) -> str:
    """The block of the documentation that has this in it."""
    (block,) = [each for each in re.findall(r"```\w+\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL) if part in each]
    return str(block)


def tickets(folder: Path, rows: list[dict[str, Any]], split: str = "train") -> None:
    path = folder / "support_tickets" / f"{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_task_of_ones_own_is_known_by_name_and_loads_rows(tmp_path: Path) -> None:
    add_task_file(task_file(tmp_path, TICKETS))
    assert task_names()[-1] == "support_tickets"
    tickets(tmp_path, [{"text": "It broke {again}", "team": "support"}])
    (example,) = load_examples(get_task("support_tickets"), "pool", 1, tmp_path)
    assert (example.prompt, example.target) == ("Ticket: It broke {again}\nTeam:", " support")
    assert (example.task, example.source["licence"]) == ("support_tickets", "not stated")
    assert get_task("support_tickets").metrics == ("loss", "accuracy")


def test_bad_rows_of_such_a_task_are_refused_like_others(tmp_path: Path) -> None:
    add_task_file(str(task_file(tmp_path, TICKETS)))
    task = get_task("support_tickets")
    tickets(tmp_path, [{"text": "x", "team": "support"}, {"text": "x", "team": "legal"}])
    with pytest.raises(DataError, match=r"train\.jsonl:2: answer ' legal' is not one of ' sales', ' support'"):
        load_examples(task, "pool", 1, tmp_path)
    with pytest.raises(DataError, match="task support_tickets has no Hub dataset: give local rows with --data DIR"):
        load_examples(task, "pool", 1)


def test_a_task_may_make_its_rows_and_override_the_prompt_alone(tmp_path: Path) -> None:
    add_task_file(task_file(tmp_path, GENERATED))
    pool, test = (load_examples(get_task("sums"), part, 20) for part in ("pool", "test"))
    assert (pool[3].prompt, pool[3].target, pool[3].references) == ("3 + 1 =", " 4", ("4",))
    assert test[3].prompt == "3 + 2 ="
    assert get_task("sums").metrics == ("loss", "bleu", "rougeL")


def test_a_task_may_name_a_hub_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": "Rates rise.", "label": 2}, {"text": "Rates fall.", "label": 4}]
    asked: dict[str, Any] = {}

    def resolve_revision(api: HfApi, repo_id: str, **options: Any) -> SimpleNamespace:
        return SimpleNamespace(resolved=f"commit of {repo_id} {options['revision']}")

    def load_dataset(*names: Any, **options: Any) -> list[dict[str, Any]]:
        asked.update(options)
        return rows

    monkeypatch.setattr(HfApi, "resolve_revision", resolve_revision)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    add_task_file(task_file(tmp_path, from_docs("class AGNews")))
    (example,) = load_examples(get_task("agnews"), "pool", 1)
    assert asked["revision"] == example.source["revision"] == "commit of fancyzhx/ag_news main"
    assert (example.prompt, example.target) == ("Rates rise.\nTopic:", " Business")
    with pytest.raises(DataError, match=r"ag_news train\[1\]: answer ' 4' is not one of ' World', ' Sports'"):
        load_examples(get_task("agnews"), "pool", 2)


def test_files_add_up_and_one_may_be_named_twice(tmp_path: Path) -> None:
    first, second = task_file(tmp_path / "a", TICKETS), task_file(tmp_path / "b", GENERATED)
    for path in (first, second, first):
        add_task_file(path)
    assert os.environ[VARIABLE] == f"{first}{os.pathsep}{second}"
    assert task_names()[-2:] == ["support_tickets", "sums"]


def test_names_starting_with_an_underscore_are_bases_not_tasks(tmp_path: Path) -> None:
    text = TICKETS.replace("class SupportTickets(Task)", "class _Base(Task)")
    text += '\nclass Mine(_Base):\n    name = "mine"\n'
    add_task_file(task_file(tmp_path, text))
    assert task_names()[-1] == "mine"
    assert "support_tickets" not in task_names()


def test_other_processes_know_the_tasks(tmp_path: Path) -> None:
    add_task_file(task_file(tmp_path, TICKETS))
    code = "from gptdynamics.tasks import get_task; print(get_task('support_tickets').plain)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "Ticket: {text}\nTeam:\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no subclass of gptdynamics.tasks.Task"),
        ("from gptdynamics.tasks.rte import RTE", "has no subclass of"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("raise SystemExit('so\\nlong')", "cannot be imported: SystemExit: so long"),
        ("class :", "cannot be imported: SyntaxError"),
        (TICKETS.replace('"support_tickets"', '"rte"'), "there is a task 'rte' already: give this one another name"),
        (TICKETS.replace('"support_tickets"', '"flan"'), "there is a task 'flan' already"),
        (TICKETS + TICKETS.replace("SupportTickets", "Again"), "there is a task 'support_tickets' already"),
        (TICKETS.replace('"support_tickets"', '"../x"'), "may have letters"),
        (TICKETS.replace("name =", "title ="), "SupportTickets lacks name"),
        (TICKETS.replace("fields =", "others ="), "SupportTickets lacks fields"),
        (TICKETS.replace('{"text": str, "team": str}', '("text", "team")'), "must name fields with their types"),
        (TICKETS.replace("plain =", "other ="), "SupportTickets lacks plain"),
        (TICKETS.replace("def target", "def goal"), "SupportTickets lacks target"),
        (TICKETS.replace("{text}", "{text"), "template .* write literal braces as"),
        (TICKETS.replace('" sales"', '" "'), "' ' must be a text that is not empty"),
        (TICKETS.replace('" sales"', "3"), "3 must be a text that is not empty"),
        (TICKETS.replace('(" sales", " support")', '(" sales")'), "labels must be a tuple of str"),
        (
            TICKETS.replace("    labels =", '    text_tokenizer = "mecab"\n    labels ='),
            "text_tokenizer = 'mecab' must be one of 13a, intl, zh, char, or None",
        ),
        (TICKETS.replace('(" sales", " support")', '(" sales",)'), "at least two"),
        (TICKETS.replace('(" sales", " support")', '(" sales", " sales")'), "different from each other"),
        (TICKETS.replace('(" sales", " support")', '(" sales", ["a"])'), r"labels: \['a'\] must be a text"),
        (TICKETS + '    scenario = "instruct"\n', "SupportTickets lacks instructions"),
        (TICKETS + '    scenario = "both"\n', "scenario = 'both' must be 'finetune' or 'instruct'"),
        (TICKETS + "    scenario = 3\n", "scenario = 3 must be 'finetune' or 'instruct'"),
        (TICKETS + '    instructions = ("{text}:", 3)\n', "instructions: 3 must be a text"),
        (TICKETS + '    instructions = "{text}:"\n', "instructions must be a tuple of str"),
        (TICKETS + "    plain = 3\n", "plain = 3 must be a str"),
        (TICKETS + '    plain = "{text} \\ud83d"\n', "template .* surrogates not allowed"),
        (TICKETS + "    name = 3\n", "name = 3 may have letters"),
        (TICKETS + "    fields = 3\n", "fields = 3 must name fields with their types"),
        (TICKETS + "    fields = {3: str}\n", "must name fields with their types"),
        (TICKETS + "    hub = 'owner/name'\n", "hub = 'owner/name' must be a gptdynamics.tasks.HubSource"),
        (
            TICKETS + "    from gptdynamics.tasks import HubSource\n    hub = HubSource('a/b', None, 'train', 'mit')\n",
            "hub: splits = 'train' must be a dict with the keys 'train' and 'eval'",
        ),
        (TICKETS + "    def __init__(self, size):\n        pass\n", "cannot be imported: TypeError"),
    ],
)
def test_a_faulty_task_file_is_refused_in_one_line_and_not_kept(tmp_path: Path, text: str, message: str) -> None:
    path = task_file(tmp_path, text)
    with pytest.raises(SettingsError, match=message) as error:
        add_task_file(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert not os.environ[VARIABLE]
    assert get_task("rte").name == "rte"


def test_a_missing_file_and_one_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.py: no such task file"):
        add_task_file(tmp_path / "none.py")
    with pytest.raises(SettingsError, match=r"mine\.txt: a task file must be a Python file"):
        add_task_file(task_file(tmp_path, TICKETS, "mine.txt"))
    with pytest.raises(SettingsError, match="Rename the file or its folder"):
        add_task_file(task_file(tmp_path / f"a{os.pathsep}b", TICKETS))


def test_a_faulty_file_in_the_environment_is_an_error_not_a_missing_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone.py"))
    with pytest.raises(SettingsError, match=r"gone\.py: no such task file .--task-file, .GPTDYNAMICS_TASKS"):
        get_task("rte")
