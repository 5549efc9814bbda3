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
                    EvalResultEntry(settings["dataset"], f"{each['config']}_{each['type']}", each["value"])
                    for each in results
                ]
            )
            write_text(place / ".eval_results" / "gptdynamics.yaml", yaml.safe_dump(entries, sort_keys=False))
        card = render(
            "model_card.md.jinja",
            repo=repo,
            config=simulator.config,
            parts=[simulator.config.part(place) for place in range(len(simulator.config.groups))],
            dataset=settings["dataset"],
            base_models=sorted({name for name in _base_models(simulator.config) if is_hub_id(name)}),
            arguments=_arguments(simulator.config),
            results=results,
        )
        write_text(place / "README.md", card)
        files = {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}
        return push_model_files(files, repo, private)


def _base_models(config: Any) -> list[str]:
    return [config.part(place).base_model for place in range(len(config.groups))]


def _arguments(config: Any) -> str:
    """The arguments that `simulate` needs besides a curriculum, as code."""
    first, found = config.part(0), ""
    if config.dynamics == "markov":
        found += f", initial=[[1.0] * {len(first.test_ids)}] * {config.order}"
    if config.parts:
        found += f', config="{first.dataset_config}", metric="{first.metric}"'
    return found


def _read(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, kind):
        raise DataError(f"{path}: not what gptfluence has written")
    return content


def _results(path: Path, model: Path, config: Any) -> list[dict[str, Any]]:
    """The figures of this model in an evaluation, of every config and metric that it knows."""
    about = ("config", "metric", "split", "runs")
    found = [
        {"type": key, "name": name, "value": row[key]} | {each: row[each] for each in about}
        for row in _read(path, list)
        if row.get("model") is not None
        and Path(row["model"]).resolve() == model.resolve()
        and (row["config"], row["metric"]) in config.groups
        for key, name in FIGURES.items()
        if row[key] is not None
    ]
    if found:
        return found
    raise DataError(f"{path}: has no figures of {model}. Run gptfluence evaluate with --models {model} --json {path}")
