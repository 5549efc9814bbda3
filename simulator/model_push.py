"""Publishing a simulator: its weights, its code, its card with the figures of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptdynamics.atomic import write_text
from gptdynamics.errors import DataError, GPTDynamicsError
from gptdynamics.hub.model_push import push_model_files
from gptdynamics.hub.push import Pushed
from gptdynamics.hub.source import is_hub_id
from gptdynamics.models.base_model import unpublished_note
from gptdynamics.parsing import read_json
from gptdynamics.scratch import scratch_folder
from simulator.model_card import (
    FIGURE,
    FIGURE_FIELDS,
    FIGURES,
    GENERATED_METADATA,
    draw_held_out,
    figures_of,
    render_model_card,
)


def push_simulator(
    model: Path,
    repo: str,
    private: bool = False,
    evaluation: Path | None = None,
    dataset: str | None = None,
    on_note: Callable[[str], None] = lambda line: None,
) -> Pushed:
    """Put a trained simulator into a model repository.

    Args:
        model: its folder.
        repo: `<owner>/<name>`.
        private: make the repository a private one.
        evaluation: what `gptfluence evaluate --json` wrote, with this model among the methods.
        dataset: Hub id of the runs it was trained on; default: what it was trained with, if that is one.
        on_note: called with a line for what the model or its card lacks.

    Raises:
        DataError: the folder has no simulator, or the evaluation none of its figures; nothing was changed.
        GPTDynamicsError: as `push_model_files`.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    from simulator.model.modeling_gptfluence import GPTfluenceSimulator

    try:
        simulator = GPTfluenceSimulator.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{model}: no simulator that gptfluence train has saved ({reason})") from error
    training = _read(model / "training.json", dict)
    if not {"settings", "fitted"} <= training.keys():
        raise DataError(f"{model / 'training.json'}: not what gptfluence has written")
    settings = dict(training["settings"])
    source = dataset or str(settings.get("dataset"))
    # A path of this machine means nothing to others.
    settings["dataset"] = source if is_hub_id(source) and not Path(source).exists() else None
    for base in sorted({simulator.config.part(place).base_model for place in range(len(simulator.config.groups))}):
        note = unpublished_note(base)
        if note is not None:
            on_note(note)
    with scratch_folder() as scratch:
        place = Path(scratch)
        simulator.save_pretrained(place)
        record = training | {"settings": settings}
        write_text(place / "training.json", json.dumps(record, indent=1) + "\n")
        results = [] if evaluation is None else _results(evaluation, model, simulator.config)
        if results and settings["dataset"]:
            entries = eval_result_entries_to_yaml(
                [
                    EvalResultEntry(
                        settings["dataset"], f"{each['config']}_{each['metric']}_{each['type']}", each["value"]
                    )
                    for each in results
                ]
            )
            write_text(place / ".eval_results" / "gptdynamics.yaml", yaml.safe_dump(entries, sort_keys=False))
        try:
            write_text(place / FIGURE, draw_held_out(simulator, source))
        except GPTDynamicsError as error:
            on_note(f"the card has no picture of held-out runs: {error}")
        figure = FIGURE if (place / FIGURE).exists() else None
        write_text(place / "README.md", render_model_card(repo, simulator.config, record, results, figure))
        files = {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}
        return push_model_files(files, repo, private, own_metadata=GENERATED_METADATA)


def _read(path: Path, kind: type) -> Any:
    content = read_json(path)
    if not isinstance(content, kind):
        raise DataError(f"{path}: not what gptfluence has written")
    return content


def _results(path: Path, model: Path, config: Any) -> list[dict[str, Any]]:
    """The figures of this model in an evaluation, of every config and metric that it knows."""
    rows = _read(path, list)
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or "model" not in row:
            raise DataError(f"{path}: row {number} lacks model: it is not what gptfluence evaluate has written")
        lacking = [name for name in FIGURE_FIELDS if row["model"] is not None and name not in row]
        if lacking:
            raise DataError(f"{path}: row {number} lacks {lacking[0]}: it is not what gptfluence evaluate has written")
        odd = [name for name in FIGURES if not isinstance(row.get(name), int | float | None)]
        if odd or not isinstance(row["model"], str | None) or "\0" in (row["model"] or ""):
            name = odd[0] if odd else "model"
            raise DataError(f"{path}: row {number}: {name} is {row[name]!r:.60}, which gptfluence has not written")
    found = [
        figure
        for row in rows
        if row.get("model") is not None
        and Path(row["model"]).resolve() == model.resolve()
        and (row["config"], row["metric"]) in config.groups
        for figure in figures_of(row)
    ]
    if found:
        return found
    raise DataError(f"{path}: has no figures of {model}. Run gptfluence evaluate with --models {model} --json {path}")
