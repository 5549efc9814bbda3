"""Publishing a simulator: its weights, its code, its card with the figures of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gptdynamics.atomic import write_text
from gptdynamics.errors import DataError, GPTDynamicsError
from gptdynamics.hub.model_push import push_model_files
from gptdynamics.hub.push import Pushed
from gptdynamics.hub.repository import Repository
from gptdynamics.hub.source import is_hub_id
from gptdynamics.models.base_model import unpublished_note
from gptdynamics.parsing import read_json
from gptdynamics.scratch import scratch_folder
from simulator.hub.card import (
    FIGURE,
    FIGURE_FIELDS,
    FIGURES,
    GENERATED_METADATA,
    draw_held_out,
    figures_of,
    render_model_card,
)

_TRAINING = "training.json"


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
    from simulator.model.modeling_gptfluence import GPTfluenceSimulator

    try:
        simulator = GPTfluenceSimulator.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{model}: no simulator that gptfluence train has saved ({reason})") from error
    training = _training_record(model / "training.json")
    results = [] if evaluation is None else _results(evaluation, model, simulator.config)
    with scratch_folder() as scratch:
        place = Path(scratch)
        _write_repository(place, simulator, training, Repository(repo, "model"), results, dataset, on_note)
        return push_model_files(_files(place), repo, private, own_metadata=GENERATED_METADATA)


def push_loaded(
    simulator: Any,
    repo_id: str,
    *,
    commit_message: str | None = None,
    commit_description: str | None = None,
    private: bool | None = None,
    token: bool | str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    max_shard_size: int | str | None = None,
    tags: Sequence[str] | str | None = None,
) -> str:
    """Put a simulator that is in memory into a model repository: the `push_to_hub` of `transformers`, with our card.

    Args:
        simulator: a `GPTfluenceSimulator`, of this package or of the code that travels with a model.
        repo_id: `<owner>/<name>`, or a name under the user's own.
        commit_message, commit_description: of the commit.
        private: make the repository a private one.
        token: of the user; None or True: the one that is logged in.
        revision: branch to change; made from main if it is not there.
        create_pr: open a pull request instead of changing the branch.
        max_shard_size: has no effect, since weights are one file.
        tags: further tags for the card.

    Returns:
        Address of the commit or pull request; where nothing had to change, of the repository.

    Raises:
        GPTDynamicsError: as `push_model_files`.
    """
    from huggingface_hub import constants

    own_token = token if isinstance(token, str) else None
    if "/" not in repo_id:
        repo_id = f"{Repository(f'me/{repo_id}', 'model', token=own_token).user()}/{repo_id}"
    repository = Repository(repo_id, "model", revision or "main", own_token)
    wanted = [tags] if isinstance(tags, str) else list(tags or [])
    with scratch_folder() as scratch:
        place = Path(scratch)
        _write_repository(place, simulator, _record_of(simulator), repository, tags=wanted)
        pushed = push_model_files(
            _files(place),
            repository,
            bool(private),
            own_metadata=GENERATED_METADATA,
            message=commit_message or "Upload model",
            description=commit_description,
            pull_request=create_pr,
        )
    return pushed.url or f"{constants.ENDPOINT}/{repo_id}"


def _record_of(simulator: Any) -> dict[str, Any] | None:
    """How a simulator was trained: from its training in this process, or from what lies beside its weights."""
    if simulator.training_record is not None:
        return dict(simulator.training_record)
    source = Path(simulator.name_or_path) if simulator.name_or_path else None
    if source is None:
        return None
    if source.is_dir():
        path: str | None = str(source / _TRAINING) if (source / _TRAINING).is_file() else None
    else:
        from transformers.utils import cached_file

        revision = getattr(simulator.config, "_commit_hash", None)
        path = cached_file(
            simulator.name_or_path, _TRAINING, revision=revision, _raise_exceptions_for_missing_entries=False
        )
    return None if path is None else _training_record(Path(path))


def _write_repository(
    place: Path,
    simulator: Any,
    training: dict[str, Any] | None,
    repository: Repository,
    results: Sequence[dict[str, Any]] = (),
    dataset: str | None = None,
    on_note: Callable[[str], None] = lambda line: None,
    tags: Sequence[str] = (),
) -> None:
    """Write the files of a model repository: weights, code, the record of training, the card and its picture."""
    for base in sorted({simulator.config.part(index).base_model for index in range(len(simulator.config.groups))}):
        note = unpublished_note(base)
        if note is not None:
            on_note(note)
    simulator.save_pretrained(place)
    figure = None
    if training is not None:
        settings = dict(training["settings"])
        source = dataset or str(settings.get("dataset"))
        # A path of this machine means nothing to others.
        settings["dataset"] = source if is_hub_id(source) and not Path(source).exists() else None
        training = training | {"settings": settings}
        write_text(place / _TRAINING, json.dumps(training, indent=1) + "\n")
        if results and settings["dataset"]:
            _write_eval_results(place, settings["dataset"], results)
        try:
            write_text(place / FIGURE, draw_held_out(simulator, source))
            figure = FIGURE
        except GPTDynamicsError as error:
            on_note(f"the card has no picture of held-out runs: {error}")
    write_text(
        place / "README.md", render_model_card(repository.id, simulator.config, training, list(results), figure, tags)
    )


def _write_eval_results(place: Path, dataset: str, results: Sequence[dict[str, Any]]) -> None:
    """Write the figures where the Hub looks for results of evaluations."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries = [
        EvalResultEntry(dataset, f"{each['config']}_{each['metric']}_{each['type']}", each["value"]) for each in results
    ]
    content = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
    write_text(place / ".eval_results" / "gptdynamics.yaml", content)


def _files(place: Path) -> dict[str, Path]:
    """Files of a folder, by their paths in it."""
    return {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}


def _training_record(path: Path) -> dict[str, Any]:
    """What `gptfluence train` writes beside a simulator."""
    training = _read(path, dict)
    if not {"settings", "fitted"} <= training.keys():
        raise DataError(f"{path}: not what gptfluence has written")
    return dict(training)


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
    figures = [
        figure
        for row in rows
        if row.get("model") is not None
        and Path(row["model"]).resolve() == model.resolve()
        and (row["config"], row["metric"]) in config.groups
        for figure in figures_of(row)
    ]
    if figures:
        return figures
    raise DataError(f"{path}: has no figures of {model}. Run gptfluence evaluate with --models {model} --json {path}")
