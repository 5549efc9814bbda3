"""The `gptfluence` command."""

from __future__ import annotations

import sys
from itertools import zip_longest

from gptdynamics.commands.from_settings import add_command, new_app
from gptdynamics.commands.running import run_process
from simulator.commands.evaluate import evaluate
from simulator.commands.experiment import experiment
from simulator.commands.influence import influence
from simulator.commands.mislabel import mislabel
from simulator.commands.push import push
from simulator.commands.quickstart import quickstart
from simulator.commands.report import report
from simulator.commands.select import select
from simulator.commands.simulate import simulate
from simulator.commands.train import train
from simulator.commands.validate import validate

COMMANDS = (
    quickstart, train, evaluate, report, experiment, push, simulate, influence, mislabel, select, validate
)  # fmt: skip

app = new_app("Train, evaluate and look at simulators of training dynamics.")
for command in COMMANDS:
    add_command(app, command)


def spread_models(arguments: list[str]) -> list[str]:
    """`--models A B` as `--models A --models B`, which is what the parser knows."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, rest = arguments[:end], arguments[end:]
    spread: list[str] = []
    inside = False
    for argument, following in zip_longest(options, options[1:], fillvalue="-"):
        if argument.startswith("-"):
            inside = argument == "--models"
            # With nothing to spread it is left to the parser, which says that a value is missing.
            if inside and not following.startswith("-"):
                continue
        spread += ["--models", argument] if inside and argument != "--models" else [argument]
    return spread + rest


def main() -> None:
    """Entry point."""
    run_process(app, spread_models(sys.argv[1:]), "gptfluence")


if __name__ == "__main__":
    main()
