"""Settings of the commands that read, check, copy and publish datasets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from gptdynamics.options import CommandLine

Source = Annotated[str, CommandLine(positional=True)]
Folder = Annotated[Path, CommandLine(positional=True)]
Output = Annotated[Path, CommandLine(aliases=("out",))]


@dataclass(frozen=True)
class PlanSettings:
    """Which plan is shown, and how.

    Attributes:
        plan: `paper`, `nano`, `smollm2`, `smollm2_gpu`, or a TOML file.
        each: list every run with its split and seed.
        throughput: estimate hours on `v100`, `a100`, `h100`, this machine's `cpu`, or at a number of TFLOP/s.
    """

    plan: Source = "paper"
    each: bool = False
    throughput: str | None = None


@dataclass(frozen=True)
class StatusSettings:
    """Which collection is shown.

    Attributes:
        dataset: dataset folder of the collection.
        plan: `paper`, `nano`, `smollm2`, `smollm2_gpu`, or a TOML file: its configs.
    """

    dataset: Folder
    plan: str | None = None


@dataclass(frozen=True)
class VerifySettings:
    """What is checked.

    Attributes:
        dataset: a dataset folder or a Hub id.
    """

    dataset: Source


@dataclass(frozen=True)
class ImportSettings:
    """Which release is read, and where it goes.

    Attributes:
        release: folder of a release in the paper authors' layout, or its Hub id.
        output: dataset folder to write to, or to continue.
        last: if a step occurs with different values or batches, use the last occurrence.
    """

    release: Source
    output: Output
    last: bool = False


@dataclass(frozen=True)
class ExportSettings:
    """Which runs are written, and where.

    Attributes:
        dataset: a dataset folder or a Hub id.
        output: folder to write the release to.
        config: only these configs, e.g. rte_nano.
    """

    dataset: Source
    output: Output
    config: Annotated[tuple[str, ...], CommandLine(commas=True)] = ()


@dataclass(frozen=True)
class PushOptions:
    """How a dataset is pushed.

    Attributes:
        private: make the repository private.
        branch: branch to change; created from main if it does not exist.
        tag: tag for the commit.
        create_pr: open a pull request instead of changing the branch.
        no_texts: leave out the texts of tasks whose rows this package does not generate.
        replace: replace runs of the same name and settings that are already there.
        dry_run: list what would be uploaded, and stop.
    """

    private: bool = False
    branch: str = "main"
    tag: str | None = None
    create_pr: bool = False
    no_texts: bool = False
    replace: bool = False
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class PushSettings(PushOptions):
    """What is pushed, and where.

    Attributes:
        dataset: dataset folder.
        repo: dataset repository <owner>/<name>; created if it does not exist.
    """

    dataset: Folder
    repo: Source


@dataclass(frozen=True)
class PushBaseSettings:
    """Which base model is published, and where.

    Attributes:
        repo: model repository <owner>/<name>; created if it does not exist.
        folder: folder of a base model of your own.
        private: make the repository private.
    """

    repo: Source
    folder: Annotated[Path | None, CommandLine(default="the bundled nano")] = None
    private: bool = False
