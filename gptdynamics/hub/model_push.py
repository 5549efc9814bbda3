"""Pushing a folder of model files to a model repository on the Hub, in one commit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gptdynamics.errors import DataError
from gptdynamics.hub.file_push import push_files, refuse_replacing
from gptdynamics.hub.push import Pushed
from gptdynamics.hub.repository import RemoteFile, Repository
from gptdynamics.models.nano import MODEL_FOLDER


def push_model_files(
    files: Mapping[str, Path],
    repo: str | Repository,
    private: bool = False,
    on_wait: Callable[[str], None] = lambda reason: None,
    own_metadata: Sequence[str] = (),
    message: str = "Upload model",
    description: str | None = None,
    pull_request: bool = False,
) -> Pushed:
    """Upload model files to a repository, which is created if it does not exist; its other files are not changed.

    Args:
        files: a local file for each path in the repository, `config.json` among them.
        repo: `<owner>/<name>`, or the repository with a branch and a token.
        private: make the repository private.
        on_wait: called with the reason before each retry.
        own_metadata: names in the card's YAML whose values are generated.
        message, description: of the commit.
        pull_request: open one instead of changing the branch.

    Raises:
        SettingsError: no token, no permission, or `repo` has no owner; nothing was changed.
        DataError: the repository has a model of another kind; nothing was changed.
        UnreachableError: the Hub failed repeatedly.
    """
    repository = Repository(repo, "model") if isinstance(repo, str) else repo

    def check(remote: Mapping[str, RemoteFile], head: str) -> None:
        if "config.json" in remote:
            remote_type, local_type = (
                _model_type(file) for file in (repository.fetch("config.json", head), files["config.json"])
            )
            if remote_type != local_type:
                raise DataError(
                    f"{repository.id} has a model of another kind ({remote_type}, not {local_type}): name another one"
                )
        else:
            refuse_replacing(repository, files, remote)

    return push_files(repository, files, check, message, private, on_wait, own_metadata, pull_request, description)


def _model_type(config: Path) -> str:
    try:
        return str(json.loads(config.read_text(encoding="utf-8")).get("model_type"))
    except (ValueError, AttributeError) as error:
        raise DataError(f"{config}: not the configuration of a model") from error


def push_base(repo: str, folder: Path = MODEL_FOLDER, private: bool = False) -> Pushed:
    """Publish a base model, so that other users can get the model that runs and simulators name.

    Args:
        repo: `<owner>/<name>`.
        folder: with its weights, tokenizer and card; default: the bundled `nano`.
        private: make the repository private.

    Raises:
        DataError: the folder has no model; see also `push_model_files`.
    """
    names = ("config.json", "model.safetensors", "tokenizer.json", "README.md")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder}: no {missing[0]}; a base model has {', '.join(names)}")
    return push_model_files({path.name: path for path in sorted(folder.iterdir()) if path.is_file()}, repo, private)
