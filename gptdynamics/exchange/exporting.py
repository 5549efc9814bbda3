"""Export of a dataset folder to the authors' layout."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from gptdynamics.atomic import write_text
from gptdynamics.configs import RunSettings, config_parts
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.ownership import check_folder
from gptdynamics.dataset.reading import local_root, read_examples
from gptdynamics.dataset.run_files import read_run_row, read_trajectories
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.exchange.findings import Findings
from gptdynamics.exchange.names import (
    CURRICULUM_FILE,
    EXAMPLE_FOLDERS,
    METRIC_FILE,
    THEIR_TASKS,
    checked_path,
    example_file,
    run_folder_name,
)
from gptdynamics.exchange.origin import RunOrigin, run_origins
from gptdynamics.metrics import Metric
from gptdynamics.tasks import Mixture, get_task

OnProgress = Callable[[int, int], None]


@dataclass
class Exported:
    """The result of an export.

    Attributes:
        runs: folders in the release, by `<config>/<run>`.
        files: files of examples, relative to the release.
        findings: what the layout cannot represent.
    """

    source: str
    out: str
    runs: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)


def export_release(
    source: str | Path,
    out: Path,
    configs: Iterable[str] = (),
    on_progress: OnProgress = lambda done, total: None,
) -> Exported:
    """Write the runs of a dataset folder in the authors' layout, so that their code can read them.

    Imported runs get the files that they were imported from, with the same JSON values. The layout cannot represent
    step 0, gradients and references; folders of collected runs are named after their settings, with the run's number as
    seed.

    Args:
        source: a dataset folder or a Hub id.
        out: the folder to write to. Existing files must have the same content.
        configs: names of configs; empty: all.
        on_progress: called after each run with the number of written runs and of all runs.

    Raises:
        DataError: a file of the dataset is damaged, or one in `out` has other content.
        SettingsError: there is no such config, or no run.
    """
    check_folder(Path(out), _holds_release, "release in the authors' layout", "--output")
    folder = DatasetFolder(local_root(str(source)))
    runs = {config: names for config in folder.configs() if (names := folder.finished(config))}
    chosen = list(dict.fromkeys(configs)) or list(runs)
    unknown = [config for config in chosen if config not in runs]
    if unknown or not chosen:
        available = ", ".join(runs) or "none"
        raise SettingsError(f"{source} has no runs of config {', '.join(unknown) or 'any name'}; it has: {available}")
    exported = Exported(str(source), str(out))
    findings = exported.findings
    for task in sorted({config_parts(config)[0] for config in chosen}):
        for part in ("pool", "test"):
            exported.files += _write_examples(out, task, part, read_examples(folder, task, part), findings)
    for config in chosen:
        origins, metrics = run_origins(folder, config), folder.metrics(config)
        for run in runs[config]:
            row = read_run_row(folder.run_row_path(config, run), config, run)
            origin = origins.get(run) or RunOrigin("")
            folder_names = exported.runs.values()
            path = (
                checked_path(origin.folder, "runs")
                if run in origins
                else _own_folder(folder, config, run, row, folder_names)
            )
            if path.as_posix() in folder_names:
                raise DataError(f"{folder.manifest_path(config)}: {path} is the folder of two runs")
            table = read_trajectories(folder.run_path(config, run), run)
            _write_run(out / path, row["curriculum"], table.to_pylist(), metrics, origin)
            exported.runs[f"{config}/{run}"] = path.as_posix()
            on_progress(len(exported.runs), sum(len(runs[name]) for name in chosen))
        if table["step"][0][0].as_py() == 0:
            findings.add(config, "the layout begins at step 1", "step 0 is left out")
        if "gradient_step" in table.column_names or folder.vectors_path(config).exists():
            findings.add(config, "the layout cannot represent gradients", "they are left out")
    return exported


def _holds_release(out: Path) -> bool:
    examples = (path for name in EXAMPLE_FOLDERS for path in (out / name).rglob("*") if example_file(path.name))
    return any((out / "runs").rglob(CURRICULUM_FILE)) or any(examples)


def _write_new(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines. No file is overwritten."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if not path.exists():
        write_text(path, text)
    elif path.read_bytes() != text.encode():
        raise DataError(f"{path}: it exists with other content: give another --output")


def _write_examples(out: Path, task: str, part: str, examples: list[Example], findings: Findings) -> list[str]:
    """Write the examples of a part to the files that they came from, or to one file; returns the files' names."""
    files: dict[PurePosixPath, list[Example]] = defaultdict(list)
    for example in examples:
        if not example.withheld:
            files[_example_path(task, part, example, examples[-1].id)].append(example)
    withheld = sum(example.withheld for example in examples)
    if withheld:
        findings.add(f"{task}_examples", f"{withheld} {part} examples have no texts", "left out")
    for path, members in files.items():
        if all("file" in example.source for example in members):
            members.sort(key=_row_number)
        _write_new(out / path, [_example_row(example) for example in members])
    return [path.as_posix() for path in files]


