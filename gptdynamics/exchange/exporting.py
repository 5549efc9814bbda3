"""From a dataset folder into the authors' layout."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from gptdynamics.atomic import write_text
from gptdynamics.configs import RunSettings, config_parts
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.reading import local_root, read_examples
from gptdynamics.dataset.run_files import read_run_row, read_trajectories
from gptdynamics.dataset.schema import GENERATED_METRICS, METRICS
from gptdynamics.errors import DataError, SettingsError
from gptdynamics.examples import Example
from gptdynamics.exchange.examples import FOLDERS
from gptdynamics.exchange.findings import Finding, Findings
from gptdynamics.exchange.names import CURRICULUM_FILE, checked_path, run_folder_name, their_task
from gptdynamics.exchange.origin import run_origins
from gptdynamics.tasks import Mixture, get_task

OnProgress = Callable[[int, int], None]


@dataclass
class Exported:
    """What an export did.

    Attributes:
        source, out: the dataset folder and the release.
        runs: folders in the release, by `<config>/<run>`.
        files: of examples, relative to the release.
        findings: what the layout has no place for, or could not be written.
    """

    source: str
    out: str
    runs: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return vars(self) | {"findings": [each.to_dict() for each in self.findings]}


def export_release(
    source: str | Path,
    out: Path,
    configs: Iterable[str] = (),
    on_progress: OnProgress = lambda done, total: None,
) -> Exported:
    """Write the runs of a dataset folder in the authors' layout, so that their code reads them.

    Imported runs get the files that they were imported from, as JSON values. For step 0, gradients and references of
    runs of ours the layout has no place; their folders are named after their settings, with the run's number as seed.

    Args:
        source: a dataset folder or a Hub id.
        out: the folder to write to. Files that are there must be the same already.
        configs: which; none: all.
        on_progress: called with the number of runs that were written, and of all, after each.

    Raises:
        DataError: a file of the dataset is damaged, or one in `out` has other content.
        SettingsError: there is no such config, or no run.
    """
    folder = DatasetFolder(local_root(str(source)))
    there = [config for config in folder.configs() if folder.finished(config)]
    wanted = list(dict.fromkeys(configs)) or there
    unknown = [config for config in wanted if config not in there]
    if unknown or not wanted:
        known = ", ".join(there) or "none"
        raise SettingsError(f"{source} has no runs of config {', '.join(unknown) or 'any name'}; it has: {known}")
    findings = Findings()
    exported = Exported(str(source), str(out), findings=findings.found)
    for task in sorted({config_parts(config)[0] for config in wanted}):
        for part in ("pool", "test"):
            exported.files += _write_examples(out, task, part, read_examples(folder, task, part), findings)
    total = sum(len(folder.finished(config)) for config in wanted)
    taken: set[str] = set()
    for config in wanted:
        for run in folder.finished(config):
            target = _write_run(folder, out, config, run, taken)
            taken.add(target)
            exported.runs[f"{config}/{run}"] = target
            on_progress(len(exported.runs), total)
        _note_what_is_lost(folder, config, findings)
    return exported


def _write_new(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines. Nothing that is there already is overwritten."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.exists():
        if path.read_bytes() != text.encode():
            raise DataError(f"{path}: it is there already, with other content: give another --out")
        return
    write_text(path, text)


def _write_examples(out: Path, task: str, part: str, examples: list[Example], findings: Findings) -> list[str]:
    """Write the examples of a part into the files that they came from, or into one; their names."""
    known = [example for example in examples if not example.withheld]
    if len(known) < len(examples):
        findings.add(f"{task}_examples", f"{len(examples) - len(known)} {part} examples have no texts", "left out")
    files: dict[PurePosixPath, list[Example]] = defaultdict(list)
    for example in known:
        files[_example_path(task, part, example, examples)].append(example)
    for path, own in files.items():
        if all("file" in example.source for example in own):
            own.sort(key=lambda example: _row_number(example.source))
        _write_new(out / path, [_example_row(example) for example in own])
    return [path.as_posix() for path in files]


def _example_row(example: Example) -> dict[str, Any]:
    """The example's line, with the fields that an import found beside id and input."""
    try:
        extra = dict(json.loads(example.source.get("fields", "{}")))
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{example.task}, example {example.id}: the fields in its source are no JSON object") from error
    return {"id": example.id, "input": example.prompt + example.target} | extra


