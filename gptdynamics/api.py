"""The functions of `import gptdynamics` for notebooks: names, folders, and settings as keywords."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptdynamics.keywords import settings_of, takes_fields_of
from gptdynamics.settings.collect import CollectCommand
from gptdynamics.settings.datasets import PushSettings

if TYPE_CHECKING:
    from gptdynamics.collection import Collected
    from gptdynamics.hub.push import Pushed
    from gptdynamics.plans import Plan


@takes_fields_of(CollectCommand)
def collect(
    configs: str | Sequence[str] | Plan,
    output: str | PathLike[str],
    *,
    on_start: Callable[[str, int], None] = lambda config, total: None,
    on_step: Callable[[str], None] = lambda config: None,
    on_run: Callable[[str], None] = lambda run: None,
    on_note: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> Collected:
    """Train base models on seeded curricula, and measure every test example at every step.

    `configs` are names or a `Plan`. Runs that the folder already has are skipped. Workers are separate processes, so a
    script needs `if __name__ == "__main__":` around this call.

    Raises:
        GPTDynamicsError: the data, the base model, the folder or the settings cannot be used.

    Example:
        >>> import gptdynamics, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> made = gptdynamics.collect("mini_sentiment_nano", folder, runs=1, steps=2, test_examples=4, workers=1)
        >>> made.done
        ['mini_sentiment_nano/0000']
        >>> gptdynamics.verify(folder).ok
        True
    """
    from gptdynamics.collection import collect as collect_runs
    from gptdynamics.collection.settings import collect_settings
    from gptdynamics.hub.push import RunPusher
    from gptdynamics.plans import Plan

    keywords: dict[str, Any] = settings | {"output": output}
    plan = configs if isinstance(configs, Plan) else None
    if plan is None:
        keywords["configs"] = configs
    else:
        # The command's checks need a plan's name; the plan itself goes to `collect_settings`.
        keywords["plan"] = plan.name
    command = settings_of(CollectCommand, **keywords)
    pusher = RunPusher(command.output, command.push_to, command.no_texts, on_note, on_note)

    def end_run(run: str) -> None:
        pusher.push_run(run)
        on_run(run)

    collect_options = collect_settings(command, plan)
    for line in collect_options.notes:
        on_note(line)
    collected = collect_runs(collect_options, on_start, on_step, end_run, on_note)
    pusher.push_all()
    return collected


@takes_fields_of(PushSettings)
def push(
    dataset: str | PathLike[str],
    repo: str,
    *,
    on_wait: Callable[[str], None] = lambda reason: None,
    **settings: Any,
) -> Pushed:
    """Add the finished runs of a dataset folder to a dataset repository on the Hub, in one commit.

    Raises:
        GPTDynamicsError: see `gptdynamics.hub.push.push`; nothing was changed.

    Example:
        >>> import gptdynamics
        >>> gptdynamics.push("my-dynamics", "ada/my-dynamics", dry_run=True)
        Traceback (most recent call last):
        gptdynamics.errors.DataError: my-dynamics: no such dataset folder
    """
    from gptdynamics.hub.push import push as push_folder

    push_settings = settings_of(PushSettings, dataset=dataset, repo=repo, **settings)
    return push_folder(Path(push_settings.dataset), push_settings.repo, push_settings, on_wait)
