"""`gptfluence push`."""

from __future__ import annotations

from gptdynamics.commands.from_settings import WriteJson
from gptdynamics.commands.push import say_pushed
from gptdynamics.console import say_error
from gptdynamics.interruption import keeps
from simulator.settings.push import PushModelSettings


def push(settings: PushModelSettings, write_json: WriteJson) -> None:
    """Publish a simulator on the Hub, so that it can be loaded with and without this package.

    JSON: `model` and `space` (or null), each with `repository`, `created`, `files`, `size`, `sha`, `url`.
    """
    from simulator.hub.push import push_simulator

    model, repo, private, dataset = settings.model, settings.repo, settings.private, settings.dataset
    keeps("what was uploaded is kept")
    pushed = push_simulator(model, repo, private, settings.evaluation, dataset, lambda line: say_error(f"note: {line}"))
    say_pushed(pushed, repo)
    space = None
    if settings.space is not None:
        from simulator.hub.space import push_space

        texts = not settings.no_texts
        space = push_space(model, repo, settings.space, texts=texts, private=private, dataset=dataset)
        say_pushed(space, settings.space)
    write_json({"model": pushed, "space": space})
