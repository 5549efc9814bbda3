"""What the methods' answers are worth: LDS, QLD and order, each with an interval, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.method import Method
from benchmarks.peers.retrained import Retrained, qld, qld_random
from benchmarks.peers.work import Work
from simulator.attribution.lds import RESAMPLED, Score, lds, lds_difference

OURS = "tangent"


class Answers:
    """What a method wrote: effects `[N, M, S']`, and losses of changed runs where it predicts them."""

    def __init__(self, path: Path) -> None:
        with np.load(path.with_suffix(".npz")) as file:
            self.arrays = {name: file[name] for name in file.files}
        self.cost = json.loads(path.with_suffix(".json").read_text())
        effects = self.arrays["effects"]
        self.final = effects if effects.ndim == 2 else effects[..., -1]
        self.asked = np.flatnonzero(np.isfinite(self.final).all(0))

    def left_out(self, gone: np.ndarray, steps: int) -> np.ndarray:
        """Losses of runs without some rows, but for what is the same in all: `[R, M, S]`.

        Args:
            gone: `[R, N]`, 1 where a run lacks a row.
            steps: S; one effect of a row stands for all of them.
        """
        if "left_out" in self.arrays:
            return self.arrays["left_out"]
        effects = self.arrays["effects"]
        effects = effects[..., None].repeat(steps, 2) if effects.ndim == 2 else effects
        return -np.einsum("rn,nms->rms", gone, effects)


def score_row(
    method: Method,
    answers: Answers,
    ours: Answers | None,
    work: Work,
    truth: np.ndarray,
    gone: np.ndarray,
) -> dict[str, Any]:
    """LDS at the last step and averaged over steps, how far ours is ahead on the same test examples, and cost."""
    asked = answers.asked
    predicted = answers.left_out(gone, truth.shape[-1])[:, asked, 1:]
    true = truth[:, asked, 1:]
    row: dict[str, Any] = {"method": method.name, "title": method.title, "note": method.note}
    row |= {"answers": list(method.answers), "asked": len(asked), **answers.cost}
    row["lds_last"], row["lds_mean"] = asdict(lds(predicted[..., -1], true[..., -1])), asdict(lds(predicted, true))
    if ours is not None and ours is not answers:
        mine = ours.left_out(gone, truth.shape[-1])[:, asked, 1:]
        row["ahead_last"] = asdict(lds_difference(mine[..., -1], predicted[..., -1], true[..., -1]))
        row["ahead_mean"] = asdict(lds_difference(mine, predicted, true))
    return row


def add_order(row: dict[str, Any], answers: Answers, truth: np.ndarray) -> None:
    """LDS of the same rows in other orders, at the last step."""
    if "reordered" in answers.arrays:
        row["lds_order"] = asdict(lds(answers.arrays["reordered"][: len(truth), :, -1], truth[..., -1]))


def add_qld(row: dict[str, Any], answers: Answers, retrained: Retrained) -> None:
    """How much more a loss rises without the most helpful tenth than without a random one, in nats."""
    row["qld"] = asdict(_mean(qld(retrained, answers.final) - qld_random(retrained).mean(0)))


def _mean(values: np.ndarray, seed: int = 0) -> Score:
    drawn = values[np.random.default_rng(seed).integers(len(values), size=(RESAMPLED, len(values)))].mean(1)
    return Score(float(values.mean()), *map(float, np.quantile(drawn, [0.025, 0.975])), examples=len(values))


def best_of(rows: Sequence[dict[str, Any]], name: str) -> set[str]:
    """Methods that nothing is better than beyond the interval: the first, where it is alone; else none.

    Args:
        rows: of one table.
        name: a score with an interval.
    """
    scored = sorted((row for row in rows if row.get(name)), key=lambda row: -(row[name]["value"] or 0))
    if len(scored) < 2:
        return set()
    first, second = scored[:2]
    low, high = first[name]["low"], second[name]["high"]
    return {first["method"]} if low is not None and high is not None and low > high else set()


def left_out_of(work: Work) -> np.ndarray:
    """Which rows each changed run lacks: `[R, N]`."""
    visited = [{key for batch in curriculum for key in batch} for curriculum in work.changed["left_out"]]
    return np.array([[row not in rows for row in work.rows] for rows in visited], dtype=float)
