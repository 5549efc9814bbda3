"""A connection to a Ray cluster: what a run asks it for, who is there, and errors instead of long silence."""

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
# Ray's own time limits; it tries for a minute by default.
_QUICK = {"RAY_gcs_rpc_server_connect_timeout_s": "5", "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}


@dataclass(frozen=True)
class Request:
    """What Ray keeps for a worker."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")

    def capacity(self, node: dict[str, Any]) -> int:
        """Workers that a node has room for, of `nodes`, with nothing else on it."""
        there = node["Resources"]
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        # A worker that asks for nothing would fit any number of times: count it as one CPU.
        asked = {name: amount for name, amount in wanted.items() if amount} or {"CPU": 1}
        return min(int(there.get(name, 0) / amount + 1e-9) for name, amount in asked.items())


def import_ray() -> Any:
    """The `ray` package, told to be quiet.

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
        """Why a node is not there any more; None: it is."""
        for each in self.ray.nodes():
            if each["NodeID"] == node and each["Alive"]:
                return None
            if each["NodeID"] == node:
                return str(each["DeathReasonMessage"] or "it left the cluster")
        return "it is not known to the cluster any more"

    def has_gpus(self) -> bool:
        """Whether a node has GPUs."""
        return any(node["Resources"].get("GPU", 0) for node in self.nodes())

    def capacity(self, request: Request) -> int:
        """Workers that the cluster has room for, with nothing else on it."""
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
        """Whether the head node takes connections: Ray ends a process soon after it does not."""
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
        SettingsError: there is no cluster to be found.
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
    """Let Ray look for the head in a process of its own: `ray.init` ends the process where there is none."""
    advice = f"See that the cluster runs (`ray status --address {address}`), and --ray-address"
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
        # A head that asks for a token is one; `ray.init` says what it misses.
        if b"uthenticat" in (error.stderr or b""):
            return
        raise SettingsError(f"what answers at {address} is not the head of a Ray cluster. {advice}") from error


@contextmanager
def connect(settings: RaySettings) -> Iterator[Cluster]:
    """Connect to a cluster; a connection that this process has already is used, and left as it is.

    Raises:
        SettingsError: Ray is not installed, or the cluster is not there.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield Cluster(ray)
        return
    wanted = settings.address or "auto"
    address = _find_address(wanted)
    _check_health(address)
    worker = ray._private.worker
    printing = worker.print_to_stdstream
    # A node's end would be pages on standard output; no setting of Ray's turns that off.
    worker.print_to_stdstream = lambda data, ignore_prefix: None
    try:
        try:
            # Told `auto`, Ray also finds the token that this machine's cluster may ask for.
            ray.init("auto" if wanted == "auto" else address, log_to_driver=False, logging_level="CRITICAL")
        except (Exception, SystemExit) as error:  # Ray's are of many kinds, some of them plain
            reason = " ".join(str(error).split())
            raise SettingsError(
                f"cannot join the Ray cluster at {address}: {reason}. This machine must be one of its nodes "
                f"(`ray start --address {address}`), and have its token where it asks for one (RAY_AUTH_MODE=token)"
            ) from error
        yield Cluster(ray)
    finally:
        ray.shutdown()
        worker.print_to_stdstream = printing
