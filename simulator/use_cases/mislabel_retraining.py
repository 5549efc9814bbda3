"""What correcting the labels that a ranking puts first does for the test accuracy, by training again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gptdynamics.configs import run_name
from gptdynamics.curriculum import Curriculum
from gptdynamics.runs import BenchContents
from simulator.use_cases.trial import Trial
from simulator.use_cases.trials import train_all

# Batches in so many that are sorted by length together: enough that hardly anything is padding.
BUCKET = 8


def bucketed_curriculum(
    ids: Sequence[int], lengths: Mapping[int, int], batch_size: int, epochs: int, entropy: Sequence[int]
) -> Curriculum:
    """Every example once an epoch, in batches of like length, which takes half the time of batches drawn at random.

    The order is random; every so many batches of it are sorted by length, cut into batches, and these are shuffled. An
    incomplete last batch of an epoch is left out.

    Args:
        lengths: by id, in any unit.
        entropy: seed of the order.
    """
    rng = np.random.default_rng(list(entropy))
    curriculum: Curriculum = []
    for _ in range(epochs):
        order = rng.permutation(np.array(ids)).tolist()
        order = order[: len(order) // batch_size * batch_size]
        batches: Curriculum = []
        for start in range(0, len(order), BUCKET * batch_size):
            like = sorted(order[start : start + BUCKET * batch_size], key=lengths.__getitem__)
            batches += [like[index : index + batch_size] for index in range(0, len(like), batch_size)]
        curriculum += [batches[index] for index in rng.permutation(len(batches))]
    return curriculum


def corrections(ranking: Sequence[int], share: float, truth: Mapping[int, str]) -> dict[int, str]:
    """The true targets, by pool id, of the mislabelled examples among the first `share` of a ranking."""
    return {key: truth[key] for key in ranking[: round(share * len(ranking))] if key in truth}


@dataclass(frozen=True)
class Retrained:
    """Test accuracies after training again.

    Attributes:
        shares: the F inspected shares, 0 first.
        accuracy: `[seeds, F]` by ranking.
        clean: `[seeds]` with every label right.
        seconds: processor time of all trainings.
    """

    shares: tuple[float, ...]
    accuracy: dict[str, np.ndarray]
    clean: np.ndarray
    seconds: float
    trainings: int


def retrain(
    contents: BenchContents,
    rankings: Mapping[str, Sequence[Sequence[int]]],
    truth: Mapping[int, str],
    shares: Sequence[float],
    seeds: int,
    keep: Path,
    devices: Sequence[str] = ("cpu",),
    on_progress: Callable[[], None] = lambda: None,
) -> Retrained:
    """Correct what each ranking puts first and train again, with each seed.

    Trainings on the same labels in the same order are made once.

    Args:
        contents: the pool as it is labelled now, and a test set with right labels.
        rankings: for each method the ranking that each seed uses: one for all, or one each.
        truth: true target of each mislabelled example.
        shares: inspected, above 0.
        seeds: trainings for each point.
        keep: folder of the trainings.
        devices: one for each worker; see `worker_devices`.
        on_progress: called for each training.
    """
    every = (0.0, *shares)
    wanted: dict[tuple[int, frozenset[int]], Trial] = {}
    lengths = {example.id: len(example.prompt) for example in contents.pool}

    def key_of(seed: int, targets: Mapping[int, str]) -> tuple[int, frozenset[int]]:
        key = (seed, frozenset(targets))
        if key not in wanted:
            settings = contents.settings
            ids = [example.id for example in contents.pool]
            entropy = [settings.seed, 3, seed]
            curriculum = bucketed_curriculum(ids, lengths, settings.batch_size, settings.epochs, entropy)
            wanted[key] = Trial(curriculum, run_name(seed), dict(targets))
        return key

    places = {
        name: [
            [key_of(seed, corrections(each[seed % len(each)], share, truth)) for share in every]
            for seed in range(seeds)
        ]
        for name, each in rankings.items()
    }
    clean = [key_of(seed, truth) for seed in range(seeds)]
    # Seed by seed, so that what an interrupted command leaves is whole.
    order = sorted(wanted, key=lambda key: key[0])
    worked = train_all(contents, [wanted[key] for key in order], keep, devices, on_progress)
    accuracy = {
        key: float(run.metrics["accuracy"][:, -1].mean()) for key, run in zip(order, worked.results, strict=True)
    }
    return Retrained(
        shares=every,
        accuracy={name: np.array([[accuracy[key] for key in row] for row in rows]) for name, rows in places.items()},
        clean=np.array([accuracy[key] for key in clean]),
        seconds=worked.seconds,
        trainings=len(wanted),
    )


def trainings(methods: int, shares: int, seeds: int) -> int:
    """Upper bound of the trainings of `retrain`: every point, and the labels as they are and all right."""
    return seeds * (methods * shares + 2)
