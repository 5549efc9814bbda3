"""`gptfluence push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from gptdynamics.commands.options import json_option, say_pushed
from gptdynamics.console import say_error
from gptdynamics.interruption import keeps
from gptdynamics.outputs import write_output_json
from simulator.settings.push import PushModelSettings


def push(
    settings: PushModelSettings,
    json_file: Annotated[
        Path | None,
        json_option("`model` and `space` (or null), each with `repository`, `created`, `files`, `size`, `sha`, `url`."),
    ] = None,
) -> None:
    """Publish a simulator on the Hub, so that it can be loaded with and without this package."""
    from simulator.model_push import push_simulator

    model, repo, private, dataset = settings.model, settings.repo, settings.private, settings.dataset
    keeps("what was uploaded is kept")
    pushed = push_simulator(model, repo, private, settings.evaluation, dataset, lambda line: say_error(f"note: {line}"))
    say_pushed(pushed, repo)
    space = None
    if settings.space is not None:
        from simulator.space_push import push_space

        texts = not settings.no_texts
        space = push_space(model, repo, settings.space, texts=texts, private=private, dataset=dataset)
        say_pushed(space, settings.space)
    if json_file is not None:
        write_output_json(json_file, {"model": pushed.to_dict(), "space": None if space is None else space.to_dict()})
