"""A connection to a Ray cluster: its nodes, the resources of a worker, and clear errors instead of long waits."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gptdynamics.errors import SettingsError
from gptdynamics.settings.collect import RaySettings

_CONNECT_SECONDS = 5.0
_HEALTH_SECONDS = 60.0
# Shorter time limits for Ray, which tries for a minute by default.
_QUICK = {"RAY_gcs_rpc_server_connect_timeout_s": "5", "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}


@dataclass(frozen=True)
class Request:
    """The resources that Ray reserves for a worker."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")

    def capacity(self, node: dict[str, Any]) -> int:
        """Number of workers that a node, one of `Cluster.nodes`, has room for if nothing else runs on it."""
        resources = node["Resources"]
        amounts = {"CPU": self.cpus, "GPU": self.gpus}
        # A worker that requires nothing would fit any number of times: count it as one CPU.
        required = {name: amount for name, amount in amounts.items() if amount} or {"CPU": 1}
        return min(int(resources.get(name, 0) / amount + 1e-9) for name, amount in required.items())


def import_ray() -> Any:
    """The `ray` package, without its usage statistics.

    Raises:
        SettingsError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Under `uv run`, Ray would otherwise send the working directory to every node.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise SettingsError(f"--executor ray needs Ray ({error}): pip install 'gptdynamics[ray]'") from error
    return ray


class Cluster:
    """A cluster that this process is connected to.

    Args:
        ray: the package.
    """

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self.address = str(ray.get_runtime_context().gcs_address)

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes that are alive."""
        return [node for node in self.ray.nodes() if node["Alive"]]

    def why_lost(self, node: str) -> str | None:
        """Why a node has left the cluster; None if it has not."""
        for entry in self.ray.nodes():
            if entry["NodeID"] == node and entry["Alive"]:
                return None
            if entry["NodeID"] == node:
                return str(entry["DeathReasonMessage"] or "it left the cluster")
        return "the cluster does not list it any more"

    def has_gpus(self) -> bool:
        """Whether a node has GPUs."""
        return any(node["Resources"].get("GPU", 0) for node in self.nodes())

    def capacity(self, request: Request) -> int:
        """Number of workers that the cluster has room for if nothing else runs on it."""
        return sum(request.capacity(node) for node in self.nodes())

    def describe(self) -> str:
        """Its nodes with their CPUs and GPUs."""
        sizes = [
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}): {node['Resources'].get('CPU', 0):g} CPU, "
            f"{node['Resources'].get('GPU', 0):g} GPU"
            for node in self.nodes()
        ]
        return "; ".join(sizes) or "no nodes"

    def answers(self) -> bool:
        """Whether the head node accepts connections: Ray ends this process soon after it stops doing so."""
        try:
            _open(self.address).close()
        except OSError:
            return False
        return True


def _open(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS)


def _find_address(address: str) -> str:
    """`<host>:<port>` of the cluster's head; `auto` is `$RAY_ADDRESS`, or this machine's cluster.

    Raises:
        SettingsError: no cluster is found.
    """
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return str(canonicalize_bootstrap_address(address))
    except ConnectionError as error:
        raise SettingsError(
            "no Ray cluster on this machine: start one (`ray start --head`), or give --ray-address <host>:<port>"
        ) from error
    except (ValueError, OSError) as error:
        raise SettingsError(f"ray address {address!r} is not <host>:<port> of a head node ({error})") from error


def _check_health(address: str) -> None:
    """Look for the head in a separate process, because `ray.init` ends the process if there is none."""
    advice = f"Check that the cluster runs (`ray status --address {address}`), and --ray-address"
    try:
        _open(address).close()
    except OSError as error:
        raise SettingsError(f"no Ray cluster at {address} ({error.strerror or error}). {advice}") from error
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--skip-version-check"]
    try:
        subprocess.run(
            [*command, "--address", address],
            env={**_QUICK, **os.environ},
            timeout=_HEALTH_SECONDS,
            check=True,
            capture_output=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        # A head that asks for a token is a head; `ray.init` explains what is missing.
        if b"uthenticat" in (error.stderr or b""):
            return
        raise SettingsError(f"what answers at {address} is not the head of a Ray cluster. {advice}") from error


@contextmanager
def connect(settings: RaySettings) -> Iterator[Cluster]:
    """Connect to a cluster; an existing connection of this process is used and left open.

    Raises:
        SettingsError: Ray is not installed, or there is no such cluster.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield Cluster(ray)
        return
    requested_address = settings.address or "auto"
    address = _find_address(requested_address)
    _check_health(address)
    worker = ray._private.worker
    print_to_stdstream = worker.print_to_stdstream
    # The loss of a node prints pages to standard output; Ray has no setting to turn that off.
    worker.print_to_stdstream = lambda data, ignore_prefix: None
    try:
        try:
            # With `auto`, Ray also finds the token that this machine's cluster may ask for.
            ray.init("auto" if requested_address == "auto" else address, log_to_driver=False, logging_level="CRITICAL")
        except (Exception, SystemExit) as error:  # Ray raises many kinds, also plain `Exception`
            reason = " ".join(str(error).split())
            raise SettingsError(
                f"cannot join the Ray cluster at {address}: {reason}. This machine must be one of its nodes "
                f"(`ray start --address {address}`), and have its token where it asks for one (RAY_AUTH_MODE=token)"
            ) from error
        yield Cluster(ray)
    finally:
        ray.shutdown()
        worker.print_to_stdstream = print_to_stdstream
