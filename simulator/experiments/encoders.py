"""Figure 5: what the frozen encoder contributes."""

from __future__ import annotations

from dataclasses import asdict, replace

from gptdynamics.configs import config_parts
from gptdynamics.errors import GPTDynamicsError
from simulator.encoders import ENCODERS
from simulator.evaluation.simulated import Simulated
from simulator.experiments.comparison import Row, score_grid
from simulator.experiments.workbench import UNTRAINABLE, Workbench, score_part
from simulator.reporting.result import Result
from simulator.training import TrainSettings
from simulator.training.fitting import fitter_named


def causal_models(bench: Workbench, result: Result) -> dict[str, str]:
    """Base models of the dataset by size, smallest first; `result.skipped` gets those that cannot be loaded."""
    # The first config of each size.
    firsts = {config_parts(config)[1]: config for config in reversed(bench.configs()[0])}
    counts = {}
    for size, config in firsts.items():
        try:
            counts[size] = bench.parameters(config)
        except GPTDynamicsError as error:
            result.skipped.append(f"causal_lm vectors of {size}: {error}")
    return {size: bench.runs(firsts[size]).base_model for size in sorted(counts, key=lambda size: counts[size])}


def encoders(bench: Workbench) -> Result:
    """Train markov and memory with every encoder, and with the base model of every size as a causal one."""
    result, configs = bench.begin("finetune")
    sizes = causal_models(bench, result) if configs else {}
    for config in configs:
        runs = bench.runs(config)
        held_out, seen = runs.split("test"), runs.split("train", "validation")
        for name, settings in _wanted(bench, config, sizes):
            try:
                trained = bench.trained(settings)
            except UNTRAINABLE as error:
                result.skipped.append(f"{config}, {settings.dynamics} with {name} vectors: {error}")
                continue
            figures = score_part(Simulated(trained.model).predict(held_out), held_out, seen, 1)
            about = {"config": config, "encoder": name, "dynamics": settings.dynamics}
            result.rows.append(about | asdict(figures))
    return result


def show_encoders(rows: list[Row]) -> Result:
    """Skill by kind of vector and of simulator."""
    page = Result(score_grid("loss", rows, "skill", keys=("encoder", "dynamics")))
    if rows:
        page.notes.append(
            "An encoder makes the vectors of examples that a simulator works with: `sentence` embeddings (MiniLM), "
            "the mean of the last hidden states of a base model (`causal_lm`), the `gradient` of an example at the "
            "base model's weights, a random vector for each `label`, or only the `index` of the example. markov with "
            "`index` is Simfluence."
        )
        page.notes.append(
            "The learning rate of markov is chosen for each encoder; its weight decay and width are those chosen for "
            "`sentence`."
        )
        page.notes.append("The paper (figure 5): BERT is a better encoder than Pythia, and larger Pythias add nothing.")
    return page


def _wanted(bench: Workbench, config: str, sizes: dict[str, str]) -> list[tuple[str, TrainSettings]]:
    """What is trained on a config, with the name of its vectors."""
    sentence = bench.settings(config, "loss", "markov", "sentence")
    try:
        chosen = bench.trained(sentence).choice
        shared = {name: chosen[name] for name in ("penalty", "hidden")}
    except UNTRAINABLE:
        # Its own row says why; without it every setting is tried.
        shared = {}
    wanted = []
    for encoder in ENCODERS:
        if encoder == "label" and bench.runs(config).test[0].references:
            continue
        for dynamics in ("markov",) if encoder == "index" else ("markov", "memory"):
            settings = bench.settings(config, "loss", dynamics, encoder)
            if not fitter_named(dynamics).has_closed_form and encoder not in ("sentence", "index"):
                settings = replace(settings, **shared)
            if encoder == "causal_lm":
                wanted += [(f"{encoder} {size}", replace(settings, encoder_model=sizes[size])) for size in sizes]
            else:
                wanted.append((encoder, settings))
    return wanted
