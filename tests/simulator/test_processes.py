"""Several processes train the same weights as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TRAINED = """
import json, sys
import numpy as np, torch
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.curricula import Members
from simulator.training.markov_data import MarkovData
from simulator.training.markov_fit import fit_markov
from simulator.training.markov_training import MarkovChoice, MarkovTraining
from simulator.training.session import make_session

session = make_session({})
rng = np.random.default_rng(0)
curricula = [[rng.choice(12, 2).tolist() for _ in range(8)] for _ in range(12)]
values = torch.from_numpy(1 + 0.1 * rng.normal(size=(12, 9, 5)).cumsum(1)).float()
pool, test = (torch.from_numpy(rng.normal(size=(count, 4))).float() for count in (12, 5))

def data(begin, end):
    members = Members.between(curricula[begin:end], range(12), range(9))
    return [MarkovData(members, values[begin:end], pool, test, 2)]

found = [session.processes]
for changes in ({}, {"triples": True}, {"objective": "rollout"}, {"objective": "rollout", "batch_rows": 8}):
    how = MarkovTraining(**({"most_updates": 40, "batch_rows": 32, "check_every": 20} | changes))
    choice = MarkovChoice(3e-3, 1e-4, 8)
    config = GPTfluenceConfig(encoder_width=4, order=2)
    fit = fit_markov(config, data(0, 9), data(9, 12), how, choices_to_try=[choice], session=session)
    found.append([[check.loss, check.error] for check in fit.checks])
if session.main:
    print(json.dumps(found))
session.end()
"""


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(TRAINED)
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    found = []
    for launcher in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]):
        done = subprocess.run(
            [sys.executable, *launcher, str(script)], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.strip().splitlines()[-1]))
    (alone, *checks), (together, *same) = found
    assert (alone, together) == (1, 2)
    for one, two in zip(checks, same, strict=True):
        assert one == [pytest.approx(check, rel=1e-4) for check in two]
