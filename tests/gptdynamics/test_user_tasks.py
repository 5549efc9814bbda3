from __future__ import annotations

from pathlib import Path

import pytest

from gptdynamics.errors import SettingsError
from gptdynamics.tasks import add_task_file, get_task, load_examples
from gptdynamics.tasks.user_tasks import VARIABLE

TICKETS = '''
from gptdynamics.tasks import Task

class Tickets(Task):
    """Where a support ticket goes."""
    name = "tickets"
    fields = {"text": str, "team": str}
    plain = "Ticket: {text}\\nTeam:"
    labels = (" sales", " support")

    def target(self, row):
        return f" {row['team']}"
'''


@pytest.fixture(autouse=True)
def no_task_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")


def test_a_task_of_ones_own_is_known_by_name_and_loads_rows(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TICKETS)
    add_task_file(tmp_path / "mine.py")
    rows = tmp_path / "tickets" / "train.jsonl"
    rows.parent.mkdir()
    rows.write_text('{"text": "It broke {again}", "team": "support"}\n')
    (example,) = load_examples(get_task("tickets"), "pool", 1, tmp_path)
    assert (example.prompt, example.target) == ("Ticket: It broke {again}\nTeam:", " support")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no subclass of"),
        ("1 / 0", "ZeroDivisionError"),
        (TICKETS.replace('"tickets"', '"rte"'), "a task 'rte', which there is already"),
        (TICKETS.replace('"tickets"', '"../x"'), "may have letters"),
        (TICKETS.replace("plain =", "other ="), "lacks plain"),
        (TICKETS.replace("def target", "def goal"), "lacks target"),
        (TICKETS.replace("fields =", "others ="), "lacks fields"),
    ],
)
def test_a_faulty_task_file_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(SettingsError, match=message):
        add_task_file(tmp_path / "mine.py")
        get_task("rte")


def test_a_missing_task_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such task file"):
        add_task_file(tmp_path / "none.py")
