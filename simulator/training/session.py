"""What a training runs on and reports to: processes and device (accelerate), trackers, checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gptdynamics.errors import SettingsError
from simulator.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Session:
    """Processes, device, checkpoints and trackers of a training; by default one process on the CPU without either.

    Attributes:
        accelerator: of accelerate; None: this process alone, on the CPU.
        checkpoints: None: there are none.
    """

    accelerator: Accelerator | None = None
    checkpoints: Checkpoints | None = None

    @property
    def device(self) -> torch.device:
        """Where weights and minibatches are."""
        return torch.device("cpu") if self.accelerator is None else self.accelerator.device

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return 1 if self.accelerator is None else self.accelerator.num_processes

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.accelerator is None or self.accelerator.is_main_process

    @property
    def side_by_side(self) -> bool:
        """Whether several fits may run at once, on a thread each."""
        return self.processes == 1 and self.device.type == "cpu"

    def main_first(self) -> Any:
        """A context that other processes enter after the main one has left it: for work whose result is cached."""
        return nullcontext() if self.accelerator is None else self.accelerator.main_process_first()

    def mine(self, places: torch.Tensor) -> torch.Tensor:
        """This process's part of a batch."""
        return places if self.accelerator is None else places[self.accelerator.process_index :: self.processes]

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up the gradients of all processes in each."""
        if self.accelerator is None or self.processes == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad = self.accelerator.reduce(parameter.grad, "sum")

    def total(self, value: torch.Tensor) -> float:
        """The sum of what all processes have."""
        value = value.detach()
        if self.accelerator is not None and self.processes > 1:
            value = self.accelerator.reduce(value, "sum")
        return float(value.item())

    def agreed(self, value: float) -> float:
        """The main process's value, in all of them: a decision must not depend on how one of them rounds."""
        if self.accelerator is None or self.processes == 1:
            return value
        from accelerate.utils import broadcast

        return float(broadcast(torch.tensor(value, dtype=torch.float64, device=self.device)).item())

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Tell the trackers."""
        if self.accelerator is not None:
            self.accelerator.log(dict(values), step=step)

    def end(self) -> None:
        """Close the trackers."""
        if self.accelerator is not None:
            self.accelerator.end_training()


def make_session(
    settings: Mapping[str, Any],
    checkpoints: Checkpoints | None = None,
    report_to: tuple[str, ...] = (),
    logs: Path | None = None,
) -> Session:
    """A session on what accelerate finds: one CPU, one GPU, or the processes of `accelerate launch`.

    Trackers are named as in accelerate, e.g. `tensorboard` or `trackio`; they get the settings, and write into `logs`.

    Raises:
        SettingsError: a tracker is unknown or not installed.
        GPTDynamicsError: as `Checkpoints.check`.
    """
    from accelerate import Accelerator
    from accelerate.tracking import get_available_trackers
    from accelerate.utils import LoggerType

    trackers_of_accelerate = sorted(each.value for each in LoggerType if each != LoggerType.ALL)
    installed = {str(getattr(each, "value", each)) for each in get_available_trackers()}
    for name in report_to:
        if name not in trackers_of_accelerate:
            raise SettingsError(f"report_to={name!r} must be one of {', '.join(trackers_of_accelerate)}")
        if name not in installed:
            raise SettingsError(f"report_to={name!r} needs the package {name}: pip install {name}")
    trackers: Any = list(report_to) or None
    accelerator = Accelerator(log_with=trackers, project_dir=None if logs is None else str(logs))
    if checkpoints is not None:
        # Sums are rounded in another order elsewhere.
        where = {"processes": accelerator.num_processes, "device": accelerator.device.type}
        checkpoints = replace(checkpoints, settings=dict(checkpoints.settings) | where)
        if accelerator.is_main_process:
            checkpoints.check()
        accelerator.wait_for_everyone()
    if report_to:
        plain = int | float | str | bool
        plain_settings = {key: value if isinstance(value, plain) else str(value) for key, value in settings.items()}
        accelerator.init_trackers("gptfluence", config=plain_settings)
    return Session(accelerator, checkpoints)
