"""The `gptfluence` command."""

from __future__ import annotations

import sys
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import typer

from gptdynamics.commands.from_settings import add_command
from gptdynamics.commands.options import TaskFileOption, add_task_files, file_option, json_option
from gptdynamics.console import run_process, say, say_error, show
from gptdynamics.errors import SettingsError
from gptdynamics.interruption import keeps
from gptdynamics.outputs import write_output_json
from simulator.commands.explorer import write_page
from simulator.commands.influence import influence
from simulator.commands.mislabel import mislabel
from simulator.commands.phases import phases
from simulator.commands.select import select
from simulator.commands.simulate import simulate
from simulator.commands.train import train
from simulator.commands.validate import validate

app = typer.Typer(
    help="Train, evaluate and look at simulators of training dynamics.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Dataset = Annotated[str, typer.Argument(help="A dataset folder or a Hub id.")]
Config = Annotated[str, typer.Option(help="<task>_<size>, e.g. rte_nano.")]
Metric = Annotated[str, typer.Option(help="loss, accuracy, bleu or rougeL.")]
Configs = Annotated[list[str], typer.Option("--config", help="<task>_<size>, e.g. rte_nano; may be repeated.")]
Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", help="loss, accuracy, bleu or rougeL; may be repeated.", show_default="loss"),
]
Models = Annotated[
    list[str] | None,
    typer.Option(help="Simulators, folders or Hub ids. Default: train markov and memory here."),
]


def _several(names: list[str]) -> tuple[str, ...]:
    """Names given one by one, or with commas."""
    return tuple(",".join(names).split(","))


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for everything it makes.")] = Path("quickstart"),
    json_file: Annotated[
        Path | None, json_option("a list of `report` (the page) and `rows` (as of evaluate), one for each task.")
    ] = None,
) -> None:
    """Collect, train, predict, compare and report, on the bundled model and tasks: some minutes."""

    from simulator.quickstart import quickstart as run_quickstart
    from simulator.reporting.tables import rows_table

    keeps(f"finished runs are kept in {out}")
    made = []
    with phases() as (on_phase, on_progress):
        for evaluation, page in run_quickstart(out, on_phase, on_progress):
            made.append((evaluation, page))
    if json_file is not None:
        write_output_json(json_file, [{"report": page, "rows": evaluation.rows} for evaluation, page in made])
    for evaluation, page in made:
        show(rows_table(evaluation.rows))
        say(f"report: {page.resolve()}")
    model = made[0][0].rows[-1].model
    say("next, on rows of your own or of the Hub:")
    say(f"  gptdynamics collect rte_nano --runs 8 --out {out}/dynamics")
    say("or look again at what was made:")
    say(f"  gptfluence evaluate {out}/dynamics --config mini_sentiment_nano --models {model}")


add_command(app, train)


@app.command()
def evaluate(
    dataset: Dataset,
    config: Configs,
    metric: Metrics = None,
    models: Models = None,
    baselines: Annotated[
        list[str] | None, typer.Option(help="Methods to compare with. Default: all but tracin_cp_published.")
    ] = None,
    json_file: Annotated[
        Path | None,
        json_option(
            "a list of rows: `method`, `model`, `config`, `metric`, `split`, `mse`, `mse_std`, `mae`, `mae_std`, "
            "`spearman`, `spearman_std`, `skill`, `coverage`, `runs`, `examples`, ...; null where undefined."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="test, or test_unseen: runs on pool rows unseen in training.")] = "test",
    unseen_tests: Annotated[
        float, typer.Option(help="Keep this share of the test examples from training, and score on them.")
    ] = 0.0,
    task_file: TaskFileOption = None,
) -> None:
    """Score every method on held-out runs, of each config and metric apart."""

    from simulator.evaluation import EvaluateSettings, Unseen, write_rows
    from simulator.evaluation import evaluate as evaluate_methods
    from simulator.reporting.tables import rows_table
    from simulator.training.parts import groups_of

    keeps("encodings are kept, scores are not")
    add_task_files(task_file)
    named = {"baselines": tuple(baselines)} if baselines else {}
    unseen = Unseen(unseen_tests, split)
    rows = []
    for each in groups_of(dataset, _several(config), _several(metric or ["loss"])):
        settings = EvaluateSettings(dataset, each[0], each[1], tuple(models or ()), **named)
        with phases() as (on_phase, on_progress):
            evaluation = evaluate_methods(settings, on_phase, on_progress, unseen=unseen)
        show(rows_table(evaluation.rows))
        rows += evaluation.rows
    if json_file is not None:
        write_rows(rows, json_file)