def _example_path(task: str, part: str, example: Example, examples: list[Example]) -> PurePosixPath:
    if "file" in example.source:
        file = example.source["file"]
        return checked_path(file, FOLDERS[1] if str(file).startswith(f"{FOLDERS[1]}/") else FOLDERS[0])
    theirs, split = their_task(task), "train" if part == "pool" else "eval"
    if isinstance(get_task(task), Mixture):
        return PurePosixPath("it_tasks") / f"{theirs}_{split}_0_{examples[-1].id}.json"
    return PurePosixPath("sft_tasks") / theirs / f"{theirs}_0_{examples[-1].id}_{split}.json"


def _row_number(source: dict[str, str]) -> int:
    row = str(source.get("row", ""))
    return int(row) if row.isdecimal() and len(row) < 20 else 0


def _write_run(folder: DatasetFolder, out: Path, config: str, run: str, taken: set[str]) -> str:
    """Write the files of one run; its folder, relative to the release."""
    row = read_run_row(folder.run_row_path(config, run), config, run)
    origin = run_origins(folder, config).get(run)
    path = checked_path(origin.folder, "runs") if origin else _own_folder(folder, config, run, row, taken)
    if path.as_posix() in taken:
        raise DataError(f"{folder.manifest_path(config)}: {path} is the folder of two runs")
    batches = [*row["curriculum"], *(origin.batches_after if origin else [])]
    lines = [{"step": step, "samples_id": batch} for step, batch in enumerate(batches, start=1)]
    _write_new(out / path / CURRICULUM_FILE, lines)
    table = read_trajectories(folder.run_path(config, run), run)
    for metric in METRICS:
        if metric in table.column_names and table[metric].null_count < table.num_rows:
            rows = _metric_rows(table.to_pylist(), metric)
            order = origin.orders.get(metric, []) if origin else []
            if sorted(order) == sorted(rows):
                rows = {key: rows[key] for key in order}
            lines = [{"id": key, "loss_trajectory": points} for key, points in rows.items()]
            _write_new(out / path / f"all_{metric}_trajectory.out", lines)
    return path.as_posix()


def _metric_rows(rows: list[dict[str, Any]], metric: str) -> dict[int, list[dict[str, Any]]]:
    """Points of each trajectory from step 1 on; the layout calls the value of every metric `loss`."""
    steps = "generation_step" if metric in GENERATED_METRICS else "step"
    return {
        row["test_id"]: [
            {"step": step, "loss": value} for step, value in zip(row[steps], row[metric], strict=True) if step > 0
        ]
        for row in rows
        if row[metric] is not None
    }


def _own_folder(folder: DatasetFolder, config: str, run: str, row: dict[str, Any], taken: set[str]) -> PurePosixPath:
    """The folder of a run of ours; where another config has runs of the same name, it says which config it is."""
    path = folder.manifest_path(config)
    try:
        settings = RunSettings.from_dict(folder.manifest(config)["settings"])
    except TypeError as error:
        raise DataError(f"{path}: its settings do not say what the folder of run {run} is to be called") from error
    theirs = PurePosixPath("runs") / their_task(settings.task)
    model = row["base_model"] or settings.base
    found = theirs / run_folder_name(settings, run, model)
    if found.as_posix() in taken:
        found = theirs / run_folder_name(settings, run, model, [f"config-{config.replace('_', '-')}"])
    return found


def _note_what_is_lost(folder: DatasetFolder, config: str, findings: Findings) -> None:
    runs = folder.finished(config)
    columns = read_trajectories(folder.run_path(config, runs[0]), runs[0])
    if columns["step"][0].as_py()[0] == 0:
        findings.add(config, "the layout begins at step 1", "step 0 is left out")
    if "gradient_step" in columns.column_names or folder.vectors_path(config).exists():
        findings.add(config, "the layout has no place for gradients", "they are left out")
