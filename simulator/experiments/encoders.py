"""Figure 5: what the frozen encoder contributes."""

from __future__ import annotations

from dataclasses import asdict

from gptdynamics.errors import GPTDynamicsError
from simulator.encoders import ENCODERS
from simulator.evaluation.simulated import Simulated
from simulator.experiments.comparison import comparison_table, dot_figure
from simulator.experiments.result import Result
from simulator.experiments.workbench import Workbench, score_part


def encoders(bench: Workbench) -> Result:
    """Train markov and memory with every encoder."""
    result = Result()
    configs, reasons = bench.configs("finetune")
    result.skipped.extend(reasons)
    for config in configs:
        runs = bench.runs(config)
        held_out, seen = runs.split("test"), runs.split("train", "validation")
        rows = []
        for encoder in ENCODERS:
            for dynamics in ("markov", "memory"):
                if (encoder == "label" and runs.test[0].references) or (dynamics, encoder) == ("memory", "index"):
                    continue
                try:
                    trained = bench.trained(bench.settings(config, "loss", dynamics, encoder))
                except (GPTDynamicsError, ImportError, OSError) as error:
                    result.skipped.append(f"{config}, {dynamics} with {encoder} vectors: {error}")
                    continue
                predicted = Simulated(trained.model).predict(held_out)
                figures = score_part(predicted, held_out, seen, 1, list(range(len(runs.test))))
                method = "markov_1" if dynamics == "markov" else f"memory_{encoder}"
                about = {"config": config, "encoder": encoder, "dynamics": dynamics, "method": method}
                rows.append(about | asdict(figures))
        result.rows.extend(rows)
        result.tables.append(comparison_table(f"{config}, loss", rows, "encoder"))
        result.figures.append(dot_figure(f"{config}, loss: encoders", rows, "encoder", "5"))
    if result.rows:
        result.notes.append(
            "The paper (figure 5) compares BERT (MiniLM, here `sentence`) with Pythia of three sizes as encoders of "
            "markov, and finds BERT better and no gain from larger Pythias. `causal_lm` is the mean of the last states "
            "of the base model of the runs; markov with `index` vectors is Simfluence."
        )
    return result
