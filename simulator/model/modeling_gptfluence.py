"""GPTfluence as a `transformers` model: metric trajectories of test examples from a curriculum."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel

from .configuration_gptfluence import GPTfluenceConfig
from .curricula import measured_steps
from .dynamics import DynamicsModule, EncodedExamples, SimulationInputs
from .example_encoding import places_of, with_kernels, with_vectors
from .intervals import half_width
from .kinds import kind_of
from .model_files import check, finish_writing, locate, seal, write_folder
from .output import GPTfluenceOutput
from .part_state import PartState, register_bands

if TYPE_CHECKING:
    from .what_if import WhatIf

# Options of `save_pretrained` for pushing what was saved.
_HUB_OPTIONS = "push_to_hub repo_id commit_message commit_description private revision create_pr tags".split()


class GPTfluenceSimulator(PreTrainedModel):
    """Predicts the whole trajectory of a metric from the order in which training examples are seen.

    Encoder vectors of the pool and the test examples it was trained on are stored with it; the encoder's
    weights are not. A simulator of several configs or metrics has a part for each, which `part` gives as a simulator of
    its own; the parts of `markov` share their projections, those of other metrics apart.

    Example:
        >>> from simulator import GPTfluenceSimulator, train
        >>> saved = train("gptdynamics", "mini_sentiment_nano", encoder="label", output="my-simulator")
        >>> simulator = GPTfluenceSimulator.from_pretrained("my-simulator")
        >>> band = simulator.simulate([[0, 1, 2, 3]] * 96, interval=0.9)
        >>> bool((band.low <= band.high).all())
        True
    """

    config_class = GPTfluenceConfig
    main_input_name = "visits"
    pool_vectors: torch.Tensor
    test_vectors: torch.Tensor
    band_scale: torch.Tensor
    band_scores: torch.Tensor
    unseen_band_scale: torch.Tensor
    unseen_band_scores: torch.Tensor

    def __init__(self, config: GPTfluenceConfig) -> None:
        super().__init__(config)
        # Settings and fits, set by the training; the card says them.
        self.training_record: dict[str, Any] | None = None
        # Folder with the rows of its tasks, for kernels of new examples; None: generated rows or the Hub.
        self.data: Path | None = None
        self.dynamics: Any = None
        self.parts = torch.nn.ModuleList(PartState(config.part(place)) for place in range(len(config.parts)))
        if not config.parts or kind_of(config).shares_weights:
            self.dynamics = kind_of(config)(config)
        width = 0 if kind_of(config).has_kernels else config.encoder_width
        self.register_buffer("pool_vectors", torch.zeros(len(config.pool_keys), width))
        self.register_buffer("test_vectors", torch.zeros(len(config.test_keys), width))
        if not config.parts:
            register_bands(self, config)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *arguments: Any, **options: Any) -> Any:
        """Load a model from a folder or the Hub, and see that its files are whole.

        Arguments and options are those of `PreTrainedModel.from_pretrained`; weights are read as safetensors only.

        Raises:
            OSError: there is no such model.
            ValueError: a file is damaged, configuration and weights are of different savings, or weights are not
                finite.
        """
        source = Path(pretrained_model_name_or_path)
        if source.is_dir():
            finish_writing(source / (options.get("subfolder") or ""))
        config, weights, commit = locate(pretrained_model_name_or_path, options)
        check(config, weights, cls.config_class.model_type)
        if commit is not None:
            options["revision"] = commit
        return super().from_pretrained(
            pretrained_model_name_or_path, *arguments, **(options | {"use_safetensors": True})
        )

    def save_pretrained(
        self, save_directory: Any, is_main_process: bool = True, *arguments: Any, **options: Any
    ) -> None:
        """Save the model into a folder, whole or not at all.

        Configuration and weights, which are one file, carry a common digest.

        Args:
            save_directory: the folder.
            is_main_process: the others of several processes write nothing.
            arguments, options: further ones of `PreTrainedModel.save_pretrained`.

        Raises:
            OSError: the folder cannot be written; it is as it was.
            ValueError: weights are not finite.
        """
        if not is_main_process:
            return
        to_hub = {name: options.pop(name) for name in _HUB_OPTIONS if name in options}
        options.pop("max_shard_size", None)

        def fill(staging: Path) -> None:
            super(GPTfluenceSimulator, self).save_pretrained(staging, True, *arguments, **options)
            seal(staging, options.get("variant"))

        write_folder(Path(save_directory), fill)
        if to_hub.pop("push_to_hub", False):
            self.push_to_hub(to_hub.pop("repo_id", Path(save_directory).name), token=options.get("token"), **to_hub)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Publish the model with the card that `gptfluence push` makes; where the package is not installed, without.

        Args:
            repo_id: `<owner>/<name>`, or a name under your own.
            options: of `PreTrainedModel.push_to_hub`.

        Returns:
            Address of the commit or pull request.
        """
        try:
            publishing = importlib.import_module("simulator.hub.push")
        except ImportError:
            return str(super().push_to_hub(repo_id, **options))
        return str(publishing.push_loaded(self, repo_id, **options))

    def part(self, config: str | None = None, metric: str | None = None) -> GPTfluenceSimulator:
        """The simulator of one config and metric on its own; one of a single config and metric is its own part.

        Args:
            config, metric: may be left out where only one fits.

        Raises:
            ValueError: none or several fit; the message says which there are.
        """
        place = self.config.place(config, metric)
        if not self.config.parts:
            return self
        own = self.config.part(place)
        state = dict(self.parts[place].state_dict())
        if kind_of(own).shares_weights:
            head = self.dynamics.head_state(self.config.heads.index(own.metric))
            state |= {f"dynamics.{name}": value for name, value in head.items()}
        for name in ("pool", "test"):
            row_of = {key: row for row, key in enumerate(getattr(self.config, f"{name}_keys"))}
            rows = [row_of[key] for key in getattr(own, f"{name}_keys")]
            state[f"{name}_vectors"] = kind_of(own).part_vectors(getattr(self, f"{name}_vectors")[rows])
        model = GPTfluenceSimulator(own).to(self.device)
        model.load_state_dict(state)
        return model.eval()

    @property
    def history(self) -> int:
        """How many first values a prediction begins with, where they are given."""
        return kind_of(self.config).history(self.config)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights; `memory` has only buffers, and the inherited property looks at parameters."""
        return self.pool_vectors.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.pool_vectors.device

    def _init_weights(self, module: torch.nn.Module) -> None:
        if isinstance(module, DynamicsModule):
            module.reset(scale=0.1)

    def forward(
        self,
        visits: torch.Tensor,
        rates: torch.Tensor | None = None,
        pool: torch.Tensor | None = None,
        test: torch.Tensor | None = None,
        seen: torch.Tensor | None = None,
        initial: torch.Tensor | None = None,
        kernels: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> GPTfluenceOutput | tuple[torch.Tensor, ...]:
        """Free-running prediction for many curricula at once, differentiable; N pool examples, M test examples.

        Args:
            visits: `[runs, steps, N]` share of each pool example in each batch.
            rates: `[runs or 1, steps]` learning rates; default: those trained on.
            pool: `[N, E]` encoder vectors; default: those of the pool trained on.
            test: `[M, E]` encoder vectors; default: those of the test examples trained on.
            seen: `[M]` place among the test examples trained on, or -1; default: as `test`'s.
            initial: `[runs or 1, M, n]` the first n measured values, oldest first (n = 1 for memory). May be left out
                where all test examples were trained on, but for markov.
            kernels: `[G, N, M]` of a model that has kernels, where `pool` or `test` is given; see `encode`.
            labels: `[runs, M, steps + 1]` true values; those that are NaN do not count.
            return_dict: False: a tuple; default: as the configuration says.

        Returns:
            `GPTfluenceOutput`; steps before the first measured one have its value; of markov, steps between two
            measurements are interpolated.

        Raises:
            ValueError: the model has several parts, `test` is given without `seen`, or the rates do not fit.
        """
        if self.config.parts:
            raise ValueError("a model of several configs or metrics predicts by its parts: take one with part()")
        if test is not None and seen is None:
            raise ValueError("test is given without seen: give the place of each test example trained on, or -1")
        if rates is None:
            rates = visits.new_tensor([self.rates_of(None, visits.size(1))])
        stored = self.encode()
        examples = EncodedExamples(
            stored.pool if pool is None else pool,
            stored.test if test is None else test,
            stored.seen if seen is None else seen,
            stored.kernels if kernels is None else kernels,
        )
        values = self.dynamics.trajectories(SimulationInputs(visits, rates, examples, initial))
        loss = None if labels is None else (values - labels)[~labels.isnan()].square().mean()
        output = GPTfluenceOutput(loss=loss, trajectories=values)
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()

    @torch.no_grad()
    def trajectories(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """The trajectories that `forward` predicts from the same arguments, without gradients."""
        values: torch.Tensor = self(*arguments, **options, return_dict=True).trajectories
        return values

    def places(self, test: Sequence[Any]) -> torch.Tensor:
        """Where each test example stands among those trained on, or -1: `[M]`."""
        return places_of(test, self.config.test_keys)

    def encode(self, pool: Sequence[Any] | None = None, test: Sequence[Any] | None = None) -> EncodedExamples:
        """What the dynamics need of pool and test examples: stored by content key, or made now for new ones.

        Args:
            pool: examples with `id`, `prompt` and `target`, as objects, dictionaries or a `datasets.Dataset`; default:
                the pool trained on.
            test: likewise; default: the test examples trained on.

        Raises:
            ValueError: an example is new, and nothing can be made of it here.
            ImportError: an example is new, and the gptdynamics package is not installed.
        """
        if kind_of(self.config).has_kernels:
            return with_kernels(self.config, self.dynamics.kernels, self.dynamics.pool_shares, pool, test, self.data)
        return with_vectors(self.config, self.pool_vectors, self.test_vectors, pool, test)

    def simulate(
        self,
        curriculum: Sequence[Sequence[int]],
        pool: Sequence[Any] | None = None,
        test: Sequence[Any] | None = None,
        initial: Any = None,
        learning_rate: Sequence[float] | None = None,
        interval: float | None = None,
        config: str | None = None,
        metric: str | None = None,
    ) -> Any:
        """Predict one metric trajectory for each test example.

        Args:
            curriculum: `[steps][batch]` ids of pool examples, in training order.
            pool: examples with `id`, `prompt` and `target`, as objects, dictionaries or a `datasets.Dataset`; default:
                the pool trained on.
            test: likewise; default: the test examples trained on.
            initial: `[M]` the metric before the first update (at `first_step`, if that is later), or `[M, n]` the
                first n values. May be left out for `memory` where all test examples were trained on.
            learning_rate: rate of each update; default: that of the runs trained on.
            interval: also give a band that a value lies in with this probability, e.g. 0.9.
            config, metric: what to predict, of a model of several; for many calls, take its `part` once.

        Returns:
            `Trajectories`, a tensor `[M, steps + 1]` that can be drawn; with `interval` a `Band` of three of them.

        Raises:
            ValueError: an id is unknown, or something is missing; the message says what.
        """
        return self.what_if(curriculum, pool, test, initial, learning_rate, config, metric).simulate(interval)

    def what_if(
        self,
        run: Any,
        pool: Sequence[Any] | None = None,
        test: Sequence[Any] | None = None,
        initial: Any = None,
        learning_rate: Sequence[float] | None = None,
        config: str | None = None,
        metric: str | None = None,
    ) -> WhatIf:
        """A run to be changed and simulated: `simulator.what_if(run).drop([3, 17]).simulate()`.

        Args:
            run: a curriculum, or `Dynamics` of one run, whose pool, test examples, first values, rates and metric are
                the defaults of the other arguments; of a model of several, its config, too.
            pool, test, initial, learning_rate, config, metric: as of `simulate`.

        Raises:
            ValueError: an id is unknown, something is missing, or the run is of another metric or base model than the
                model; the message says what.
        """
        # What-if builds on the model, so the model imports it only when asked.
        from .what_if import what_if

        if hasattr(run, "curricula"):
            metric = metric or run.metric
            config = config or (run.config if self.config.parts else None)
        return what_if(self.part(config, metric), run, pool, test, initial, learning_rate)

    def band(self, predicted: torch.Tensor, seen: torch.Tensor, level: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Lower and upper end of the band around predictions.

        Args:
            predicted: `[runs, M, steps + 1]`.
            seen: `[M]` place among the test examples trained on, or -1.
            level: share of values that lie inside.

        Raises:
            ValueError: the model has no bands, or none of this level.
        """
        width = self.band_width(predicted.size(-1), seen, level)
        _, *ends = self.config.scale
        return (predicted - width).clamp(*ends), (predicted + width).clamp(*ends)

    def band_width(self, values: int, seen: torch.Tensor, level: float) -> torch.Tensor:
        """How far the band reaches to either side of a prediction of so many values: `[M, values]`; see `band`."""
        config = self.config
        # After the length trained on, the last width is used: residuals say nothing of later ones.
        steps = torch.arange(values).clamp(max=config.steps)
        width = self.band_scale.new_zeros(len(seen), values)
        for members, group in ((seen >= 0, "seen test examples"), (seen < 0, "unseen test examples")):
            if not bool(members.any()):
                continue
            is_seen = group.startswith("seen")
            scale = self.band_scale[steps][:, seen[members]].T if is_seen else self.unseen_band_scale[steps]
            scores = self.band_scores if is_seen else self.unseen_band_scores
            width[members] = half_width(level, config.calibration_runs, scale, scores, group)
        first_steps = measured_steps(values - 1, config.stride, config.first_step)[: self.history]
        width[:, : first_steps[-1] + 1] = 0
        return width

    def rates_of(self, learning_rate: Sequence[float] | None, steps: int) -> list[float]:
        """The given rates, or those of the runs trained on; ValueError if they are not one a step."""
        rates = self.config.learning_rate if learning_rate is None else [float(rate) for rate in learning_rate]
        if len(rates) != steps:
            raise ValueError(
                f"the curriculum has {steps} steps, the learning rates {len(rates)}: give learning_rate, one a step"
            )
        if not all(0 <= rate < float("inf") for rate in rates):
            raise ValueError("learning rates must be finite and at least 0")
        return rates

    def initial_of(self, initial: Any, seen: torch.Tensor) -> torch.Tensor | None:
        """First values `[1, M, n]`; None if nothing is given and nothing is needed, ValueError if they do not fit."""
        if initial is None:
            if not kind_of(self.config).needs_initial and bool((seen >= 0).all()):
                return None
            raise ValueError("initial is needed: the metric of each test example before the first update")
        first = torch.as_tensor(np.asarray(initial)).to(self.pool_vectors)
        first = first.unsqueeze(1) if first.dim() == 1 else first
        order = self.history
        if first.size(0) != len(seen) or first.size(1) < order:
            raise ValueError(
                f"initial has shape {tuple(first.shape)}; {len(seen)} test examples and order {order} need "
                f"({len(seen)}, {order})"
            )
        if not bool(torch.isfinite(first[:, :order]).all()):
            raise ValueError("initial has values that are not finite")
        return first[:, :order].unsqueeze(0)


GPTfluenceConfig.register_for_auto_class()
GPTfluenceSimulator.register_for_auto_class("AutoModel")
