"""Publishing a simulator: its weights, its code, its card with the figures of an evaluation."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from gptdynamics.atomic import write_text
from gptdynamics.errors import DataError
from gptdynamics.hub.model_push import push_model_files
from gptdynamics.hub.push import Pushed
from gptdynamics.hub.source import is_hub_id
from hub_cards import render

FIGURES = {
    "mse": "all-steps MSE",
    "mae": "all-steps MAE",
    "spearman": "final-step Spearman",
    "skill": "skill",
}


def push_simulator(
    model: Path, repo: str, private: bool = False, evaluation: Path | None = None, dataset: str | None = None
) -> Pushed:
    """Put a trained simulator into a model repository.

    Args:
        model: its folder.
        repo: `<owner>/<name>`.
        private: make the repository a private one.
        evaluation: what `gptfluence evaluate --json` wrote, with this model among the methods.
        dataset: Hub id of the runs it was trained on; default: what it was trained with, if that is one.

    Raises:
        DataError: the folder has no simulator, or the evaluation none of its figures; nothing was changed.
        GPTDynamicsError: as `push_model_files`.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    from simulator.modeling_gptfluence import GPTfluenceSimulator

    try:
        simulator = GPTfluenceSimulator.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{model}: no simulator that gptfluence train has saved ({reason})") from error
    training = _read(model / "training.json", dict)
    settings = dict(training.get("settings") or {})
    source = dataset or str(settings.get("dataset"))
    # A path of this machine means nothing to others.
    settings["dataset"] = source if is_hub_id(source) and not Path(source).exists() else None
    with tempfile.TemporaryDirectory(prefix="gptfluence-push-") as scratch:
        place = Path(scratch)
        simulator.save_pretrained(place)
        write_text(place / "training.json", json.dumps(training | {"settings": settings}, indent=1) + "\n")
        results = [] if evaluation is None else _results(evaluation, model, simulator.config)
        if results and settings["dataset"]:
            entries = eval_result_entries_to_yaml(
                [
                    EvalResultEntry(
                        settings["dataset"], f"{simulator.config.dataset_config}_{each['type']}", each["value"]
                    )
                    for each in results
                ]
            )
            write_text(place / ".eval_results" / "gptdynamics.yaml", yaml.safe_dump(entries, sort_keys=False))
        card = render(
            "model_card.md.jinja",
            repo=repo,
            config=simulator.config,
            dataset=settings["dataset"],
            base_model=simulator.config.base_model if is_hub_id(simulator.config.base_model) else None,
            initial=_initial(simulator.config),
            results=results,
        )
        write_text(place / "README.md", card)
        files = {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}
        return push_model_files(files, repo, private)


def _initial(config: Any) -> str:
    """The argument that `simulate` needs where first values must be given, as code."""
    if config.dynamics == "memory":
        return ""
    return f", initial=[[1.0] * {len(config.test_ids)}] * {config.order}"


def _read(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, kind):
        raise DataError(f"{path}: not what gptfluence has written")
    return content


def _results(path: Path, model: Path, config: Any) -> list[dict[str, Any]]:
    """The figures of this model in an evaluation."""
    for row in _read(path, list):
        named = row.get("model")
        if named is None or Path(named).resolve() != model.resolve():
            continue
        if (row["config"], row["metric"]) != (config.dataset_config, config.metric):
            continue
        return [
            {"type": key, "name": name, "value": row[key], "split": row["split"], "runs": row["runs"]}
            for key, name in FIGURES.items()
            if row[key] is not None
        ]
    raise DataError(f"{path}: has no figures of {model}. Run gptfluence evaluate with --models {model} --json {path}")
