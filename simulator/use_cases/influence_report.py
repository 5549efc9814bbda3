"""Influence as a table in the terminal, JSON and a page."""

from __future__ import annotations

import time
import unicodedata
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from gptdynamics.examples import Example
from gptdynamics.terminal_text import cut_text
from simulator.reporting.page import write_page
from simulator.use_cases.influence import Effect, InfluenceResult

if TYPE_CHECKING:
    from rich.table import Table

UNCERTAINTY = (
    "Standard errors are by the jackknife over the runs that the simulator was fitted on: each run is left out in "
    "turn, and the fit is repeated with the same settings. They say how far an effect depends on which runs were "
    "made, not whether the simulator is right; gptfluence validate checks that by real training."
)
NO_UNCERTAINTY = "There are no standard errors: only tangent and memory have them, if fitted on at least three runs."


def visible(text: str) -> str:
    """A text whose control characters can be seen, and that cannot change how what is around it is shown."""
    shown = []
    for character in text:
        kind = unicodedata.category(character)
        if character in "\n\t" or kind not in ("Cc", "Cf", "Cs", "Co") or character == "\u200d":
            shown.append(character)
        elif kind == "Cc" and ord(character) < 0x20:
            shown.append(chr(0x2400 + ord(character)))
        else:
            shown.append(f"\\u{ord(character):04x}")
    return "".join(shown)


def example_text(example: Example) -> str:
    """Prompt and target, or which row it is where texts are left out."""
    if example.withheld:
        source = {"dataset": example.task, "split": "", "row": str(example.id)} | example.source
        return visible(f"(text left out: {source['dataset']} {source['split']} row {source['row']})")
    return visible(example.prompt + example.target)


def summary(influence: InfluenceResult) -> str:
    """A sentence on what the figures are."""
    direction = "positive" if influence.higher_is_better else "negative"
    return (
        f"Effect of a training example of run {influence.run}: simulated {influence.metric} at the last step with it "
        f"minus without it; {direction}: it helped."
    )


def fit_text(influence: InfluenceResult, test_id: int | None = None) -> str:
    """The metric at the end of the run, as simulated and as measured, on a test example or averaged over all."""
    if influence.predicted is None:
        return ""
    places = [place for place, example in enumerate(influence.test) if test_id in (None, example.id)]
    simulated = f"{influence.metric} at the end of the run: {influence.predicted[places].mean():.3g} simulated"
    return simulated if influence.measured is None else f"{simulated}, {influence.measured[places].mean():.3g} measured"


def influence_tables(influence: InfluenceResult) -> list[Table]:
    """A table of the whole test set, and one for each test example asked for; none where every effect is zero."""
    from rich.table import Table
    from rich.text import Text

    texts = {example.id: example_text(example) for example in influence.pool}
    tests = {example.id: example_text(example) for example in influence.test}
    tables = []
    for test_id in (None, *influence.settings.test_ids):
        effects = [*influence.helped(test_id), *influence.harmed(test_id)]
        if not effects:
            continue
        of = f"mean over {len(influence.test)} test examples" if test_id is None else f"test example {test_id}"
        table = Table(title=Text(f"{influence.config} {influence.metric}, {of}"))
        for heading in ("training example", "effect", "error", "text"):
            table.add_column(heading, justify="right" if heading in ("effect", "error") else "left")
        for each in effects:
            error = "-" if each.error is None else f"{each.error:.2g}"
            cells = (f"{influence.word(each)}: {each.pool_id}", f"{each.final:+.3g}", error)
            table.add_row(*map(Text, cells), Text(cut_text(texts[each.pool_id])))
        caption = (
            [fit_text(influence, test_id)]
            if test_id is None
            else [cut_text(tests[test_id]), fit_text(influence, test_id)]
        )
        table.caption = Text("\n".join(each for each in caption if each))
        tables.append(table)
    return tables


def _numbers(steps: tuple[int, ...]) -> str:
    return ", ".join(map(str, steps))


def influence_record(influence: InfluenceResult) -> dict[str, object]:
    """Every training example's effect on the mean, and on each test example asked for (all, if none was)."""
    texts = {example.id: None if example.withheld else example.prompt + example.target for example in influence.pool}
    wanted = influence.settings.test_ids or tuple(example.id for example in influence.test)

    def rows(test_id: int | None) -> list[dict[str, object]]:
        return [asdict(each) for each in influence.effects(test_id)]

    return {
        "config": influence.config,
        "metric": influence.metric,
        "method": influence.method,
        "run": influence.run,
        "higher_is_better": influence.higher_is_better,
        "uncertainty": UNCERTAINTY if influence.error is not None else None,
        "verdict": influence.verdict(),
        "predicted": None if influence.predicted is None else influence.predicted.tolist(),
        "measured": None if influence.measured is None else influence.measured.tolist(),
        "texts": {str(key): text for key, text in texts.items()},
        "mean": rows(None),
        "test_examples": {str(key): rows(key) for key in wanted},
    }


def write_influence_page(influence: InfluenceResult, path: Path) -> None:
    """Write one self-contained page: the whole test set, then each test example (asked for, or all)."""
    wanted = influence.settings.test_ids or tuple(example.id for example in influence.test)
    texts = {example.id: example_text(example) for example in influence.pool}
    tests = {example.id: example_text(example) for example in influence.test}

    def lines(effects: list[Effect]) -> list[dict[str, object]]:
        return [
            {
                "id": each.pool_id,
                "word": influence.word(each),
                "final": f"{each.final:+.3g}",
                "error": None if each.error is None else f"{each.error:.2g}",
                "whole": f"{each.whole:+.3g}",
                "steps": _numbers(each.steps),
                "visits": [f"{value:+.2g}" for value in each.visits],
                "text": texts[each.pool_id],
            }
            for each in effects
        ]

    sections = [
        {
            "test": None if key is None else {"id": key, "text": tests[key]},
            "helped": lines(influence.helped(key)),
            "harmed": lines(influence.harmed(key)),
            "verdict": influence.verdict(key),
            "fit": fit_text(influence, key),
        }
        for key in (None, *wanted)
    ]
    write_page(
        path,
        "templates/influence.html.jinja",
        found=influence,
        summary=summary(influence),
        uncertainty=UNCERTAINTY if influence.error is not None else NO_UNCERTAINTY,
        sections=sections,
        made=time.strftime("%Y-%m-%d"),
    )
