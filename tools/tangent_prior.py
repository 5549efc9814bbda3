"""The coefficients of tangent dynamics that comes with the package: what the given configs have in common."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from gptdynamics.atomic import write_text
from gptdynamics.dataset import read_dynamics
from simulator.model.configuration_gptfluence import scale_of
from simulator.model.tangent_dynamics import PARTS
from simulator.training import tangent_prior
from simulator.training.mean_curve_fit import FOLDS
from simulator.training.memory_states import FEW
from simulator.training.reference_kernels import fitted_kernels, reference_kernels
from simulator.training.tangent_features import FittedRuns, Regression, filter_responses, filtered_kernels

RIDGE = 0.1


def coefficients_of(dataset: str, config: str) -> tuple[np.ndarray, float]:
    """The coefficients `[P * G * F]` of a config's loss, for effects of unit mean square, and the size of its effects.

    Of training and validation runs, with kernels of unit mean square in the three groups.
    """
    runs = read_dynamics(dataset, config)
    kernels = fitted_kernels(reference_kernels(runs), "base_early_late", 1.0)
    fitted = FittedRuns.of(runs.split("train", "validation"), scale_of("loss"))
    features = filtered_kernels(fitted, kernels, filter_responses(fitted, FEW))
    regression = Regression.of(features, fitted.latent)
    count = len(fitted.values)
    weights = regression.weights(RIDGE, np.arange(count), np.arange(FOLDS))
    effects = np.stack([regression.effects(run, weights[None])[0] for run in range(count)])
    size = float(np.sqrt(np.square(effects - effects.mean(0)).mean()))
    return weights / regression.size / size, size


def main() -> None:
    """`python -m tools.tangent_prior DATASET:CONFIG ...`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="+", help="dataset folder and config, e.g. out/nano:sst2_nano")
    given = parser.parse_args()
    fits = [coefficients_of(*each.rsplit(":", 1)) for each in given.configs]
    mean = np.mean([weights for weights, _ in fits], axis=0) * np.mean([size for _, size in fits])
    rounded = np.vectorize(lambda value: float(f"{value:.4g}"))(mean.reshape(PARTS, 3, -1)).tolist()
    content = {"configs": [each.rsplit(":", 1)[1] for each in given.configs], "weights": rounded}
    write_text(Path(tangent_prior.__file__).with_suffix(".json"), json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
