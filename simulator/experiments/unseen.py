"""Tables 11 and 12: pool rows, test examples, or both, that no training run showed."""

from __future__ import annotations

from gptdynamics.configs import config_parts
from gptdynamics.dataset.recorded import config_task
from gptdynamics.tasks.mixture import Mixture
from simulator.evaluation.held_out import HeldOut, some_tests, split_tests
from simulator.evaluation.scoring import Method, score
from simulator.evaluation.simulated import Simulated
from simulator.experiments.comparison import Row, beside_paper, distinct, score_grid
from simulator.experiments.paper_tables import PaperRow, paper_row
from simulator.experiments.workbench import UNTRAINABLE, Workbench
from simulator.reporting.result import Result

METHODS = (("markov", "sentence"), ("memory", "sentence"), ("memory", "gradient"))
VARIANTS = ("unseen train", "unseen test", "unseen both")


def _variants(bench: Workbench, config: str, metric: str, skipped: list[str]) -> dict[str, HeldOut]:
    """What is scored for each variant, and `skipped` gets the reasons why others are not."""
    runs = bench.runs(config, metric)
    training = runs.split("train", "validation")
    seen, unseen = split_tests(len(runs.test), 0.5)
    parts = {"unseen test": (runs.split("test"), unseen)}
    every = bench.runs(config, metric, unseen=True)
    if len(every.runs) > len(runs.runs):
        others = every.split("test_unseen")
        parts |= {"unseen train": (others, seen), "unseen both": (others, unseen)}
    else:
        skipped.append(f"{config}, {metric}: no runs on unseen pool rows; collect with --unseen-runs")
    if not unseen:
        skipped.append(f"{config}, {metric}: a single test example leaves none to keep from training")
        return {}
    return {
        variant: HeldOut.of(training, parts[variant][0], seen, parts[variant][1])
        for variant in VARIANTS
        if variant in parts
    }


def _rows(bench: Workbench, config: str, metric: str, skipped: list[str]) -> list[Row]:
    """The rows of a config and metric."""
    variants = _variants(bench, config, metric, skipped)
    if not variants:
        return []
    runs = bench.runs(config, metric)
    seen, _ = split_tests(len(runs.test), 0.5)
    simulators = []
    for dynamics, encoder in METHODS:
        settings = bench.settings(config, metric, dynamics, encoder)
        try:
            simulators.append(Simulated(bench.trained(settings, some_tests(runs, seen)).model))
        except UNTRAINABLE as error:
            skipped.append(f"{config}, {metric}, {dynamics} with {encoder} vectors: {error}")
    # Of instruction tuning the paper has another table.
    table = "12" if isinstance(config_task(bench.folder, config), Mixture) else "11"
    about = {"config": config, "task": config_parts(config)[0], "metric": metric, "table": table}
    rows = []
    for variant, held_out in variants.items():
        methods = [Method("mean_curve", held_out.reference)]
        methods += [Method(each.name, each.predict(held_out.runs)) for each in simulators]
        for row in score(methods, held_out.runs, held_out.reference):
            rows.append(about | {"variant": variant, "method": row.method} | row.scores)
    return rows


def unseen(bench: Workbench) -> Result:
    """Hold out pool rows, test examples, or both."""
    result, configs = bench.begin()
    for config in configs:
        for metric in bench.continuous_metrics(config):
            result.rows.extend(_rows(bench, config, metric, result.skipped))
    return result


def show_unseen(rows: list[Row]) -> Result:
    """Skill for each metric, what was held out, and method; the paper's simulator beside its figures."""
    page = Result()
    for metric in distinct(rows, "metric"):
        mine = sorted((row for row in rows if row["metric"] == metric), key=lambda row: VARIANTS.index(row["variant"]))
        page.tables.extend(score_grid(metric, mine, "skill", keys=("variant", "method")))
        page.tables.extend(beside_paper(metric, mine, _paper, ("variant", "method")))
    if rows:
        page.notes.append(
            "`unseen train`: test runs on pool rows that no training run used. `unseen test`: every other test "
            "example is left out of fitting, and predicted. `unseen both`: the two at once. For unseen test examples "
            "the mean curve is their first value plus the mean change of the others. That is a weak reference where "
            "first values differ much, so skills there are high."
        )
    return page


def _paper(row: Row) -> PaperRow | None:
    return paper_row(row["table"], row["task"], row["metric"], row["method"], row["variant"])
