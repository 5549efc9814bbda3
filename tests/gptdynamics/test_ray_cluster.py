"""A Ray cluster that is not there, and what a worker asks it for."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from gptdynamics.collection import RaySettings
from gptdynamics.collection.ray_cluster import Request, _check_health, connect
from gptdynamics.errors import SettingsError

Command = Callable[..., tuple[int, str, str]]
COLLECT = ("collect", "mini_sentiment_nano", "--runs", "1", "--steps", "1", "--test-examples", "2", "--executor", "ray")


def only_line(errors: str) -> str:
    """The error, where a progress bar stood before."""
    (line,) = [line for line in errors.splitlines() if line.strip()]
    return line


@pytest.fixture
def closed_port() -> str:
    """An address that nothing listens at."""
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{there.getsockname()[1]}"


@pytest.fixture
def web_server() -> Iterator[str]:
    """The address of something else."""

    class Quiet(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("0.0.0.0", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_cluster_that_is_not_there_is_one_line_and_soon(
    how: str, command: Command, closed_port: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", closed_port if how == "environment" else "127.0.0.1:1")
    named = ("--ray-address", closed_port) if how == "option" else ()
    began = time.monotonic()
    status, _, errors = command(*COLLECT, "--out", tmp_path / "out", *named)
    assert time.monotonic() - began < 30
    assert status == 1
    port = closed_port.rpartition(":")[2]
    line = only_line(errors)
    assert re.match(
        rf"error: no Ray cluster at [\d.]+:{port} \(Connection refused\)\. Check that the cluster runs", line
    )
    assert not (tmp_path / "out").exists()


def test_something_else_at_the_address_is_said_to_be_that(web_server: str) -> None:
    pytest.importorskip("ray")
    began = time.monotonic()
    with (
        pytest.raises(SettingsError, match=r"what answers at \S+ is not the head of a Ray cluster"),
        connect(RaySettings(web_server)),
    ):
        pass
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(("said", "refused"), [(b"AuthenticationError: no token", False), (b"no answer", True)])
def test_a_head_that_asks_for_a_token_is_left_to_ray(
    said: bytes, refused: bool, web_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise subprocess.CalledProcessError(1, "ray", stderr=said)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(SettingsError, match="is not the head") if refused else nullcontext():
        _check_health(web_server)


def test_no_cluster_on_this_machine_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    services = pytest.importorskip("ray._private.services")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: None)
    with pytest.raises(SettingsError, match="no Ray cluster on this machine: start one"), connect(RaySettings()):
        pass


@pytest.mark.parametrize("address", ["head", "ray://head:10001"])
def test_an_address_of_another_form_is_refused(address: str, command: Command, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    status, _, errors = command(*COLLECT, "--out", tmp_path / "out", "--ray-address", address)
    assert status == 1
    line = only_line(errors)
    assert line.startswith("error: ray address ")
    assert address in line and "<host>:<port>" in line


def test_without_ray_the_extra_is_named(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, errors = command(*COLLECT, "--out", tmp_path / "out")
    assert status == 1
    line = only_line(errors)
    assert line.startswith("error: --executor ray needs Ray")
    assert line.endswith("pip install 'gptdynamics[ray]'")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--executor", "slurm"], "--executor 'slurm' must be local or ray"),
        (["--executor", "local", "--ray-cpus", "2"], "--ray-cpus goes with --executor ray"),
        (["--ray-cpus", "-1"], "ray cpus=-1.0 must be at least 0 and finite"),
        (["--ray-gpus", "1.5"], "ray gpus=1.5: above 1, Ray takes whole numbers"),
        (["--device", "cuda:1"], "device='cuda:1': a Ray cluster assigns GPUs itself: give cuda"),
    ],
)
def test_other_options_are_refused(options: list[str], message: str, command: Command, tmp_path: Path) -> None:
    status, _, errors = command(*COLLECT, "--out", tmp_path / "out", *options)
    assert (status, errors) == (1, f"error: {message}\n")


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers"), [(1, 0, 8), (3, 0, 2), (0.5, 0, 16), (0.1, 0, 80), (1, 0.5, 4), (0, 0, 8), (1, 3, 0)]
)
def test_a_node_has_room_for_what_its_cpus_and_gpus_allow(cpus: float, gpus: float, workers: int) -> None:
    node: dict[str, Any] = {"Resources": {"CPU": 8.0, "GPU": 2.0}}
    assert Request(cpus, gpus).capacity(node) == workers


def test_a_dry_run_needs_no_cluster(command: Command, tmp_path: Path) -> None:
    status, output, errors = command(*COLLECT, "--out", tmp_path / "out", "--ray-address", "127.0.0.1:1", "--dry-run")
    assert (status, errors) == (0, "")
    assert "1 to make" in output
