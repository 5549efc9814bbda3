"""`dynamics="tangent"`: gradients say what a row does to a test example, a few shared numbers what becomes of it.

    x_g,t(z')  = mean over i in c_t of K_g(z_i, z')
    y_k,t      = mean over i in c_t of u_k(z_i)
    effect     = sum over g, h of w_g,h filter_h(x_g)_t + sum over j, k of r_k,j(z') filter_j(y_k)_t

K_g are products of the gradients of pool and test examples at checkpoints of reference runs: kernels, in groups of
checkpoints (`group_kernels`), each in parts (`kernel_parts`). What training makes of an example later (momentum,
decay, being undone by others) is the same for all pairs: so w is shared by all test examples, and serves those that no
coefficient was fitted on.

u_k are the kernels' first patterns over the pool. A test example that was trained on may have a response r of its own
to them, through a few combinations of filters: it takes more, or less, than w says.

The filters are those of `memory`. `mean_curve_dynamics.py` adds the effect to the mean curve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .dynamics import EncodedExamples, Field, SimulationInputs
from .mean_curve_dynamics import MeanCurveDynamics

if TYPE_CHECKING:
    from .configuration_gptfluence import GPTfluenceConfig

# A kernel is split behind so many of its patterns: into the first, the second to fourth, the fifth to 16th, the rest.
PART_ENDS = (1, 4, 16)
PARTS = len(PART_ENDS) + 1
# A test example has a response of its own to so many of the pool's first patterns, by so many combinations of filters.
OWN_PATTERNS = 8
OWN_FILTERS = 4

# Which checkpoints of a reference run are one group, by the share of its updates that was made before.
GROUPINGS: dict[str, tuple[tuple[float, float], ...]] = {
    "all": ((0.0, 1.0),),
    "base_early_late": ((0.0, 0.0), (1e-9, 0.5 - 1e-9), (0.5, 1.0)),
}


def group_kernels(
    products: torch.Tensor,
    progress: torch.Tensor,
    grouping: str,
    scaling: float,
    own: torch.Tensor | None = None,
) -> torch.Tensor:
    """The kernels of one reference run, centred and scaled for each test example, averaged over each group.

    Args:
        products: `[C, N, M]` products of gradients at each checkpoint.
        progress: `[C]` share of the run's updates that was made before each checkpoint.
        grouping: one of `GROUPINGS`.
        scaling: exponent of the root mean square that products of a test example are divided by: with 1, all test
            examples are moved alike; with 0, as their gradients say.
        own: `[n]` places of the pool rows whose mean and mean square count; default: all.

    Returns:
        `[G, N, M]`.

    Raises:
        ValueError: a group has no checkpoint.
    """
    rows = products if own is None else products[:, own]
    centre = rows.mean(1, keepdim=True)
    size = (rows - centre).square().mean(1, keepdim=True).sqrt()
    # A test example whose gradient is zero is moved by nothing.
    scaled = (products - centre) / torch.where(size > 0, size, 1.0) ** scaling
    groups = [(progress >= first) & (progress <= last) for first, last in GROUPINGS[grouping]]
    if not all(bool(group.any()) for group in groups):
        raise ValueError(f"grouping={grouping!r} needs kernels at other steps of the reference run than it has")
    return torch.stack([scaled[group].mean(0) for group in groups])


def kernel_patterns(kernels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The patterns over pool rows that explain most of each group's kernel: its first K singular vectors.

    At most a quarter of them all, so that something is left of the kernels of few examples, too.

    Args:
        kernels: `[G, N, M]`.

    Returns:
        The patterns, `[G, N, K]`, and what a row's kernel is multiplied by to give its share in each, `[G, M, K]`.
    """
    rows, sizes, tests = torch.linalg.svd(kernels, full_matrices=False)
    nonzero = sizes > 1e-6 * sizes[:, :1]
    weights = torch.where(nonzero, 1.0 / sizes.clamp(min=torch.finfo(sizes.dtype).tiny), 0.0).unsqueeze(1) * tests.mT
    most = min(PART_ENDS[-1], sizes.size(1) // 4)
    return rows[:, :, :most], weights[:, :, :most]


def kernel_parts(kernels: torch.Tensor, shares: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Each group's kernel in parts: what its first pattern explains, what the next few do, and the rest.

    Training soon undoes what rows do along the first patterns (on tasks with labels, the balance of the labels), and
    keeps the rest longer: so each part has coefficients of its own.

    Args:
        kernels: `[G, N, M]`.
        shares: `[G, N, K]` of each pool row in each pattern; those of the pool trained on are of unit length.
        own: `[n]` places of the pool trained on.

    Returns:
        `[P * G, N, M]`, part by part; the P parts of a group add up to its kernel.
    """
    tests = shares[:, own].mT @ kernels[:, own]
    starts = (0, *PART_ENDS)
    parts = [shares[:, :, first:end] @ tests[:, first:end] for first, end in zip(starts, PART_ENDS, strict=False)]
    return torch.cat([*parts, kernels - sum(parts)])


def pool_shares(kernels: torch.Tensor) -> torch.Tensor:
    """Shares `[N, K]` of each pool row in the first patterns of kernels `[G, N, M]`, of all groups together.

    They are zero in patterns that explain nothing: which these are is rounding.
    """
    patterns, weights = kernel_patterns(kernels.sum(0, keepdim=True))
    return (patterns * (weights != 0).any(1, keepdim=True))[0, :, :OWN_PATTERNS]


def kernel_examples(
    kernels: torch.Tensor, shares: torch.Tensor, own: torch.Tensor, seen: torch.Tensor
) -> EncodedExamples:
    """Examples with kernels. A pool example's vector is its shares in patterns, a test example's its kernels.

    Args:
        kernels: `[P * G, N, M]`.
        shares: `[N, K]` of the pool examples in the patterns that test examples have responses of their own to.
        own: `[P * G, n, M]` those of the pool that the simulator was trained on, which test examples are told apart by.
        seen: `[M]` place of each test example among those trained on, or -1.
    """
    return EncodedExamples(shares, own.mean(0).T, seen, kernels)


class TangentDynamics(MeanCurveDynamics):
    """Prediction with fitted tangent dynamics.

    G parts of kernels, `PARTS` for each group of checkpoints, F filters, N pool examples, M seen test examples, R runs
    of the fit; K patterns and J combinations of filters of the own responses, which there may be none of.

    Args:
        config: shapes; the values are set by fitting or loaded.
    """

    name = "tangent"
    has_kernels = True
    fields = {
        **MeanCurveDynamics.fields,
        "grouping": Field("text", default="all"),
        "scaling": Field("number", default=1.0),
        **dict.fromkeys(("references", "pool_sources", "test_sources"), Field("list of objects", default=[])),
        "fitted_runs": Field("whole number", 0, 0),
        "own_patterns": Field("whole number", 0, 0),
    }

    kernels: torch.Tensor
    weights: torch.Tensor
    weights_without: torch.Tensor
    pool_shares: torch.Tensor
    own_filters: torch.Tensor
    own_responses: torch.Tensor
    own_responses_without: torch.Tensor

    def __init__(self, config: GPTfluenceConfig) -> None:
        super().__init__(config)
        groups, filters = PARTS * len(GROUPINGS[config.grouping]), self.filters.size
        pool, tests, runs = len(config.pool_keys), len(config.test_keys), config.fitted_runs
        patterns, combined = config.own_patterns, OWN_FILTERS if config.own_patterns else 0
        self.register_zeros(
            {
                "kernels": (groups, pool, tests),
                "weights": (groups, filters),
                "weights_without": (runs, groups, filters),
                "pool_shares": (pool, patterns),
                "own_filters": (combined, filters),
                "own_responses": (tests, patterns, combined),
                "own_responses_without": (runs if patterns else 0, tests, patterns, combined),
            }
        )

    @classmethod
    def method_name(cls, config: Any, encoder: str) -> str:
        """See `DynamicsModule`."""
        return cls.name

    def responses(
        self, weights: torch.Tensor, rates: torch.Tensor, has_update: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What one unit of x at each update adds to the effect at each step, of one run.

        Args:
            weights: `[..., G, F]`.
            rates: `[1, T]` learning rates.
            has_update: `[1, T]` whether there was an update; None: at every step.

        Returns:
            `[..., G, T + 1, T]`.
        """
        updates = torch.eye(rates.size(1), dtype=rates.dtype, device=rates.device).unsqueeze(0)
        states = self.filters.states(updates, self.relative(rates), has_update)[0]
        return torch.einsum("...gf,tfs->...gts", weights, states)

    def effects(self, inputs: SimulationInputs) -> torch.Tensor:
        """See `MeanCurveDynamics`."""
        batches = self._batches(inputs)
        runs, has_update = len(batches), inputs.has_update
        rates = inputs.rates.expand(runs, -1)
        schedule_of = torch.zeros(runs, dtype=torch.long)
        if has_update is not None or len(inputs.rates) > 1:
            schedules = rates if has_update is None else torch.cat([rates, has_update.to(rates)], 1)
            schedule_of = torch.unique(schedules, dim=0, return_inverse=True)[1]
        effects = batches.new_empty(runs, batches.size(2), rates.size(1) + 1)
        for schedule in schedule_of.unique().tolist():
            chosen = torch.nonzero(schedule_of == schedule)[:, 0]
            first = chosen[:1]
            response = self.responses(
                self.coefficients, rates[first], None if has_update is None else has_update[first]
            )
            effects[chosen] = torch.einsum("gts,rgms->rmt", response, batches[chosen])
        return effects

    def _batches(self, inputs: SimulationInputs) -> torch.Tensor:
        """x of every batch: `[runs, G, M, T]`."""
        return torch.einsum("rtn,gnm->rgmt", inputs.visits, self.input_factors(inputs.examples))

    def input_factors(self, examples: EncodedExamples) -> torch.Tensor:
        """See `DynamicsModule`; a factor is a part of a group's kernel, or an own response through one combination."""
        own = torch.einsum("nk,mkj->jnm", examples.pool, self._of_seen(self.own_responses, examples))
        return torch.cat([_kernels_of(examples), own])

    @property
    def coefficients(self) -> torch.Tensor:
        """Of each factor in each filter: `[G + J, F]`."""
        return torch.cat([self.weights, self.own_filters])

    def _of_seen(self, responses: torch.Tensor, examples: EncodedExamples) -> torch.Tensor:
        """Own responses `[..., M, K, J]` of test examples; 0: it was not fitted on them."""
        seen = examples.seen
        return responses[..., seen.clamp(min=0), :, :] * (seen >= 0)[:, None, None]

    def effect_of_factors(self, factors: torch.Tensor, inputs: SimulationInputs) -> torch.Tensor:
        """See `MeanCurveDynamics`."""
        return torch.einsum("gts,gms->mt", self.responses(self.coefficients, inputs.rates, inputs.has_update), factors)

    def last_effects_without_runs(self, inputs: SimulationInputs) -> torch.Tensor:
        """See `DynamicsModule`."""
        kernels, own = _kernels_of(inputs.examples), self._of_seen(self.own_responses_without, inputs.examples)
        effects = []
        for run, visits in enumerate(inputs.visits):
            rates = inputs.rates[run if len(inputs.rates) > 1 else 0][None]
            has_update = None if inputs.has_update is None else inputs.has_update[run : run + 1]
            shared = self.responses(self.weights_without, rates, has_update)[:, :, -1]
            effect = torch.einsum("rgs,sn,gnm->rm", shared, visits, kernels)
            if len(self.own_filters):
                last = self.responses(self.own_filters, rates, has_update)[:, -1]
                effect += torch.einsum("js,sn,nk,rmkj->rm", last, visits, inputs.examples.pool, own)
            effects.append(effect)
        return torch.stack(effects, 1)

    def page_arrays(self, examples: EncodedExamples) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """See `DynamicsModule`."""
        scalars, arrays = super().page_arrays(examples)
        factors = self.input_factors(examples).transpose(0, 1).flatten(1)
        scalars |= {"sides": 1, "size": factors.size(1), "filters": self.filters.size, "factorScale": 1.0}
        return scalars, arrays | {"train": factors, "weights": self.coefficients}


def _kernels_of(examples: EncodedExamples) -> torch.Tensor:
    if examples.kernels is None:
        raise ValueError("tangent needs the kernels of pool and test examples: take them from encode")
    return examples.kernels
