"""Which workers of a Ray cluster are taken on. Those of a real one are in test_ray.py (`make test-slow`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from gptdynamics.collection.ray_cluster import Request
from gptdynamics.collection.ray_staff import Staff
from gptdynamics.collection.ray_worker import Place, installed_versions
from gptdynamics.errors import SettingsError

PLACE = Place("1", "host (10.0.0.1)", installed_versions(), gpu=False)


class RayError(Exception):
    """As Ray's own."""


class OneWorker:
    """What `Staff` uses of a cluster and of Ray, for one worker, which is where it is said to be."""

    address = "10.0.0.1:6379"

    def __init__(self, place: Place) -> None:
        self.asked: dict[str, Any] = {}
        self.device = ""
        self.ended = 0

        def options(**asked: Any) -> SimpleNamespace:
            self.asked = asked
            return SimpleNamespace(remote=begin)

        def begin(device: str) -> SimpleNamespace:
            self.device = device
            return SimpleNamespace(place=SimpleNamespace(remote=lambda: "answer"))

        def end(actor: Any) -> None:
            self.ended += 1

        self.ray = SimpleNamespace(
            remote=lambda worker: SimpleNamespace(options=options),
            wait=lambda coming, timeout: (coming, []),
            get=lambda answer: place,
            kill=end,
            exceptions=SimpleNamespace(RayError=RayError),
        )

    def answers(self) -> bool:
        return True


@contextmanager
def staff(cluster: Any, gpus: float = 0.0) -> Iterator[Staff]:
    made = Staff(cluster, Request(2.0, gpus), workers=1, patience=60.0, on_note=lambda note: None)
    try:
        yield made
    finally:
        made.close()


def test_a_worker_gets_what_is_asked_for_and_is_ended() -> None:
    cluster = OneWorker(replace(PLACE, gpu=True))
    with staff(cluster, gpus=1.0) as hired:
        assert hired.take().place.name == PLACE.name
    assert (cluster.asked["num_cpus"], cluster.asked["num_gpus"], cluster.device) == (2.0, 1.0, "cuda:0")
    assert cluster.ended == 1


@pytest.mark.parametrize(
    ("change", "gpus", "said"),
    [
        (
            lambda place: replace(place, versions=place.versions | {"torch": "1.0"}),
            0.0,
            r"^node host \(10\.0\.0\.1\) has torch 1\.0, this machine \S+: install the same versions on every node$",
        ),
        (lambda place: place, 1.0, r"^node host \(10\.0\.0\.1\): Ray lists a GPU there, but torch finds none"),
    ],
    ids=["other versions", "no GPU"],
)
def test_a_node_that_cannot_do_the_work_is_refused(change: Callable[[Place], Place], gpus: float, said: str) -> None:
    with staff(OneWorker(change(PLACE)), gpus) as hired, pytest.raises(SettingsError, match=said):
        hired.take()
