"""How many training runs a simulator needs: skill on runs held out, and LDS, by the number that it was fitted on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gptdynamics.dataset import Dynamics
from simulator.attribution.lds import Score, lds
from simulator.baselines import MeanCurve, NotApplicableError, Predictor
from simulator.evaluation.evaluate import simulators_to_train
from simulator.evaluation.simulated import Simulated, name_of
from simulator.experiments.retraining_methods import RetrainedTestRuns
from simulator.experiments.workbench import UNTRAINABLE, Workbench, score_part
from simulator.reporting.numbers import number_text
from simulator.reporting.result import Figure, Panel, Result, Series, Table
from simulator.settings.evaluate import EvaluateSettings
from simulator.training import TrainSettings
from simulator.training.fitting import fitter_named
from simulator.training.reference_kernels import reference_run_names

METRIC = "loss"
NUMBERS = (1, 2, 4, 8, 16)
# Choices of the runs for each number; the first are those that were collected first.
DRAWS = 3
SCORES = {"skill": "skill on runs held out", "lds": "LDS, last step"}
NOTES = (
    "Simulators are fitted on training runs alone: validation runs and their retrainings, which choose settings "
    "elsewhere, would be further runs. The first draw of a number is the runs that were collected first; others are "
    "random, with the reference run always among them. In brackets is the deviation over draws.",
    "Skill is measured against the same mean curve for every number: that of all training and validation runs. So few "
    "runs pay for the error of their own mean curve, whose skill is in the first lines.",
    "tangent has the coefficients that are shipped with the package where it is fitted on a single run, and is drawn "
    "towards them where that predicts runs left out better. It has a second reference run where the draw has one.",
    "LDS is over retrainings of test runs with rows left out, at the last step. A mean curve is the same for all of "
    "them and changes no rank.",
)


@dataclass(frozen=True)
class Scored:
    """What simulators are scored on.

    Attributes:
        seen: training and validation runs, whose mean curve skill is measured against.
        held_out: runs for skill.
        retrainings: for LDS, or None.
    """

    seen: Dynamics
    held_out: Dynamics
    retrainings: RetrainedTestRuns | None

    def scores(self, method: Predictor) -> dict[str, float | int | None]:
        """Skill, and LDS with its interval; that of a mean curve, which ranks nothing, is undefined."""
        skill = score_part(method.predict(self.held_out), self.held_out, self.seen, 1).skill
        row: dict[str, float | int | None] = {"skill": skill}
        if self.retrainings is None:
            return row
        again, score = self.retrainings, Score(None, None, None, 0)
        if isinstance(method, Simulated):
            score = lds(method.predict(again.runs)[:, -1], again.runs.values[:, -1], again.repeated)
        row |= {"lds": score.value, "lds_low": score.low, "lds_high": score.high}
        return row | {"retrainings": len(again.repeated)}


def draws(runs: Dynamics, number: int, seed: int = 0) -> list[list[int]]:
    """Places of so many of the runs, the first reference run (else the first run) among them, for each draw.

    The first draw takes the runs in their order; of all runs, and of one, there is no other.
    """
    references = reference_run_names(runs)
    first = runs.runs.index(references[0]) if references else 0
    others = [place for place in range(len(runs.runs)) if place != first]
    chosen = [others[: number - 1]]
    rng = np.random.default_rng([seed, number])
    while 1 < number <= len(others) and len(chosen) < DRAWS:
        chosen.append(rng.choice(others, size=number - 1, replace=False).tolist())
    return [sorted([first, *each]) for each in chosen]


def number_of_runs(bench: Workbench) -> Result:
    """Fit on 1, 2, 4, 8, 16 and all training runs of each config."""
    result, configs = bench.begin()
    for config in configs:
        runs = bench.runs(config, METRIC)
        seen = runs.split("train", "validation")
        retrainings = None
        try:
            every = bench.runs(config, METRIC, counterfactual=True)
            retrainings = RetrainedTestRuns.of(every, seen, bench.on_phase, bench.on_progress)
        except NotApplicableError as error:
            result.skipped.append(f"{error}; no LDS")
        scored = Scored(seen, runs.split("test"), retrainings)
        rows = list(fitted_on_few(bench, config, runs.split("train"), scored, result.skipped))
        if rows:
            result.rows.extend(rows)
            result.tables.append(_table(config, rows))
            result.figures.append(_figure(config, rows))
    if result.rows:
        result.notes.extend(NOTES)
    return result


def fitted_on_few(
    bench: Workbench, config: str, training: Dynamics, scored: Scored, skipped: list[str]
) -> Iterator[dict[str, Any]]:
    """A row for each method, number of runs and draw.

    Args:
        bench: trains the simulators.
        config: of the runs.
        training: the runs that some are drawn of.
        scored: what is scored.
        skipped: gets the reasons why a method has no answer, with the numbers for which it has none.
    """
    numbers = [*[number for number in NUMBERS if number < len(training.runs)], len(training.runs)]
    for method, fit in _methods(bench, config):
        without: dict[int, str] = {}
        for number in numbers:
            for draw, places in enumerate(draws(training, number)):
                few = training.take(places)
                try:
                    fitted = fit(few)
                except UNTRAINABLE as error:
                    without[number] = str(error)
                    break
                about = {"config": config, "metric": METRIC, "method": method, "number": number, "draw": draw}
                yield about | {"runs": few.runs} | scored.scores(fitted)
        if without:
            *_, reason = without.values()
            skipped.append(f"{config}, {method}, fitted on {', '.join(map(str, without))}: {reason}")


def _methods(bench: Workbench, config: str) -> Iterator[tuple[str, Fit]]:
    """The mean curve, and the simulators of an evaluation that have a closed form: others take minutes for each fit."""
    yield MeanCurve.name, MeanCurve
    for settings in simulators_to_train(EvaluateSettings(bench.dataset, config, METRIC), bench.runs(config, METRIC)):
        if fitter_named(settings.dynamics).has_closed_form:
            yield name_of(settings, settings.encoder), partial(_simulator, bench, settings)


def _simulator(bench: Workbench, settings: TrainSettings, runs: Dynamics) -> Predictor:
    return Simulated(bench.trained(settings, runs).model)


Fit = Callable[[Dynamics], Predictor]
Summary = tuple[float | None, float | None]


def over_draws(rows: list[dict[str, Any]], method: str, number: int, score: str) -> Summary:
    """The mean of a score over draws and its deviation; None where it is undefined, or there is one draw."""
    mine = [row for row in rows if (row["method"], row["number"]) == (method, number)]
    values = [row.get(score) for row in mine]
    defined = [value for value in values if value is not None]
    if not defined or len(defined) < len(values):
        return None, None
    return float(np.mean(defined)), float(np.std(defined, ddof=1)) if len(defined) > 1 else None


def _lines(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[int], Callable[[int, str], Summary]]]:
    """Each method with its numbers of runs, and its scores by number and name."""
    for method in dict.fromkeys(row["method"] for row in rows):
        numbers = list(dict.fromkeys(row["number"] for row in rows if row["method"] == method))
        yield method, numbers, partial(over_draws, rows, method)


def _wanted(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The scores that there are, with their titles."""
    return {score: title for score, title in SCORES.items() if any(score in row for row in rows)}


def _table(config: str, rows: list[dict[str, Any]]) -> Table:
    """A line for each method and number of runs."""
    wanted = _wanted(rows)
    cells = [
        [
            method,
            str(number),
            str(sum((row["method"], row["number"]) == (method, number) for row in rows)),
            *[number_text(*summary(number, score)) for score in wanted],
        ]
        for method, numbers, summary in _lines(rows)
        for number in numbers
    ]
    columns = ["method", "runs", "draws", *wanted.values()]
    return Table(f"{config}, {METRIC}: fitted on some of the training runs", columns, cells)


def _figure(config: str, rows: list[dict[str, Any]]) -> Figure:
    """A panel for each score: a line for each method over the number of runs, bars over draws."""
    panels = []
    for score, title in _wanted(rows).items():
        series = []
        for method, numbers, summary in _lines(rows):
            values = [summary(number, score) for number in numbers]
            spread = [deviation or 0.0 for _, deviation in values]
            if any(value is not None for value, _ in values):
                series.append(Series(method, numbers, [value for value, _ in values], spread=spread))
        panels.append(Panel("", "training runs", title, series, kind="points"))
    return Figure(f"{config}: fitted on some of the training runs", panels)
