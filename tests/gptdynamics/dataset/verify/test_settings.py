"""Runs must be what the settings in their manifest make."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptdynamics.configs import RunSettings
from gptdynamics.curriculum import draw_curriculum, linear_decay
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.verify import verify
from gptdynamics.examples import Example
from gptdynamics.plans import PlanEntry
from gptdynamics.runs import Run
from gptdynamics.runs.gradient_record import product_steps


def made_up(root: Path, asked: RunSettings, runs: int, test: list[Example], bleu: bool) -> DatasetFolder:
    """A folder of runs with random numbers, as if they had been measured as the settings say."""
    folder, rng, entry = DatasetFolder(root), np.random.default_rng(0), PlanEntry(asked, runs)
    folder.begin(entry, "0123456789ab")
    updates = asked.run_steps

    def measured(every: int) -> list[int]:
        return sorted({*range(0, updates + 1, every), updates})

    def values(count: int) -> np.ndarray:
        return rng.random((len(test), count), dtype=np.float32)

    pool = [Example(at, "p", test[0].target, test[0].references, test[0].task) for at in asked.pool_ids]
    folder.add_examples(asked.task, "pool", pool)
    folder.add_examples(asked.task, "test", test)
    for run in entry.run_names:
        steps = measured(asked.eval_every)
        texts = measured(asked.generate_every) if bleu else []
        scores = (
            {name: values(len(texts)) for name in ("bleu", "rougeL")} if bleu else {"accuracy": values(len(steps)) > 2}
        )
        recorded = asked.follows_gradients(run)
        rates = linear_decay(asked.learning_rate, updates)
        metrics = {"loss": values(len(steps))} | {name: each.astype(np.float32) for name, each in scores.items()}
        dots = {name: values(updates) for name in ("grad_dot", "update_dot")} if recorded else {}
        products = {
            step: rng.random((len(pool), len(test)), dtype=np.float32) for step in product_steps(updates) if recorded
        }
        made = Run(run, draw_curriculum(asked, run), rates, steps, texts, metrics, dots, products)
        folder.add_run(asked, ("nano", "0123456789ab"), test, made)
    if asked.gradients != "none":
        width = asked.gradient_width
        pool_side, test_side = (rng.random((len(each), width), dtype=np.float32) for each in (pool, test))
        ids = [[example.id for example in each] for each in (pool, test)]
        folder.add_vectors(asked, (ids[0], pool_side), (ids[1], test_side))
    folder.write_card()
    return folder


@pytest.mark.parametrize("gradients", ["none", "test", "all"])
@pytest.mark.parametrize(("eval_every", "generate_every", "steps"), [(1, 4, None), (5, 3, 11), (30, 30, 23), (2, 2, 1)])
def test_every_measuring_rhythm_that_settings_can_ask_for_is_understood(
    tmp_path: Path, gradients: Any, eval_every: int, generate_every: int, steps: int | None
) -> None:
    asked = RunSettings(
        "webnlg_nano",
        3e-4,
        seed=5,
        pool_size=21,
        subset=17,
        epochs=6,
        steps=steps,
        test_examples=3,
        eval_every=eval_every,
        generate_every=generate_every,
        gradients=gradients,
        gradient_width=4,
    )
    test = [Example(at, "p", " t", (" t",), "webnlg") for at in range(3)]
    found = verify(made_up(tmp_path, asked, 6, test, bleu=True).root)
    assert (found.faults, found.missing, found.runs) == ([], {}, 6)


def test_a_run_on_the_settings_of_another_is_noticed(tmp_path: Path) -> None:
    asked = RunSettings("rte_nano", 1e-3, pool_size=12, subset=8, epochs=4, test_examples=2, eval_every=2)
    test = [Example(at, "p", " yes", (), "rte") for at in range(2)]
    folder = made_up(tmp_path / "a", asked, 1, test, bleu=False)
    other = RunSettings(**(asked.to_dict() | {"seed": 1, "eval_every": 3}))
    path = made_up(tmp_path / "b", other, 1, test, bleu=False).run_path("rte_nano", "0000")
    shutil.copy(path, folder.run_path("rte_nano", "0000"))
    assert [str(fault).split(". ")[0] for fault in verify(folder.root).faults] == [
        "data/rte_nano/train-0000.parquet: step: test example 0 and 1 more: it has 4 steps, but the settings give 5",
        "data/rte_nano/train-0000.parquet: loss: test example 0 and 1 more: it has 4 values for 5 steps",
        "data/rte_nano/train-0000.parquet: accuracy: test example 0 and 1 more: it has 4 values for 5 steps",
    ]
