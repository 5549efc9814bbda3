"""Simulators of random weights for benchmarks: only their sizes matter."""

from __future__ import annotations

import torch

from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.training.memory_states import MANY, Filters

STEPS, POOL, TESTS, BATCH = 96, 200, 200, 4


def made_up_simulator(
    dynamics: str = "memory", width: int = 512, components: int = 1, filters: Filters = MANY
) -> GPTfluenceSimulator:
    """A simulator of small random weights, of 200 training and 200 test examples and 96 steps.

    Args:
        dynamics: `memory` or `markov`.
        width: of encoder vectors.
        components: of memory.
        filters: of memory.
    """
    random = torch.Generator().manual_seed(0)
    config = GPTfluenceConfig(
        dynamics=dynamics,
        encoder_width=width,
        pool_ids=list(range(POOL)),
        pool_keys=[f"pool {at}" for at in range(POOL)],
        test_ids=list(range(TESTS)),
        test_keys=[f"test {at}" for at in range(TESTS)],
        steps=STEPS,
        learning_rate=[1e-4 * (1 - at / STEPS) for at in range(STEPS)],
        components=components,
        test_components=64,
        curve_components=4,
        decays=list(filters.decays),
        fade_rates=list(filters.fade_rates),
        momenta=list(filters.momenta),
        curvatures=list(filters.curvatures),
    )
    model = GPTfluenceSimulator(config).eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.copy_(torch.randn(tensor.shape, generator=random) * 0.01)
        if dynamics == "memory":
            model.dynamics.state_scale.fill_(1.0)
            model.dynamics.limit.fill_(10.0)
            model.dynamics.shrinkage.fill_(1.0)
            model.dynamics.reference_rate.fill_(1e-4)
            model.dynamics.tau.copy_(torch.linspace(0, 48, STEPS + 1))
    return model
