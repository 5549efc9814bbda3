"""Publishing the explorer of a simulator as a static Space on the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gptdynamics.atomic import write_text
from gptdynamics.dataset.card import card_tags, read_card
from gptdynamics.errors import DataError
from gptdynamics.hub.file_push import push_files, refuse_replacing
from gptdynamics.hub.push import Pushed
from gptdynamics.hub.repository import RemoteFile, Repository
from gptdynamics.hub.source import is_hub_id
from gptdynamics.parsing import read_json
from gptdynamics.scratch import scratch_folder
from hub_cards import render
from simulator.reporting.explorer.page import write_explorer
from simulator.reporting.explorer.views import views_of

_TAG = "gptfluence"


def push_space(
    model: Path, repo: str, space: str, texts: bool = True, private: bool = False, dataset: str | None = None
) -> Pushed:
    """Put the explorer of a simulator into a static Space.

    Args:
        model: folder of the simulator.
        repo: its model repository on the Hub, for the Space's card.
        space: `<owner>/<name>` of the Space; made if it is not there.
        texts: with prompts and targets.
        private: make the Space a private one.
        dataset: Hub id of the runs it was trained on; default: what it was trained with, if that is one.

    Raises:
        DataError: runs or simulator are missing or damaged, or the Space holds something else; nothing was changed.
        GPTDynamicsError: as `push_files`.
    """
    repository = Repository(space, "space")
    runs = trained_on(model)
    local = Path(runs).exists()
    views = views_of(runs if local or dataset is None else dataset, [str(model)])
    link = dataset or (runs if is_hub_id(runs) and not local else None)

    def check(there: Mapping[str, RemoteFile], head: str) -> None:
        ours = "README.md" in there and _TAG in _tags(repository.fetch("README.md", head))
        if not ours and "index.html" in there:
            raise DataError(f"{space} holds a page that is not an explorer: name another Space")
        if not ours:
            refuse_replacing(repository, files, there)

    with scratch_folder() as scratch:
        page, card = Path(scratch) / "index.html", Path(scratch) / "README.md"
        write_explorer(page, views, texts)
        configs, metrics = (
            list(dict.fromkeys(getattr(view.runs, of) for view in views)) for of in ("config", "metric")
        )
        text = render(
            "space/README.md.jinja",
            title=f"Explorer of {', '.join(configs)}",
            configs=configs,
            metrics=metrics,
            model=repo,
            dataset=link,
            texts=texts and any(example.prompt for view in views for example in view.runs.pool),
        )
        write_text(card, text)
        files = {"index.html": page, "README.md": card}
        return push_files(repository, files, check, "Upload explorer", private)


def trained_on(model: Path) -> str:
    """The dataset that a simulator in a folder was trained with, as it was named then.

    Raises:
        DataError: the folder does not say.
    """
    path = model / "training.json"
    try:
        return str(read_json(path)["settings"]["dataset"])
    except (DataError, LookupError, TypeError) as error:
        raise DataError(f"{path}: does not say which runs the simulator was trained on") from error


def _tags(card: Path) -> list[str]:
    return card_tags(read_card(card))
