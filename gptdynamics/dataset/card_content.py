"""The content of a dataset folder's card: files of each split, settings, counts, licences, a picture of some runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptdynamics.atomic import write_text
from gptdynamics.configs import SPLITS, split_of
from gptdynamics.dataset.card import CARD, FIGURE, is_older_card, merge_card, read_card
from gptdynamics.dataset.manifest import kind_of
from gptdynamics.dataset.run_files import read_run_row, read_trajectories
from gptdynamics.dataset.schema import read_parquet
from gptdynamics.metrics import LOSS, Metric
from hub_cards import render
from hub_cards.figure import Line, Panel, draw_panels

if TYPE_CHECKING:
    from gptdynamics.dataset.folder import DatasetFolder

HERE = "path/to/this/folder"
DRAWN_CONFIGS, DRAWN_RUNS = 12, 3
_BEGINNING = re.compile(
    r'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \d+ \d+" width="\d+" height="\d+" '
    r'font-family="sans-serif" font-size="10" fill="#333333">\n<rect width="\d+" height="\d+" fill="#FFFFFF"/>\n'
    r'<clipPath id="plot">'
)
_EXAMPLES = {"first test example": "#0072B2", "second": "#D55E00", "third": "#009E73"}


@dataclass(frozen=True, order=True)
class RowsLicence:
    """The dataset that the rows of a task come from, its licence, and whether their texts are in this one.

    `texts` is `here`, `left out`, or `partly here`.
    """

    task: str
    source: str
    licence: str
    texts: str


def rows_licences(paths: Iterable[Path]) -> list[RowsLicence]:
    """Sources and licences of the examples in these files, sorted; raises DataError if a file is damaged."""
    withheld: dict[tuple[str, str, str], set[bool]] = {}
    for path in paths:
        for row in read_parquet(path, ["task", "source", "prompt"]).to_pylist():
            source = json.loads(row["source"] or "{}")
            key = (row["task"], str(source.get("dataset", "unknown")), str(source.get("licence", "unknown")))
            withheld.setdefault(key, set()).add(row["prompt"] is None)
    words = {frozenset({True}): "left out", frozenset({False}): "here", frozenset({True, False}): "partly here"}
    return sorted(RowsLicence(*key, words[frozenset(states)]) for key, states in withheld.items())


def render_card(
    patterns: Mapping[str, Mapping[str, str]],
    summaries: Sequence[Mapping[str, Any]],
    licences: Sequence[RowsLicence],
    source: str = HERE,
    with_figure: bool = False,
    contents: Mapping[str, str] | None = None,
) -> str:
    """README.md of a dataset repository.

    Args:
        patterns: for each configuration a file pattern for each split.
        summaries: for each config of runs its settings and counts.
        licences: of the rows of each task.
        source: the Hub id to load it by, or words that stand for the card's folder.
        with_figure: whether there is a picture.
        contents: for each configuration a text that changes with its rows, because `load_dataset` caches the rows of a
            folder until the card's entry changes.
    """
    figure = FIGURE if with_figure else None
    return render(
        "dataset_card.md.jinja",
        configs=patterns,
        contents=contents or {},
        summaries=summaries,
        licences=licences,
        source=source,
        figure=figure,
    )


def card_files(folder: DatasetFolder, old: str, source: str = HERE, picture: bool = True) -> dict[str, str]:
    """The card, `README.md`, and its picture if there are runs to draw.

    `old` is the present card, into which the new one is merged (see `merge_card`); empty: there is none. `picture` is
    whether to draw one. Raises DataError if the old card's YAML or a file that the card describes is damaged.
    """
    licences = rows_licences(sorted(folder.root.glob("data/*_examples/*.parquet")))
    finished = {config: folder.finished(config) for config in folder.configs()}
    own_metrics = {config: list(folder.own_metrics(config).values()) for config in finished}
    figure = draw_runs(finished, folder.run_path, own_metrics) if picture else None
    summaries = [_summary(folder, config, runs) for config, runs in finished.items() if runs]
    patterns = folder.patterns()
    contents = {name: _content(folder, globs.values()) for name, globs in patterns.items()}
    text = render_card(patterns, summaries, licences, source, figure is not None, contents)
    card = {CARD: merge_card(old, text) if old else text}
    return card if figure is None else card | {FIGURE: figure}


def _content(folder: DatasetFolder, globs: Iterable[str]) -> str:
    """A digest of the names of these files, and of the manifest and the examples, which determine their values.

    The files themselves are not read, because for the card of a push most files are known by name only.
    """
    paths = sorted(path for glob in globs for path in folder.root.glob(glob))
    config = paths[0].parent.name.removesuffix("_runs").removesuffix("_gradients") if paths else ""
    digest = hashlib.sha256("\n".join(path.relative_to(folder.root).as_posix() for path in paths).encode())
    examples = f"data/{config.rpartition('_')[0]}_examples/*.parquet"
    if folder.manifest_path(config).exists():
        manifest = {name: value for name, value in folder.manifest(config).items() if name != "planned"}
        digest.update(json.dumps(manifest, sort_keys=True).encode())
    else:
        examples = f"data/{config}/*.parquet" if config.endswith("_examples") else examples
    for path in sorted(folder.root.glob(examples)):
        digest.update(path.read_bytes())
    return f"{len(paths)} files, {digest.hexdigest()[:12]}"


def write_card(folder: DatasetFolder) -> None:
    """Write the card and its picture, if they change; a card of an older version is replaced.

    A user's changes to the card are kept, and so is a picture of the same name from elsewhere. Raises DataError if the
    present card cannot be read, or a file that it describes is damaged.
    """
    old = read_card(folder.root / CARD)
    content = card_files(folder, "" if is_older_card(old) else old, picture=may_draw(folder.root / FIGURE))
    for name, text in content.items():
        path = folder.root / name
        if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
            write_text(path, text)


def may_draw(picture: Path) -> bool:
    """Whether the picture of a card may be written: there is none, or a version of this package has drawn it."""
    if not picture.exists():
        return True
    return picture.is_file() and _BEGINNING.match(picture.read_text("utf-8", "replace")) is not None


def _summary(folder: DatasetFolder, config: str, finished: Sequence[str]) -> dict[str, Any]:
    row = read_run_row(folder.run_row_path(config, finished[0]), config, finished[0])
    table = read_trajectories(folder.run_path(config, finished[0]), finished[0])
    metrics = folder.metrics(config)
    kind = kind_of(folder.manifest(config)) if folder.manifest_path(config).exists() else None
    return row | {
        "splits": {split: sum(split_of(run) == split for run in finished) for split in SPLITS},
        "metrics": [name for name in table.column_names if name in metrics],
        "own_metrics": list(folder.own_metrics(config).values()),
        "steps": len(row["curriculum"]),
        "test_examples": table.num_rows,
        "imported": kind == "imported",
        "recorded": kind == "recorded",
        "failed": len(folder.failed(config)),
    }


def drawn_runs(finished: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """The runs in the picture, by config: the first three finished runs of each of the first twelve configs."""
    return dict([(config, runs[:DRAWN_RUNS]) for config, runs in finished.items() if runs][:DRAWN_CONFIGS])


def draw_runs(
    finished: Mapping[str, Sequence[str]],
    path_of: Callable[[str, str], Path],
    own_metrics: Mapping[str, Sequence[Metric]],
) -> str | None:
    """An SVG of the first three test examples in the drawn runs: the loss, and the tasks' own metrics; None if empty.

    `finished` has names of runs by config; `path_of` returns the trajectories' file of a run of a config. Raises
    DataError if a file is damaged.
    """
    panels = []
    for config, runs in drawn_runs(finished).items():
        tables = [read_trajectories(path_of(config, run), run).slice(0, len(_EXAMPLES)).to_pylist() for run in runs]
        rows = [(*style, row) for table in tables for style, row in zip(_EXAMPLES.items(), table, strict=False)]
        for metric in (LOSS, *own_metrics.get(config, ())):
            steps = metric.step_column
            lines = [
                Line(row[steps], row[metric.name], colour, label)
                for label, colour, row in rows
                # Recorded runs may lack the loss.
                if row.get(metric.name) and len(row[metric.name]) == len(row[steps])
            ]
            if lines:
                # The vertical axis is labelled once for a row of panels.
                title = config if metric == LOSS else f"{config}: {metric.axis_title}"
                panels.append(Panel(title, metric.title, lines))
    return draw_panels(panels) if panels else None