def _row_number(example: Example) -> int:
    row = str(example.source.get("row", ""))
    return int(row) if row.isdecimal() and len(row) < 20 else 0


def _example_row(example: Example) -> dict[str, Any]:
    """The example's line, with the further fields that an import read."""
    try:
        extra = dict(json.loads(example.source.get("fields", "{}")))
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"{example.task}, example {example.id}: the fields in its source are not a JSON object. Import it again"
        ) from error
    return {"id": example.id, "input": example.prompt + example.target} | extra


def _example_path(task: str, part: str, example: Example, last: int) -> PurePosixPath:
    sft, it = EXAMPLE_FOLDERS
    if "file" in example.source:
        file = example.source["file"]
        return checked_path(file, it if str(file).startswith(f"{it}/") else sft)
    name, split = THEIR_TASKS.get(task, task), "train" if part == "pool" else "eval"
    if isinstance(get_task(task), Mixture):
        return PurePosixPath(it) / f"{name}_{split}_0_{last}.json"
    return PurePosixPath(sft) / name / f"{name}_0_{last}_{split}.json"


def _own_folder(
    folder: DatasetFolder, config: str, run: str, row: Mapping[str, Any], used_folders: Iterable[str]
) -> PurePosixPath:
    """The folder of a collected run; its name includes the config if another config has a run of that name."""
    try:
        settings = RunSettings.from_dict(folder.manifest(config)["settings"])
    except TypeError as error:
        path = folder.manifest_path(config)
        raise DataError(f"{path}: its settings do not give a name for the folder of run {run}. Restore it") from error
    parent = f"runs/{THEIR_TASKS.get(settings.task, settings.task)}"
    model = row["base_model"] or settings.base
    name = f"{parent}/{run_folder_name(settings, run, model)}"
    if name in used_folders:
        name = f"{parent}/{run_folder_name(settings, run, model, [f'config-{config}'.replace('_', '-')])}"
    return PurePosixPath(name)


def _write_run(
    path: Path,
    curriculum: list[list[int]],
    rows: list[dict[str, Any]],
    metrics: Mapping[str, Metric],
    origin: RunOrigin,
) -> None:
    """Write the files of one run. The layout has no step 0, and calls the value of every metric `loss`."""
    batches = enumerate([*curriculum, *origin.batches_after], start=1)
    _write_new(path / CURRICULUM_FILE, [{"step": step, "samples_id": batch} for step, batch in batches])
    for metric, definition in metrics.items():
        trajectories = {
            row["test_id"]: [
                {"step": step, "loss": value}
                for step, value in zip(row[definition.step_column], row[metric], strict=True)
                if step > 0
            ]
            for row in rows
            if row.get(metric) is not None
        }
        order = origin.orders.get(metric, [])
        ids = order if sorted(order) == sorted(trajectories) else list(trajectories)
        if ids:
            lines = [{"id": key, "loss_trajectory": trajectories[key]} for key in ids]
            _write_new(path / METRIC_FILE.format(metric), lines)
