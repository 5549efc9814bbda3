"""Settings of `collect`, and how it uses a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from gptdynamics.configs import RunSettings
from gptdynamics.errors import SettingsError
from gptdynamics.options import ChangesOf, CommandLine
from gptdynamics.ranges import RATE, check_fields
from gptdynamics.settings.kernels import KernelSettings


@dataclass(frozen=True)
class RaySettings:
    """How a collection uses a Ray cluster.

    Attributes:
        address: `<host>:<port>` of its head node, or `auto`. Default: $RAY_ADDRESS, or the cluster that this machine
            belongs to.
        cpus: CPUs that Ray reserves for a worker, which always computes with one thread.
        gpus: GPUs that Ray reserves for a worker; with a fraction, several workers share one. Default: 1 if the cluster
            has GPUs and the device is not `cpu`, else 0.
        patience: seconds to wait while no node has room for a worker.
    """

    address: str | None = None
    cpus: float = 1
    gpus: float | None = None
    patience: float = 60

    def __post_init__(self) -> None:
        if self.address is not None and self.address.startswith("ray://"):
            raise SettingsError(
                f"ray address {self.address}: collect cannot run through a Ray client. Start it on a node of the "
                "cluster, and give <host>:<port> of the head node"
            )
        try:
            check_fields(self, dict.fromkeys(("cpus", "gpus", "patience"), RATE))
        except SettingsError as error:
            raise SettingsError(f"ray {error}") from error
        for name, value in (("cpus", self.cpus), ("gpus", self.gpus or 0)):
            if value > 1 and value != int(value):
                raise SettingsError(f"ray {name}={value}: above 1, Ray takes whole numbers")


_RUN_DEFAULTS = {
    "learning_rate": "the config's, or the usual one of its size, in the bundled plans",
    "pool_size": "200, or all rows if there are fewer",
    "subset": "128 of 200, the same share of fewer rows",
    "test_examples": "200, or all rows if there are fewer",
    "lora_rank": "0, all weights",
    "text_tokenizer": "the task's, else by the script of its references",
}


@dataclass(frozen=True)
class CollectCommand:
    """What is collected, with which settings, and where.

    Attributes:
        configs: <task>_<size>, e.g. rte_nano; or see --plan.
        output: dataset folder to write to, or to continue.
        plan: `paper`, `nano`, `smollm2`, `smollm2_gpu`, or a TOML file: all of its configs, or those that are named.
        runs: collect runs 0 to RUNS-1.
        kernels: compute the kernels (products of all pool and test gradients) of the first KERNELS training runs.
        kernels_of: also compute the kernels of these runs, e.g. 0004.
        kernel: how kernels are computed, by name.
        counterfactuals: repeat a run COUNT times with random rows left out: RUN=COUNT, e.g. 0004=24.
        data: folder with <task>/train.jsonl and eval.jsonl. Default: bundled rows or the Hub.
        run: settings of the runs that replace those of the bundled plans, by name.
        workers: processes, one thread each.
        device: `auto`, `cpu`, `cuda` (all GPUs) or `cuda:<number>`.
        executor: `local` (this machine), or `ray` (a Ray cluster).
        ray: settings of the Ray cluster, by name.
        push_to: a dataset repository <owner>/<name>: push each run to it when it ends.
        no_texts: with --push-to: as in `gptdynamics push --no-texts`.
    """

    output: Annotated[Path, CommandLine(aliases=("out",))]
    configs: Annotated[tuple[str, ...], CommandLine(positional=True)] = ()
    plan: str | None = None
    runs: Annotated[int | None, CommandLine(default="32")] = None
    kernels: Annotated[int | None, CommandLine(default="the plan's, else none")] = None
    kernels_of: tuple[str, ...] = ()
    kernel: Annotated[Mapping[str, Any], ChangesOf(KernelSettings, prefix="kernel_")] = field(default_factory=dict)
    counterfactuals: tuple[str, ...] = ()
    data: Path | None = None
    run: Annotated[
        Mapping[str, Any],
        ChangesOf(RunSettings, omit=("config",), defaults=_RUN_DEFAULTS, aliases={"pool_size": ("pool",)}),
    ] = field(default_factory=dict)
    workers: Annotated[int | None, CommandLine(default="one per GPU, or one per core")] = None
    device: str = "auto"
    executor: str = "local"
    ray: Annotated[Mapping[str, Any], ChangesOf(RaySettings, prefix="ray_")] = field(default_factory=dict)
    push_to: str | None = None
    no_texts: bool = False

    def __post_init__(self) -> None:
        if self.plan is not None and (self.run or self.runs is not None):
            names = [*sorted(self.run), *([] if self.runs is None else ["runs"])]
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in names)
            raise SettingsError(f"--plan fixes the settings of its configs: leave out {flags}, or edit the plan")
        if self.plan is None and not self.configs:
            raise SettingsError("nothing to collect: name configs, such as rte_nano, or give --plan")
        if self.executor not in ("local", "ray"):
            raise SettingsError(f"--executor {self.executor!r} must be local or ray")
        if self.executor == "local" and self.ray:
            raise SettingsError(f"--ray-{next(iter(self.ray))} goes with --executor ray")
