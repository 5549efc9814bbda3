"""What a training gave, and how it is saved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from gptdynamics.atomic import leftovers, write_text
from gptdynamics.errors import DataError
from simulator.model.configuration_gptfluence import GPTfluenceConfig
from simulator.model.display import Summarised, Summary, library
from simulator.model.model_files import write_folder
from simulator.model.modeling_gptfluence import GPTfluenceSimulator
from simulator.ownership import prepare_model_folder
from simulator.settings.train import TrainSettings
from simulator.training.markov_training import Check


@dataclass(frozen=True)
class Fitted:
    """How one config and metric was fitted: the best setting, its error, every setting with its error.

    Errors are mean squared ones on validation runs (markov) or runs left out (memory); of markov trained on several
    configs, the mean of theirs, each over its variance. `checks` are markov's validations of the best setting.
    `removed` is the share of the mean curve's squared error that fits without a run remove on it; None: not known,
    with fewer than three runs or without bands. `runs` were fitted on, `held_out` are there to evaluate on.
    `fingerprint` tells the runs from others.
    """

    config: str
    metric: str
    choice: dict[str, Any]
    error: float
    tried: list[dict[str, Any]]
    checks: Sequence[Check] = ()
    removed: float | None = None
    runs: int = 0
    held_out: int = 0
    fingerprint: str = ""

    @classmethod
    def of(
        cls,
        config: GPTfluenceConfig,
        choice: Any,
        error: float,
        tried: Sequence[tuple[Any, float]],
        checks: Sequence[Check] = (),
    ) -> Fitted:
        """From settings that are dataclasses."""
        plain = [asdict(setting) | {"error": its_error} for setting, its_error in tried]
        return cls(config.dataset_config, config.metric, asdict(choice), error, plain, checks)


@dataclass(frozen=True, repr=False)
class Trained(Summarised):
    """A simulator, how each config and metric was fitted, and the seconds of fitting and of encoding."""

    model: GPTfluenceSimulator
    fitted: tuple[Fitted, ...]
    seconds: float
    encode_seconds: float

    @property
    def choice(self) -> dict[str, Any]:
        """The setting that won, for the first config and metric; so of `error` and `tried`."""
        return self.fitted[0].choice

    @property
    def error(self) -> float:
        """See `Fitted`."""
        return self.fitted[0].error

    @property
    def tried(self) -> list[dict[str, Any]]:
        """See `Fitted`."""
        return self.fitted[0].tried

    def _summary(self) -> Summary:
        rows = [(f"{each.config}, {each.metric}", [each.error, len(each.tried)]) for each in self.fitted]
        kind = f"{self.model.config.dynamics}, {self.model.config.encoder.get('encoder')} vectors"
        return Summary(f"simulator ({kind}), fitted in {self.seconds:.3g} s", ["all-steps MSE", "settings tried"], rows)

    def to_pandas(self) -> Any:
        """A `DataFrame` with a row for each setting that was tried: `config`, `metric`, and what is in `tried`."""
        rows = [{"config": each.config, "metric": each.metric} | tried for each in self.fitted for tried in each.tried]
        return library("pandas").DataFrame(rows)

    def record(self, settings: TrainSettings) -> dict[str, Any]:
        """What is written beside the model: settings, times, and everything that was tried."""
        return {
            "settings": asdict(settings),
            "seconds": round(self.seconds, 2),
            "encode_seconds": round(self.encode_seconds, 2),
            "fitted": [asdict(each) for each in self.fitted],
        }

    def save(self, folder: Path, settings: TrainSettings) -> None:
        """Write the model, and beside it the settings and everything that was tried; all of it or nothing.

        Raises:
            DataError: the folder cannot be written.
        """
        prepare_model_folder(folder)
        record = self.record(settings)

        def fill(staging: Path) -> None:
            self.model.save_pretrained(staging)
            write_text(staging / "training.json", json.dumps(record, indent=1) + "\n")

        try:
            for path in leftovers(folder):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            write_folder(folder, fill)
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise DataError(f"cannot write {folder}: {reason}; its files are unchanged") from error
        except ValueError as error:
            raise DataError(f"{folder}: training gave a model that cannot be used: {error}") from error
