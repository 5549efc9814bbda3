"""The report of an evaluation: which curves it shows, and what it says of the data."""

from __future__ import annotations

import shlex
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np

from simulator.evaluation import EvaluateSettings, Evaluation
from simulator.report.page import Curve, write_report

# Five runs of this many test examples keep the page below about 6 MB.
EXAMPLES_SHOWN = 40


def report_evaluation(evaluation: Evaluation, settings: EvaluateSettings, path: Path) -> None:
    """Write the page of an evaluation; of a large test set, every so many-th example is shown.

    Args:
        evaluation: rows and predictions.
        settings: what was evaluated.
        path: of the page.
    """
    runs = evaluation.runs
    shown = np.unique(np.linspace(0, len(runs.test) - 1, min(EXAMPLES_SHOWN, len(runs.test))).astype(int))
    curves = [
        Curve(
            run=run,
            test_id=runs.test[at].id,
            task=runs.test[at].task,
            prompt=runs.test[at].prompt or None,
            target=runs.test[at].target or None,
            step=runs.step.tolist(),
            truth=runs.values[number, :, at].tolist(),
            predicted={name: values[number, :, at].tolist() for name, values in evaluation.predictions.items()},
        )
        for number, run in enumerate(runs.runs)
        for at in shown.tolist()
    ]
    words = ["gptfluence", "report", str(settings.dataset), "--config", settings.config, "--metric", settings.metric]
    words += [word for model in settings.models for word in ("--models", model)]
    facts = {
        "Dataset": str(settings.dataset),
        "Base model": f"{runs.base_model} ({runs.base_revision})",
        "Held-out runs": ", ".join(runs.runs),
        "Test examples shown": f"{len(shown)} of {len(runs.test)}",
        "Versions": ", ".join(f"{name} {version(name)}" for name in ("gptdynamics", "torch", "transformers")),
        "Made": time.strftime("%Y-%m-%d"),
        "Command": shlex.join([*words, "--output", str(path)]),
    }
    write_report(
        path,
        config=settings.config,
        metric=settings.metric,
        rows=[asdict(row) for row in evaluation.rows],
        curves=curves,
        facts=facts,
    )
