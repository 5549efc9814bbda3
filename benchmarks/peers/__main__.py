"""All methods on one table: `python -m benchmarks.peers --data DIR` (hours; it goes on where it was interrupted)."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.environments import NoEnvironmentError, python_of, variables
from benchmarks.peers.make_work import make_work, read_runs, retrainings_of
from benchmarks.peers.method import Method
from benchmarks.peers.page import NOT_ASKED, page
from benchmarks.peers.pictures import draw_cost
from benchmarks.peers.registry import METHODS
from benchmarks.peers.retrained import QLD_TESTS, Retrained, order_truth
from benchmarks.peers.table import OURS, Answers, add_order, add_qld, left_out_of, score_row
from benchmarks.peers.work import Work
from gptdynamics.errors import GPTDynamicsError


def ask_method(method: Method, work: Work, output: Path, minutes: float | None = None, threads: int = 1) -> str | None:
    """Run a method in its environment unless it has run; the reason if it cannot.

    Args:
        method: which.
        work: what it is given.
        output: the folder of its answers; environments are beside it.
        minutes: after which it is ended.
        threads: of its process.
    """
    path = output / method.name
    if path.with_suffix(".npz").exists():
        return None
    try:
        python = python_of(method.requirements, output.parent / "environments")
    except NoEnvironmentError as error:
        return str(error)
    print(f"{work.config}, run {work.run}: {method.title}", flush=True)
    command = [str(python), "-m", "benchmarks.peers.one", method.name, str(work.folder), str(path), work.device]
    limit = None if minutes is None else 60 * minutes
    try:
        # Packages report on both; of what they say to the first nothing is needed.
        done = subprocess.run(
            command,
            env=variables(threads),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return f"ended after {minutes:g} minutes"
    if not done.returncode:
        return None
    path.with_suffix(".error.txt").write_text(done.stderr)
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"ended with code {done.returncode}"


def compare(asked: argparse.Namespace, config: str, run: str) -> dict[str, Any]:
    """The table of one run."""
    output = asked.output / f"{config}-{run}"
    work = make_work(asked.dataset, config, run, asked.data, output / "work", asked.device)
    # The methods need what making the run took up.
    torch.cuda.empty_cache()
    truth = retrainings_of(read_runs(asked.dataset, config, asked.data, counterfactual=True), run).values
    not_run = {METHODS[name].title: NOT_ASKED for name in METHODS if name not in asked.methods}
    answers = {}
    # Seconds are of one core unless there is a GPU to wait for.
    threads = 1 if asked.device == "cpu" else max(1, (os.cpu_count() or 1) // asked.processes)
    ask = partial(ask_method, work=work, output=output, minutes=asked.minutes, threads=threads)
    with ThreadPoolExecutor(asked.processes) as pool:
        reasons = list(pool.map(ask, [METHODS[name] for name in asked.methods]))
    for name, reason in zip(asked.methods, reasons, strict=True):
        if reason is None:
            answers[name] = Answers(output / name)
        else:
            not_run[METHODS[name].title] = reason
    gone, retrained = left_out_of(work), Retrained(work, output / "retrained")
    rows = [score_row(METHODS[name], each, answers.get(OURS), work, truth, gone) for name, each in answers.items()]
    orders = order_truth(retrained, asked.orders) if asked.orders else np.empty(0)
    for row in rows:
        if asked.orders:
            add_order(row, answers[row["method"]], orders)
        if row["method"] in asked.qld:
            add_qld(row, answers[row["method"]], retrained)
    about = {"config": config, "run": run, "retrainings": len(truth), "rows_visited": len(work.rows)}
    about |= {"device": work.device, "processes": asked.processes, "repeated": work.repeated}
    return about | {"tests": len(work.tests), "step": work.step, "rows": rows, "not_run": not_run}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--dataset", default="gptdynamics", help="with runs made again with rows left out")
    parser.add_argument("--runs", nargs="+", default=["sst2_nano:0004"], metavar="CONFIG:RUN")
    parser.add_argument("--data", default="", help="folder with the rows' texts, <task>/train.jsonl")
    parser.add_argument("--output", type=Path, default=Path("out/peers"), help="what is gone on with")
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="peers.json, the page, the pictures")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="NAME")
    parser.add_argument("--qld", nargs="*", default=[OURS, "memory", "magic", "ekfac", "tracin", "same_target"])
    parser.add_argument("--orders", type=int, default=8, help="runs in another order, at most 16")
    parser.add_argument("--device", default="cpu", help="that models are on, such as cuda")
    parser.add_argument("--processes", type=int, default=1, help="methods side by side")
    parser.add_argument("--minutes", type=float, help="after which a method is ended")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask every method, and write what came of it."""
    asked = parse(arguments)
    try:
        tables = [compare(asked, *each.split(":")) for each in asked.runs]
    except GPTDynamicsError as error:
        raise SystemExit(f"error: {error}") from error
    result = {"qld_tests": QLD_TESTS, "tables": tables}
    asked.results.mkdir(parents=True, exist_ok=True)
    (asked.results / "peers.json").write_text(json.dumps(result, indent=1) + "\n")
    (asked.results / "peers.md").write_text(page(result))
    for table in tables:
        title = f"{table['config']}, run {table['run']}, {table['retrainings']} retrainings"
        draw_cost(table["rows"], title, asked.results / f"peers-cost-{table['config']}.svg")


if __name__ == "__main__":
    main()
