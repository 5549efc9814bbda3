"""Rows that are few, alike or empty, through every command: each works, or says in one line why not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import gptdynamics.cli
import simulator.cli
from gptdynamics.dataset import read_dynamics

LABELS = ("urgent", "later")
Rows = list[dict[str, object]]


def rows(count: int, first: int = 0, label: str | None = None, text: str | None = None, name: str = "") -> Rows:
    """Rows with numbers as ids, or with texts that begin with a name."""
    return [
        {
            "id": f"{name}{at}" if name else at,
            "text": f"ticket {at}" if text is None else text,
            "label": label or LABELS[at % 2],
        }
        for at in range(first, first + count)
    ]


CASES: dict[str, tuple[Rows, Rows, dict[str, str]]] = {
    "two": (rows(2), rows(2, 2), {"validate": "leaving 1 of 1 examples out empties a batch, whichever they are"}),
    "one_label": (
        rows(12, label="urgent"),
        rows(6, label="urgent"),
        {"mislabel": "all 12 rows have the label ' urgent': no other says that one is wrong"},
    ),
    "empty": (rows(12, text=""), rows(6, text=""), {"collect": "rows/odd_empty/train.jsonl:1: field 'text' is empty"}),
    "same": (rows(12), rows(12), {}),
    "named": (rows(12, name="ticket-"), rows(6, name="later-"), {}),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case in ("same", "two") else case for case in CASES]
)
def test_odd_rows_work_or_are_refused_in_a_line(
    case: str,
    tiny_model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quick_markov: None,
) -> None:
    train, test, refused = CASES[case]
    task = f"odd_{case}"
    (tmp_path / "rows" / task).mkdir(parents=True)
    for name, part in (("train", train), ("eval", test)):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (tmp_path / "rows" / task / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "task.toml").write_text(
        f'name = "{task}"\nprompt = "{{text}}?"\ntarget = " {{label}}"\nlabels = [" urgent", " later"]\n'
    )
    # Datasets name the folder of their base model without its path.
    (tmp_path / tiny_model_folder.name).symlink_to(tiny_model_folder)
    monkeypatch.chdir(tmp_path)

    def typed(main: Callable[[], None], *words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["typed", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        err = capsys.readouterr().err
        if words[0] in refused:
            # A bar may stand before it.
            assert stopped.value.code == 1 and err.splitlines()[-1].startswith(f"error: {refused[str(words[0])]}")
        else:
            assert not stopped.value.code, err

    typed(
        gptdynamics.cli.main, "collect", f"{task}_tiny", "--task-file", "task.toml", "--data", "rows", "--runs", 6,
        "--base-model", tiny_model_folder.name, "--learning-rate", 1e-2, "--epochs", 2, "--workers", 1, "--output", "D",
    )  # fmt: skip
    if "collect" in refused:
        return
    typed(gptdynamics.cli.main, "verify", "D")
    fact = read_dynamics("D", f"{task}_tiny")
    assert [each.prompt for each in fact.pool] == [f"{row['text']}?" for row in train]
    typed(simulator.cli.main, "influence", "D")
    typed(simulator.cli.main, "mislabel", "D", "--runs", 6, "--workers", 1, "--output", "X")
    trial = ("--workers", 1, "--output")
    typed(simulator.cli.main, "select", "D", "--count", len(train) // 2, "--seeds", 1, "--random", 2, *trial, "S")
    typed(simulator.cli.main, "validate", "D", "--each", 3, "--measured", 2, *trial, "V")