@app.command()
def report(
    dataset: Dataset,
    output: Annotated[Path, file_option("The HTML page.")],
    config: Annotated[
        str | None, typer.Option(help="<task>_<size>, e.g. rte_nano. With --interactive: default, those of the models.")
    ] = None,
    metric: Metric = "loss",
    models: Models = None,
    figure: Annotated[Path | None, file_option("Also draw a few trajectories here (.svg or .png).")] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="A page that simulates changed runs itself: the explorer.")
    ] = False,
    no_texts: Annotated[
        bool, typer.Option("--no-texts", help="With --interactive: leave out prompts and targets, but for labels.")
    ] = False,
) -> None:
    """Write one self-contained page: the table, and true against predicted trajectories; or the explorer."""
    keeps("encodings are kept, scores are not")
    if interactive:
        if figure is not None:
            raise SettingsError("--figure is of the report without --interactive")
        write_page(dataset, output, config, metric, models or [], texts=not no_texts)
        return
    from simulator.evaluation import EvaluateSettings
    from simulator.evaluation import evaluate as evaluate_methods
    from simulator.reporting.evaluation_page import report_evaluation
    from simulator.reporting.prediction_figures import draw_trajectories

    if config is None or no_texts:
        lacking = "--no-texts needs --interactive" if no_texts else "give --config, e.g. --config rte_nano"
        raise SettingsError(lacking)
    settings = EvaluateSettings(dataset, config, metric, tuple(models or ()))
    with phases() as (on_phase, on_progress):
        evaluation = evaluate_methods(settings, on_phase, on_progress)
    report_evaluation(evaluation, settings, output)
    say(f"wrote {output}")
    if figure is not None:
        draw_trajectories(evaluation.runs, evaluation.predictions, figure)
        say(f"wrote {figure}")


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="An experiment of the paper, or all; a wrong name lists them.")],
    dataset: Dataset,
    output: Annotated[Path, typer.Option(help="Folder for tables, figures and pages.")],
    config: Annotated[list[str] | None, typer.Option(help="Only this config. Default: all.")] = None,
    json_file: Annotated[
        Path | None,
        json_option(
            "a list of experiments: `experiment`, `title`, `command`, `seconds`, `versions`, `rows` (figures by name), "
            "`notes`, `skipped`, `tables`, `figures`."
        ),
    ] = None,
    task_file: TaskFileOption = None,
) -> None:
    """Repeat the paper's experiments on a dataset: JSON, Markdown tables beside the paper's figures, plots."""
    from simulator.experiments import Workbench, run_all, run_experiment
    from simulator.reporting.result_files import result_record

    keeps(f"finished experiments are kept in {output}" if name == "all" else "encodings are kept")
    add_task_files(task_file)
    with phases() as (on_phase, on_progress):
        bench = Workbench(dataset, tuple(config or ()), on_phase, on_progress)
        found = list(run_all(bench, output)) if name == "all" else [run_experiment(name, bench, output)]
    if json_file is not None:
        write_output_json(json_file, [result_record(finished) for finished in found])
    for finished in found:
        result = finished.result
        made = f"{len(result.tables)} tables, {len(result.figures)} figures in {finished.seconds:.0f} s"
        say(f"{finished.name}: {made if result.tables or result.figures else 'nothing could be done'}")
        for reason in result.skipped:
            say(f"  skipped: {reason}")
    say(f"wrote {output / ('results.html' if name == 'all' else name + '.html')}")


@app.command()
def push(
    model: Annotated[Path, typer.Argument(help="Folder of a simulator.")],
    repo: Annotated[str, typer.Argument(help="Model repository <owner>/<name>; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one.")] = False,
    evaluation: Annotated[
        Path | None, typer.Option(help="What evaluate --json wrote: its figures go on the card.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Hub id of the runs.", show_default="that trained on, if it was a Hub id")
    ] = None,
    space: Annotated[str | None, typer.Option(help="Also publish its explorer as this static Space.")] = None,
    no_texts: Annotated[
        bool, typer.Option("--no-texts", help="With --space: leave out prompts and targets, but for labels.")
    ] = False,
    json_file: Annotated[
        Path | None,
        json_option("`model` and `space` (or null), each with `repository`, `created`, `files`, `size`, `sha`, `url`."),
    ] = None,
) -> None:
    """Publish a simulator on the Hub, so that it can be loaded with and without this package."""
    from simulator.model_push import push_simulator

    keeps("what was uploaded is kept")
    shown = None
    pushed = push_simulator(model, repo, private, evaluation, dataset, lambda line: say_error(f"note: {line}"))
    say(f"{len(pushed.files)} files, {pushed.size / 2**20:.2f} MiB went to {repo}")
    if pushed.url is not None:
        say(pushed.url)
    if space is not None:
        from simulator.space_push import push_space

        shown = push_space(model, repo, space, texts=not no_texts, private=private, dataset=dataset)
        say(f"{len(shown.files)} files, {shown.size / 2**20:.2f} MiB went to {space}")
        if shown.url is not None:
            say(shown.url)
    if json_file is not None:
        write_output_json(json_file, {"model": pushed.to_dict(), "space": None if shown is None else shown.to_dict()})


for command in (simulate, influence, mislabel, select, validate):
    app.command()(command)


def spread_models(arguments: list[str]) -> list[str]:
    """`--models A B` as `--models A --models B`, which is what the parser knows."""
    spread: list[str] = []
    inside = False
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue="-"):
        if argument.startswith("-"):
            inside = argument == "--models"
            # With nothing to spread it is left to the parser, which says that a value is missing.
            if inside and not following.startswith("-"):
                continue
        spread += ["--models", argument] if inside and argument != "--models" else [argument]
    return spread


def main() -> None:
    """Entry point."""
    run_process(app, spread_models(sys.argv[1:]), "gptfluence")


if __name__ == "__main__":
    main()
