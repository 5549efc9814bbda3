"""How many training runs a simulator needs: skill on runs held out, and LDS, by the number that it was fitted on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from gptdynamics.dataset import Dynamics
from simulator.attribution.lds import Score, lds
from simulator.baselines import MeanCurve, NotApplicableError, Predictor
from simulator.evaluation.evaluate import simulators_to_train
from simulator.evaluation.simulated import Simulated, name_of
from simulator.experiments.comparison import MOST_PANELS, SKILL_RANGE, Row, distinct, grid
from simulator.experiments.retraining_methods import RetrainedTestRuns
from simulator.experiments.workbench import UNTRAINABLE, Workbench, score_part
from simulator.reporting.numbers import number_text
from simulator.reporting.result import Figure, Panel, Result, Series
from simulator.settings.evaluate import EvaluateSettings
from simulator.training import TrainSettings
from simulator.training.fitting import fitter_named
from simulator.training.reference_kernels import reference_run_names

METRIC = "loss"
NUMBERS = (1, 2, 4, 8, 16)
# Choices of the runs for each number; the first are those that were collected first.
DRAWS = 3
# The column of all training runs, however many a config has.
ALL = "all"
SCORES = {"skill": "skill", "lds": "LDS, last step"}
NOTES = (
    f"Fitted on training runs alone, and settings chosen on them. A figure is the mean of {DRAWS} draws of runs, "
    "with their standard deviation in brackets; the run that gradients were recorded along is in every draw. One "
    "run, and all runs, are a single draw.",
    "Skill is measured against the mean curve of all training and validation runs. A simulator of few runs starts from "
    "their own mean curve, which is worse: see `mean_curve`. Skills below -1 are outside the picture. LDS is over "
    "retrainings of test runs with rows left out.",
    "From a single run, tangent takes coefficients that come with the package. They were fitted on sst2_nano and "
    "sst2_smollm2: on these two configs, the column of one run is better than new data would give.",
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
            score = lds(method.predict(again.runs)[..., -1], again.runs.values[..., -1], again.repeated)
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
        result.rows.extend(fitted_on_few(bench, config, runs.split("train"), scored, result.skipped))
    return result


def fitted_on_few(
    bench: Workbench, config: str, training: Dynamics, scored: Scored, skipped: list[str]
) -> Iterator[Row]:
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


def over_draws(rows: list[Row], score: str) -> list[Row]:
    """A row for each config, method and number of runs: the mean of a score over draws and its deviation.

    The mean is None where a draw has no score, the deviation where there is one draw; `runs` is the number, or `all`.
    """
    most = {row["config"]: row["number"] for row in rows}
    keys = dict.fromkeys((row["config"], row["method"], row["number"]) for row in rows)
    means = []
    for key in keys:
        values = [row.get(score) for row in rows if (row["config"], row["method"], row["number"]) == key]
        defined = [value for value in values if value is not None]
        whole = bool(defined) and len(defined) == len(values)
        mean = float(np.mean(defined)) if whole else None
        deviation = float(np.std(defined, ddof=1)) if whole and len(defined) > 1 else None
        config, method, number = key
        runs = ALL if number == most[config] else number
        means.append(
            {"config": config, "method": method, "number": number, "runs": runs, "mean": mean, "std": deviation}
        )
    return means


def show_number_of_runs(rows: list[Row]) -> Result:
    """A table for each score; panels for the first configs with retrainings, else of all."""
    page = Result()
    with_lds = distinct([row for row in rows if row.get("lds") is not None], "config")
    drawn = (with_lds or distinct(rows, "config"))[: MOST_PANELS // 2]
    panels: list[tuple[int, Panel]] = []
    for score, title in SCORES.items():
        means = over_draws(rows, score)
        means.sort(key=lambda row: row["runs"] == ALL)
        page.tables.extend(
            grid(
                f"{title}, by number of training runs",
                means,
                lambda row: number_text(row["mean"], row["std"], decimals=2),
                ("config", "method"),
                "runs",
            )
        )
        for place, config in enumerate(drawn):
            mine = [row for row in means if row["config"] == config and row["mean"] is not None]
            series = [_series(method, mine) for method in distinct(mine, "method")]
            limits = SKILL_RANGE if score == "skill" else None
            if series:
                panels.append((place, Panel(config, "training runs", title, series, kind="points", y_range=limits)))
    if panels:
        # Both scores of a config stand side by side.
        panels.sort(key=lambda each: each[0])
        page.figures.append(Figure("Fitted on some of the training runs", [panel for _, panel in panels], len(SCORES)))
        page.notes.extend(NOTES)
    return page


def _series(method: str, means: list[Row]) -> Series:
    """The line of a method, with bars over draws."""
    mine = [row for row in means if row["method"] == method]
    spread = [row["std"] or 0.0 for row in mine]
    return Series(method, [row["number"] for row in mine], [row["mean"] for row in mine], spread=spread)
