"""Names and files of the paper authors' layout, as tests make and change them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

RTE = (
    "runs/rte/output_rte_bs-4_shot-200_sample-128_model-pythia-410m-deduped_lr-5e-7_weight-decay-0.001_epoch-3_seed-{}"
)
WEBNLG = RTE.replace("rte", "webnlg").replace("_seed", "_loss-output-token_seed")
FLAN = "runs/flan/output_flan_bs-8_shot-200_sample-128_model-{}_lr-5e-7_weight-decay-0.001_epoch-3_seed-{}"
POOL, TESTS, STEPS, RUNS = 40, 7, 12, 7
FILES = {metric: f"all_{metric}_trajectory.out" for metric in ("loss", "bleu", "rougeL")}


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def change(path: Path, how: Callable[[list[Any]], Iterable[Any]]) -> None:
    write_lines(path, how(read_lines(path)))


def files(root: Path) -> dict[str, Any]:
    """The JSON values of every file under a folder."""
    return {path.relative_to(root).as_posix(): read_lines(path) for path in root.rglob("*") if path.is_file()}
