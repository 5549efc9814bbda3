"""The devices that the workers of this machine use."""

from __future__ import annotations

import os

from gptdynamics.errors import SettingsError


def check_device(device: str) -> None:
    """Raise SettingsError unless a device is `auto`, `cpu`, `cuda` or `cuda:<number>`."""
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and (kind != "cuda" or not number.isdecimal())):
        raise SettingsError(f"device={device!r} must be auto, cpu, cuda or cuda:<number>")


def worker_devices(device: str, workers: int | None = None) -> list[str]:
    """The device of each worker on this machine.

    Args:
        device: `cpu`, `cuda` (all GPUs), one of them such as `cuda:1`, or `auto`: GPUs if there are any.
        workers: number of them, at least 1, as settings check. Default: one for each GPU, or for each core without one.

    Raises:
        SettingsError: there is no such kind of device, or this machine does not have the GPU.
    """
    import torch

    check_device(device)
    gpus = torch.cuda.device_count() if device != "cpu" else 0
    _, _, number = device.partition(":")
    if device.startswith("cuda") and int(number or 0) >= gpus:
        raise SettingsError(f"device {device} does not exist: torch finds {gpus} GPUs")
    used = [device] if number else [f"cuda:{index}" for index in range(gpus)]
    if not used:
        return ["cpu"] * (workers or os.cpu_count() or 1)
    return [used[index % len(used)] for index in range(workers or len(used))]
