"""The README: its headline is what the bundled runs give, and what it prints runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import simulator

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_headline_is_what_the_bundled_runs_give() -> None:
    model = simulator.train("gptdynamics", "sst2_smollm2", bands=False).model
    scores = simulator.evaluate("gptdynamics", "sst2_smollm2", models=model, baselines=["mean_curve"])
    skill = {row.method: row.skill for row in scores.rows}
    (row,) = re.findall(r"^\| \*\*tangent\*\*.*$", TEXT, re.MULTILINE)
    printed = float(row.split("|")[2].strip(" *"))
    assert skill["mean_curve"] == 0 and skill["tangent"] is not None
    assert abs(skill["tangent"] - printed) <= 0.02


@pytest.mark.slow
def test_every_example_runs_as_printed(tmp_path: Path) -> None:
    here = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = str(ROOT)
    blocks = re.findall(r"^```(python|bash)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    examples = [(kind, text) for kind, text in blocks if not text.startswith("make ")]
    assert [kind for kind, _ in examples] == ["bash", "python", "python", "bash"]
    for kind, text in examples:
        words = [sys.executable, "-c", text] if kind == "python" else ["bash", "-ec", text]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.strip(), text
