"""The `gptdynamics` command."""

from __future__ import annotations

from gptdynamics.commands.cache import cache
from gptdynamics.commands.collect import collect
from gptdynamics.commands.datasets import export, import_, plan, status, verify
from gptdynamics.commands.from_settings import add_command, new_app
from gptdynamics.commands.push import push, push_base
from gptdynamics.commands.running import run_process

COMMANDS = (plan, collect, status, verify, import_, export, push, push_base, cache)

app = new_app("Build and read GPTDynamics datasets: metrics of every test example at every step of fine-tuning.")
for command in COMMANDS:
    add_command(app, command)


def main() -> None:
    """Entry point."""
    run_process(app, name="gptdynamics")


if __name__ == "__main__":
    main()
