"""Own support tickets with wrong labels, from rows to suspects, in the commands that a user types."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "tickets"
LATER = ("How do I export my invoices", "I would like to rename my workspace", "Could you add a dark theme some day")
URGENT = ("The payment page is down for everyone", "Nobody in our team can log in", "We lost data in production")


def write_tickets(folder: Path) -> list[int]:
    """Write 44 training rows, six of them with the wrong label, and 20 others; the numbers of the wrong ones."""
    folder.mkdir(parents=True)
    if SHARED.is_dir():
        for name in ("train.jsonl", "eval.jsonl"):
            (folder / name).write_text((SHARED / name).read_text(encoding="utf-8"), encoding="utf-8")
        return list(json.loads((SHARED / "wrong.json").read_text(encoding="utf-8")))
    rng = random.Random(3)
    wrong = sorted(rng.sample(range(44), 6))
    for name, count, flipped in (("train", 44, set(wrong)), ("eval", 20, set())):
        rows = []
        for at in range(count):
            is_urgent = at % 2 == 0
            text = f"{rng.choice(URGENT if is_urgent else LATER)}, case {rng.randrange(10, 100)}."
            rows.append({"id": at, "text": text, "label": "urgent" if is_urgent != (at in flipped) else "later"})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return wrong


@pytest.mark.slow
def test_from_tickets_to_wrong_labels(tmp_path: Path) -> None:
    wrong = set(write_tickets(tmp_path / "rows" / "tickets"))
    (tmp_path / "tickets.toml").write_text(
        'name = "tickets"\nprompt = "Ticket: {text}\\nUrgency:"\ntarget = " {label}"\nlabels = [" urgent", " later"]\n'
    )

    def typed(package: str, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", package, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    out = typed(
        "gptdynamics", "collect", "tickets_nano", "--task-file", "tickets.toml", "--data", "rows", "--runs", "6",
        "--output", "D",
    )  # fmt: skip
    assert "a pool of 44 (--pool), of which a run trains on 28 (--subset)" in out
    # Nothing of the task is said again.
    assert "no faults" in typed("gptdynamics", "verify", "D")
    typed("simulator", "train", "D", "--config", "tickets_nano", "--output", "M")
    assert "tickets_nano" in typed("simulator", "influence", "--model", "M", "--top", "2")
    typed("simulator", "mislabel", "D", "--config", "tickets_nano", "--output", "X")
    lines = (tmp_path / "X" / "suspects.jsonl").read_text(encoding="utf-8").splitlines()
    first_ten = {json.loads(line)["id"] for line in lines[:10]}
    assert len(first_ten & wrong) >= 5
