"""GPTfluence as a `transformers` model: metric trajectories of test examples from a curriculum."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from .configuration_gptfluence import METRIC_RANGES, GPTfluenceConfig
from .markov_dynamics import MarkovDynamics
from .memory_dynamics import MemoryDynamics, interpolate


def content_key(example: Any) -> str:
    """What identifies an example by its texts, or by its source where those are withheld: 16 hex digits."""
    text = f"{example.prompt}\0{example.target}"
    if not example.prompt:
        text = json.dumps(getattr(example, "source", {}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class GPTfluenceSimulator(PreTrainedModel):
    """Predicts the whole trajectory of a metric from the order in which training examples are seen.

    Encoder vectors of the pool and the test examples it was trained on are stored with it; the encoder's
    weights are not.
    """

    config_class = GPTfluenceConfig
    main_input_name = "visits"
    pool_vectors: torch.Tensor
    test_vectors: torch.Tensor

    def __init__(self, config: GPTfluenceConfig) -> None:
        super().__init__(config)
        memory = config.dynamics == "memory"
        self.dynamics: Any = MemoryDynamics(config) if memory else MarkovDynamics(config)
        self.register_buffer("pool_vectors", torch.zeros(len(config.pool_keys), config.encoder_width))
        self.register_buffer("test_vectors", torch.zeros(len(config.test_keys), config.encoder_width))
        self.post_init()

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights; `memory` has only buffers, and the inherited property looks at parameters."""
        return self.pool_vectors.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.pool_vectors.device

    def _init_weights(self, module: torch.nn.Module) -> None:
        if isinstance(module, MarkovDynamics):
            module.reset(scale=0.1)

    @torch.no_grad()
    def trajectories(
        self,
        visits: torch.Tensor,
        rates: torch.Tensor,
        pool: torch.Tensor,
        test: torch.Tensor,
        seen: torch.Tensor,
        initial: torch.Tensor | None,
    ) -> torch.Tensor:
        """Free-running prediction for many curricula at once, kept within the metric's range by `memory`.

        Args:
            visits: `[runs, steps, N]` share of each pool example in each batch.
            rates: `[runs, steps]` learning rates.
            pool: `[N, E]` encoder vectors.
            test: `[M, E]` encoder vectors.
            seen: `[M]` place among the test examples trained on, or -1.
            initial: `[runs or 1, n, M]` the first n measured values, oldest first (n = 1 for memory); None: for memory
                where all test examples were trained on, what is usual.

        Returns:
            `[runs, steps + 1, M]`; steps before the first measured one have its value; of markov, steps between two
            measurements are interpolated.
        """
        if self.config.dynamics == "memory":
            first = None if initial is None else initial[:, 0]
            values = self.dynamics(visits, rates, pool, test, seen, first)
            low, high = METRIC_RANGES[self.config.metric]
            return values.clamp(low, high)
        if initial is None:
            raise ValueError("markov needs the first measured values: give initial")
        measured = measured_steps(visits.size(1), self.config.stride, self.config.first_step)
        history = initial.expand(len(visits), -1, -1)
        values = self.dynamics(shares_between(visits, measured), pool, test, history)
        grid = torch.tensor(measured, dtype=values.dtype)
        every = torch.arange(visits.size(1) + 1, dtype=values.dtype)
        return torch.stack([interpolate(grid, run, every) for run in values])

    forward = trajectories

    def places(self, test: Sequence[Any]) -> torch.Tensor:
        """Where each test example stands among those trained on, or -1: `[M]`."""
        place = {key: at for at, key in enumerate(self.config.test_keys)}
        return torch.tensor([place.get(content_key(example), -1) for example in test])

    def vectors(self, examples: Sequence[Any], keys: list[str], stored: torch.Tensor) -> torch.Tensor:
        """Encoder vectors `[n, E]`: stored ones by content key, others encoded now."""
        place = {key: at for at, key in enumerate(keys)}
        wanted = [content_key(example) for example in examples]
        new = [at for at, key in enumerate(wanted) if key not in place]
        vectors = stored.new_zeros(len(examples), stored.size(1))
        known = [at for at, key in enumerate(wanted) if key in place]
        vectors[known] = stored[[place[wanted[at]] for at in known]]
        if new:
            vectors[new] = torch.from_numpy(self._encode([examples[at] for at in new])).to(vectors)
        return vectors

    def _encode(self, examples: Sequence[Any]) -> np.ndarray:
        encoder = self.config.encoder
        try:
            encoders = importlib.import_module("simulator.encoders")
        except ImportError as error:
            raise ImportError(
                f"{len(examples)} examples are new to this model; encoding them ({encoder.get('encoder')}) needs "
                "the gptdynamics package"
            ) from error
        kind, base = encoder.get("encoder", ""), encoder.get("model", "")
        made = encoders.make_encoder(kind, base, encoder.get("seed", 0))
        if made.describe() != encoder:
            raise ValueError(f"the model was trained with encoder {encoder}, here it would be {made.describe()}")
        return encoders.encode_cached(made, examples)

    def simulate(
        self,
        curriculum: Sequence[Sequence[int]],
        pool: Sequence[Any] | None = None,
        test: Sequence[Any] | None = None,
        initial: Any = None,
        learning_rate: Sequence[float] | None = None,
    ) -> torch.Tensor:
        """Predict one metric trajectory for each test example.

        Args:
            curriculum: `[steps][batch]` ids of pool examples, in training order.
            pool: examples with `id`, `prompt` and `target`; default: the pool trained on.
            test: likewise; default: the test examples trained on.
            initial: `[M]` the metric before the first update (at `first_step`, if that is later), or `[n, M]` the
                first n values. May be left out for `memory` where all test examples were trained on.
            learning_rate: rate of each update; default: that of the runs trained on.

        Returns:
            `[M, steps + 1]`.

        Raises:
            ValueError: an id is unknown, or something is missing; the message says what.
        """
        config = self.config
        ids = config.pool_ids if pool is None else [example.id for example in pool]
        pool_vectors = self.pool_vectors if pool is None else self.vectors(pool, config.pool_keys, self.pool_vectors)
        if test is None:
            test_vectors, seen = self.test_vectors, torch.arange(len(config.test_keys))
        else:
            test_vectors = self.vectors(test, config.test_keys, self.test_vectors)
            seen = self.places(test)
        rates = self._rates(learning_rate, len(curriculum))
        first = self._initial(initial, seen)
        visits = visit_shares([curriculum], ids)
        return self.trajectories(visits, rates, pool_vectors, test_vectors, seen, first)[0].T

    def _rates(self, learning_rate: Sequence[float] | None, steps: int) -> torch.Tensor:
        given = self.config.learning_rate if learning_rate is None else list(learning_rate)
        if len(given) != steps:
            raise ValueError(
                f"the curriculum has {steps} steps, the learning rates {len(given)}: give learning_rate, one a step"
            )
        return torch.tensor([given])

    def _initial(self, initial: Any, seen: torch.Tensor) -> torch.Tensor | None:
        """`[1, n, M]`; None if nothing is given and nothing is needed."""
        if initial is None:
            if self.config.dynamics == "memory" and bool((seen >= 0).all()):
                return None
            raise ValueError("initial is needed: the metric of each test example before the first update")
        first = torch.as_tensor(np.asarray(initial), dtype=torch.float32)
        first = first.unsqueeze(0) if first.dim() == 1 else first
        order = self.config.order if self.config.dynamics == "markov" else 1
        if first.size(0) < order or first.size(1) != len(seen):
            raise ValueError(
                f"initial has shape {tuple(first.shape)}; order {order} and {len(seen)} test examples need "
                f"({order}, {len(seen)})"
            )
        return first[:order].unsqueeze(0)


