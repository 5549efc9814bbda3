"""`gptfluence influence`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptdynamics.commands.options import file_option, json_option
from gptdynamics.console import say, show


def influence(
    model: Annotated[str, typer.Argument(help="A simulator, a folder or a Hub id.")],
    dataset: Annotated[str, typer.Option(help="The runs of its config: a folder, a Hub id or the short name.")],
    run: Annotated[
        str | None, typer.Option(help="Whose training examples.", show_default="the first held-out run")
    ] = None,
    test_ids: Annotated[
        str | None, typer.Option(help="Test examples to list, e.g. 3,17.", show_default="the whole test set")
    ] = None,
    top: Annotated[int, typer.Option(help="How many that helped and harmed most.")] = 5,
    config: Annotated[str | None, typer.Option(help="Which config, of a simulator of several.")] = None,
    metric: Annotated[str | None, typer.Option(help="Which metric, of a simulator of several.")] = None,
    json_file: Annotated[
        Path | None,
        json_option(
            "`config`, `metric`, `method`, `run`, `higher_is_better`, `uncertainty`, `texts`, `mean` (effects on the "
            "whole test set) and `test_examples` (effects by id)."
        ),
    ] = None,
    output: Annotated[Path | None, file_option("Write a page here.")] = None,
) -> None:
    """List the training examples that helped and harmed test examples most, with the size of the effect."""

    from simulator.commands.ids import listed_ids
    from simulator.use_cases.influence import InfluenceSettings, find_influence
    from simulator.use_cases.influence_report import (
        NO_UNCERTAINTY,
        UNCERTAINTY,
        influence_tables,
        summary,
        write_influence_json,
        write_influence_page,
    )

    found = find_influence(InfluenceSettings(model, dataset, run, listed_ids(test_ids), top, config, metric))
    say(summary(found))
    for table in influence_tables(found):
        show(table)
    say(NO_UNCERTAINTY if found.error is None else UNCERTAINTY)
    if json_file is not None:
        write_influence_json(found, json_file)
        say(f"wrote {json_file}")
    if output is not None:
        write_influence_page(found, output)
        say(f"wrote {output}")
