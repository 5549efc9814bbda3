"""The script of `make round-trip`, in a short form: two users and their clients, over a loopback Hub that serves Xet.

Two dozen processes start one after another: `make test-slow`. tests/simulator/test_two_users.py does it in one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_everything_round_trips_through_the_hub(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "GPTDYN"))}
    short = {"STEPS": "4", "TESTS": "4", "WORKERS": "1", "ENCODER": "label", "OMP_NUM_THREADS": "1"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [ROOT / "tools" / "round_trip.sh", tmp_path],
        env=kept | short | {"PATH": path, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [f"{at:04}" for at in range(8)]
    for repository in ("gptdynamics/gptdynamics", "ben/dynamics"):
        assert f"{repository} {runs} 4\n" in done.stdout
    assert "torch.Size([4, 5])" in done.stdout
