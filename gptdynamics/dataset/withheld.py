"""A copy of a dataset folder without texts that may not be redistributed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from gptdynamics.atomic import write_text
from gptdynamics.configs import config_parts
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.ownership import check_new_folder
from gptdynamics.dataset.recorded import recorded_config
from gptdynamics.dataset.schema import EXAMPLE_SCHEMA, read_parquet, write_parquet
from gptdynamics.tasks import Mixture, Task, get_task, is_registered
from gptdynamics.tasks.kept_tasks import FOLDER


def may_be_passed_on(task: str) -> bool:
    """Whether the texts of a task may be redistributed, because this package generates its rows."""
    return is_registered(task) and hasattr(get_task(task), "rows")


def _withhold(row: dict[str, Any], task: Task | Mixture) -> dict[str, Any]:
    """The row without texts, but with the label of a label task, which is not a text and is needed for analysis."""
    label = row["target"] if not isinstance(task, Mixture) and task.labels else None
    # Further fields of an imported example may be texts, too.
    source = {name: value for name, value in json.loads(row["source"]).items() if name != "fields"}
    source_text = json.dumps(source, sort_keys=True)
    return row | {"prompt": None, "target": label, "references": None, "source": source_text}


def copy_without_texts(source: Path, out: Path, keep: Callable[[str], bool] = may_be_passed_on) -> None:
    """Copy a dataset folder to `out` without texts of tasks that `keep` does not allow; their rows name their source.

    Timings are not copied, because they differ between identical runs.

    Raises:
        DataError: `out` is not empty, or a file is damaged.
    """
    folder, copied = DatasetFolder(source), DatasetFolder(out)
    check_new_folder(out, "another path")
    declared: dict[str, Task | Mixture] = {}
    for config in folder.configs():
        recorded = recorded_config(folder, config)
        if recorded is not None and recorded.declared:
            name = config_parts(config)[0]
            declared[name] = recorded.task(name)
    for path in sorted(
        [*source.glob("data/*/*.parquet"), *source.glob("manifests/*.json"), *source.glob(f"{FOLDER}/*.toml")]
    ):
        target = out / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.name.endswith("_examples"):
            shutil.copyfile(path, target)
            continue
        rows = [
            row if keep(row["task"]) else _withhold(row, declared.get(row["task"]) or get_task(row["task"]))
            for row in read_parquet(path).to_pylist()
        ]
        write_parquet(pa.Table.from_pylist(rows, schema=EXAMPLE_SCHEMA), target)
    for config in folder.configs():
        for run, reason in folder.failed(config).items():
            record = json.dumps({"run": run, "reason": reason}, indent=1) + "\n"
            write_text(copied.sidecar_path(config, run, "failed"), record)
    copied.write_card()
