"""How markov simulators are trained, by name: tuned by us, or as the paper's tables 6 and 8 say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gptdynamics.configs import config_parts
from simulator.training import markov_fit
from simulator.training.markov_fit import MarkovChoice, MarkovTraining

# With all test examples, 8 rows an update: a sixth of the updates of an epoch of triples, where there are 100 of them.
ROWS = 8
# The paper gives the number of weights (11.4 M), not the width.
PAPER_HIDDEN = 64
PAPER_PENALTY = 1e-5
# Table 8.
FINETUNE_RATE, FINETUNE_EPOCHS = 1e-4, 300
INSTRUCT_EPOCHS = 50
# Table 6, by Pythia size; other base models take that of the smallest.
INSTRUCT_RATES = {"14m": 1e-6, "70m": 1e-6, "160m": 1e-6, "410m": 1e-5, "1b": 1e-5, "2.8b": 1e-5}


@dataclass(frozen=True)
class Preset:
    """Settings that are tried, and how each is trained."""

    choices: list[MarkovChoice]
    training: MarkovTraining

    def fixed(self, **values: Any) -> Preset:
        """The same, with some of the values of each setting given; None leaves a value as it is."""
        given = {name: value for name, value in values.items() if value is not None}
        return replace(self, choices=list(dict.fromkeys(replace(choice, **given) for choice in self.choices)))


def preset_of(name: str, configs: Sequence[str], objective: str, seed: int) -> Preset:
    """A preset for the configs to be trained on.

    `tuned`: sixteen settings, at most 1,000 updates of 256 rows with all test examples, stopped early.
    `paper-finetune` (table 8): AdamW of rate 1e-4, at most 300 epochs. `paper-instruct` (table 6): of rate 1e-6, or
    1e-5 from 410M parameters on, at most 50 epochs. Both: batches of 128 (run, step, test example) triples, 200
    updates of warm-up, linear decay, lambda 1e-5 as weight decay, stopped early (after 10 epochs without a better
    validation; the paper does not say how many), random first weights. `paper-finetune-rows`: table 8, but for
    batches of 8 rows with all test examples, which train several times as fast.

    Args:
        name: one of those of `TrainSettings`.
        configs: `<task>_<size>` of each.
        objective: of `MarkovTraining`.
        seed: likewise.
    """
    if name == "tuned":
        training = markov_fit.MarkovTraining(seed=seed)
        return Preset(markov_fit.choices(), replace(training, objective=objective))
    sizes = [config_parts(config)[1] for config in configs]
    rate = min(INSTRUCT_RATES.get(size, 1e-6) for size in sizes) if name == "paper-instruct" else FINETUNE_RATE
    rows = name == "paper-finetune-rows"
    training = MarkovTraining(
        epochs=INSTRUCT_EPOCHS if name == "paper-instruct" else FINETUNE_EPOCHS,
        batch_rows=ROWS if rows else 128,
        triples=not rows,
        warmup=200,
        patience=10,
        objective=objective,
        from_persistence=False,
        seed=seed,
    )
    return Preset([MarkovChoice(rate, PAPER_PENALTY, PAPER_HIDDEN)], training)
