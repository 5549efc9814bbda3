"""A running loopback Hub."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from tests.hub.app import make_app
from tests.hub.faults import Faults
from tests.hub.store import Store


@dataclass(frozen=True)
class Hub:
    """A Hub that answers on this machine.

    Attributes:
        url: for `HF_ENDPOINT`.
        store: its state.
        faults: what shall go wrong, and what was asked.
    """

    url: str
    store: Store
    faults: Faults

    def environment(self, home: Path, token: str | None = None, xet: bool = False) -> dict[str, str]:
        """Environment of a process that uses this Hub with a cache of its own.

        Args:
            home: for caches; made if it is not there.
            token: of the user. None: nobody.
            xet: let clients send and fetch large files in chunks.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "GPTDYN"))}
        said = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "0" if xet else "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }
        return kept | said | ({"HF_TOKEN": token} if token else {})


@contextmanager
def serve(store: Store | None = None, port: int = 0) -> Iterator[Hub]:
    """Serve a Hub from a thread of this process.

    Args:
        store: its state. None: an empty one.
        port: to listen at; 0 takes a free one.
    """
    store = store or Store()
    app = make_app(store)
    listener = socket.create_server(("127.0.0.1", port))
    # Else the body of each answer waits 40 ms for the client to acknowledge its headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(app, log_level="critical", lifespan="off", http="h11", ws="none", proxy_headers=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        # Not `time.sleep`: tests may have taken the pauses out of it.
        pause = threading.Event()
        while not server.started:
            pause.wait(0.005)
        yield Hub(f"http://127.0.0.1:{listener.getsockname()[1]}", store, app)
    finally:
        # It notices within 0.2 seconds, closes its sockets and ends, while the next test runs.
        server.should_exit = server.force_exit = True