def visit_shares(curricula: Sequence[Sequence[Sequence[int]]], ids: Sequence[int]) -> torch.Tensor:
    """Curricula of equal length as the share of each pool example in each batch: `[runs, steps, N]`.

    Args:
        curricula: `[runs][steps][batch]` ids.
        ids: of the N pool examples.

    Raises:
        ValueError: an id is not in the pool.
    """
    place = {key: at for at, key in enumerate(ids)}
    shares = torch.zeros(len(curricula), len(curricula[0]), len(ids))
    for run, curriculum in enumerate(curricula):
        for step, batch in enumerate(curriculum):
            for key in batch:
                if key not in place:
                    raise ValueError(f"run {run}, step {step + 1}: example {key} is not in the pool")
                shares[run, step, place[key]] += 1 / len(batch)
    return shares


def measured_steps(steps: int, stride: int, first: int = 0) -> list[int]:
    """Steps at which a metric is measured every `stride` updates: `first`, `first` + stride, ... and the last."""
    return [*range(first, steps, stride), steps]


def shares_between(shares: torch.Tensor, step: Sequence[int]) -> torch.Tensor:
    """Mean share of each pool example between measured steps: `[runs, steps, N]` -> `[runs, len(step) - 1, N]`."""
    at = torch.tensor(list(step))
    summed = torch.nn.functional.pad(shares.cumsum(1), (0, 0, 1, 0))[:, at]
    return summed.diff(dim=1) / at.diff().view(1, -1, 1)


GPTfluenceConfig.register_for_auto_class()
GPTfluenceSimulator.register_for_auto_class("AutoModel")
